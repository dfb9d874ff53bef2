package sepvit.edge

import kotlinx.serialization.ExperimentalSerializationApi
import kotlinx.serialization.SerialName
import kotlinx.serialization.Serializable
import kotlinx.serialization.json.Json
import kotlinx.serialization.json.JsonNamingStrategy
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.JsonPrimitive
import kotlinx.serialization.json.decodeFromJsonElement

/** Version 2 of manifest.json; docs/package-format.md describes its fields and versions. */
@Serializable
data class Manifest(
    val schemaVersion: String,
    val digest: String,
    val task: Task,
    val model: ModelFacts,
    val input: InputFacts,
    val outputs: List<OutputFacts>,
    val target: String,
    val precision: Precision,
    val quantization: QuantizationFacts?,
    val runtime: RuntimeFacts,
    val versions: Map<String, String>,
    /** How to build the package again. An app does not look inside. */
    val recipe: JsonObject,
    val source: SourceFacts,
    val files: List<PackageFile>,
    val placement: Placement,
    val verification: Verification = Verification.RUN,
    val parity: Parity?,
    /** How the outputs of a dense package become an answer; [segmentation] and [detection] read it. */
    val postprocessing: JsonObject? = null,
) {
    /** The outputs that the task needs, in the order in which an engine returns them. */
    val answers: List<OutputFacts>
        get() = task.meanings.map { meaning -> outputs.first { it.meaning == meaning } }

    /** Size of the model's input in pixels. */
    val inputSize: Size
        get() = model.inputSize?.let { (height, width) -> Size(width, height) }
            ?: Size(input.cropSize, input.cropSize)

    /** The rule of a segmentation package. */
    val segmentation: SegmentationRule by lazy { rule() }

    /** The rule of a detection package. */
    val detection: DetectionRule by lazy { rule() }

    private inline fun <reified T> rule(): T =
        documents.decodeFromJsonElement<T>(requireNotNull(postprocessing) { "postprocessing: it is missing" })

    init {
        for (meaning in task.meanings) require(outputs.singleOrNull { it.meaning == meaning }?.dtype == "float32") {
            "outputs: a ${task.key} package has one output with the meaning $meaning, in float32"
        }
        if (task == Task.CLASSIFICATION) require(input.fit == null) {
            "input.fit: a classification package does not have one"
        } else checkDense()
    }

    private fun checkDense() {
        require((postprocessing?.get("task") as? JsonPrimitive)?.content == task.key) {
            "postprocessing: it is not for ${task.key}"
        }
        require(input.fit == WHOLE_TOP_LEFT) { "input.fit: it is not $WHOLE_TOP_LEFT" }
        require(model.inputSize?.size == 2) { "model.input_size: a dense model has one" }
        val (width, height) = inputSize
        val classes = model.numClasses
        val wanted = if (task == Task.SEGMENTATION) {
            listOf(listOf(classes, height / segmentation.stride, width / segmentation.stride))
        } else {
            val count = anchors(detection, inputSize).sumOf { it.size }
            listOf(listOf(count, classes), listOf(count, 4))
        }
        val whole = task == Task.DETECTION || listOf(width, height).all { it % segmentation.stride == 0 }
        require(whole && answers.map { it.shape.drop(1) } == wanted) {
            "outputs: their shapes do not fit the input and the postprocessing"
        }
    }
}

private const val WHOLE_TOP_LEFT = "whole-top-left"

/**
 * What a model answers.
 *
 * @property meanings the outputs that it needs.
 */
@Serializable
enum class Task(val key: String, val meanings: List<String>) {
    @SerialName("classification") CLASSIFICATION("classification", listOf("class_logits")),
    @SerialName("segmentation") SEGMENTATION("segmentation", listOf("class_map_logits")),
    @SerialName("detection") DETECTION("detection", listOf("box_class_logits", "box_deltas")),
}

/** How the package was checked when it was exported. */
@Serializable
enum class Verification {
    @SerialName("run") RUN,
    @SerialName("emulated") EMULATED,
    @SerialName("reference model") REFERENCE_MODEL,
    @SerialName("simulated") SIMULATED,
    @SerialName("evaluated") EVALUATED,
    @SerialName("compiled") COMPILED,
}

@Serializable
enum class Precision {
    @SerialName("fp32") FP32,
    @SerialName("fp16") FP16,
    @SerialName("int8") INT8,
}

@Serializable
data class ModelFacts(
    val variant: String,
    val name: String,
    val numClasses: Int,
    val imageSize: Int,
    val parameters: Long,
    val macs: Long,
    /** Name of the edge form. */
    val form: String,
    /** Height and width of a dense model's input. */
    val inputSize: List<Int>? = null,
)

