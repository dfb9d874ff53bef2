package sepvit.edge

import java.io.File
import kotlin.test.Test
import kotlin.test.assertContentEquals
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertNotNull
import kotlin.test.assertTrue
import kotlinx.serialization.ExperimentalSerializationApi
import kotlinx.serialization.Serializable
import kotlinx.serialization.descriptors.SerialDescriptor
import kotlinx.serialization.descriptors.StructureKind
import kotlinx.serialization.json.Json
import kotlinx.serialization.json.JsonArray
import kotlinx.serialization.json.JsonNamingStrategy
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.JsonPrimitive
import org.junit.jupiter.api.DynamicTest
import org.junit.jupiter.api.TestFactory

@Serializable
data class DamageCase(
    val name: String, val edits: List<JsonObject>, val kind: String?, val mentions: List<String>,
)

@Serializable
data class SafeTensorsCase(val name: String, val hex: String, val tensors: Map<String, Facts>?) {
    @Serializable
    data class Facts(val dtype: String, val shape: List<Int>, val values: List<Float>)
}

@Serializable
data class VersionCase(
    val version: String, val minimum: String, val below: String, val python: Boolean, val app: Boolean,
)

class PackageTest {
    @TestFactory
    fun `damaged packages are refused`() = Vectors.cases<DamageCase>("packages").map { case ->
        DynamicTest.dynamicTest(case.name) {
            val folder = Vectors.damaged(case.edits)
            if (case.kind == null) {
                assertEquals(listOf("red", "grün", "blue", "grey"), EdgePackage(folder).labels)
            } else assertRefused(case) { EdgePackage(folder) }
        }
    }

    @TestFactory
    fun `whole packages that cannot run here are refused`() =
        Vectors.cases<DamageCase>("sessions").map { case ->
            DynamicTest.dynamicTest(case.name) {
                val packed = EdgePackage(Vectors.damaged(case.edits))
                val opened = mutableListOf<MeanColour>()
                assertRefused(case) {
                    Session(packed, { p, threads ->
                        (MeanColour.engines(p, threads) as MeanColour?)?.also(opened::add)
                    })
                }
                assertTrue(opened.all { it.closed })
            }
        }

    private fun assertRefused(case: DamageCase, open: () -> Unit) {
        val refusal = assertFailsWith<Refusal> { open() }
        assertEquals(case.kind, refusal.kind.key, refusal.message)
        for (word in case.mentions) assertTrue(word in refusal.message, "$word in: ${refusal.message}")
        assertTrue('\n' !in refusal.message)
    }

    @Test
    fun `what is no folder is refused`() {
        val refusal = assertFailsWith<Refusal> { EdgePackage(File("none")) }
        assertEquals(Refusal.Kind.NO_MANIFEST, refusal.kind)
    }

    @TestFactory
    fun `safetensors files`() = Vectors.cases<SafeTensorsCase>("safetensors").map { case ->
        DynamicTest.dynamicTest(case.name) {
            val data = case.hex.chunked(2).map { it.toInt(16).toByte() }.toByteArray()
            if (case.tensors == null) {
                assertFailsWith<IllegalArgumentException> { readSafeTensors(data) }
                return@dynamicTest
            }
            val tensors = readSafeTensors(data)
            assertEquals(case.tensors.keys, tensors.keys)
            for ((name, expected) in case.tensors) {
                val tensor = tensors.getValue(name)
                assertEquals(expected.dtype to expected.shape, tensor.dtype to tensor.shape)
                val values = if (tensor.dtype == "U8") tensor.bytes().map { (it.toInt() and 0xFF).toFloat() }
                else tensor.floats().toList()
                assertEquals(expected.values, values)
            }
        }
    }

    @Test
    fun `a broken safetensors file inside a sealed package is refused`() {
        val golden = Vectors.tinyPackage.resolve("golden.safetensors")
        val cut = golden.readBytes().copyOf(500)
        val folder = Vectors.damaged(emptyList())
        folder.resolve("golden.safetensors").writeBytes(cut)
        val manifest = folder.resolve("manifest.json")
        manifest.writeText(
            manifest.readText().replace(sha256(golden), sha256(cut)).replace("${golden.length()}", "500"),
        )
        val sealed = Regex("(\"digest\": \")[0-9a-f]{64}")
        val zeroed = manifest.readText().replace(sealed, "$1" + "0".repeat(64))
        manifest.writeText(zeroed.replace(sealed, "$1" + sha256(zeroed.toByteArray())))
        val refusal = assertFailsWith<Refusal> { EdgePackage(folder).golden() }
        assertEquals(Refusal.Kind.GOLDEN, refusal.kind)
    }

