package sepvit.edge

import com.networknt.schema.JsonSchemaFactory
import com.networknt.schema.InputFormat
import com.networknt.schema.SpecVersion
import java.io.ByteArrayInputStream
import java.io.ByteArrayOutputStream
import java.io.File
import java.io.FileNotFoundException
import java.nio.file.Files
import java.util.zip.ZipEntry
import java.util.zip.ZipOutputStream
import kotlin.math.abs
import kotlin.test.Test
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertFalse
import kotlin.test.assertNotNull
import kotlin.test.assertNull
import kotlin.test.assertTrue
import kotlinx.serialization.SerialName
import kotlinx.serialization.Serializable
import kotlinx.serialization.json.Json
import kotlinx.serialization.json.JsonObject
import org.junit.jupiter.api.DynamicTest
import org.junit.jupiter.api.TestFactory

@Serializable
data class TopKCase(
    val logits: List<Float>, val k: Int, val indices: List<Int>, val probabilities: List<Double>,
)

@Serializable
data class StatisticsCase(
    val samples: List<Double>, val count: Int, val p50: Double, val p90: Double, val p99: Double,
    val max: Double, val mean: Double,
)

@Serializable
data class SelfCheckCase(
    val name: String, val edit: Edit?, val passed: Boolean,
    @SerialName("fails_at") val failsAt: String?, val image: Int? = null,
    @SerialName("different_values") val differentValues: Int? = null,
    @SerialName("max_difference") val maxDifference: Double? = null,
    @SerialName("sqnr_db") val sqnrDb: Double? = null,
    @SerialName("reference_sqnr_db") val referenceSqnrDb: Double? = null,
) {
    @Serializable
    data class Edit(val tensor: String, val offset: Int, val values: List<Double>) {
        fun applied(to: Tensor): Tensor {
            val shape = to.shape.toIntArray()
            if (to.dtype == "U8") return Tensor.of(to.bytes().also {
                values.forEachIndexed { i, value -> it[offset + i] = value.toInt().toByte() }
            }, *shape)
            return Tensor.of(to.floats().also {
                values.forEachIndexed { i, value -> it[offset + i] = value.toFloat() }
            }, *shape)
        }
    }
}

@Serializable
data class MinimumCase(
    val precision: Precision, @SerialName("minimum_sqnr_db") val minimumSqnrDb: Double,
    @SerialName("minimum_agreement") val minimumAgreement: Double,
)

class ResultsTest {
    private val tiny = EdgePackage(Vectors.tinyPackage)

    @Test
    fun `the most probable classes, and ties in their order`() {
        for (case in Vectors.cases<TopKCase>("top_k")) {
            val best = topK(case.logits.toFloatArray(), case.k)
            assertEquals(case.indices, best.map { it.index })
            best.zip(case.probabilities) { found, expected -> assertClose(expected, found.probability, 1e-6) }
        }
    }

    @Test
    fun `latency statistics`() {
        for (case in Vectors.cases<StatisticsCase>("statistics")) {
            val found = latencyOf(case.samples)
            assertEquals(case.count to case.max, found.runs to found.maxMs)
            assertClose(case.p50, found.p50Ms, 1e-9)
            assertClose(case.p90, found.p90Ms, 1e-9)
            assertClose(case.p99, found.p99Ms, 1e-9)
            assertClose(case.mean, found.meanMs, 1e-9)
        }
    }

    private fun assertClose(expected: Double, found: Double, relative: Double) =
        assertTrue(abs(expected - found) <= relative * abs(expected), "$expected, not $found")

