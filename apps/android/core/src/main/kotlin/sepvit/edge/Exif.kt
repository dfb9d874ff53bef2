package sepvit.edge

import java.nio.ByteBuffer
import java.nio.ByteOrder

/**
 * Returns the EXIF orientation of a JPEG or PNG file, 1 to 8; 1 if it is missing or invalid.
 *
 * Android's BitmapFactory does not apply it.
 */
fun exifOrientation(file: ByteArray): Int = try {
    (jpegExif(file) ?: pngExif(file))?.let(::orientationOf) ?: 1
} catch (_: IndexOutOfBoundsException) {
    1 // truncated: the decoder reports it
}

private const val START_OF_SCAN = 0xDA
private const val APP1 = 0xE1
private const val ORIENTATION = 0x0112
private const val SHORT = 3

/** The TIFF structure in the APP1 segment of a JPEG file (Exif 2.32, section 4.5.4). */
private fun jpegExif(file: ByteArray): ByteBuffer? {
    val data = ByteBuffer.wrap(file)
    if (file.size < 4 || data.getShort(0).toInt() and 0xFFFF != 0xFFD8) return null
    var at = 2
    while (at + 4 <= file.size && file[at] == 0xFF.toByte()) {
        val marker = file[at + 1].toInt() and 0xFF
        val length = data.getShort(at + 2).toInt() and 0xFFFF
        if (marker == START_OF_SCAN || length < 2) return null
        if (marker == APP1 && file.decodeToString(at + 4, at + 10) == "Exif\u0000\u0000") {
            return ByteBuffer.wrap(file, at + 10, length - 8).slice()
        }
        at += 2 + length
    }
    return null
}

/** The TIFF structure in the eXIf chunk of a PNG file (PNG, third edition, section 11.3.4.5). */
private fun pngExif(file: ByteArray): ByteBuffer? {
    val data = ByteBuffer.wrap(file)
    if (file.size < 8 || data.getInt(0) != 0x89504E47.toInt()) return null
    var at = 8
    while (at + 8 <= file.size) {
        val length = data.getInt(at)
        if (length < 0) return null
        when (file.decodeToString(at + 4, at + 8)) {
            "eXIf" -> return ByteBuffer.wrap(file, at + 8, length).slice()
            "IEND" -> return null
        }
        at += 12 + length
    }
    return null
}

private fun orientationOf(tiff: ByteBuffer): Int? {
    tiff.order(
        when (tiff.getShort(0).toInt()) {
            0x4949 -> ByteOrder.LITTLE_ENDIAN
            0x4D4D -> ByteOrder.BIG_ENDIAN
            else -> return null
        },
    )
    val directory = tiff.getInt(4)
    val entries = tiff.getShort(directory).toInt() and 0xFFFF
    for (i in 0 until entries) {
        val entry = directory + 2 + 12 * i
        if (tiff.getShort(entry).toInt() == ORIENTATION && tiff.getShort(entry + 2).toInt() == SHORT) {
            return tiff.getShort(entry + 8).toInt().takeIf { it in 1..8 }
        }
    }
    return null
}
