package sepvit.edge

import kotlin.math.floor
import kotlin.math.sqrt
import kotlinx.serialization.SerialName
import kotlinx.serialization.Serializable

// From raw outputs of dense models to class maps and boxes, the same bits as in Python. The rule is
// stated in tests/vectors/README.md: all arithmetic in double precision, in this order.

data class Size(val width: Int, val height: Int)

/** The manifest's facts of a segmentation package's post-processing: input pixels per logit. */
@Serializable
data class SegmentationRule(val stride: Int = 4) {
    init {
        require(stride >= 1) { "postprocessing.stride: must be 1 at least" }
    }
}

/** The manifest's facts of a detection package's post-processing. */
@Serializable
data class DetectionRule(
    val strides: List<Int>,
    val ratios: List<Double>,
    val scales: List<Double>,
    @SerialName("size_delta_limit") val sizeDeltaLimit: Double,
    @SerialName("score_threshold") val scoreThreshold: Double,
    @SerialName("level_candidates") val levelCandidates: Int,
    @SerialName("iou_threshold") val iouThreshold: Double,
    @SerialName("max_detections") val maxDetections: Int,
) {
    init {
        require(strides.isNotEmpty() && strides.all { it >= 1 }) { "postprocessing.strides: must be 1 at least" }
        for ((name, values) in listOf("ratios" to ratios, "scales" to scales, "size_delta_limit" to listOf(sizeDeltaLimit))) {
            require(values.isNotEmpty() && values.all { it > 0 && it.isFinite() }) { "postprocessing.$name: must be above 0" }
        }
        for ((name, value) in listOf("score_threshold" to scoreThreshold, "iou_threshold" to iouThreshold)) {
            require(value in 0.0..1.0) { "postprocessing.$name: must be 0 to 1" }
        }
        require(levelCandidates >= 1 && maxDetections >= 1) {
            "postprocessing: level_candidates and max_detections must be 1 at least"
        }
    }
}

/** A box in pixels; right and bottom are exclusive. */
data class Corners(val left: Float, val top: Float, val right: Float, val bottom: Float) {
    /** Area in double precision. */
    val area get() = (right.toDouble() - left) * (bottom.toDouble() - top)

    /** Moves a box of the input back to the image. */
    fun back(image: Size, content: Size): Corners {
        val x = image.width.toDouble() / content.width
        val y = image.height.toDouble() / content.height
        return Corners(
            (left * x).toFloat(), (top * y).toFloat(), (right * x).toFloat(), (bottom * y).toFloat(),
        )
    }
}

data class Detection(val box: Corners, val score: Float, val label: Int)

/** Returns the size of a whole image inside an input, in its own proportions. */
fun contentSize(image: Size, input: Size): Size {
    fun part(other: Int, side: Int, of: Int) = maxOf(1L, other.toLong() * side / of).toInt()
    return if (image.width.toLong() * input.height >= image.height.toLong() * input.width) {
        Size(input.width, part(image.height, input.width, image.width))
    } else {
        Size(part(image.width, input.height, image.height), input.height)
    }
}

/**
 * Puts a whole image into the top left corner of an input, with the mean colour around it.
 *
 * [mean] is per channel, for pixels scaled to 0..1.
 */
fun fitImage(image: Pixels, mean: List<Double>, input: Size): Pixels {
    val content = contentSize(Size(image.width, image.height), input)
    val resized = resize(image, content.width, content.height).rgb
    val colour = mean.map { floor(255 * it + 0.5).toInt().toByte() }
    val out = ByteArray(3 * input.width * input.height) { colour[it % 3] }
    val line = 3 * content.width
    for (y in 0 until content.height) resized.copyInto(out, 3 * y * input.width, y * line, (y + 1) * line)
    return Pixels(input.width, input.height, out)
}

/** Cuts the image out of a class map of the input, and resizes it to the image's nearest pixels. */
fun mapBack(classes: ShortArray, input: Size, image: Size, content: Size): ShortArray {
    fun source(at: Int, to: Int, of: Int) = ((2L * at + 1) * of / (2L * to)).toInt()
    val columns = IntArray(image.width) { source(it, image.width, content.width) }
    return ShortArray(image.width * image.height) {
        val row = source(it / image.width, image.height, content.height)
        classes[row * input.width + columns[it % image.width]]
    }
}

/** Computes e^x by operations that every language rounds alike; `kotlin.math.exp` differs. */
fun exponential(x: Double): Double {
    val clipped = x.coerceIn(-88.0, 88.0)
    val k = floor(clipped * 1.4426950408889634 + 0.5)
    val r = clipped - k * 0.6931471805599453
    var s = 1.0
    for (i in 13 downTo 1) s = 1 + r * s / i
    return Math.scalb(s, k.toInt())
}

/**
 * Returns the class of each pixel of the input.
 *
 * [logits] holds `classes * height * width` values of [size]; the result has [stride] times as many rows
 * and columns.
 */
