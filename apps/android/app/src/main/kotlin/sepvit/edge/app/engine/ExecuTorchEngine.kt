package sepvit.edge.app.engine

import org.pytorch.executorch.EValue
import org.pytorch.executorch.Module
import org.pytorch.executorch.Tensor
import sepvit.edge.EdgePackage
import sepvit.edge.InferenceEngine
import sepvit.edge.InputTensor
import sepvit.edge.InputType
import sepvit.edge.Refusal
import sepvit.edge.RuntimeVersion

/** ExecuTorch with the XNNPACK delegate, from org.pytorch:executorch-android. */
class ExecuTorchEngine(packed: EdgePackage, threads: Int?) : InferenceEngine {
    override val runtime = RuntimeVersion("executorch", VERSION, "XNNPACK")

    private val module: Module = try {
        // 0 leaves the number of threads to the library.
        Module.load(packed.modelFile().path, Module.LOAD_MODE_MMAP, threads ?: 0)
            .apply { loadMethod("forward") }
    } catch (error: RuntimeException) { // ExecutorchRuntimeException is one
        throw cannotLoad(error)
    } catch (error: UnsatisfiedLinkError) {
        throw cannotLoad(error)
    }

    /** Places of the outputs that the task needs; ExecuTorch returns all, in the manifest's order. */
    private val answers = packed.manifest.run { answers.map(outputs::indexOf) }

    override fun run(input: InputTensor): List<FloatArray> {
        val tensor = when (input.facts.dtype) {
            InputType.UINT8 -> Tensor.fromBlobUnsigned(input.data, input.shape)
            InputType.FLOAT32 -> Tensor.fromBlob(input.data.asFloatBuffer(), input.shape)
        }
        val outputs = module.forward(EValue.from(tensor))
        return answers.map { outputs[it].toTensor().dataAsFloatArray }
    }

    override fun close() = module.destroy()

    private fun cannotLoad(error: Throwable) = Refusal(
        Refusal.Kind.RUNTIME,
        "ExecuTorch $VERSION cannot load the model on this device: ${error.message}",
        error,
    )

    companion object {
        /** The archive's version, which the library does not report. VersionsTest compares it with Gradle's. */
        const val VERSION = "1.4.0"
    }
}