    @TestFactory
    fun `the self-check reports the first step that differs, and by how much`() =
        Vectors.cases<SelfCheckCase>("self_check").map { case ->
            DynamicTest.dynamicTest(case.name) {
                val golden = tiny.golden().toMutableMap()
                case.edit?.let { golden[it.tensor] = it.applied(golden.getValue(it.tensor)) }
                val found = Session(tiny, MeanColour.engines).use { selfCheck(it, golden) }
                assertEquals(case.passed to case.failsAt, found.passed to found.failsAt?.key)
                assertEquals(case.image, found.image)
                case.differentValues?.let { assertEquals(it, found.differentValues) }
                case.maxDifference?.let { assertEquals(it, found.maxDifference) }
                case.sqnrDb?.let { assertClose(it, found.sqnrDb!!, 1e-9) }
                case.referenceSqnrDb?.let { assertClose(it, found.referenceSqnrDb!!, 1e-9) }
            }
        }

    @Test
    fun `the SQNR limits are those of every language`() {
        val cases = Vectors.cases<MinimumCase>("minimum_sqnr")
        assertEquals(Precision.entries.map(::minimumSqnrDb), cases.map { it.minimumSqnrDb })
        assertEquals(Precision.entries.map(::minimumAgreement), cases.map { it.minimumAgreement })
        assertEquals(Precision.entries.toList(), cases.map { it.precision })
    }

    @Test
    fun `NaN logits fail the self-check`() {
        val broken = object : InferenceEngine by MeanColour(tiny.manifest.input) {
            override fun run(input: InputTensor) = listOf(floatArrayOf(Float.NaN, 0f, 0f, 0f))
        }
        val found = selfCheck(Session(tiny, { _, _ -> broken }))
        assertEquals(SelfCheck.Step.LOGITS, found.failsAt)
    }

    @Test
    fun `an engine that takes the channels in another order fails the self-check`() {
        val honest = MeanColour(tiny.manifest.input)
        val swapped = object : InferenceEngine by honest {
            override fun run(input: InputTensor): List<FloatArray> {
                val logits = honest.run(input).single()
                return listOf(floatArrayOf(logits[2], logits[1], logits[0], logits[3]))
            }
        }
        assertFalse(selfCheck(Session(tiny, { _, _ -> swapped })).passed)
    }

    private val probe = object : DeviceProbe {
        override val device = Device("test", logicalCores = 2, cpuFeatures = LinuxFiles.cpuFeatures())
        override fun conditions() = Conditions(temperaturesC = mapOf("skin" to 30.5))
        override fun memory() = LinuxFiles.resident()
        override fun processAgeMs() = 12.5
    }

    /** Every reading is 1 ms after the one before. */
    private fun clock(): () -> Long {
        var now = 0L
        return { now += 1_000_000; now }
    }

    private fun benchmark(
        plan: BenchmarkPlan, engines: EngineFactory = MeanColour.engines, cancelled: () -> Boolean = { false },
    ) = Benchmark(tiny, engines, plan, probe, "0.1.0", clock(), cancelled = cancelled).run()

    private fun assertValid(profile: Profile) {
        val schema = JsonSchemaFactory.getInstance(SpecVersion.VersionFlag.V202012)
            .getSchema(Vectors.schema("profile").readText())
        assertEquals(emptySet(), schema.validate(profile.toJson(), InputFormat.JSON))
        assertEquals(profile, Profile.fromJson(profile.toJson()))
    }

    @Test
    fun `the profile document is valid and complete`() {
        val profile = benchmark(BenchmarkPlan(threads = 1, warmUp = 3, runs = 20, sustainedSeconds = 10))
        assertValid(profile)
        assertTrue(profile.complete)
        val latency = assertNotNull(profile.latency)
        assertEquals(20 to 20, latency.runs to latency.runsMs.size)
        assertEquals(1.0 to 1.0, latency.minMs to latency.maxMs)
        assertEquals(10, profile.method!!.warmupRuns) // three asked for; two windows of five compared
        assertTrue(profile.method!!.warmupStable)
        val golden = assertNotNull(profile.golden)
        assertTrue(golden.passed)
        assertNull(golden.sqnrDb, "identical logits have an infinite ratio, which JSON cannot hold")
        val points = assertNotNull(profile.sustained).points
        assertTrue(points.size >= 2 && points.last().timeS >= 10 && points.all { it.temperatureC == 30.5 })
        assertEquals(setOf("energy", "operations", "roofs"), profile.notMeasured.map { it.what }.toSet() - "cold_start" - "memory")
    }

