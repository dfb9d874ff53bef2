package sepvit.edge

import kotlin.math.abs

/**
 * The result of checking this device against a package's golden vectors.
 *
 * @property failsAt the first step that failed; null if all passed.
 * @property image the first image whose pixels or tensor differ, or the one whose output differs most.
 * @property differentValues the number of its values that differ.
 * @property maxDifference the largest difference: in levels if pixels differ, else of [output].
 * @property output the output with the smallest SQNR; the figures are its. Null if a step before failed.
 * @property sqnrDb SQNR against the package's output in Python; null if a step before failed.
 * @property referenceSqnrDb SQNR against the fp32 reference, for information only.
 * @property agreement share of the images with the same class as in Python, or of the same pixels or boxes.
 * @property minimumAgreement null for a classifier, whose agreement decides nothing.
 */
data class SelfCheck(
    val images: Int,
    val failsAt: Step?,
    val image: Int?,
    val differentValues: Int,
    val maxDifference: Double,
    val minimumSqnrDb: Double,
    val minimumAgreement: Double?,
    val output: String? = null,
    val sqnrDb: Double? = null,
    val referenceSqnrDb: Double? = null,
    val agreement: Double? = null,
) {
    enum class Step(val key: String) {
        PIXELS("pixels"), TENSOR("tensor"), LOGITS("logits"), OUTPUTS("outputs"), ANSWER("answer")
    }

    val passed: Boolean get() = failsAt == null
}

/** Returns the SQNR that another device must reach (tests/vectors/minimum_sqnr.json). */
fun minimumSqnrDb(precision: Precision): Double = when (precision) {
    Precision.FP32 -> 80.0
    Precision.FP16 -> 40.0
    Precision.INT8 -> 20.0
}

/** Returns the share of pixels or boxes that a dense model's answer must have in common with Python's. */
fun minimumAgreement(precision: Precision): Double = when (precision) {
    Precision.FP32 -> 0.95
    Precision.FP16 -> 0.8
    Precision.INT8 -> 0.5
}

/**
 * Repeats a package's golden vectors, image -> pixels -> tensor -> outputs -> answer, and reports the first
 * step that differs and by how much. tests/vectors/README.md has the rule.
 *
 * @throws Refusal if the golden vectors cannot be read.
 */
fun selfCheck(session: Session, golden: Map<String, Tensor> = session.packed.golden()): SelfCheck {
    val manifest = session.packed.manifest
    val (width, height) = manifest.inputSize
    val dense = manifest.task != Task.CLASSIFICATION
    val stored = golden.needed("pixels")
    val images = stored.shape[0]
    val minimum = minimumSqnrDb(manifest.precision)
    val least = if (dense) minimumAgreement(manifest.precision) else null
    fun failed(step: SelfCheck.Step, image: Int, values: Int, difference: Double) =
        SelfCheck(images, step, image, values, difference, minimum, least)

    val values = stored.bytes()
    val each = 3 * width * height
    if (images == 0 || values.size != images * each) throw doNotFit()
    val pixels = List(images) { i -> Pixels(width, height, values.copyOfRange(i * each, (i + 1) * each)) }
    val pictures = List(images) { Pixels.from(golden.needed("image.$it")) }
    for ((i, expected) in pixels.withIndex()) {
        val made = inputOf(pictures[i], manifest)
        val apart = made.rgb.indices.map { level(made.rgb[it]) - level(expected.rgb[it]) }
        if (apart.any { it != 0 }) return failed(
            SelfCheck.Step.PIXELS, i, apart.count { it != 0 }, apart.maxOf(::abs).toDouble(),
        )
    }
    val outputs = manifest.answers.map { GoldenOutput(it, manifest.task, golden, images) }
    val common = Common(0, 0)
    for ((i, image) in pixels.withIndex()) {
        val input = session.tensor(image)
        if (!input.image(0).contentEquals(image.rgb)) return failed(SelfCheck.Step.TENSOR, i, 0, 0.0)
        val found = session.run(input)
        outputs.zip(found) { output, all -> output.take(i, all) }
        common += compareAnswers(found, session.packed, golden, i, pictures[i])
    }
    val worst = outputs.minBy { if (it.sqnrDb.isNaN()) Double.NEGATIVE_INFINITY else it.sqnrDb }
    val failsAt = when {
        !(worst.sqnrDb >= minimum) -> if (dense) SelfCheck.Step.OUTPUTS else SelfCheck.Step.LOGITS // also NaN
        common.share < (least ?: 0.0) -> SelfCheck.Step.ANSWER
        else -> null
    }
    return SelfCheck(
        images = images,
        failsAt = failsAt,
        image = worst.worstImage.takeIf { failsAt == SelfCheck.Step.LOGITS || failsAt == SelfCheck.Step.OUTPUTS },
        differentValues = worst.apart.count { it != 0f },
        maxDifference = worst.apart[worst.worst].toDouble(),
        minimumSqnrDb = minimum,
        minimumAgreement = least,
        output = worst.facts.name,
        sqnrDb = worst.sqnrDb,
        referenceSqnrDb = sqnrDb(worst.reference, worst.measured),
        agreement = common.share,
    )
}

