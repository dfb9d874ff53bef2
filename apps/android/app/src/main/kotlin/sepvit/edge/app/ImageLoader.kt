package sepvit.edge.app

import android.graphics.Bitmap
import android.graphics.BitmapFactory
import android.graphics.Color
import java.nio.ByteBuffer
import sepvit.edge.Pixels
import sepvit.edge.Refusal
import sepvit.edge.checkImageSize
import sepvit.edge.exifOrientation

/**
 * Decodes an image file to upright pixels with the stored colours. Transparency and colour profiles are
 * ignored, as in training.
 *
 * @throws Refusal if the file is not an image, is incomplete or too large.
 */
fun decodeImage(file: ByteArray): Pixels {
    val bounds = BitmapFactory.Options().apply { inJustDecodeBounds = true }
    BitmapFactory.decodeByteArray(file, 0, file.size, bounds)
    if (bounds.outWidth <= 0 || bounds.outHeight <= 0) throw notAnImage()
    checkImageSize(bounds.outWidth, bounds.outHeight)
    if (isCutShort(file)) throw Refusal(Refusal.Kind.IMAGE, "the image file is incomplete; copy it again")
    val options = BitmapFactory.Options().apply {
        inPreferredConfig = Bitmap.Config.ARGB_8888
        inScaled = false
        inPremultiplied = false // the colour under transparency counts
    }
    try {
        val bitmap = BitmapFactory.decodeByteArray(file, 0, file.size, options) ?: throw notAnImage()
        return toPixels(bitmap).upright(exifOrientation(file))
    } catch (error: OutOfMemoryError) {
        throw Refusal(
            Refusal.Kind.SIZE,
            "${bounds.outWidth} x ${bounds.outHeight} pixels do not fit into memory; scale it down first",
            error,
        )
    }
}

/** Reads the stored bytes: Bitmap.getPixels would convert colours to sRGB. */
private fun toPixels(bitmap: Bitmap): Pixels {
    val rgba = if (bitmap.config == Bitmap.Config.ARGB_8888) bitmap
    else bitmap.copy(Bitmap.Config.ARGB_8888, false) ?: throw notAnImage()
    val (width, height) = rgba.width to rgba.height
    val rgb = ByteArray(3 * width * height)
    val buffer = ByteBuffer.allocate(rgba.byteCount)
    rgba.copyPixelsToBuffer(buffer)
    val stored = buffer.array()
    var at = 0
    for (y in 0 until height) {
        var from = y * rgba.rowBytes
        repeat(width) {
            rgb[at++] = stored[from + red]
            rgb[at++] = stored[from + 1]
            rgb[at++] = stored[from + 2 - red]
            from += 4
        }
    }
    return Pixels(width, height, rgb)
}

/** Index of red in a stored pixel: Skia stores RGBA on phones, BGRA on some computers. */
private val red: Int by lazy {
    val one = Bitmap.createBitmap(intArrayOf(Color.RED), 1, 1, Bitmap.Config.ARGB_8888)
    val buffer = ByteBuffer.allocate(4)
    one.copyPixelsToBuffer(buffer)
    if (buffer[0].toInt() == 0) 2 else 0
}

/** Returns whether the end of a JPEG or PNG file is missing. BitmapFactory would paint the rest grey. */
private fun isCutShort(file: ByteArray): Boolean {
    val tail = file.copyOfRange(maxOf(0, file.size - TAIL), file.size).toString(Charsets.ISO_8859_1)
    return when {
        file.size > 2 && file[0] == 0xFF.toByte() && file[1] == 0xD8.toByte() -> "\u00FF\u00D9" !in tail
        file.size > 4 && file[0] == 0x89.toByte() && file[1] == 'P'.code.toByte() -> "IEND" !in tail
        else -> false
    }
}

private fun notAnImage() = Refusal(Refusal.Kind.IMAGE, "this is not an image that Android can read")

/** Some cameras append a few bytes to the file. */
private const val TAIL = 1 shl 16
