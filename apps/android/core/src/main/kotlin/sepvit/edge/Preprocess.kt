package sepvit.edge

/** A 100-megapixel image decodes to 300 MB; a larger one is a mistake or an attack. */
const val MAX_PIXELS = 100_000_000L

/**
 * The one rule from an image to the model's input pixels (sepvit_edge/data/preprocess.py): the
 * shorter side is resized, the longer one in proportion, rounded down; the centre square is cut
 * out, its corner rounded down.
 *
 * @throws Refusal if the image is too small, too large or too narrow.
 */
fun preprocess(image: Pixels, resizeShorterSide: Int, cropSize: Int): Pixels {
    val (width, height) = resizedSize(image.width, image.height, resizeShorterSide)
    val window = Window((width - cropSize) / 2, (height - cropSize) / 2, cropSize, cropSize)
    return resize(image, width, height, window)
}

fun preprocess(image: Pixels, input: InputFacts): Pixels =
    preprocess(image, input.resizeShorterSide, input.cropSize)

/** Returns width and height after resizing the shorter side to [shorter]. */
fun resizedSize(width: Int, height: Int, shorter: Int): Pair<Int, Int> {
    checkImageSize(width, height)
    val long = maxOf(width, height).toLong() * shorter / minOf(width, height)
    if (long * shorter > MAX_PIXELS) throw Refusal(
        Refusal.Kind.SIZE,
        "an image of $width x $height pixels is too narrow to classify; crop it first",
    )
    return if (width <= height) shorter to long.toInt() else long.toInt() to shorter
}

/** Rejects an image by its size, before it is decoded. */
fun checkImageSize(width: Int, height: Int) {
    if (minOf(width, height) < 2) throw Refusal(
        Refusal.Kind.SIZE,
        "the image is $width x $height pixels; an image needs 2 x 2 at least",
    )
    if (width.toLong() * height > MAX_PIXELS) throw Refusal(
        Refusal.Kind.SIZE,
        "the image is $width x $height pixels, over ${MAX_PIXELS / 1_000_000} megapixels; " +
            "scale it down first",
    )
}
