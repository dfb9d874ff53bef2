package sepvit.edge.app.engine

import sepvit.edge.EngineFactory

/** Opens the engine for the target in a package's manifest. */
val engines: EngineFactory = { packed, threads ->
    when (packed.manifest.target) {
        "executorch" -> ExecuTorchEngine(packed, threads)
        "onnxruntime" -> OnnxRuntimeEngine(packed, threads)
        else -> null
    }
}
