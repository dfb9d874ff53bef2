package sepvit.edge

/**
 * An image in memory.
 *
 * @property rgb three bytes per pixel, row by row.
 */
class Pixels(val width: Int, val height: Int, val rgb: ByteArray) {
    init {
        require(rgb.size == 3 * width * height) { "${rgb.size} bytes are not $width x $height x 3" }
    }

    /**
     * Returns the image turned upright by its EXIF orientation.
     *
     * 1 is upright, 2 and 4 are mirrored, 3 is upside down, 5 to 8 lie on their side.
     */
    fun upright(orientation: Int): Pixels {
        if (orientation !in 2..8) return this
        val turned = orientation >= 5
        val (w, h) = if (turned) height to width else width to height
        val out = ByteArray(rgb.size)
        // Where pixel (x, y) of the result stands in the source: one of them per axis is flipped.
        val flipX = orientation in setOf(2, 3, 7, 8)
        val flipY = orientation in setOf(3, 4, 6, 7)
        var at = 0
        for (y in 0 until h) for (x in 0 until w) {
            val column = if (turned) y else x
            val row = if (turned) x else y
            val sourceX = if (flipX) width - 1 - column else column
            val sourceY = if (flipY) height - 1 - row else row
            val from = 3 * (sourceY * width + sourceX)
            out[at++] = rgb[from]
            out[at++] = rgb[from + 1]
            out[at++] = rgb[from + 2]
        }
        return Pixels(w, h, out)
    }

    companion object {
        /** Reads grey (H, W), RGB (H, W, 3) or RGBA (H, W, 4) values. Transparency is ignored. */
        fun from(tensor: Tensor): Pixels {
            val channels = tensor.shape.getOrElse(2) { 1 }
            require(tensor.shape.size in 2..3 && channels in setOf(1, 3, 4)) {
                "an image of shape ${tensor.shape}"
            }
            val (height, width) = tensor.shape
            val values = tensor.bytes()
            val step = if (channels == 1) 0 else 1
            val rgb = ByteArray(3 * width * height) { values[it / 3 * channels + it % 3 * step] }
            return Pixels(width, height, rgb)
        }
    }
}
