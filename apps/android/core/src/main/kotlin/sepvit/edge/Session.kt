package sepvit.edge

/**
 * A loaded package that classifies images.
 *
 * @param threads number of threads; null leaves the choice to the runtime.
 * @throws Refusal if this app does not support the package's target or runtime version.
 */
class Session(val packed: EdgePackage, engines: EngineFactory, val threads: Int? = null) :
    AutoCloseable {

    private val engine: InferenceEngine = open(packed, engines, threads)
    val runtime: RuntimeVersion get() = engine.runtime
    private val input get() = packed.manifest.input
    private val classes get() = packed.manifest.model.numClasses

    /** Returns the logits of one image of any size. */
    fun logits(image: Pixels): FloatArray = logitsOfPixels(preprocess(image, input))

    /** Returns the logits of one preprocessed image. */
    fun logitsOfPixels(pixels: Pixels): FloatArray = run(tensor(pixels))

    fun tensor(pixels: Pixels): InputTensor = InputTensor.of(listOf(pixels), input)

    /** Returns the logits of the first image of a tensor. */
    fun run(tensor: InputTensor): FloatArray {
        val logits = engine.run(tensor)
        check(logits.size == input.batch * classes) { "${logits.size} logits for $classes classes" }
        return logits.copyOf(classes)
    }

    /** Returns the most probable classes of an image and the time that it took. */
    fun classify(image: Pixels, k: Int = 3): Classification {
        val start = System.nanoTime()
        val pixels = preprocess(image, input)
        val ready = System.nanoTime()
        val logits = logitsOfPixels(pixels)
        val end = System.nanoTime()
        val best = topK(logits, k).map { LabelledClass(packed.label(it.index), it.index, it.probability) }
        return Classification(best, (ready - start) / 1e6, (end - ready) / 1e6)
    }

    override fun close() = engine.close()

    private companion object {
        fun open(packed: EdgePackage, engines: EngineFactory, threads: Int?): InferenceEngine {
            val manifest = packed.manifest
            val engine = engines(packed, threads) ?: throw Refusal(
                Refusal.Kind.TARGET,
                "this app does not support the target '${manifest.target}'; " +
                    "export for executorch or onnxruntime",
            )
            val (minimum, below) = manifest.runtime.minimum to manifest.runtime.below
            if (!fits(engine.runtime.version, minimum, below)) {
                engine.close()
                throw Refusal(
                    Refusal.Kind.RUNTIME,
                    "this app has ${engine.runtime.name} ${engine.runtime.version}, but $minimum or " +
                        "later and older than $below is needed; update the app or export again",
                )
            }
            return engine
        }
    }
}

data class LabelledClass(val label: String, val index: Int, val probability: Double)

/** The most probable classes, and the times of preprocessing and of the model in milliseconds. */
data class Classification(
    val classes: List<LabelledClass>,
    val preprocessingMs: Double,
    val inferenceMs: Double,
)
