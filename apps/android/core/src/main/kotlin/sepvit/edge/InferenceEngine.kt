package sepvit.edge

import java.nio.ByteBuffer
import java.nio.ByteOrder

/** A runtime with a loaded model. It is not thread-safe. */
interface InferenceEngine : AutoCloseable {
    /** The runtime's name as in a manifest, and its version. */
    val runtime: RuntimeVersion

    /** Runs one batch and returns what [Manifest.answers] names, each for the whole batch. */
    fun run(input: InputTensor): List<FloatArray>
}

/** @property execution the delegate or provider, for example `XNNPACK` or `CPUExecutionProvider`. */
data class RuntimeVersion(val name: String, val version: String, val execution: String)

/** Opens the engine for a package's target; null if this app does not have one. */
typealias EngineFactory = (packed: EdgePackage, threads: Int?) -> InferenceEngine?

/**
 * The model's input, in the shape, type and layout that the manifest states.
 *
 * @property data a direct buffer in native byte order, at its start.
 */
class InputTensor private constructor(val facts: InputFacts, val data: ByteBuffer) {
    val shape: LongArray get() = facts.shape.map(Int::toLong).toLongArray()

    /** Returns the pixels of one image: the inverse of [of], by the layout's formula. */
    fun image(index: Int): ByteArray {
        val area = facts.size.width * facts.size.height
        val floats = data.duplicate().order(ByteOrder.nativeOrder()).asFloatBuffer()
        return ByteArray(3 * area) { i ->
            val (pixel, channel) = i / 3 to i % 3
            val place = when (facts.layout) {
                Layout.NHWC -> (index * area + pixel) * 3 + channel
                Layout.NCHW -> (index * 3 + channel) * area + pixel
            }
            if (facts.dtype == InputType.UINT8) data.get(place) else floats.get(place).toInt().toByte()
        }
    }

    companion object {
        /** Makes a batch of preprocessed images. Black images fill it up. */
        fun of(images: List<Pixels>, facts: InputFacts): InputTensor {
            val (width, height) = facts.size
            require(images.size <= facts.batch) { "${images.size} images, the batch is ${facts.batch}" }
            require(images.all { it.width == width && it.height == height }) { "pixels are not $width x $height" }
            val bytes = if (facts.dtype == InputType.UINT8) 1 else 4
            val data = ByteBuffer.allocateDirect(facts.shape.fold(bytes, Int::times))
                .order(ByteOrder.nativeOrder())
            require(data.capacity() == facts.batch * 3 * width * height * bytes) { "shape ${facts.shape}" }
            val filled = data.duplicate().order(ByteOrder.nativeOrder()) // leaves data at its start
            for (image in images) when (facts.layout) {
                Layout.NHWC -> filled.put(image.rgb, 0, 1, facts.dtype)
                Layout.NCHW -> for (channel in 0..2) filled.put(image.rgb, channel, 3, facts.dtype)
            }
            return InputTensor(facts, data)
        }

        private fun ByteBuffer.put(values: ByteArray, from: Int, step: Int, dtype: InputType) {
            if (dtype == InputType.UINT8 && step == 1) put(values)
            else for (i in from until values.size step step) {
                if (dtype == InputType.UINT8) put(values[i])
                else putFloat((values[i].toInt() and 0xFF).toFloat())
            }
        }
    }
}

/**
 * Returns whether a package opens with a runtime's version.
 *
 * The lower bound is compared by major and minor number only, because the runtimes' builds for phones
 * have other patch releases.
 */
fun fits(version: String, minimum: String, below: String): Boolean =
    compareVersions(release(version).take(2), release(minimum).take(2)) >= 0 &&
        compareVersions(release(version), release(below)) < 0

private fun release(version: String): List<Int> =
    version.split('.').map { part -> part.takeWhile(Char::isDigit).toIntOrNull() ?: 0 }

private fun compareVersions(a: List<Int>, b: List<Int>): Int {
    for (i in 0 until maxOf(a.size, b.size)) {
        val difference = a.getOrElse(i) { 0 }.compareTo(b.getOrElse(i) { 0 })
        if (difference != 0) return difference
    }
    return 0
}
