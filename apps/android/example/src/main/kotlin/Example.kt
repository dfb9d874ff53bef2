// Compiled and run by .ci/android against core's artefact; docs/apps.md has the same lines.
import java.io.File

// docs
import sepvit.edge.*

fun answer(folder: File, image: Pixels, engines: EngineFactory): String {
    val packed = EdgePackage(folder) // every byte is checked
    return Session(packed, engines).use { session ->
        when (val answer = session.answer(image).answer) {
            is Classes -> answer.classes.joinToString { "${it.label} ${it.probability}" }
            is ClassMap -> answer.shares.joinToString { "${it.label} ${it.share}" }
            is Boxes -> answer.boxes.joinToString { "${it.label} ${it.box}" }
        }
    }
}
// end

/** An engine for this example alone: all logits are zero. */
private class Zero : InferenceEngine {
    override val runtime = RuntimeVersion("onnxruntime", "1.29.0", "example")
    override fun run(input: InputTensor) = listOf(FloatArray(4))
    override fun close() {}
}

fun main(arguments: Array<String>) =
    println(answer(File(arguments[0]), Pixels(40, 30, ByteArray(3600) { 127 })) { _, _ -> Zero() })
