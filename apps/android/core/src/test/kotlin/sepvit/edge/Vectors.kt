package sepvit.edge

import java.io.File
import java.nio.file.Files
import kotlinx.serialization.KSerializer
import kotlinx.serialization.json.Json
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.JsonPrimitive
import kotlinx.serialization.json.int
import kotlinx.serialization.serializer

/** The vectors that every language is tested against; tests/vectors/README.md describes them. */
object Vectors {
    val folder by lazy { File(System.getProperty("vectors")) }
    val tinyPackage by lazy { folder.resolve("package") }

    /** Returns the published schema of a document. */
    fun schema(document: String): File =
        File(System.getProperty("schemas")).resolve("$document-${mapOf("manifest" to "2.2", "profile" to "2.0")[document]}.schema.json")

    inline fun <reified T> cases(name: String): List<T> = read(name, serializer())

    fun <T> read(name: String, serializer: KSerializer<List<T>>): List<T> =
        Json.decodeFromString(serializer, folder.resolve("$name.json").readText())
            .also { check(it.isNotEmpty()) }

    /** Pixels that a seed stands for. */
    fun noise(width: Int, height: Int, seed: Int): Pixels {
        var state = seed
        return Pixels(width, height, ByteArray(3 * width * height) {
            state = state * 1664525 + 1013904223
            (state ushr 24).toByte()
        })
    }

    /** A copy of the tiny package, damaged as a case says. */
    fun damaged(edits: List<JsonObject>): File {
        val copy = Files.createTempDirectory("vectors").toFile().resolve("package")
        tinyPackage.copyRecursively(copy)
        edits.forEach { apply(copy, it) }
        return copy
    }

    private fun apply(folder: File, edit: JsonObject) {
        fun text(key: String) = (edit.getValue(key) as JsonPrimitive).content
        fun number(key: String) = (edit.getValue(key) as JsonPrimitive).int
        val file = folder.resolve(if ("file" in edit) text("file") else "manifest.json")
        when (val op = text("op")) {
            "flip" -> file.writeBytes(file.readBytes().also {
                it[number("byte")] = (it[number("byte")].toInt() xor (1 shl number("bit"))).toByte()
            })
            "truncate" -> file.writeBytes(file.readBytes().copyOf(number("bytes")))
            "append" -> file.appendText(text("text"))
            "write" -> file.writeText(text("text"))
            "delete" -> check(file.delete())
            "replace" -> file.writeText(
                file.readText().also { check(text("from") in it) }.replace(text("from"), text("to")),
            )
            "seal" -> {
                val field = Regex("(\"digest\": \")[0-9a-f]{64}")
                val zeroed = file.readText().replace(field, "$1" + "0".repeat(64))
                file.writeText(zeroed.replace(field, "$1" + sha256(zeroed.toByteArray())))
            }
            "link" -> {
                folder.resolve(text("target")).writeText(text("text"))
                check(file.delete())
                Files.createSymbolicLink(file.toPath(), File(text("target")).toPath())
            }
            else -> error(op)
        }
    }
}

/** The tiny package's model written out: an engine without a runtime. */
class MeanColour(private val facts: InputFacts) : InferenceEngine {
    override val runtime = RuntimeVersion("onnxruntime", "1.29.0", "test")
    var closed = false

    override fun run(input: InputTensor): List<FloatArray> = listOf(FloatArray(4 * facts.batch).also { logits ->
        for (image in 0 until facts.batch) {
            val rgb = input.image(image)
            val mean = FloatArray(3) { c ->
                (c until rgb.size step 3).sumOf { rgb[it].toInt() and 0xFF }.toFloat() / (rgb.size / 3)
            }
            for (k in 0..3) logits[4 * image + k] =
                if (k == 3) mean.sum() / 64 - 5 else (6 * mean[k] - 2 * mean.sum()) / 64
        }
    })

    override fun close() {
        closed = true
    }

    companion object {
        val engines: EngineFactory = { packed, _ ->
            if (packed.manifest.target == "onnxruntime") MeanColour(packed.manifest.input) else null
        }
    }
}
