package sepvit.edge

import java.io.File
import java.io.IOException
import java.security.MessageDigest
import kotlinx.serialization.SerializationException
import kotlinx.serialization.json.JsonElement
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.JsonPrimitive
import kotlinx.serialization.json.contentOrNull

/**
 * A package on disk whose every byte was checked; what sepvit_edge/package/ refuses is refused.
 *
 * @throws Refusal if it is damaged or not for this version.
 */
class EdgePackage(val folder: File) {
    val manifest: Manifest = readManifest(folder)

    init {
        manifest.files.forEach { check(folder, it) }
    }

    /** Class names in the order of the logits. */
    val labels: List<String> = file(LABELS).takeIf { it.isFile }?.readLines().orEmpty()

    /** Bytes of the model files. */
    val modelSize: Long
        get() = manifest.files.filter { it.path !in setOf(LABELS, GOLDEN) }.sumOf { it.size }

    /** The name of a class; its number where the package has no label for it. */
    fun label(index: Int): String = labels.getOrElse(index) { index.toString() }

    fun file(path: String) = File(folder, path)

    /** The one model file of a package that has one, as those for ExecuTorch and ONNX Runtime do. */
    fun modelFile(): File {
        val models = manifest.files.filter { it.path !in setOf(LABELS, GOLDEN) }
        if (models.size != 1) throw Refusal(
            Refusal.Kind.INVALID,
            "${folder.name} has ${models.size} model files where one is expected; export again",
        )
        return file(models.single().path)
    }

    /** The golden vectors: `image.0` ..., `pixels`, and both models' logits. */
    fun golden(): Map<String, Tensor> {
        val golden = file(GOLDEN)
        if (!golden.isFile) throw Refusal(Refusal.Kind.GOLDEN, "${folder.name} has no $GOLDEN")
        return try {
            readSafeTensors(golden.readBytes())
        } catch (error: IllegalArgumentException) {
            throw Refusal(Refusal.Kind.GOLDEN, "$GOLDEN cannot be read: ${error.message}", error)
        }
    }

    companion object {
        const val MANIFEST = "manifest.json"
        const val LABELS = "labels.txt"
        const val GOLDEN = "golden.safetensors"
        private const val SCHEMA_VERSION = 1
        private val DIGEST = Regex("\"digest\": \"([0-9a-f]{64})\"")

        private fun readManifest(folder: File): Manifest {
            val file = File(folder, MANIFEST)
            if (!file.isFile) throw Refusal(
                Refusal.Kind.NO_MANIFEST, "${folder.name} is no package: it has no $MANIFEST",
            )
            val data = file.readBytes()
            val text = data.toString(Charsets.UTF_8)
            val document = try {
                documents.decodeFromString<JsonElement>(text) as? JsonObject
            } catch (_: SerializationException) {
                null
            }
            val schema = (document?.get("schema_version") as? JsonPrimitive)?.contentOrNull
            if (document == null || schema == null) throw Refusal(
                Refusal.Kind.DAMAGED_MANIFEST,
                "$MANIFEST is damaged: it is no manifest; export again",
            )
            if (schema != SCHEMA_VERSION.toString()) throw Refusal(
                Refusal.Kind.SCHEMA,
                "${folder.name} has manifest schema $schema, this version reads $SCHEMA_VERSION; " +
                    "update the app or export again",
            )
            // The digest first: a changed bit is damage, wherever it stands.
            val stated = (document["digest"] as? JsonPrimitive)?.contentOrNull
            if (stated != digest(data)) throw Refusal(
                Refusal.Kind.DIGEST, "$MANIFEST was changed since it was exported; export again",
            )
            return try {
                documents.decodeFromString<Manifest>(text)
            } catch (error: IllegalArgumentException) { // SerializationException is one
                // The library names a field as the class does; the document has it in snake_case.
                val fault = error.message.orEmpty().lineSequence().first()
                    .replace(Regex("(?<=[a-z0-9])[A-Z]")) { "_" + it.value.lowercase() }
                throw Refusal(Refusal.Kind.INVALID, "$MANIFEST is not valid: $fault", error)
            }
        }

        /** SHA-256 of a manifest with the digest's own 64 characters set to zero. */
        private fun digest(data: ByteArray): String {
            val zeroed = data.copyOf()
            // Latin-1 has one character a byte, so that places in the text are places in the file.
            DIGEST.find(data.toString(Charsets.ISO_8859_1))?.groups?.get(1)?.range
                ?.forEach { zeroed[it] = '0'.code.toByte() }
            return sha256(zeroed)
        }

        private fun check(folder: File, listed: PackageFile) {
            val parts = listed.path.split('/')
            val root = folder.canonicalFile
            val file = try {
                File(folder, listed.path).canonicalFile
            } catch (_: IOException) {
                null // a path that the system cannot even name
            }
            val inside = file != null && file != root && file.startsWith(root)
            if (listed.path.startsWith('/') || ".." in parts || '\\' in listed.path || !inside) {
                throw Refusal(
                    Refusal.Kind.PATH,
                    "${folder.name} names the file '${listed.path}', which leaves the folder",
                )
            }
            if (!file!!.isFile) throw Refusal(
                Refusal.Kind.MISSING,
                "${folder.name} is incomplete: ${listed.path} is missing; export again",
            )
            if (file.length() != listed.size || sha256(file) != listed.sha256) throw Refusal(
                Refusal.Kind.CHANGED,
                "${listed.path} was changed since it was exported; export again",
            )
        }
    }
}

internal fun sha256(data: ByteArray): String = hex(MessageDigest.getInstance("SHA-256").digest(data))

internal fun sha256(file: File): String {
    val digest = MessageDigest.getInstance("SHA-256")
    file.inputStream().use { stream ->
        val piece = ByteArray(1 shl 16)
        while (true) {
            val read = stream.read(piece)
            if (read < 0) break
            digest.update(piece, 0, read)
        }
    }
    return hex(digest.digest())
}

private fun hex(bytes: ByteArray) = bytes.joinToString("") { "%02x".format(it) }
