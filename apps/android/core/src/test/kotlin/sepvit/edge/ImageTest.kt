package sepvit.edge

import java.awt.image.BufferedImage
import java.io.ByteArrayInputStream
import javax.imageio.ImageIO
import kotlin.math.abs
import kotlin.test.Test
import kotlin.test.assertContentEquals
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertTrue
import kotlinx.serialization.SerialName
import kotlinx.serialization.Serializable

@Serializable
data class ResizeCase(
    val width: Int, val height: Int, val seed: Int, val to: List<Int>, val sha256: String,
    val pixels: String? = null,
)

@Serializable
data class PreprocessCase(
    val width: Int, val height: Int, val seed: Int? = null,
    @SerialName("resize_shorter_side") val shorter: Int, @SerialName("crop_size") val crop: Int,
    val resized: List<Int>? = null, val sha256: String? = null, val pixels: String? = null,
    val refused: String? = null,
)

@Serializable
data class ImageCase(
    val file: String, val orientation: Int = 1, val tolerance: Int = 0,
    val width: Int = 0, val height: Int = 0, val refused: String? = null,
)

class ImageTest {
    @Test
    fun `resizing is Pillow's, byte for byte`() {
        for (case in Vectors.cases<ResizeCase>("resize")) {
            val source = Vectors.noise(case.width, case.height, case.seed)
            val result = resize(source, case.to[0], case.to[1])
            case.pixels?.let { assertEquals(it, hex(result.rgb), "$case") }
            assertEquals(case.sha256, sha256(result.rgb), "$case")
        }
    }

    @Test
    fun `a window of the result is that part of the whole`() {
        val source = Vectors.noise(61, 47, 1)
        for (size in listOf(20 to 90, 90 to 20, 61 to 47)) {
            val (width, height) = size
            val whole = resize(source, width, height)
            val window = Window(3, 5, 11, 9)
            val part = resize(source, width, height, window)
            for (y in 0 until window.height) assertContentEquals(
                whole.rgb.copyOfRange(3 * ((y + 5) * width + 3), 3 * ((y + 5) * width + 14)),
                part.rgb.copyOfRange(3 * y * 11, 3 * (y + 1) * 11),
            )
        }
    }

    @Test
    fun `preprocessing gives Python's pixels, and its refusals`() {
        for (case in Vectors.cases<PreprocessCase>("preprocess")) {
            if (case.refused != null) {
                val refusal = assertFailsWith<Refusal>("$case") {
                    resizedSize(case.width, case.height, case.shorter)
                }
                assertEquals(case.refused, refusal.message)
                assertEquals(Refusal.Kind.SIZE, refusal.kind)
                continue
            }
            assertEquals(case.resized, resizedSize(case.width, case.height, case.shorter).toList())
            val source = Vectors.noise(case.width, case.height, case.seed!!)
            assertEquals(case.sha256, sha256(preprocess(source, case.shorter, case.crop).rgb), "$case")
        }
    }

    @Test
    fun `orientation is read, and undone`() {
        val expected = readSafeTensors(Vectors.folder.resolve("images/expected.safetensors").readBytes())
        val cases = Vectors.cases<ImageCase>("images").filter { it.refused == null }
        for (case in cases) {
            val data = Vectors.folder.resolve("images/${case.file}").readBytes()
            assertEquals(case.orientation, exifOrientation(data), case.file)
            // ImageIO stands for a platform's decoder; it applies gamma to some kinds of file.
            if (!case.file.startsWith("orientation") && case.file != "grey.png") continue
            val upright = decode(data).upright(case.orientation)
            assertEquals(listOf(case.height, case.width, 3), listOf(upright.height, upright.width, 3))
            val apart = Pixels.from(expected.getValue(case.file)).rgb.zip(upright.rgb) { a, b ->
                abs((a.toInt() and 0xFF) - (b.toInt() and 0xFF))
            }
            assertTrue(apart.max() <= case.tolerance + 1, "${case.file}: ${apart.max()}")
        }
        assertEquals((1..8).toSet(), cases.map { it.orientation }.toSet())
    }

    @Test
    fun `a file cut short anywhere has an orientation, if only the default one`() {
        val data = Vectors.folder.resolve("images/orientation-6.jpg").readBytes()
        for (length in 0 until data.size step 7) assertTrue(exifOrientation(data.copyOf(length)) in 1..8)
    }

    @Test
    fun `transparency is ignored and grey repeated`() {
        val rgba = Tensor.of(byteArrayOf(1, 2, 3, 0, 4, 5, 6, 127), 1, 2, 4)
        assertContentEquals(byteArrayOf(1, 2, 3, 4, 5, 6), Pixels.from(rgba).rgb)
        val grey = Tensor.of(byteArrayOf(7, 8), 2, 1)
        assertContentEquals(byteArrayOf(7, 7, 7, 8, 8, 8), Pixels.from(grey).rgb)
    }

    private fun decode(data: ByteArray): Pixels {
        val image: BufferedImage = ImageIO.read(ByteArrayInputStream(data))
        if (image.raster.numBands == 1) { // getRGB would convert linear grey to sRGB
            val grey = ByteArray(image.width * image.height) {
                image.raster.getSample(it % image.width, it / image.width, 0).toByte()
            }
            return Pixels.from(Tensor.of(grey, image.height, image.width))
        }
        return Pixels(image.width, image.height, ByteArray(3 * image.width * image.height) {
            val colour = image.getRGB(it / 3 % image.width, it / 3 / image.width)
            (colour shr (16 - 8 * (it % 3))).toByte()
        })
    }

    private fun hex(bytes: ByteArray) = bytes.joinToString("") { "%02x".format(it) }
}
