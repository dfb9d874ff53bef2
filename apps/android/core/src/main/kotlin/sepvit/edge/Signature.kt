package sepvit.edge

import java.io.File
import java.nio.file.Files
import java.security.GeneralSecurityException
import java.security.KeyFactory
import java.security.MessageDigest
import java.security.PublicKey
import java.security.interfaces.ECPublicKey
import java.security.spec.X509EncodedKeySpec
import java.time.DateTimeException
import java.time.Instant
import java.time.LocalDateTime
import java.time.ZoneOffset
import java.time.format.DateTimeFormatter
import java.time.format.ResolverStyle
import java.util.Base64
import kotlinx.serialization.SerializationException
import kotlinx.serialization.json.JsonArray
import kotlinx.serialization.json.JsonElement
import kotlinx.serialization.json.JsonNull
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.JsonPrimitive

/**
 * Signatures of packages, as docs/signatures.md describes them: whose files they are.
 *
 * @param pem public keys on P-256, in PEM, one after the other.
 * @throws IllegalArgumentException if there is no key, or one that is not on P-256.
 */
class TrustedKeys(pem: String) {
    private val keys = PEM.findAll(pem).map { publicKey(it.groupValues[1]) }.toList()

    init {
        require(keys.isNotEmpty()) { "there is no trusted public key in PEM; give one" }
    }

    /**
     * Checks that one of the keys has signed exactly the files of a package.
     *
     * @throws Refusal whose kind says what is wrong.
     */
    fun verify(folder: File, now: Instant = Instant.now()) {
        val file = File(folder, SIGNATURE)
        if (!file.isFile) throw Refusal(
            Refusal.Kind.UNSIGNED, "${folder.name} is not signed: $SIGNATURE is missing; use a signed package",
        )
        if (file.length() > LARGEST) throw Damaged()
        try {
            val signed = Signed.read(payloadOf(file.readText(), folder))
            if (signed.expires != null && !now.isBefore(signed.expires)) throw Refusal(
                Refusal.Kind.EXPIRED,
                "the signature of ${folder.name} has expired on ${signed.expires}; use a newer package",
            )
            compare(folder, signed.files)
        } catch (error: Damaged) {
            throw Refusal(
                Refusal.Kind.DAMAGED_SIGNATURE,
                "${folder.name}/$SIGNATURE is damaged, or is not a signature of files by a key", error,
            )
        }
    }

    /** Returns what was signed, of which nothing is looked at before its signature is found good. */
    private fun payloadOf(bundle: String, folder: File): ByteArray {
        val document = parse(bundle)
        val envelope = document.part("dsseEnvelope")
        val signatures = envelope["signatures"] as? JsonArray ?: throw Damaged()
        if (document.text("mediaType") != BUNDLE || envelope.text("payloadType") != PAYLOAD) throw Damaged()
        val entry = signatures.singleOrNull() as? JsonObject ?: throw Damaged()
        val payload = base64(envelope.text("payload"))
        val signature = base64(entry.text("sig"))
        val encoded = "DSSEv1 ${PAYLOAD.length} $PAYLOAD ${payload.size} ".toByteArray() + payload
        if (keys.none { isBy(it, signature, encoded) }) throw Refusal(
            Refusal.Kind.UNTRUSTED,
            "${folder.name} is not signed by a trusted key, or its signature was changed; " +
                "use a package of a source that you trust",
        )
        return payload
    }

    private fun isBy(key: PublicKey, signature: ByteArray, data: ByteArray): Boolean = try {
        java.security.Signature.getInstance("SHA256withECDSA").run {
            initVerify(key)
            update(data)
            verify(signature)
        }
    } catch (_: GeneralSecurityException) {
        false
    }

    private fun compare(folder: File, signed: Map<String, String>) {
        val found = folder.walkTopDown().filter { it != folder && it != File(folder, SIGNATURE) }
            .mapNotNull { file ->
                val name = file.relativeTo(folder).invariantSeparatorsPath
                when {
                    Files.isSymbolicLink(file.toPath()) || !(file.isFile || file.isDirectory) -> throw Refusal(
                        Refusal.Kind.CHANGED, "${folder.name}: $name is a link or a device, which cannot be signed",
                    )
                    file.isFile -> name to sha256(file)
                    else -> null
                }
            }.toMap()
        for (name in (signed.keys + found.keys).sorted()) {
            val (what, kind) = when {
                name !in found -> "is signed, but missing" to Refusal.Kind.MISSING
                name !in signed -> "was added after it was signed" to Refusal.Kind.ADDED
                signed[name] != found[name] -> "was changed after it was signed" to Refusal.Kind.CHANGED
                else -> continue
            }
            throw Refusal(kind, "${folder.name}: $name $what; use an untouched copy of the package")
        }
    }

