package sepvit.edge

import java.io.File
import kotlin.test.Test
import kotlin.test.assertContentEquals
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertTrue
import kotlinx.serialization.ExperimentalSerializationApi
import kotlinx.serialization.Serializable
import kotlinx.serialization.descriptors.SerialDescriptor
import kotlinx.serialization.descriptors.StructureKind
import kotlinx.serialization.json.Json
import kotlinx.serialization.json.JsonArray
import kotlinx.serialization.json.JsonElement
import kotlinx.serialization.json.JsonNamingStrategy
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.JsonPrimitive
import org.junit.jupiter.api.DynamicTest
import org.junit.jupiter.api.TestFactory

@Serializable
data class DamageCase(
    val name: String, val edits: List<JsonObject>, val kind: String?, val mentions: List<String>,
    val omits: List<String> = emptyList(), val python: String? = null,
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
    fun `packages open or are refused by their kind of fault`() = Vectors.cases<DamageCase>("packages").map { case ->
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
        for (word in case.omits) assertTrue(word !in refusal.message, "$word in: ${refusal.message}")
        assertTrue('\n' !in refusal.message)
    }

    @Test
    fun `the facts of a quantised package are read`() {
        val facts = """{"scheme": "w8a8", "trained": true, "float_layers": [{"name": "head", "reason": "small"}],
            "calibration_data": "digits/calibrate", "calibration_images": 200, "calibration_sha256": "00"}"""
        val found = documents.decodeFromString<QuantizationFacts>(facts)
        assertEquals(listOf("head") to true, found.floatLayers.map { it.name } to found.trained)
    }

    @Test
    fun `a missing folder is refused`() {
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

    /** A reader knows every required key and does not demand an optional one. */
    @Test
    fun `the manifest's classes read every document that the published schema allows`() {
        var compared = 0
        walk("manifest", Manifest.serializer().descriptor) { name, _, required, keys ->
            assertEquals(emptySet(), required - keys.keys, "unknown in $name")
            assertEquals(emptySet(), keys.filterValues { !it }.keys - required, "demanded in $name")
            compared++
        }
        assertTrue(compared >= 10, "$compared")
    }

    /** A writer writes every required key and no key that the schema does not name. */
    @Test
    fun `the profile's classes write only what the published schema names`() {
        var compared = 0
        walk("profile", Profile.serializer().descriptor) { name, schema, required, keys ->
            assertEquals(emptySet(), keys.keys - schema, "not in the schema of $name")
            assertEquals(emptySet(), required - keys.keys, "missing in $name")
            compared++
        }
        assertTrue(compared >= 15, "$compared")
    }

    /**
     * Calls [tell] for every class of a document with its name, the schema's keys, the required ones,
     * and the class's own keys, each with whether it is optional.
     */
    private fun walk(
        document: String,
        root: SerialDescriptor,
        tell: (String, Set<String>, Set<String>, Map<String, Boolean>) -> Unit,
    ) {
        val schema = Json.decodeFromString<JsonObject>(Vectors.schema(document).readText())
        val definitions = schema.getValue("\$defs") as JsonObject

        fun compare(descriptor: SerialDescriptor, definition: JsonObject) {
            val properties = definition.getValue("properties") as JsonObject
            val required = (definition["required"] as? JsonArray).orEmpty()
            val keys = keys(descriptor)
            tell(
                descriptor.serialName, properties.keys,
                required.map { (it as JsonPrimitive).content }.toSet(), keys,
            )
            keys.keys.forEachIndexed { i, key ->
                val element = classOf(descriptor.getElementDescriptor(i))
                val reference = properties[key]?.let(::referenceIn)
                if (element != null && reference != null) compare(element, definitions.getValue(reference) as JsonObject)
            }
        }
        compare(root, schema)
    }

    /** Returns the keys as they are written, and whether they are optional. */
    @OptIn(ExperimentalSerializationApi::class)
    private fun keys(descriptor: SerialDescriptor): Map<String, Boolean> =
        (0 until descriptor.elementsCount).associate {
            JsonNamingStrategy.SnakeCase.serialNameForJson(descriptor, it, descriptor.getElementName(it)) to
                descriptor.isElementOptional(it)
        }

    /** Returns the class of an element, or of a list's elements. */
    private fun classOf(descriptor: SerialDescriptor): SerialDescriptor? = when (descriptor.kind) {
        StructureKind.CLASS -> descriptor
        StructureKind.LIST -> classOf(descriptor.getElementDescriptor(0))
        else -> null
    }

    /** Returns the definition that a property, one of its choices or its elements refer to. */
    private fun referenceIn(property: JsonElement): String? = when (property) {
        is JsonObject -> (property["\$ref"] as? JsonPrimitive)?.content?.substringAfterLast('/')
            ?: property.filterKeys { it in setOf("anyOf", "items") }.values.firstNotNullOfOrNull(::referenceIn)
        is JsonArray -> property.firstNotNullOfOrNull(::referenceIn)
        else -> null
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
