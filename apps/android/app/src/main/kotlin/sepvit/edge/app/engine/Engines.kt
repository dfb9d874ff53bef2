package sepvit.edge.app.engine

import sepvit.edge.EngineFactory

/** The engine that a package's manifest asks for. */
val engines: EngineFactory = { packed, threads ->
    when (packed.manifest.target) {
        "executorch" -> ExecuTorchEngine(packed, threads)
        "onnxruntime" -> OnnxRuntimeEngine(packed, threads)
        else -> null
    }
}