    @Test
    fun `runtime versions`() {
        for (case in Vectors.cases<VersionCase>("versions")) {
            assertEquals(case.app, fits(case.version, case.minimum, case.below), "$case")
        }
    }

    @Test
    fun `the manifest's classes have the published schema's keys`() =
        assertSameKeys("manifest.schema.json", Manifest.serializer().descriptor, emptySet())

    @Test
    fun `the profile's classes have the published schema's keys`() = assertSameKeys(
        "profile.schema.json", Profile.serializer().descriptor,
        // What no app can tell; all of them may be left out.
        setOf(
            "Profile.energy", "Profile.operations", "Profile.roofs", "Profile.attribution",
            "Device.python_version", "Device.browser", "Device.cpu_limit_cores",
            "Device.memory_limit_mb", "Device.virtualized",
            "Method.cores", "Method.start_temperature_limit_c",
            "Conditions.throttle_events", "Conditions.load_average",
            "Memory.growth_mb", "Memory.growth_runs",
            "SustainedPoint.throttle_events", "SustainedPoint.power_w",
        ),
    )

    private fun assertSameKeys(file: String, root: SerialDescriptor, left: Set<String>) {
        val schema = Json.decodeFromString<JsonObject>(Vectors.schemas.resolve(file).readText())
        val definitions = schema["\$defs"] as JsonObject
        val title = (schema.getValue("title") as JsonPrimitive).content
        val classes = mutableMapOf<String, SerialDescriptor>()
        collect(root, classes)
        for ((name, descriptor) in classes) {
            val definition = if (name == title) schema else assertNotNull(definitions[name], name) as JsonObject
            val properties = definition.getValue("properties") as JsonObject
            val required = (definition["required"] as? JsonArray).orEmpty().map { (it as JsonPrimitive).content }
            assertEquals(
                properties.keys - left.filter { it.startsWith("$name.") }.map { it.substringAfter('.') }.toSet(),
                keys(descriptor).keys, name,
            )
            assertTrue(required.none { "$name.$it" in left }, name)
            if (title == "Manifest") assertEquals(
                required.toSet(), keys(descriptor).filterValues { !it }.keys, "required in $name",
            )
        }
        assertTrue(classes.size > 10)
    }

    /** Keys as they are written, and whether they are optional. */
    @OptIn(ExperimentalSerializationApi::class)
    private fun keys(descriptor: SerialDescriptor): Map<String, Boolean> =
        (0 until descriptor.elementsCount).associate {
            JsonNamingStrategy.SnakeCase.serialNameForJson(descriptor, it, descriptor.getElementName(it)) to
                descriptor.isElementOptional(it)
        }

    private fun collect(descriptor: SerialDescriptor, into: MutableMap<String, SerialDescriptor>) {
        val name = descriptor.serialName.removeSuffix("?").substringAfterLast('.')
        if (descriptor.kind == StructureKind.CLASS && descriptor.serialName.startsWith("sepvit.")) {
            if (into.put(name, descriptor) != null) return
        }
        for (i in 0 until descriptor.elementsCount) {
            val element = descriptor.getElementDescriptor(i)
            if (element.kind in setOf(StructureKind.CLASS, StructureKind.LIST, StructureKind.MAP)) collect(element, into)
        }
    }

    @Test
    fun `tensors hold the pixels in the manifest's layout and type`() {
        val facts = EdgePackage(Vectors.tinyPackage).manifest.input
        val (a, b) = Vectors.noise(32, 32, 1) to Vectors.noise(32, 32, 2)
        for (dtype in InputType.entries) for (layout in Layout.entries) {
            val shape = if (layout == Layout.NHWC) listOf(3, 32, 32, 3) else listOf(3, 3, 32, 32)
            val tensor = InputTensor.of(listOf(a, b), facts.copy(shape = shape, dtype = dtype, layout = layout))
            assertContentEquals(a.rgb, tensor.image(0))
            assertContentEquals(b.rgb, tensor.image(1))
            assertTrue(tensor.image(2).all { it == 0.toByte() }, "the batch is filled up with black")
        }
        val nchw = InputTensor.of(listOf(a), facts.copy(shape = listOf(1, 3, 32, 32), layout = Layout.NCHW))
        assertEquals(a.rgb[3 * 40 + 1], nchw.data.get(32 * 32 + 40), "green of pixel 40")
    }
}
