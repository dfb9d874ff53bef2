package sepvit.edge.app.engine

import ai.onnxruntime.OnnxJavaType
import ai.onnxruntime.OnnxTensor
import ai.onnxruntime.OrtEnvironment
import ai.onnxruntime.OrtException
import ai.onnxruntime.OrtSession
import sepvit.edge.EdgePackage
import sepvit.edge.InferenceEngine
import sepvit.edge.InputTensor
import sepvit.edge.InputType
import sepvit.edge.Refusal
import sepvit.edge.RuntimeVersion

/** ONNX Runtime on the CPU; the same API on Android and on computers. */
class OnnxRuntimeEngine(packed: EdgePackage, threads: Int?) : InferenceEngine {
    private val environment = OrtEnvironment.getEnvironment()
    override val runtime = RuntimeVersion("onnxruntime", environment.version, "CPUExecutionProvider")
    private val answers = packed.manifest.answers.map { it.name }
    private val session: OrtSession = OrtSession.SessionOptions().use { options ->
        options.setOptimizationLevel(OrtSession.SessionOptions.OptLevel.ALL_OPT)
        threads?.let(options::setIntraOpNumThreads)
        try {
            environment.createSession(packed.modelFile().path, options)
        } catch (error: OrtException) {
            throw Refusal(
                Refusal.Kind.RUNTIME,
                "ONNX Runtime ${environment.version} cannot load the model, export again: " +
                    error.message.orEmpty().lineSequence().first(),
                error,
            )
        }
    }

    override fun run(input: InputTensor): List<FloatArray> {
        val tensor = when (input.facts.dtype) {
            InputType.UINT8 ->
                OnnxTensor.createTensor(environment, input.data, input.shape, OnnxJavaType.UINT8)
            InputType.FLOAT32 ->
                OnnxTensor.createTensor(environment, input.data.asFloatBuffer(), input.shape)
        }
        return tensor.use {
            session.run(mapOf(input.facts.name to it), answers.toSet()).use { outputs ->
                answers.map { name ->
                    val buffer = (outputs[name].get() as OnnxTensor).floatBuffer
                    FloatArray(buffer.remaining()).also(buffer::get)
                }
            }
        }
    }

    override fun close() = session.close()
}
