package sepvit.edge

import java.nio.ByteBuffer
import kotlin.test.Test
import kotlin.test.assertContentEquals

class YuvTest {
    private fun plane(rowStride: Int, pixelStride: Int, vararg values: Int) =
        Plane(ByteBuffer.wrap(ByteArray(values.size) { values[it].toByte() }), rowStride, pixelStride)

    /** Levels by the formulas of JFIF 1.02, rounded. */
    @Test
    fun `colours are those of JPEG`() {
        val cases = listOf(
            intArrayOf(0, 128, 128) to intArrayOf(0, 0, 0),
            intArrayOf(255, 128, 128) to intArrayOf(255, 255, 255),
            intArrayOf(76, 85, 255) to intArrayOf(254, 0, 0),
            intArrayOf(150, 44, 21) to intArrayOf(0, 255, 1),
            intArrayOf(29, 255, 107) to intArrayOf(0, 0, 254),
            intArrayOf(100, 90, 160) to intArrayOf(145, 90, 33),
        )
        for ((yuv, rgb) in cases) {
            val found = yuvToPixels(1, 1, plane(1, 1, yuv[0]), plane(1, 1, yuv[1]), plane(1, 1, yuv[2]))
            assertContentEquals(ByteArray(3) { rgb[it].toByte() }, found.rgb)
        }
    }

    @Test
    fun `strides are followed, and chroma is shared by four pixels`() {
        // 4 x 2 pixels, rows padded to 6, chroma interleaved as phones do it.
        val y = plane(6, 1, 10, 20, 30, 40, 99, 99, 50, 60, 70, 80, 99, 99)
        val u = plane(4, 2, 128, 99, 128, 99)
        val v = plane(4, 2, 128, 99, 128, 99)
        val found = yuvToPixels(4, 2, y, u, v)
        assertContentEquals(
            byteArrayOf(10, 20, 30, 40, 50, 60, 70, 80).flatMap { listOf(it, it, it) }.toByteArray(), found.rgb,
        )
    }
}
