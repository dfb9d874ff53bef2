package sepvit.edge.app

import kotlin.math.abs
import kotlin.test.assertEquals
import kotlin.test.assertFailsWith
import kotlin.test.assertTrue
import kotlinx.serialization.json.Json
import kotlinx.serialization.json.jsonArray
import kotlinx.serialization.json.jsonObject
import kotlinx.serialization.json.jsonPrimitive
import org.junit.Test
import org.junit.runner.RunWith
import org.robolectric.RobolectricTestRunner
import org.robolectric.annotation.Config
import org.robolectric.annotation.GraphicsMode
import sepvit.edge.Pixels
import sepvit.edge.Refusal
import sepvit.edge.readSafeTensors

@RunWith(RobolectricTestRunner::class)
@Config(sdk = [34])
@GraphicsMode(GraphicsMode.Mode.NATIVE)
class ImageLoaderTest {
    private val folder = vectors.resolve("images")

    @Test
    fun `Android's decoder gives Python's pixels, upright`() {
        val expected = readSafeTensors(folder.resolve("expected.safetensors").readBytes())
        val faults = mutableListOf<String>()
        for (case in Json.parseToJsonElement(vectors.resolve("images.json").readText()).jsonArray) {
            val facts = case.jsonObject.mapValues { it.value.jsonPrimitive.content }
            val name = facts.getValue("file")
            val file = folder.resolve(name).readBytes()
            if ("refused" in facts) {
                val refusal = assertFailsWith<Refusal>(name) { decodeImage(file) }
                assertEquals(facts["refused"], refusal.kind.key, name)
                continue
            }
            val found = decodeImage(file)
            assertEquals(facts["width"] to facts["height"], "${found.width}" to "${found.height}", name)
            val stored = Pixels.from(expected.getValue(name)).rgb
            val apart = stored.indices.maxOf { abs((stored[it].toInt() and 255) - (found.rgb[it].toInt() and 255)) }
            if (apart > facts.getValue("tolerance").toInt()) faults += "$name differs by $apart"
        }
        assertTrue(faults.isEmpty(), faults.joinToString())
    }
}
