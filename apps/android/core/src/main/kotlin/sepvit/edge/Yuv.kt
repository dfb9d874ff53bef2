package sepvit.edge

import java.nio.ByteBuffer

/** One plane of a camera frame: its bytes, and the strides of rows and pixels in bytes. */
class Plane(val data: ByteBuffer, val rowStride: Int, val pixelStride: Int)

/**
 * Converts a camera frame to RGB: YUV 4:2:0 in full range with the coefficients of BT.601, as in JPEG
 * files. Chroma is repeated, not interpolated.
 */
fun yuvToPixels(width: Int, height: Int, y: Plane, u: Plane, v: Plane): Pixels {
    val rgb = ByteArray(3 * width * height)
    var at = 0
    for (row in 0 until height) for (column in 0 until width) {
        val luma = level(y, row, column)
        val cb = level(u, row / 2, column / 2) - 128
        val cr = level(v, row / 2, column / 2) - 128
        // 16 fractional bits, rounded.
        rgb[at++] = clip(luma + (91881 * cr + 32768 shr 16))
        rgb[at++] = clip(luma + (-22554 * cb - 46802 * cr + 32768 shr 16))
        rgb[at++] = clip(luma + (116130 * cb + 32768 shr 16))
    }
    return Pixels(width, height, rgb)
}

private fun level(plane: Plane, row: Int, column: Int): Int =
    plane.data.get(row * plane.rowStride + column * plane.pixelStride).toInt() and 0xFF

private fun clip(value: Int): Byte = value.coerceIn(0, 255).toByte()