    @Test
    fun `the profile document states the version that readers read`() {
        val current = Vectors.cases<JsonObject>("profiles").first().getValue("document") as JsonObject
        val written = Json.parseToJsonElement(benchmark(BenchmarkPlan(runs = 1)).toJson()) as JsonObject
        assertEquals(current["schema_version"], written["schema_version"])
    }

    @Test
    fun `a device that fails the self-check is not timed`() {
        val honest = MeanColour(tiny.manifest.input)
        val wrong = object : InferenceEngine by honest {
            override fun run(input: InputTensor) = honest.run(input).also { it[0][0] += 1f }
        }
        val profile = benchmark(BenchmarkPlan(runs = 3), { _, _ -> wrong })
        assertValid(profile)
        assertFalse(profile.complete)
        assertNull(profile.latency)
        assertFalse(profile.golden!!.passed)
        assertTrue("logits" in profile.incompleteReason!!)
    }

    @Test
    fun `results from before a stop are kept`() {
        var asked = 0
        val profile = benchmark(BenchmarkPlan(warmUp = 0, runs = 50)) { asked++ > 40 }
        assertValid(profile)
        assertFalse(profile.complete)
        assertTrue(profile.latency!!.runs in 1..49)
        assertEquals("stopped by the user", profile.incompleteReason)
    }

    @Test
    fun `impossible plans are refused`() {
        for (plan in listOf(
            { BenchmarkPlan(threads = 0) }, { BenchmarkPlan(runs = 0) },
            { BenchmarkPlan(warmUp = -1) }, { BenchmarkPlan(sustainedSeconds = 100_000) },
        )) assertFailsWith<IllegalArgumentException> { plan() }
    }

    // --- packages of an app ---

    private val work = Files.createTempDirectory("store").toFile()
    private val bundle = mapOf(
        "index.json" to """{"packages": [{"folder": "tiny", "files": ${
            Vectors.tinyPackage.list()!!.sorted().joinToString(prefix = "[", postfix = "]") { "\"$it\"" }
        }}]}""".toByteArray(),
    ) + Vectors.tinyPackage.listFiles()!!.associate { "tiny/${it.name}" to it.readBytes() }

    private fun store(bundle: Map<String, ByteArray> = this.bundle, version: String = "1") =
        PackageStore(work, version) { ByteArrayInputStream(bundle[it] ?: throw FileNotFoundException(it)) }

    private fun zip(files: Map<String, ByteArray>) = ByteArrayOutputStream().also { out ->
        ZipOutputStream(out).use { zip ->
            for ((name, data) in files) {
                zip.putNextEntry(ZipEntry(name))
                zip.write(data)
            }
        }
    }.toByteArray()

    private val tinyFiles = Vectors.tinyPackage.listFiles()!!.associate { it.name to it.readBytes() }

    @Test
    fun `bundled packages are found, copied out once, and again by another version`() {
        assertEquals(listOf("tiny"), store().names())
        assertEquals("Mean colour", store().open("tiny").manifest.model.name)
        assertTrue(File(work, "bundled-1/tiny/model.onnx").isFile)
        store(version = "2").open("tiny")
        assertFalse(File(work, "bundled-1").exists())
        assertEquals(emptyList(), store(emptyMap()).names())
    }

    @Test
    fun `a package is imported from a zip, with a folder in it or without`() {
        for (prefix in listOf("", "some folder/")) {
            val name = store().import(zip(tinyFiles.mapKeys { prefix + it.key }).inputStream(), "my file.zip")
            assertEquals("my_file", name)
            assertEquals(listOf("tiny", "my_file"), store().names())
            assertEquals("Mean colour", store().open(name).manifest.model.name)
            store().remove(name)
            assertEquals(listOf("tiny"), store().names())
        }
    }

