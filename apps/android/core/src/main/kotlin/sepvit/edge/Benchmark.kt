package sepvit.edge

import kotlin.math.abs

/** The number of runs and threads of a benchmark. */
data class BenchmarkPlan(
    val threads: Int = 2,
    val warmUp: Int = 10,
    val runs: Int = 100,
    val sustainedSeconds: Int = 0,
) {
    init {
        require(threads in 1..64) { "threads must be 1 to 64, not $threads" }
        require(warmUp in 0..100_000) { "warm-up must be 0 to 100000 runs, not $warmUp" }
        require(runs in 1..100_000) { "runs must be 1 to 100000, not $runs" }
        require(sustainedSeconds in 0..86_400) {
            "sustained must be 0 to 86400 seconds, not $sustainedSeconds"
        }
    }
}

/**
 * Measures one package on this device and returns the profile document.
 *
 * The golden vectors are checked first. Nothing is timed if the check fails.
 *
 * @param version the app's version.
 * @param progress is called with the completed share, 0 to 1.
 * @param cancelled is called between runs. After a stop the document is marked as incomplete.
 */
class Benchmark(
    private val packed: EdgePackage,
    private val engines: EngineFactory,
    private val plan: BenchmarkPlan,
    private val probe: DeviceProbe,
    private val version: String,
    private val clock: () -> Long = System::nanoTime,
    private val progress: (Double) -> Unit = {},
    private val cancelled: () -> Boolean = { false },
) {
    private val notMeasured = mutableListOf(
        NotMeasured("energy", "Android does not report energy per process to apps"),
        NotMeasured("operations", "the Android builds of the runtimes do not report times per operation"),
        NotMeasured("roofs", "measured on computers only"),
    )

    fun run(): Profile {
        val before = probe.conditions()
        val baseline = probe.memory()
        val loading = clock()
        return Session(packed, engines, plan.threads).use { session ->
            val loaded = clock()
            val loadedMemory = probe.memory()
            measure(session, before, baseline, loadedMemory, (loaded - loading) / 1e6)
        }
    }

    private fun measure(
        session: Session,
        before: Conditions,
        baseline: MemoryReading?,
        loaded: MemoryReading?,
        loadMs: Double,
    ): Profile {
        val golden = packed.golden()
        val (width, height) = packed.manifest.inputSize
        val stored = golden["pixels"] ?: throw Refusal(Refusal.Kind.GOLDEN, "pixels are missing from the golden vectors; export again")
        val first = Pixels(width, height, stored.bytes().copyOf(3 * width * height))
        val tensor = session.tensor(first)

        val firstRunMs = timed { session.run(tensor) }
        val age = probe.processAgeMs()
        val coldStart = if (age != null && claimColdStart()) ColdStart(1, age, null, loadMs, firstRunMs) else null
        if (coldStart == null) notMeasured += NotMeasured(
            "cold_start", "only the first model of a process starts cold; restart the app",
        )

        val check = selfCheck(session, golden)
        if (!check.passed) return document(session, before, check).copy(
            complete = false,
            incompleteReason = "the self-check failed at the ${check.failsAt!!.key}; " +
                "a device that fails it is not timed",
        )

        val warmUp = warmUp { session.run(tensor) }
        val total = plan.runs + 1e-9
        val runs = repeated(plan.runs) { done ->
            progress(done / total * if (plan.sustainedSeconds > 0) 0.2 else 1.0)
            timed { session.run(tensor) }
        }
        val steady = probe.memory()
        val image = Pixels.from(golden["image.2"] ?: golden.getValue("image.0"))
        val resizing = repeated(plan.runs.coerceAtMost(PREPROCESSING_RUNS)) {
            timed { inputOf(image, packed.manifest) }
        }
        val sustained = if (plan.sustainedSeconds > 0) sustain(session, tensor) else null
        if (sustained == null) notMeasured += NotMeasured("sustained", "not requested")
        if (steady == null) notMeasured += NotMeasured("memory", "the system does not report it")
        val cut = cancelled()
        return document(session, before, check).copy(
            complete = !cut,
            incompleteReason = if (cut) "stopped by the user" else null,
            method = Method("System.nanoTime", clockResolution(), warmUp.runs, warmUp.stable),
            after = probe.conditions(),
            coldStart = coldStart,
            latency = runs.takeIf { it.isNotEmpty() }?.let(::latencyOf),
            preprocessing = resizing.takeIf { it.isNotEmpty() }?.let(::latencyOf),
            memory = steady?.let {
                Memory("VmRSS, VmHWM", baseline?.residentMb, loaded?.residentMb, it.residentMb, it.peakMb)
            },
            sustained = sustained,
            notMeasured = notMeasured,
        )
    }

    private fun document(session: Session, before: Conditions, check: SelfCheck): Profile {
        val manifest = packed.manifest
        return Profile(
            complete = true,
            producer = Producer(version = version),
            `package` = ProfiledPackage(
                manifest.digest, manifest.model.variant, manifest.target, manifest.precision,
                manifest.model.imageSize, manifest.model.numClasses, manifest.input.batch,
                packed.modelSize / 1e6, manifest.model.macs,
            ),
            runtime = session.runtime.run { RuntimeUsed(name, version, execution, plan.threads) },
            device = probe.device,
            // Logits are compared only if the pixels and the tensor match.
            golden = check.sqnrDb?.let {
                Golden(
                    check.images, it.takeIf { it < MAX_SQNR_DB && it.isFinite() }, check.minimumSqnrDb,
                    check.maxDifference.takeIf(Double::isFinite) ?: Double.MAX_VALUE,
                    check.agreement!!, true, check.passed,
                )
            },
            before = before,
            notMeasured = notMeasured,
        )
    }

    private class WarmUp(val runs: Int, val stable: Boolean)

    /** Runs the requested warm-up, then until two windows of runs have about the same median. */
    private fun warmUp(run: () -> Unit): WarmUp {
        val times = mutableListOf<Double>()
        while (!cancelled() && times.size < plan.warmUp + WARM_UP_LIMIT) {
            if (times.size >= plan.warmUp && stable(times)) return WarmUp(times.size, true)
            times += timed(run)
        }
        return WarmUp(times.size, stable(times))
    }

    private fun stable(times: List<Double>): Boolean {
        if (times.size < 2 * WINDOW) return false
        val (old, new) = times.takeLast(2 * WINDOW).chunked(WINDOW).map { percentile(it.sorted(), 50.0) }
        return abs(new - old) <= 0.05 * old
    }

    private fun sustain(session: Session, tensor: InputTensor): Sustained {
        val start = clock()
        fun elapsed() = (clock() - start) / 1e9
        val points = mutableListOf<SustainedPoint>()
        while (elapsed() < plan.sustainedSeconds && !cancelled()) {
            val end = minOf(elapsed() + POINT_SECONDS, plan.sustainedSeconds.toDouble())
            val runs = mutableListOf<Double>()
            do runs += timed { session.run(tensor) } while (elapsed() < end && !cancelled())
            val sorted = runs.sorted()
            val conditions = probe.conditions()
            points += SustainedPoint(
                elapsed(), runs.size, percentile(sorted, 50.0), percentile(sorted, 90.0), sorted.last(),
                conditions.frequenciesMhz?.average(), conditions.temperaturesC?.values?.maxOrNull(),
                conditions.thermalState,
            )
            progress((0.2 + 0.8 * elapsed() / plan.sustainedSeconds).coerceAtMost(1.0))
        }
        return Sustained(plan.sustainedSeconds.toDouble(), points)
    }

    private fun repeated(times: Int, run: (Int) -> Double): List<Double> =
        (0 until times).asSequence().takeWhile { !cancelled() }.map(run).toList()

    private inline fun timed(run: () -> Unit): Double {
        val start = clock()
        run()
        return (clock() - start) / 1e6
    }

    /** Returns the smallest difference between two readings. */
    private fun clockResolution(): Double? = (0 until 1000)
        .map { val first = clock(); clock() - first }.filter { it > 0 }.minOrNull()?.toDouble()

    companion object {
        private const val WINDOW = 5
        private const val WARM_UP_LIMIT = 100
        private const val PREPROCESSING_RUNS = 50
        private const val POINT_SECONDS = 5.0
        private var coldStartLeft = true

        /** Returns true for the first call of a process, and false after [spendColdStart]. */
        @Synchronized
        private fun claimColdStart(): Boolean = coldStartLeft.also { coldStartLeft = false }

        /** Records that this process has already loaded a model. */
        @Synchronized
        fun spendColdStart() {
            coldStartLeft = false
        }
    }
}
