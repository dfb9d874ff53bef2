package sepvit.edge

import kotlin.math.abs

/**
 * The result of checking this device against a package's golden vectors.
 *
 * @property failsAt the first step that failed; null if all passed.
 * @property image the first image whose pixels or tensor differ, or the one whose logits differ most.
 * @property differentValues the number of its values that differ.
 * @property maxDifference the largest difference: in levels if pixels differ, else of the logits.
 * @property sqnrDb SQNR of the logits against the package's in Python; null if a step before failed.
 * @property referenceSqnrDb SQNR of the logits against the fp32 reference, for information only.
 * @property top1Agreement share of the images with the same class as in Python, 0 to 1.
 */
data class SelfCheck(
    val images: Int,
    val failsAt: Step?,
    val image: Int?,
    val differentValues: Int,
    val maxDifference: Double,
    val sqnrDb: Double?,
    val minimumSqnrDb: Double,
    val referenceSqnrDb: Double?,
    val top1Agreement: Double?,
) {
    enum class Step(val key: String) { PIXELS("pixels"), TENSOR("tensor"), LOGITS("logits") }

    val passed: Boolean get() = failsAt == null
}

/** Returns the SQNR that another device must reach (tests/vectors/minimum_sqnr.json). */
fun minimumSqnrDb(precision: Precision): Double = when (precision) {
    Precision.FP32 -> 80.0
    Precision.FP16 -> 40.0
    Precision.INT8 -> 20.0
}

/**
 * Repeats a package's golden vectors, image -> pixels -> tensor -> logits, and reports the first step
 * that differs and by how much. tests/vectors/README.md has the rule.
 *
 * @throws Refusal if the golden vectors cannot be read.
 */
fun selfCheck(session: Session, golden: Map<String, Tensor> = session.packed.golden()): SelfCheck {
    val manifest = session.packed.manifest
    val side = manifest.input.cropSize
    val classes = manifest.model.numClasses
    fun tensor(name: String) =
        golden[name] ?: throw Refusal(Refusal.Kind.GOLDEN, "$name is missing from the golden vectors; export again")
    val stored = tensor("pixels")
    val images = stored.shape[0]
    val minimum = minimumSqnrDb(manifest.precision)
    fun failed(step: SelfCheck.Step, image: Int, values: Int, difference: Double) = SelfCheck(
        images, step, image, values, difference, null, minimum, null, null,
    )

    val values = stored.bytes()
    val pixels = List(images) { i ->
        Pixels(side, side, values.copyOfRange(i * 3 * side * side, (i + 1) * 3 * side * side))
    }
    for ((i, expected) in pixels.withIndex()) {
        val made = preprocess(Pixels.from(tensor("image.$i")), manifest.input)
        val apart = made.rgb.indices.map { level(made.rgb[it]) - level(expected.rgb[it]) }
        if (apart.any { it != 0 }) return failed(
            SelfCheck.Step.PIXELS, i, apart.count { it != 0 }, apart.maxOf(::abs).toDouble(),
        )
    }
    val logits = FloatArray(images * classes)
    for ((i, image) in pixels.withIndex()) {
        val input = session.tensor(image)
        if (!input.image(0).contentEquals(image.rgb)) return failed(SelfCheck.Step.TENSOR, i, 0, 0.0)
        session.run(input).copyInto(logits, i * classes)
    }
    val expected = tensor("package_logits").floats()
    val apart = FloatArray(logits.size) { abs(logits[it] - expected[it]) }
    val worst = apart.indices.maxBy { if (apart[it].isNaN()) Float.MAX_VALUE else apart[it] }
    val ratio = sqnrDb(expected, logits)
    val agreeing = (0 until images).count { best(logits, it, classes) == best(expected, it, classes) }
    val holds = ratio >= minimum // false for NaN
    return SelfCheck(
        images = images,
        failsAt = if (holds) null else SelfCheck.Step.LOGITS,
        image = if (holds) null else worst / classes,
        differentValues = apart.count { it != 0f },
        maxDifference = apart[worst].toDouble(),
        sqnrDb = ratio,
        minimumSqnrDb = minimum,
        referenceSqnrDb = sqnrDb(tensor("reference_logits").floats(), logits),
        top1Agreement = agreeing.toDouble() / images,
    )
}

private fun level(value: Byte) = value.toInt() and 0xFF

private fun best(logits: FloatArray, image: Int, classes: Int): Int =
    (image * classes until (image + 1) * classes).maxBy { logits[it] }
