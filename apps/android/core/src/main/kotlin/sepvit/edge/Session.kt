package sepvit.edge

/**
 * A package that is loaded and takes images.
 *
 * @param threads of the runtime; its own choice if null.
 * @throws Refusal if this app has no engine for it, or one of another version.
 */
class Session(val packed: EdgePackage, engines: EngineFactory, val threads: Int? = null) :
    AutoCloseable {

    private val engine: InferenceEngine = open(packed, engines, threads)
    val runtime: RuntimeVersion get() = engine.runtime
    private val input get() = packed.manifest.input
    private val classes get() = packed.manifest.model.numClasses

    /** Logits of one image of any size. */
    fun logits(image: Pixels): FloatArray = logitsOfPixels(preprocess(image, input))

    /** Logits of one image that is preprocessed already. */
    fun logitsOfPixels(pixels: Pixels): FloatArray = run(tensor(pixels))

    fun tensor(pixels: Pixels): InputTensor = InputTensor.of(listOf(pixels), input)

    /** Logits of the first image of a tensor. */
    fun run(tensor: InputTensor): FloatArray {
        val logits = engine.run(tensor)
        check(logits.size == input.batch * classes) { "${logits.size} logits for $classes classes" }
        return logits.copyOf(classes)
    }

    /** The most probable classes of an image, and how long that took. */
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
                "this app has no engine for '${manifest.target}'; " +
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

/** Times are of preprocessing and of the model alone, in milliseconds. */
data class Classification(
    val classes: List<LabelledClass>,
    val preprocessingMs: Double,
    val inferenceMs: Double,
)
