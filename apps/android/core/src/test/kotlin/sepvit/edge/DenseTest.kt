package sepvit.edge

import java.io.File
import java.nio.file.Files
import kotlin.math.abs
import kotlin.test.Test
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertTrue
import kotlinx.serialization.SerialName
import kotlinx.serialization.Serializable
import org.junit.jupiter.api.DynamicTest
import org.junit.jupiter.api.TestFactory

@Serializable
data class DenseCheckCase(
    val name: String, @SerialName("package") val kind: String, val edit: SelfCheckCase.Edit?,
    val passed: Boolean, @SerialName("fails_at") val failsAt: String?, val output: String? = null,
    val image: Int? = null, @SerialName("different_values") val differentValues: Int? = null,
    @SerialName("max_difference") val maxDifference: Double? = null,
    @SerialName("sqnr_db") val sqnrDb: Double? = null, val agreement: Double? = null,
)

@Serializable
data class KeptCase(val numbers: Int, val step: Int, val kept: Int)

@Serializable
data class ColourCase(@SerialName("class") val index: Int, val rgb: List<Int>)

/** The tiny dense packages' models written out: rows of weights on the mean colours of squares. */
class Colours(private val task: Task) : InferenceEngine {
    override val runtime = RuntimeVersion("onnxruntime", "1.29.0", "test")

    override fun run(input: InputTensor): List<FloatArray> = if (task == Task.SEGMENTATION) {
        val means = means(input, 4)
        listOf(FloatArray(4 * means.size) { rows(MAP, means[it % means.size], 64f)[it / means.size] })
    } else {
        val means = means(input, 8)
        listOf(LOGITS to 64f, DELTAS to 512f).map { (weights, divisor) ->
            means.flatMap { rows(weights, it, divisor) }.toFloatArray()
        }
    }

    private fun rows(weights: List<List<Float>>, mean: FloatArray, divisor: Float) =
        weights.map { (r, g, b, bias) -> (r * mean[0] + g * mean[1] + b * mean[2]) / divisor + bias }

    private fun means(input: InputTensor, side: Int): List<FloatArray> {
        val (width, height) = input.facts.size
        val rgb = input.image(0)
        return (0 until height step side).flatMap { top ->
            (0 until width step side).map { left ->
                FloatArray(3) { c ->
                    var sum = 0
                    for (y in top until top + side) for (x in left until left + side) {
                        sum += rgb[3 * (y * width + x) + c].toInt() and 0xFF
                    }
                    sum.toFloat() / (side * side)
                }
            }
        }
    }

    override fun close() {}

    private companion object {
        val STRONG = listOf(listOf(4f, -2f, -2f), listOf(-2f, 4f, -2f), listOf(-2f, -2f, 4f))
        val MAP = STRONG.map { it + 0f } + listOf(listOf(1f, 1f, 1f, -4f))
        val LOGITS = STRONG.map { it + -3f } + STRONG.map { it + -4f }
        val DELTAS = listOf(
            listOf(1f, 0f, 0f, -0.25f), listOf(0f, 1f, 0f, -0.25f), listOf(1f, 1f, 0f, -0.5f),
            listOf(0f, 1f, 1f, -0.5f), listOf(0f, 0f, 1f, 0f), listOf(1f, 0f, 0f, -0.25f),
            listOf(1f, 0f, 1f, -0.25f), listOf(0f, 1f, 0f, 0f),
        )
    }
}

class DenseTest {
    private fun packed(kind: String) = EdgePackage(Vectors.folder.resolve(kind))

    private val engines: EngineFactory = { packed, _ -> Colours(packed.manifest.task) }

    @TestFactory
    fun `the self-check of dense packages`() = Vectors.cases<DenseCheckCase>("dense_self_check").map { case ->
        DynamicTest.dynamicTest(case.name) {
            val packed = packed(case.kind)
            val golden = packed.golden().toMutableMap()
            case.edit?.let { golden[it.tensor] = it.applied(golden.getValue(it.tensor)) }
            val found = Session(packed, engines).use { selfCheck(it, golden) }
            assertEquals(case.passed to case.failsAt, found.passed to found.failsAt?.key)
            assertEquals(case.image, found.image)
            case.output?.let { assertEquals(it, found.output) }
            case.differentValues?.let { assertEquals(it, found.differentValues) }
            case.maxDifference?.let { assertEquals(it, found.maxDifference) }
            case.sqnrDb?.let { assertTrue(abs(it - found.sqnrDb!!) < 1e-6, "${found.sqnrDb}") }
            case.agreement?.let { assertTrue(abs(it - found.agreement!!) < 1e-9, "${found.agreement}") }
        }
    }