    @Test
    fun `with trusted keys every package must be signed`() {
        val case = Vectors.cases<SignatureCase>("signatures").first()
        val signature = Vectors.damaged(case.edits).resolve("model.sig").readBytes()
        val keys = bundle + ("trust.pem" to case.keys.toByteArray())
        val unsigned = zip(tinyFiles)
        for (refused in listOf({ store(keys).open("tiny") }, { store(keys).import(unsigned.inputStream(), "x.zip") })) {
            val refusal = assertFailsWith<Refusal> { refused() }
            assertEquals(Refusal.Kind.UNSIGNED, refusal.kind, refusal.message)
        }
        assertEquals(0, File(work, "imported").list().orEmpty().size)

        val signed = keys + ("tiny/model.sig" to signature) +
            ("index.json" to bundle.getValue("index.json").decodeToString()
                .replace("\"model.onnx\"", "\"model.onnx\", \"model.sig\"").toByteArray())
        assertEquals("Mean colour", store(signed, "2").open("tiny").manifest.model.name)
        val name = store(signed, "2").import(zip(tinyFiles + ("model.sig" to signature)).inputStream(), "x.zip")
        File(work, "imported/$name/added").writeText("x")
        assertEquals(Refusal.Kind.ADDED, assertFailsWith<Refusal> { store(signed, "2").open(name) }.kind)

        val damaged = signed + ("trust.pem" to "no key".toByteArray())
        for (attempt in 1..2) {
            val refusal = assertFailsWith<Refusal> { store(damaged, "2").open("tiny") }
            assertTrue("trust.pem is damaged: there is no trusted public key" in refusal.message, refusal.message)
        }
    }

    @Test
    fun `an invalid package is not imported and leaves nothing`() {
        val damaged = tinyFiles + ("labels.txt" to "x".toByteArray())
        val cases = mapOf(
            "no zip".toByteArray() to Refusal.Kind.ARCHIVE,
            ByteArray(0) to Refusal.Kind.ARCHIVE,
            zip(mapOf("photo.jpg" to ByteArray(9))) to Refusal.Kind.NO_MANIFEST,
            zip(damaged) to Refusal.Kind.CHANGED,
            zip(tinyFiles - "model.onnx") to Refusal.Kind.MISSING,
            zip(mapOf("../../evil" to ByteArray(9))) to Refusal.Kind.PATH,
        )
        for ((archive, kind) in cases) {
            assertEquals(kind, assertFailsWith<Refusal> { store().import(archive.inputStream(), "x.zip") }.kind)
            assertEquals(listOf("tiny"), store().names())
            assertEquals(0, File(work, "imported").list().orEmpty().size)
        }
        val whole = zip(tinyFiles)
        for (length in listOf(100, whole.size / 2)) {
            val cut = assertFailsWith<Refusal> { store().import(whole.copyOf(length).inputStream(), "x.zip") }
            assertTrue("free some space" !in cut.message, cut.message)
        }
        assertFalse(File(work.parentFile, "evil").exists())
    }

    @Test
    fun `names that lead elsewhere are refused`() {
        for (name in listOf("", "..", "../tiny", "a/b", ".partial-x", "none")) {
            assertEquals(Refusal.Kind.NO_MANIFEST, assertFailsWith<Refusal> { store().open(name) }.kind)
        }
        assertEquals("_x_.. y".replace(' ', '_'), store().import(zip(tinyFiles).inputStream(), "/x/.. y.zip"))
    }

    @Test
    fun `a damaged index names the command that helps`() {
        val refusal = assertFailsWith<Refusal> { store(mapOf("index.json" to "[]".toByteArray())).names() }
        assertTrue("bundle" in refusal.message)
    }
}
