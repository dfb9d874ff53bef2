package sepvit.edge.app

import java.io.File
import java.nio.file.Files
import java.security.MessageDigest
import kotlin.test.Test
import kotlin.test.assertContentEquals
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertTrue
import org.junit.Assume.assumeTrue
import sepvit.edge.Classes
import sepvit.edge.EdgePackage
import sepvit.edge.MAX_SQNR_DB
import sepvit.edge.Pixels
import sepvit.edge.Refusal
import sepvit.edge.Session
import sepvit.edge.app.engine.OnnxRuntimeEngine
import sepvit.edge.app.engine.engines
import sepvit.edge.selfCheck

val vectors = File(System.getProperty("vectors"))
val lite = File(System.getProperty("lite") ?: "none")

/** ONNX Runtime's Java API is the same on Android; here with its library for computers. */
class EngineTest {
    private val tiny = EdgePackage(vectors.resolve("package"))

    @Test
    fun `the tiny package gives Python's bits`() {
        Session(tiny, engines).use { session ->
            val check = selfCheck(session)
            assertTrue(check.passed)
            assertEquals(MAX_SQNR_DB to 0.0, check.sqnrDb to check.maxDifference)
            assertEquals(1.0, check.agreement)
        }
    }

    @Test
    fun `the tiny dense packages give Python's bits, and its answers`() {
        for (kind in listOf("segmentation", "detection")) Session(EdgePackage(vectors.resolve(kind)), engines).use {
            val check = selfCheck(it)
            assertTrue(check.passed, "$kind: $check")
            assertEquals(MAX_SQNR_DB to 1.0, check.sqnrDb to check.agreement)
        }
    }

    @Test
    fun `threads are taken`() {
        for (threads in listOf(1, 2, null)) Session(tiny, engines, threads).use {
            assertEquals(4, it.outputs(Pixels(5, 4, ByteArray(60) { 9 })).single().size)
        }
    }

    @Test
    fun `a real SepViT-Lite package gives Python's logits`() {
        assumeTrue("run first: python tests/make_vectors.py --package build/vectors/lite", lite.isDirectory)
        val packed = EdgePackage(lite)
        Session(packed, engines, 1).use { session ->
            val check = selfCheck(session)
            println("SepViT-Lite on ONNX Runtime ${session.runtime.version}: $check")
            assertTrue(check.passed)
            assertTrue(check.sqnrDb!! > 100, "${check.sqnrDb} dB")
            assertEquals(1.0, check.agreement)
            val golden = packed.golden()
            val answer = session.answer(Pixels.from(golden.getValue("image.0"))).answer as Classes
            val logits = golden.getValue("package_logits").floats().copyOf(packed.manifest.model.numClasses)
            assertEquals(packed.label(logits.indices.maxBy { logits[it] }), answer.classes.first().label)
        }
    }

    @Test
    fun `logits do not depend on what ran before`() = Session(tiny, engines).use { session ->
        val (a, b) = Pixels(4, 4, ByteArray(48) { 50 }) to Pixels(4, 4, ByteArray(48) { -1 })
        val first = session.outputs(a).single()
        session.outputs(b)
        assertContentEquals(first, session.outputs(a).single())
    }

    @Test
    fun `a model that the runtime cannot read is refused in one sentence`() {
        val folder = Files.createTempDirectory("package").toFile()
        vectors.resolve("package").copyRecursively(folder, overwrite = true)
        val model = folder.resolve("model.onnx")
        val old = sha256(model.readBytes())
        model.writeBytes(model.readBytes().also { it.fill(7, 20, 60) })
        val manifest = folder.resolve("manifest.json")
        val field = Regex("(\"digest\": \")[0-9a-f]{64}")
        val text = manifest.readText().replace(old, sha256(model.readBytes()))
            .replace(field, "$1" + "0".repeat(64))
        manifest.writeText(text.replace(field, "$1" + sha256(text.toByteArray())))
        val refusal = assertFailsWith<Refusal> { OnnxRuntimeEngine(EdgePackage(folder), null) }
        assertEquals(Refusal.Kind.RUNTIME, refusal.kind)
        assertTrue("export again" in refusal.message && '\n' !in refusal.message)
    }

    private fun sha256(data: ByteArray) =
        MessageDigest.getInstance("SHA-256").digest(data).joinToString("") { "%02x".format(it) }
}