    @Test
    fun `outputs that are not numbers do not pass`() {
        val broken = object : InferenceEngine by Colours(Task.DETECTION) {
            override fun run(input: InputTensor) =
                Colours(Task.DETECTION).run(input).also { it[0].fill(Float.NaN) }
        }
        val found = Session(packed("detection"), { _, _ -> broken }).use { selfCheck(it) }
        assertEquals(SelfCheck.Step.OUTPUTS to "classes", found.failsAt to found.output)
    }

    @Test
    fun `a class map is in the image's own pixels`() {
        // Blue above, red below.
        val image = Pixels(60, 80, ByteArray(3 * 60 * 80) { i ->
            if (i % 3 == (if (i / 3 < 60 * 40) 2 else 0)) 250.toByte() else 0
        })
        val map = Session(packed("segmentation"), engines).use { it.answer(image) }.answer as ClassMap
        assertEquals(60 * 80 to Size(60, 80), map.classes.size to map.size)
        assertEquals(setOf("blue", "red"), map.shares.map { it.label }.toSet())
        assertTrue(map.shares.all { abs(it.share - 0.5) < 0.05 })
        assertEquals(2 to 0, classOf(map.classes.first()) to classOf(map.classes.last()))
    }

    @Test
    fun `boxes come back to the image, with labels`() {
        val packed = packed("detection")
        val golden = packed.golden()
        val image = Pixels.from(golden.getValue("image.0"))
        val boxes = (Session(packed, engines).use { it.answer(image) }.answer as Boxes).boxes
        assertEquals(golden.getValue("package.scores.0").floats().toList(), boxes.map { it.score })
        val content = contentSize(Size(image.width, image.height), packed.manifest.inputSize)
        val (left, top, right, bottom) = golden.getValue("package.boxes.0").floats().toList()
        assertEquals(Corners(left, top, right, bottom).back(Size(image.width, image.height), content), boxes[0].box)
        for (box in boxes) assertEquals(packed.labels[box.index], box.label)
    }

    @TestFactory
    fun `a manifest that contradicts itself is refused`() = listOf(
        Triple("segmentation", "\"task\": \"segmentation\",\n  \"model\"" to "\"task\": \"detection\",\n  \"model\"", "box_class_logits"),
        Triple("segmentation", "\"stride\": 4" to "\"stride\": 8", "shapes"),
        Triple("segmentation", "\"stride\": 4" to "\"stride\": 0", "stride"),
        Triple("segmentation", "whole-top-left" to "middle", "input.fit"),
        Triple("segmentation", "\"num_classes\": 4" to "\"num_classes\": 5", "shapes"),
        Triple("detection", "\"score_threshold\": 0.3" to "\"score_threshold\": 2", "score_threshold"),
        Triple("detection", "20,\n    \"task\": \"detection\"" to "20,\n    \"task\": \"pose\"", "postprocessing"),
        Triple("detection", "\"meaning\": \"box_deltas\"" to "\"meaning\": \"corners\"", "box_deltas"),
    ).map { (kind, change, word) ->
        DynamicTest.dynamicTest("$kind: ${change.second}") {
            val folder = Files.createTempDirectory("dense").toFile().resolve(kind)
            Vectors.folder.resolve(kind).copyRecursively(folder)
            restate(File(folder, "manifest.json"), change)
            val refusal = assertFailsWith<Refusal> { EdgePackage(folder) }
            assertEquals(Refusal.Kind.INVALID, refusal.kind)
            assertTrue(word in refusal.message, refusal.message)
        }
    }

    private fun restate(manifest: File, change: Pair<String, String>) {
        val text = manifest.readText()
        assertTrue(change.first in text, change.first)
        val field = Regex("(\"digest\": \")[0-9a-f]{64}")
        val zeroed = text.replace(change.first, change.second).replace(field, "$1" + "0".repeat(64))
        manifest.writeText(zeroed.replace(field, "$1" + sha256(zeroed.toByteArray())))
    }

    @Test
    fun `an output of another length than stated is refused`() {
        val short = object : InferenceEngine by Colours(Task.SEGMENTATION) {
            override fun run(input: InputTensor) = listOf(FloatArray(5))
        }
        val session = Session(packed("segmentation"), { _, _ -> short })
        val refusal = assertFailsWith<Refusal> { session.answer(Pixels(4, 4, ByteArray(48))) }
        assertTrue("does not have the shape 1 x 4 x 8 x 12" in refusal.message)
    }

    @Test
    fun `golden vectors keep every k-th number`() {
        for (case in Vectors.cases<KeptCase>("kept")) assertEquals(case.step, keptStep(case.numbers))
    }

    @Test
    fun `classes have the colours that Python draws`() {
        for ((index, rgb) in Vectors.cases<ColourCase>("colours")) {
            assertEquals(rgb, listOf(16, 8, 0).map { colourOf(index) shr it and 0xFF })
        }
    }
}
