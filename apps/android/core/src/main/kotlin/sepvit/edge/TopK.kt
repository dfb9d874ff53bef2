package sepvit.edge

import kotlin.math.exp

data class RankedClass(val index: Int, val probability: Double)

/**
 * Returns the k most probable classes, most probable first. Equal logits keep the order of the classes.
 *
 * Softmax is computed in double precision.
 */
fun topK(logits: FloatArray, k: Int): List<RankedClass> {
    val largest = logits.max().toDouble()
    val weights = DoubleArray(logits.size) { exp(logits[it] - largest) }
    val sum = weights.sum()
    return logits.indices
        .sortedByDescending { weights[it] } // stable
        .take(k)
        .map { RankedClass(it, weights[it] / sum) }
}
