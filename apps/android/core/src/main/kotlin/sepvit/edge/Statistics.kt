package sepvit.edge

import kotlin.math.floor
import kotlin.math.log10
import kotlin.math.min

/**
 * Returns percentile [p] (0 to 100) of sorted samples: rank p / 100 * (n - 1), counted from 0,
 * interpolated linearly between the two nearest samples.
 */
fun percentile(sorted: List<Double>, p: Double): Double {
    require(sorted.isNotEmpty()) { "no samples" }
    val rank = p / 100 * (sorted.size - 1)
    val below = floor(rank).toInt()
    val above = min(below + 1, sorted.size - 1)
    return sorted[below] + (sorted[above] - sorted[below]) * (rank - below)
}

/** Summarises the latencies of all runs. */
fun latencyOf(runsMs: List<Double>): Latency {
    val sorted = runsMs.sorted()
    return Latency(
        runs = sorted.size,
        minMs = sorted.first(),
        meanMs = runsMs.sum() / runsMs.size,
        p50Ms = percentile(sorted, 50.0),
        p90Ms = percentile(sorted, 90.0),
        p99Ms = percentile(sorted, 99.0),
        maxMs = sorted.last(),
        runsMs = runsMs,
    )
}

/**
 * Returns the signal-to-quantisation-noise ratio (SQNR) in dB, 10 log10(sum s^2 / sum (s - m)^2).
 *
 * The result is at most 200 dB, also for identical values: float32 cannot resolve more. It is NaN if a
 * measured value is NaN, and NaN is not at least any limit.
 */
fun sqnrDb(signal: FloatArray, measured: FloatArray): Double {
    require(signal.size == measured.size) { "${signal.size} values against ${measured.size}" }
    var power = 0.0
    var noise = 0.0
    for (i in signal.indices) {
        val s = signal[i].toDouble()
        val difference = s - measured[i]
        power += s * s
        noise += difference * difference
    }
    return if (noise == 0.0) MAX_SQNR_DB else min(10 * log10(power / noise), MAX_SQNR_DB)
}

const val MAX_SQNR_DB = 200.0