    companion object {
        const val SIGNATURE = "model.sig"
        private const val LARGEST = 1L shl 22
        private const val BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"
        private const val PAYLOAD = "application/vnd.in-toto+json"
        private val PEM = Regex("-----BEGIN PUBLIC KEY-----([^-]*)-----END PUBLIC KEY-----")
        private const val P256_ORDER =
            "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551"

        private fun publicKey(base64: String): PublicKey {
            val key = try {
                val der = Base64.getMimeDecoder().decode(base64)
                KeyFactory.getInstance("EC").generatePublic(X509EncodedKeySpec(der)) as? ECPublicKey
            } catch (_: GeneralSecurityException) {
                null
            }
            require(key?.params?.order?.toString(16) == P256_ORDER) {
                "a trusted key is not a public key on the curve P-256"
            }
            return key!!
        }
    }
}

/** The list of files that was signed, with the first moment at which it is no longer valid. */
private class Signed(val files: Map<String, String>, val expires: Instant?) {
    companion object {
        private const val STATEMENT = "https://in-toto.io/Statement/v1"
        private const val PREDICATE = "https://model_signing/signature/v1.0"
        private val DIGEST = Regex("[0-9a-f]{64}")
        private val TIME = DateTimeFormatter.ofPattern("uuuu-MM-dd'T'HH:mm:ss'Z'")
            .withResolverStyle(ResolverStyle.STRICT)

        fun read(payload: ByteArray): Signed {
            val statement = parse(payload.toString(Charsets.UTF_8))
            val subject = (statement["subject"] as? JsonArray)?.singleOrNull() as? JsonObject ?: throw Damaged()
            val predicate = statement.part("predicate")
            val serialization = predicate.part("serialization")
            val resources = predicate["resources"] as? JsonArray ?: throw Damaged()
            val entries = resources.map { entry ->
                if (entry !is JsonObject || entry.text("algorithm") != "sha256") throw Damaged()
                entry.text("name") to entry.text("digest").also { if (!it.matches(DIGEST)) throw Damaged() }
            }
            val all = MessageDigest.getInstance("SHA-256")
            for ((_, digest) in entries) all.update(digest.chunked(2).map { it.toInt(16).toByte() }.toByteArray())
            val root = all.digest().joinToString("") { "%02x".format(it) }
            val files = entries.toMap()
            if (statement.text("_type") != STATEMENT || statement.text("predicateType") != PREDICATE ||
                serialization.text("method") != "files" || serialization.text("hash_type") != "sha256" ||
                files.size < entries.size || subject.part("digest").text("sha256") != root
            ) throw Damaged()
            val expires = if (predicate["expires"].let { it == null || it is JsonNull }) null
            else predicate.text("expires")
            return Signed(files, expires?.let(::time))
        }

        private fun time(text: String): Instant = try {
            LocalDateTime.parse(text, TIME).toInstant(ZoneOffset.UTC)
        } catch (_: DateTimeException) {
            throw Damaged()
        }
    }
}

private class Damaged : Exception()

private fun parse(text: String): JsonObject = try {
    documents.decodeFromString<JsonElement>(text) as? JsonObject ?: throw Damaged()
} catch (_: SerializationException) {
    throw Damaged()
} catch (_: StackOverflowError) {
    throw Damaged() // nested too deep
}

private fun JsonObject.part(key: String): JsonObject = get(key) as? JsonObject ?: throw Damaged()

private fun JsonObject.text(key: String): String =
    (get(key) as? JsonPrimitive)?.takeIf { it.isString }?.content ?: throw Damaged()

private fun base64(text: String): ByteArray = try {
    Base64.getDecoder().decode(text)
} catch (_: IllegalArgumentException) {
    throw Damaged()
}
