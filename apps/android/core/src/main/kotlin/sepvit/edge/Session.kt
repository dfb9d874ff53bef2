package sepvit.edge

/**
 * A loaded package that takes images.
 *
 * @param threads number of threads; null leaves the choice to the runtime.
 * @throws Refusal if this app does not support the package's target or runtime version.
 */
class Session(val packed: EdgePackage, engines: EngineFactory, val threads: Int? = null) :
    AutoCloseable {

    private val engine: InferenceEngine = open(packed, engines, threads)
    val runtime: RuntimeVersion get() = engine.runtime
    private val manifest get() = packed.manifest

    fun tensor(pixels: Pixels): InputTensor = InputTensor.of(listOf(pixels), manifest.input)

    /** Returns the outputs of one image of any size that [Manifest.answers] names. */
    fun outputs(image: Pixels): List<FloatArray> = run(tensor(inputOf(image, manifest)))

    /** Returns the outputs of the first image of a tensor. */
    fun run(tensor: InputTensor): List<FloatArray> {
        val found = engine.run(tensor)
        return manifest.answers.mapIndexed { i, facts ->
            val output = found.getOrNull(i)
            if (output?.size != manifest.input.batch * facts.numbers) throw Refusal(
                Refusal.Kind.INVALID,
                "the model's output ${facts.name} does not have the shape ${facts.shape.joinToString(" x ")}; " +
                    "export again",
            )
            output.copyOf(facts.numbers)
        }
    }

    /** Returns the answer to an image, of a classifier the [k] most probable classes, and the time it took. */
    fun answer(image: Pixels, k: Int = 3): Answered {
        val start = System.nanoTime()
        val tensor = tensor(inputOf(image, manifest))
        val ready = System.nanoTime()
        val outputs = run(tensor)
        val end = System.nanoTime()
        val answer = answerOf(outputs, packed, Size(image.width, image.height), k)
        return Answered(answer, (ready - start) / 1e6, (end - ready) / 1e6)
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
