package sepvit.edge

import java.nio.ByteBuffer
import java.nio.ByteOrder
import kotlinx.serialization.ExperimentalSerializationApi
import kotlinx.serialization.SerialName
import kotlinx.serialization.Serializable
import kotlinx.serialization.SerializationException
import kotlinx.serialization.json.Json
import kotlinx.serialization.json.JsonObject

/** A tensor of a safetensors file; [data] is little endian, in row-major order. */
class Tensor(val dtype: String, val shape: List<Int>, private val data: ByteBuffer) {
    val size: Int get() = shape.fold(1, Int::times)

    /** Elements of a uint8 tensor. */
    fun bytes(): ByteArray {
        require(dtype == "U8") { "a tensor is $dtype, not U8" }
        return ByteArray(size).also { data.duplicate().get(it) }
    }

    /** Elements of a float32 tensor. */
    fun floats(): FloatArray {
        require(dtype == "F32") { "a tensor is $dtype, not F32" }
        return FloatArray(size).also {
            data.duplicate().order(ByteOrder.LITTLE_ENDIAN).asFloatBuffer().get(it)
        }
    }

    companion object {
        fun of(bytes: ByteArray, vararg shape: Int) =
            Tensor("U8", shape.toList(), ByteBuffer.wrap(bytes))

        fun of(floats: FloatArray, vararg shape: Int): Tensor {
            val data = ByteBuffer.allocate(4 * floats.size).order(ByteOrder.LITTLE_ENDIAN)
            data.asFloatBuffer().put(floats)
            return Tensor("F32", shape.toList(), data)
        }
    }
}

@Serializable
private data class Entry(
    val dtype: String,
    val shape: List<Long>,
    @SerialName("data_offsets") val offsets: List<Long>,
)

/** Bytes per element. Packages hold U8 and F32; the size of other tensors is checked as well. */
private val WIDTHS = mapOf(
    "BOOL" to 1, "U8" to 1, "I8" to 1, "U16" to 2, "I16" to 2, "F16" to 2, "BF16" to 2,
    "U32" to 4, "I32" to 4, "F32" to 4, "U64" to 8, "I64" to 8, "F64" to 8,
)

/**
 * Reads a safetensors file: an 8-byte length, a JSON header, the tensors without gap or overlap.
 *
 * @throws IllegalArgumentException if the file is damaged; the message says how.
 */
fun readSafeTensors(file: ByteArray): Map<String, Tensor> {
    require(file.size >= 8) { "the header is missing" }
    val length = ByteBuffer.wrap(file).order(ByteOrder.LITTLE_ENDIAN).long
    require(length in 0..(file.size - 8).toLong()) { "the header is longer than the file" }
    val start = 8 + length.toInt()
    val text = file.decodeToString(8, start)
    val entries = try {
        Json.decodeFromString<JsonObject>(text).filterKeys { it != "__metadata__" }
            .mapValues { (_, entry) -> Json.decodeFromJsonElement(Entry.serializer(), entry) }
    } catch (error: SerializationException) {
        throw IllegalArgumentException("the header is damaged", error)
    }
    var end = 0L
    for ((name, entry) in entries.toList().sortedBy { it.second.offsets.firstOrNull() }) {
        require(entry.offsets.size == 2 && entry.offsets[0] == end) {
            "tensor $name does not begin where the one before it ends"
        }
        val width = requireNotNull(WIDTHS[entry.dtype]) { "tensor $name has type ${entry.dtype}" }
        var bytes = width.toLong()
        for (side in entry.shape) {
            require(side in 0..Int.MAX_VALUE) { "tensor $name has an impossible shape" }
            bytes *= side
            require(bytes <= Int.MAX_VALUE) { "tensor $name has an impossible shape" }
        }
        require(entry.offsets[1] - end == bytes) { "tensor $name's shape does not fit its bytes" }
        end += bytes
    }
    require(start + end == file.size.toLong()) { "the file is cut short, or longer than it says" }
    return entries.mapValues { (_, entry) ->
        val (from, to) = entry.offsets.map(Long::toInt)
        val data = ByteBuffer.wrap(file, start + from, to - from).slice()
        Tensor(entry.dtype, entry.shape.map(Long::toInt), data)
    }
}