/** One output of the golden images: by the package and the reference in Python, and on this device. */
private class GoldenOutput(val facts: OutputFacts, task: Task, golden: Map<String, Tensor>, images: Int) {
    private val name = if (task == Task.CLASSIFICATION) "_logits" else ".${facts.name}"
    private val each = (facts.numbers + keptStep(facts.numbers) - 1) / keptStep(facts.numbers)
    private val expected = golden.needed("package$name").floats()
    val reference = golden.needed("reference$name").floats()
    val measured = FloatArray(images * each)

    init {
        if (expected.size != measured.size || reference.size != measured.size) throw doNotFit()
    }

    /** Takes the numbers of an image that golden vectors keep. */
    fun take(image: Int, output: FloatArray) {
        val step = keptStep(output.size)
        for (i in 0 until each) measured[image * each + i] = output[i * step]
    }

    val apart by lazy { FloatArray(measured.size) { abs(measured[it] - expected[it]) } }
    val worst by lazy { apart.indices.maxBy { if (apart[it].isNaN()) Float.MAX_VALUE else apart[it] } }
    val worstImage get() = worst / each
    val sqnrDb by lazy { sqnrDb(expected, measured) }
}

/** Returns the step between the numbers of an output that golden vectors of dense packages keep. */
internal fun keptStep(numbers: Int): Int = (numbers + KEPT - 1) / KEPT or 1

private const val KEPT = 1 shl 16

/** What answers have in common, and all that they have. */
private class Common(private var same: Int, private var all: Int) {
    val share: Double get() = if (all == 0) 1.0 else same.toDouble() / all

    operator fun plusAssign(other: Common) {
        same += other.same
        all += other.all
    }
}

private fun compareAnswers(
    outputs: List<FloatArray>, packed: EdgePackage, golden: Map<String, Tensor>, image: Int, picture: Pixels,
): Common {
    val manifest = packed.manifest
    when (manifest.task) {
        Task.CLASSIFICATION -> {
            val logits = outputs.single()
            val all = golden.needed("package_logits").floats()
            val expected = all.copyOfRange(image * logits.size, (image + 1) * logits.size)
            return Common(if (best(logits) == best(expected)) 1 else 0, 1)
        }
        Task.SEGMENTATION -> {
            val map = denseMap(outputs, manifest)
            val stored = golden.needed("package.class_map")
            val classes = if (stored.dtype == "U8") stored.bytes().let { all -> IntArray(all.size) { level(all[it]) } }
            else stored.floats().let { all -> IntArray(all.size) { all[it].toInt() } }
            val start = image * map.size
            if (classes.size < start + map.size) throw doNotFit()
            return Common(map.indices.count { classOf(map[it]) == classes[start + it] }, map.size)
        }
        Task.DETECTION -> {
            val content = contentSize(Size(picture.width, picture.height), manifest.inputSize)
            val found = denseBoxes(outputs, manifest, content)
            val (boxes, scores, labels) = listOf("boxes", "scores", "classes")
                .map { golden.needed("package.$it.$image").floats() }
            if (boxes.size != 4 * scores.size || labels.size != scores.size) throw doNotFit()
            val expected = scores.indices.map { i ->
                val (left, top, right, bottom) = boxes.slice(4 * i until 4 * i + 4)
                Detection(Corners(left, top, right, bottom), scores[i], labels[i].toInt())
            }
            return Common(2 * sharedBoxes(found, expected), found.size + expected.size)
        }
    }
}

private fun Map<String, Tensor>.needed(name: String): Tensor =
    get(name) ?: throw Refusal(Refusal.Kind.GOLDEN, "$name is missing from the golden vectors; export again")

private fun doNotFit() =
    Refusal(Refusal.Kind.GOLDEN, "the golden vectors do not fit the manifest; export again")

private fun level(value: Byte) = value.toInt() and 0xFF

private fun best(logits: FloatArray): Int = logits.indices.maxBy { logits[it] }
