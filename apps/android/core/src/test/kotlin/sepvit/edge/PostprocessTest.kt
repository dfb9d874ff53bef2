package sepvit.edge

import kotlin.test.Test
import kotlin.test.assertEquals
import kotlin.test.assertTrue
import kotlinx.serialization.SerialName
import kotlinx.serialization.Serializable
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.decodeFromJsonElement
import kotlinx.serialization.json.Json
import org.junit.jupiter.api.DynamicTest
import org.junit.jupiter.api.TestFactory

@Serializable
data class FitCase(
    val width: Int, val height: Int, val seed: Int, val mean: List<Double>, val input: List<Int>,
    val content: List<Int>, val sha256: String, val box: List<Float>,
    @SerialName("box_back") val boxBack: List<Float>,
    @SerialName("map_back_sha256") val mapBackSha256: String,
)

@Serializable
data class ExponentialCase(val x: Double, val exp: Double)

@Serializable
data class ClassMapCase(
    val classes: Int, val height: Int, val width: Int, val seed: Int, val divisor: Int,
    val copied: Boolean, val sha256: String, val map: List<Int>? = null,
)

@Serializable
data class DetectionCase(
    val name: String, val input: List<Int>, val content: List<Int>, val classes: Int, val seed: Int,
    val middle: Int, val rule: JsonObject, val boxes: List<List<Float>>, val scores: List<Float>,
    val labels: List<Int>,
)

class PostprocessTest {
    private val json = Json { ignoreUnknownKeys = true }

    /** Numbers that every language makes for itself. */
    private fun numbers(count: Int, seed: Int, middle: Int, divisor: Int): FloatArray {
        val data = Vectors.noise(count, 1, seed).rgb
        return FloatArray(count) { ((data[it].toInt() and 0xFF) - middle) / divisor.toFloat() }
    }

    private fun size(sides: List<Int>) = Size(sides[0], sides[1])

    private fun corners(values: List<Float>) = Corners(values[0], values[1], values[2], values[3])

    private fun digest(classes: ShortArray) = sha256(ByteArray(classes.size) { classes[it].toByte() })

    @Test
    fun `an image fits into an input, and boxes and class maps come back`() {
        for (case in Vectors.cases<FitCase>("fit")) {
            val (image, input) = Size(case.width, case.height) to size(case.input)
            val content = contentSize(image, input)
            assertEquals(size(case.content), content)
            val pixels = fitImage(Vectors.noise(case.width, case.height, case.seed), case.mean, input)
            assertEquals(case.sha256, sha256(pixels.rgb))
            assertEquals(corners(case.boxBack), corners(case.box).back(image, content))
            val noise = Vectors.noise(input.width, input.height, case.seed + 7).rgb
            val classes = ShortArray(noise.size / 3) { ((noise[3 * it].toInt() and 0xFF) shr 4).toShort() }
            assertEquals(case.mapBackSha256, digest(mapBack(classes, input, image, content)))
        }
    }

    @Test
    fun `the exponential is Python's, to the bit`() {
        for (case in Vectors.cases<ExponentialCase>("exponential")) {
            assertEquals(case.exp, exponential(case.x), "${case.x}")
        }
    }

    @Test
    fun `class maps are Python's`() {
        for (case in Vectors.cases<ClassMapCase>("class_maps")) {
            val area = case.width * case.height
            val logits = numbers(case.classes * area, case.seed, 128, case.divisor)
            if (case.copied) {
                logits.copyInto(logits, 4 * area, 2 * area, 3 * area)
                logits.fill(Float.NaN, 9 * area, 10 * area)
            }
            val found = classMap(logits, case.classes, Size(case.width, case.height))
            case.map?.let { assertEquals(it, found.map(Short::toInt)) }
            assertEquals(case.sha256, digest(found))
        }
    }

    @TestFactory
    fun `boxes are Python's`() = Vectors.cases<DetectionCase>("detections").map { case ->
        DynamicTest.dynamicTest(case.name) {
            val rule = json.decodeFromJsonElement<DetectionRule>(case.rule)
            val count = anchors(rule, size(case.input)).sumOf { it.size }
            val logits = numbers(count * case.classes, case.seed, case.middle, 8)
            val deltas = numbers(count * 4, case.seed + 50, 128, 64)
            val found = detect(logits, deltas, case.classes, rule, size(case.input), size(case.content))
            assertEquals(case.boxes.map(::corners), found.map { it.box })
            assertEquals(case.scores, found.map { it.score })
            assertEquals(case.labels, found.map { it.label })
        }
    }

    @Test
    fun `what is not a number is not found`() {
        val case = Vectors.cases<DetectionCase>("detections").first()
        val rule = json.decodeFromJsonElement<DetectionRule>(case.rule)
        val count = anchors(rule, Size(64, 64)).sumOf { it.size }
        val none = FloatArray(4 * count) { Float.NaN }
        for (logits in listOf(FloatArray(count), FloatArray(count) { Float.NaN })) {
            assertTrue(detect(logits, none, 1, rule, Size(64, 64)).isEmpty())
        }
    }
}