@Serializable
data class InputFacts(
    val name: String,
    val shape: List<Int>,
    val dtype: InputType,
    val layout: Layout,
    val colorOrder: String = "RGB",
    val valueRange: List<Int> = listOf(0, 255),
    val resizeRule: String = RESIZE_RULE,
    val resizeShorterSide: Int,
    val cropSize: Int,
    val crop: Double,
    val mean: List<Double>,
    val std: List<Double>,
    val insideGraph: List<GraphStep> = GraphStep.entries,
    /** How the whole image lies in a dense model's input. */
    val fit: String? = null,
) {
    init {
        require(shape.size == 4) { "shape: must be four numbers" }
        require(colorOrder == "RGB") { "color_order: must be RGB" }
        require(resizeRule == RESIZE_RULE) { "resize_rule: must be $RESIZE_RULE" }
        require(valueRange.size == 2) { "value_range: must be two numbers" }
        require(mean.size == 3) { "mean: must be three numbers" }
        require(std.size == 3) { "std: must be three numbers" }
    }

    /** Images per call. */
    val batch: Int get() = shape[0]

    /** Size of an image in the tensor. */
    val size: Size
        get() = if (layout == Layout.NHWC) Size(shape[2], shape[1]) else Size(shape[3], shape[2])

    private companion object {
        const val RESIZE_RULE = "pillow-bilinear-antialias"
    }
}

@Serializable
enum class InputType {
    @SerialName("uint8") UINT8,
    @SerialName("float32") FLOAT32,
}

@Serializable
enum class Layout { NHWC, NCHW }

@Serializable
enum class GraphStep {
    @SerialName("scale") SCALE,
    @SerialName("normalize") NORMALIZE,
}

@Serializable
data class OutputFacts(
    val name: String,
    val meaning: String,
    val shape: List<Int>,
    val dtype: String = "float32",
) {
    /** Numbers of one image. */
    val numbers: Int get() = shape.drop(1).fold(1, Int::times)
}

@Serializable
data class QuantizationFacts(
    val scheme: String,
    val trained: Boolean? = null,
    val floatLayers: List<FloatLayer>,
    val calibrationData: String? = null,
    val calibrationImages: Int,
    val calibrationSha256: String,
)

@Serializable
data class FloatLayer(val name: String, val reason: String)

/** The package opens with `minimum <= version < below`. */
@Serializable
data class RuntimeFacts(
    val name: String,
    val version: String,
    val minimum: String,
    val below: String,
    /** Options of the target; this app does not need any. */
    val options: Map<String, JsonPrimitive>,
)

@Serializable
data class SourceFacts(
    val weightsSha256: String,
    val fileSha256: String?,
    val fileSize: Long?,
    val trainedOn: String?,
)

@Serializable
data class PackageFile(val path: String, val sha256: String, val size: Long) {
    init {
        require(sha256.matches(SHA256)) { "sha256: must be 64 hexadecimal digits" }
        require(size >= 0) { "size: must not be negative" }
    }
}

@Serializable
data class Placement(
    val device: String,
    val placed: List<PlacedOps>,
    val outside: List<OutsideOp> = emptyList(),
    val macsUnattributed: Double = 0.0,
    val estimates: List<Estimate> = emptyList(),
)

/** A compiler's estimate for a device, not a measurement. */
@Serializable
data class Estimate(val what: String, val value: Double, val unit: String, val source: String)

@Serializable
data class PlacedOps(
    val where: String,
    val precision: String,
    val accelerated: Boolean,
    val ops: Int,
    val macsShare: Double,
    val kinds: Map<String, Int>,
)

@Serializable
data class OutsideOp(val name: String, val kind: String, val part: String?, val reason: String)

@Serializable
data class Parity(
    val data: String,
    val dataSha256: String,
    val images: Int,
    val maxAbsError: Double,
    val logitsRange: Double,
    val sqnrDb: Double,
    val top1Agreement: Double,
    val top1Reference: Double? = null,
    val top1Package: Double? = null,
    val top1Difference: Double? = null,
    val top1DifferenceInterval: List<Double>? = null,
    val mcnemarP: Double? = null,
    val sqnrQuantizedDb: Double? = null,
    val sqnrCpuDb: Double? = null,
)

internal val SHA256 = Regex("[0-9a-f]{64}")

/**
 * Reads and writes the project's documents. Keys are in snake_case; unknown keys are ignored,
 * because a minor version may add some.
 */
@OptIn(ExperimentalSerializationApi::class)
internal val documents = Json {
    namingStrategy = JsonNamingStrategy.SnakeCase
    ignoreUnknownKeys = true
    encodeDefaults = true
    prettyPrint = true
}
