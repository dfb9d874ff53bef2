package sepvit.edge

import java.nio.file.Files
import java.time.Instant
import kotlin.test.Test
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertTrue
import kotlinx.serialization.Serializable
import kotlinx.serialization.json.JsonObject
import org.junit.jupiter.api.DynamicTest
import org.junit.jupiter.api.TestFactory

@Serializable
data class SignatureCase(
    val name: String, val keys: String, val now: String, val edits: List<JsonObject>, val kind: String?,
    val mentions: List<String>,
)

class SignatureTest {
    @TestFactory
    fun `signatures are accepted or refused by their kind of fault`() =
        Vectors.cases<SignatureCase>("signatures").map { case ->
            DynamicTest.dynamicTest(case.name) {
                val folder = Vectors.damaged(case.edits)
                val verify = { TrustedKeys(case.keys).verify(folder, Instant.parse(case.now)) }
                if (case.kind == null) return@dynamicTest verify()
                val refusal = assertFailsWith<Refusal> { verify() }
                assertEquals(case.kind, refusal.kind.key, refusal.message)
                for (word in case.mentions) assertTrue(word in refusal.message, refusal.message)
                assertTrue('\n' !in refusal.message)
            }
        }

    @Test
    fun `a link is not signed`() {
        val case = Vectors.cases<SignatureCase>("signatures").first()
        val folder = Vectors.damaged(case.edits)
        val labels = folder.resolve("labels.txt")
        val outside = Files.move(labels.toPath(), folder.resolveSibling("outside").toPath())
        Files.createSymbolicLink(labels.toPath(), outside)
        val refusal = assertFailsWith<Refusal> { TrustedKeys(case.keys).verify(folder, Instant.parse(case.now)) }
        assertTrue("is a link or a device" in refusal.message, refusal.message)
    }

    @Test
    fun `keys that are none are refused`() {
        for (pem in listOf("", "a key", "-----BEGIN PUBLIC KEY-----AAAA-----END PUBLIC KEY-----"))
            assertFailsWith<IllegalArgumentException> { TrustedKeys(pem) }
    }
}
