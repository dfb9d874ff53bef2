package sepvit.edge

import kotlin.math.floor
import kotlin.math.roundToInt

/** What a package says about an image. */
sealed interface Answer

/** Of a classifier: the most probable classes. */
data class Classes(val classes: List<LabelledClass>) : Answer

data class LabelledClass(val label: String, val index: Int, val probability: Double)

/**
 * The class of each pixel of an image of [size], row by row ([classOf]).
 *
 * @property shares the classes in it, the largest first.
 */
class ClassMap(val size: Size, val classes: ShortArray, val shares: List<ClassShare>) : Answer

data class ClassShare(val label: String, val index: Int, val share: Double)

/** Objects in an image of [size], the best first. */
data class Boxes(val size: Size, val boxes: List<LabelledBox>) : Answer

/** A box in pixels of the image. */
data class LabelledBox(val label: String, val index: Int, val score: Float, val box: Corners)

/** An answer, and the times of preprocessing and of the model in milliseconds. */
data class Answered(val answer: Answer, val preprocessingMs: Double, val inferenceMs: Double)

/**
 * Turns an image into the model's input pixels, by the package's task.
 *
 * @throws Refusal if the image is too small, too large or too narrow.
 */
fun inputOf(image: Pixels, manifest: Manifest): Pixels {
    if (manifest.task == Task.CLASSIFICATION) return preprocess(image, manifest.input)
    checkImageSize(image.width, image.height)
    return fitImage(image, manifest.input.mean, manifest.inputSize)
}

/** Boxes with a lower score are not shown; `sepvit-edge predict` has the same limit. */
private const val LEAST_SCORE = 0.3f

/** Finishes the outputs of a package for an image of [size]. */
internal fun answerOf(outputs: List<FloatArray>, packed: EdgePackage, size: Size, k: Int): Answer {
    val manifest = packed.manifest
    val content = contentSize(size, manifest.inputSize)
    return when (manifest.task) {
        Task.CLASSIFICATION -> Classes(
            topK(outputs.single(), k).map { LabelledClass(packed.label(it.index), it.index, it.probability) },
        )
        Task.SEGMENTATION -> {
            val map = mapBack(denseMap(outputs, manifest), manifest.inputSize, size, content)
            ClassMap(size, map, shares(map, packed.labels))
        }
        Task.DETECTION -> Boxes(
            size,
            denseBoxes(outputs, manifest, content).filter { it.score >= LEAST_SCORE }
                .map { LabelledBox(packed.label(it.label), it.label, it.score, it.box.back(size, content)) },
        )
    }
}

/** Returns the class of each pixel of the input of a segmentation package. */
internal fun denseMap(outputs: List<FloatArray>, manifest: Manifest): ShortArray {
    val stride = manifest.segmentation.stride
    val size = manifest.inputSize.run { Size(width / stride, height / stride) }
    return classMap(outputs.single(), manifest.model.numClasses, size, stride)
}

/** Returns the boxes of a detection package, in pixels of the input. */
internal fun denseBoxes(outputs: List<FloatArray>, manifest: Manifest, content: Size): List<Detection> {
    val (logits, deltas) = outputs
    return detect(logits, deltas, manifest.model.numClasses, manifest.detection, manifest.inputSize, content)
}

/** Returns the class that a value of a class map stands for. */
fun classOf(value: Short): Int = value.toInt() and 0xFFFF

private fun shares(map: ShortArray, labels: List<String>): List<ClassShare> {
    val counts = IntArray(labels.size)
    for (value in map) counts[classOf(value)]++
    return counts.indices.filter { counts[it] > 0 }.sortedByDescending { counts[it] }
        .map { ClassShare(labels[it], it, counts[it].toDouble() / map.size) }
}

/** Returns the colour of a class as 0xRRGGBB, as Python draws it. */
fun colourOf(index: Int): Int {
    val (saturation, value) = 0.75 to 0.95
    val turn = index * 0.618034 % 1 * 6
    val sector = floor(turn).toInt()
    val rest = turn - sector
    val low = value * (1 - saturation)
    val falling = value * (1 - saturation * rest)
    val rising = value * (1 - saturation * (1 - rest))
    val (red, green, blue) = when (sector) {
        0 -> listOf(value, rising, low)
        1 -> listOf(falling, value, low)
        2 -> listOf(low, value, rising)
        3 -> listOf(low, falling, value)
        4 -> listOf(rising, low, value)
        else -> listOf(value, low, falling)
    }.map { (255 * it).roundToInt() }
    return red shl 16 or (green shl 8) or blue
}