fun classMap(logits: FloatArray, classes: Int, size: Size, stride: Int = 4): ShortArray {
    val columns = Taps(size.width, stride)
    val rows = Taps(size.height, stride)
    val across = size.width * stride
    val chosen = ShortArray(across * size.height * stride)
    val best = DoubleArray(chosen.size) { Double.NEGATIVE_INFINITY }
    val wide = DoubleArray(size.height * across)
    for (label in 0 until classes) {
        for (y in 0 until size.height) {
            val line = (label * size.height + y) * size.width
            for (x in 0 until across) wide[y * across + x] = columns.blend(
                x, logits[line + columns.before[x]].toDouble(), logits[line + columns.after[x]].toDouble(),
            )
        }
        for (y in 0 until size.height * stride) for (x in 0 until across) {
            val value = rows.blend(
                y, wide[rows.before[y] * across + x], wide[rows.after[y] * across + x],
            )
            val at = y * across + x
            if (value > best[at]) {
                best[at] = value
                chosen[at] = label.toShort()
            }
        }
    }
    return chosen
}

/** The two neighbours of each output along an axis, and the second one's weight. */
private class Taps(length: Int, stride: Int) {
    private val places = DoubleArray(length * stride) { maxOf((it + 0.5) / stride - 0.5, 0.0) }
    val before = IntArray(places.size) { places[it].toInt() }
    val after = IntArray(places.size) { minOf(before[it] + 1, length - 1) }

    fun blend(at: Int, first: Double, second: Double): Double {
        val weight = places[at] - before[at]
        return first * (1 - weight) + second * weight
    }
}

class Anchor(val x: Double, val y: Double, val width: Double, val height: Double)

/** Returns the anchors of each level. */
fun anchors(rule: DetectionRule, input: Size): List<List<Anchor>> = rule.strides.map { stride ->
    val shapes = rule.ratios.flatMap { ratio ->
        rule.scales.map { stride * it * (1 / sqrt(ratio)) to stride * it * sqrt(ratio) }
    }
    val places = { side: Int -> 0 until (side + stride - 1) / stride }
    places(input.height).flatMap { y ->
        places(input.width).flatMap { x ->
            shapes.map { (width, height) ->
                Anchor((stride * x).toDouble(), (stride * y).toDouble(), width, height)
            }
        }
    }
}

private class Candidate(val order: Int, val score: Float)

private val bestFirst = compareByDescending<Candidate> { it.score }.thenBy { it.order }

/**
 * Returns the boxes that a detector finds in one image, the best first, in pixels of the input.
 *
 * [logits] has a row of [classes] values for each anchor, [deltas] one of four; [content] is the size of the
 * image inside the input.
 */
fun detect(
    logits: FloatArray,
    deltas: FloatArray,
    classes: Int,
    rule: DetectionRule,
    input: Size,
    content: Size = input,
): List<Detection> {
    val found = mutableListOf<Pair<Candidate, Corners>>()
    var first = 0
    for (level in anchors(rule, input)) {
        for (one in candidates(logits, first * classes, level.size * classes, rule)) {
            val row = one.order / classes
            val box = decode(level[row - first], deltas, 4 * row, rule.sizeDeltaLimit, content)
            if (box.right > box.left && box.bottom > box.top) found += one to box
        }
        first += level.size
    }
    found.sortWith { a, b -> bestFirst.compare(a.first, b.first) }
    val kept = mutableListOf<Detection>()
    for ((one, box) in found) {
        if (kept.size == rule.maxDetections) break
        val label = one.order % classes
        val hidden = kept.any { it.label == label && overlap(it.box, box) > rule.iouThreshold }
        if (!hidden) kept += Detection(box, one.score, label)
    }
    return kept
}

/**
 * Counts the boxes of [other] that [one] has too.
 *
 * From the best one down, each takes the free box of its class that it overlaps most, by half at least.
 */
fun sharedBoxes(one: List<Detection>, other: List<Detection>): Int {
    val free = one.toMutableList()
    return other.count { wanted ->
        val best = free.filter { it.label == wanted.label && overlap(it.box, wanted.box) >= 0.5 }
            .maxByOrNull { overlap(it.box, wanted.box) }
        best != null && free.remove(best)
    }
}

/** Returns the best pairs of anchor and class of a level. */
private fun candidates(logits: FloatArray, start: Int, count: Int, rule: DetectionRule): List<Candidate> =
    (start until start + count)
        .map { Candidate(it, (1 / (1 + exponential(-logits[it].toDouble()))).toFloat()) }
        .filter { it.score > rule.scoreThreshold }
        .sortedWith(bestFirst)
        .take(rule.levelCandidates)

private fun decode(anchor: Anchor, deltas: FloatArray, at: Int, limit: Double, content: Size): Corners {
    val (dx, dy, dw, dh) = List(4) { deltas[at + it].toDouble() }
    val x = anchor.x + dx * anchor.width
    val y = anchor.y + dy * anchor.height
    val halfWidth = anchor.width * exponential(dw.coerceIn(-limit, limit)) * 0.5
    val halfHeight = anchor.height * exponential(dh.coerceIn(-limit, limit)) * 0.5
    fun inside(value: Double, most: Int) = value.coerceIn(0.0, most.toDouble()).toFloat()
    return Corners(
        inside(x - halfWidth, content.width), inside(y - halfHeight, content.height),
        inside(x + halfWidth, content.width), inside(y + halfHeight, content.height),
    )
}

/** Computes intersection over union. */
fun overlap(a: Corners, b: Corners): Double {
    val width = minOf(a.right, b.right).toDouble() - maxOf(a.left, b.left)
    val height = minOf(a.bottom, b.bottom).toDouble() - maxOf(a.top, b.top)
    val shared = maxOf(width, 0.0) * maxOf(height, 0.0)
    return shared / (a.area + b.area - shared)
}
