package sepvit.edge

import java.io.File
import java.io.IOException
import java.security.MessageDigest
import kotlinx.serialization.SerializationException
import kotlinx.serialization.json.JsonElement
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.JsonPrimitive
import kotlinx.serialization.json.contentOrNull
import kotlinx.serialization.json.intOrNull

/**
 * A package on disk. Every file's size and SHA-256 is checked, as in sepvit_edge/package/.
 *
 * @param trust keys of which one must have signed it; null: a signature is not looked at.
 * @throws Refusal if a file was modified, this app does not support its version or task, or a trusted
 *   signature is asked for and missing.
 */
class EdgePackage(val folder: File, trust: TrustedKeys? = null) {
    init {
        trust?.verify(folder)
    }

    val manifest: Manifest = readManifest(folder)

    init {
        manifest.files.forEach { check(folder, it) }
    }

    /** Class names in the order of the logits. */
    val labels: List<String> = file(LABELS).takeIf { it.isFile }?.readText()?.removeSuffix("\n")?.split("\n").orEmpty()

    init {
        val classes = manifest.model.numClasses
        if (labels.size != classes) throw Refusal(
            Refusal.Kind.INVALID, "${folder.name} has ${labels.size} labels for $classes classes; export again",
        )
    }

    /** Size of the model files in bytes. */
    val modelSize: Long
        get() = manifest.files.filter { it.path !in setOf(LABELS, GOLDEN) }.sumOf { it.size }

    /** Returns the name of a class, or its number if the package has no label for it. */
    fun label(index: Int): String = labels.getOrElse(index) { index.toString() }

    fun file(path: String) = File(folder, path)

    /** Returns the model file. Packages for ExecuTorch and ONNX Runtime have exactly one. */
    fun modelFile(): File {
        val models = manifest.files.filter { it.path !in setOf(LABELS, GOLDEN) }
        if (models.size != 1) throw Refusal(
            Refusal.Kind.INVALID,
            "${folder.name} has ${models.size} model files where one is expected; export again",
        )
        return file(models.single().path)
    }

    /** Reads the golden vectors: `image.0` ..., `pixels`, and both models' outputs. */
    fun golden(): Map<String, Tensor> {
        val golden = file(GOLDEN)
        if (!golden.isFile) throw Refusal(
            Refusal.Kind.GOLDEN, "$GOLDEN is missing from ${folder.name}; export again",
        )
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
        private const val SCHEMA_VERSION = "2.2"
        private val SCHEMA_MAJOR = SCHEMA_VERSION.substringBefore('.').toInt()
        private val TASKS = Task.entries.map { it.key }
        private val VERSION = Regex("(0|[1-9][0-9]{0,3})\\.(0|[1-9][0-9]{0,3})")

        // Only such words of an unchecked manifest are copied into a command.
        private val TARGET = Regex("[a-z][a-z0-9-]{0,39}")
        private val PRECISION = Regex("fp32|fp16|int8")
        private val DIGEST = Regex("\"digest\": \"([0-9a-f]{64})\"")

        private fun readManifest(folder: File): Manifest {
            val file = File(folder, MANIFEST)
            if (!file.isFile) throw Refusal(
                Refusal.Kind.NO_MANIFEST,
                "${folder.name} is not a package: $MANIFEST is missing",
            )
            val data = file.readBytes()
            val text = data.toString(Charsets.UTF_8)
            val document = try {
                documents.decodeFromString<JsonElement>(text) as? JsonObject
            } catch (_: SerializationException) {
                null
            }
            val version = document?.get("schema_version") as? JsonPrimitive
            val major = version?.let(::major)
            if (document == null || major == null) throw Refusal(
                Refusal.Kind.DAMAGED_MANIFEST,
                "$MANIFEST is damaged: it is not a manifest; export again",
            )
            if (major > SCHEMA_MAJOR) throw Refusal(
                Refusal.Kind.NEWER_SCHEMA,
                "${folder.name} has manifest version ${version.content}, this app reads " +
                    "$SCHEMA_VERSION; update the app",
            )
            if (major < SCHEMA_MAJOR) throw Refusal(
                Refusal.Kind.OLDER_SCHEMA,
                "${folder.name} has manifest version ${version.content}, which is no longer read; " +
                    "make the package again: ${exportCommand(document)}",
            )
            // The digest comes before the fields: a modified file is reported as such.
            val stated = (document["digest"] as? JsonPrimitive)?.contentOrNull
            if (stated != digest(data)) throw Refusal(
                Refusal.Kind.DIGEST, "$MANIFEST was changed since it was exported; export again",
            )
            val task = document["task"] as? JsonPrimitive
            if (task != null && task.isString && task.content !in TASKS) throw Refusal(
                Refusal.Kind.TASK,
                "${folder.name} is for the task '${task.content.take(40)}', which this app does not " +
                    "run (it runs ${TASKS.joinToString()}); update the app",
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

        /** Returns the major number of a version, 1 for the integer 1; null for anything else. */
        private fun major(version: JsonPrimitive): Int? =
            if (version.isString) VERSION.matchEntire(version.content)?.groupValues?.get(1)?.toInt()
            else version.intOrNull?.takeIf { it == 1 }

        /** Returns the command that makes a package of an older version again. */
        private fun exportCommand(document: JsonObject): String {
            fun option(key: String, allowed: Regex): String = (document[key] as? JsonPrimitive)
                ?.takeIf { it.isString && it.content.matches(allowed) }?.let { " --$key ${it.content}" }.orEmpty()
            return "python -m sepvit_edge.export" + option("target", TARGET) +
                option("precision", PRECISION) + " --weights CHECKPOINT"
        }

        /** Returns the SHA-256 of a manifest whose digest is replaced by 64 zeros. */
        private fun digest(data: ByteArray): String {
            val zeroed = data.copyOf()
            // Latin-1 maps each byte to one character, so offsets in the text are offsets in the file.
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
                null // the system rejects the path itself
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
