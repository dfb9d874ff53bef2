package sepvit.edge

import kotlin.math.abs
import kotlin.math.ceil
import kotlin.math.max
import kotlin.math.min

/**
 * Resizes with Pillow's antialiased BILINEAR, byte for byte (its src/libImaging/Resample.c).
 *
 * The filter is a triangle as wide as the scale, with fixed-point weights of 22 bits. Rows are resized
 * first and rounded to 8 bits, then columns. (Pillow 13 may swap the order if it resizes both axes at
 * once; Python resizes one axis at a time.) Only [window] of the result is computed.
 */
fun resize(
    source: Pixels,
    width: Int,
    height: Int,
    window: Window = Window(0, 0, width, height),
): Pixels {
    val columns = Weights(source.width, width, window.left, window.width)
    val rows = Weights(source.height, height, window.top, window.height)
    val narrow = resizeRows(source, columns, rows.firstInput, rows.lastInput)
    return resizeColumns(narrow, rows)
}

/** A part of an image. */
data class Window(val left: Int, val top: Int, val width: Int, val height: Int)

private const val PRECISION_BITS = 32 - 8 - 2
private const val HALF = 1 shl (PRECISION_BITS - 1)

/**
 * Weights of one axis, for the outputs `from until from + count` of [outputSize].
 *
 * Output i is the sum of `fixed[i * taps + k] * input[first[i] + k]` for k below `used[i]`.
 */
private class Weights(inputSize: Int, outputSize: Int, from: Int, val count: Int) {
    private val scale = inputSize.toDouble() / outputSize
    private val support = max(scale, 1.0)
    val taps = ceil(support).toInt() * 2 + 1
    val first = IntArray(count)
    val used = IntArray(count)
    val fixed = IntArray(count * taps)

    init {
        val exact = DoubleArray(taps)
        for (i in 0 until count) {
            val centre = (from + i + 0.5) * scale
            val start = max((centre - support + 0.5).toInt(), 0)
            val end = min((centre + support + 0.5).toInt(), inputSize)
            first[i] = start
            used[i] = end - start
            var sum = 0.0
            for (k in 0 until end - start) {
                exact[k] = max(1 - abs((start + k - centre + 0.5) * (1.0 / support)), 0.0)
                sum += exact[k]
            }
            for (k in 0 until end - start) {
                fixed[i * taps + k] = (0.5 + exact[k] / sum * (1 shl PRECISION_BITS)).toInt()
            }
        }
    }

    /** The range of inputs that the outputs need. */
    val firstInput = first[0]
    val lastInput = first[count - 1] + used[count - 1]
}

private fun resizeRows(source: Pixels, weights: Weights, top: Int, bottom: Int): Pixels {
    val (count, taps) = weights.count to weights.taps
    val input = source.rgb
    val out = ByteArray(3 * count * (bottom - top))
    var at = 0
    for (y in top until bottom) for (x in 0 until count) {
        var red = HALF
        var green = HALF
        var blue = HALF
        var from = 3 * (y * source.width + weights.first[x])
        for (k in x * taps until x * taps + weights.used[x]) {
            val weight = weights.fixed[k]
            red += (input[from].toInt() and 0xFF) * weight
            green += (input[from + 1].toInt() and 0xFF) * weight
            blue += (input[from + 2].toInt() and 0xFF) * weight
            from += 3
        }
        out[at++] = rounded(red)
        out[at++] = rounded(green)
        out[at++] = rounded(blue)
    }
    return Pixels(count, bottom - top, out)
}

/** [source] begins at the first row that [weights] need. */
private fun resizeColumns(source: Pixels, weights: Weights): Pixels {
    val line = 3 * source.width
    val input = source.rgb
    val out = ByteArray(line * weights.count)
    val sums = IntArray(line)
    for (y in 0 until weights.count) {
        sums.fill(HALF)
        var from = (weights.first[y] - weights.firstInput) * line
        for (k in y * weights.taps until y * weights.taps + weights.used[y]) {
            val weight = weights.fixed[k]
            for (x in 0 until line) sums[x] += (input[from + x].toInt() and 0xFF) * weight
            from += line
        }
        for (x in 0 until line) out[y * line + x] = rounded(sums[x])
    }
    return Pixels(source.width, weights.count, out)
}

/** Weights are positive, so a sum can pass 255 by rounding, but not fall below 0. */
private fun rounded(sum: Int): Byte = min(sum shr PRECISION_BITS, 255).toByte()
