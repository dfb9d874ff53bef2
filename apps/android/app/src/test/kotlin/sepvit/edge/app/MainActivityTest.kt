package sepvit.edge.app

import android.Manifest
import android.app.Activity
import android.app.Application
import android.content.Intent
import android.graphics.Color
import android.graphics.drawable.BitmapDrawable
import android.graphics.drawable.ColorDrawable
import android.net.Uri
import android.os.Looper
import android.view.View
import android.view.ViewGroup
import android.widget.Button
import android.widget.EditText
import android.widget.ImageView
import android.widget.Spinner
import android.widget.TextView
import com.networknt.schema.InputFormat
import com.networknt.schema.JsonSchemaFactory
import com.networknt.schema.SpecVersion
import java.io.ByteArrayInputStream
import java.io.ByteArrayOutputStream
import java.io.File
import java.io.FileNotFoundException
import java.nio.ByteBuffer
import java.util.zip.ZipEntry
import java.util.zip.ZipOutputStream
import kotlin.test.assertEquals
import kotlin.test.assertFalse
import kotlin.test.assertNotEquals
import kotlin.test.assertNull
import kotlin.test.assertTrue
import org.json.JSONArray
import org.junit.Assume.assumeTrue
import org.junit.Before
import org.junit.Test
import org.junit.runner.RunWith
import org.robolectric.Robolectric
import org.robolectric.RobolectricTestRunner
import org.robolectric.RuntimeEnvironment
import org.robolectric.Shadows.shadowOf
import org.robolectric.android.controller.ActivityController
import org.robolectric.annotation.Config
import org.robolectric.annotation.GraphicsMode
import sepvit.edge.Boxes
import sepvit.edge.ClassMap
import sepvit.edge.Corners
import sepvit.edge.EdgePackage
import sepvit.edge.LabelledBox
import sepvit.edge.Profile
import sepvit.edge.Size
import sepvit.edge.Tensor
import sepvit.edge.classOf
import sepvit.edge.colourOf
import sepvit.edge.sqnrDb
import sepvit.edge.topK

@RunWith(RobolectricTestRunner::class)
@Config(sdk = [34])
@GraphicsMode(GraphicsMode.Mode.NATIVE)
class MainActivityTest {
    private val app: Application = RuntimeEnvironment.getApplication()
    private val external: File = app.getExternalFilesDir(null)!!

    @Before
    fun push() {
        // As `adb push` does.
        vectors.resolve("package").copyRecursively(external.resolve("packages/tiny"))
    }

    private fun start(intent: Intent = Intent(Intent.ACTION_MAIN)): ActivityController<MainActivity> =
        Robolectric.buildActivity(MainActivity::class.java, intent).setup().also {
            // Whatever the app was built with: these tests are about the pushed one.
            it.get().workspace.choose("tiny")
            it.get().settle()
        }

    private fun MainActivity.press(id: Int) {
        findViewById<Button>(id).performClick()
        settle()
    }

    private fun MainActivity.text(id: Int) = findViewById<TextView>(id).text.toString()

    private fun MainActivity.sees(id: Int) = findViewById<View>(id)?.isShown == true

    private fun MainActivity.receive(intent: Intent, data: Uri) {
        shadowOf(this).receiveResult(intent, Activity.RESULT_OK, Intent().setData(data))
        shadowOf(Looper.getMainLooper()).idle()
        onResumeAgain()
        settle()
    }

    /** Delivers the result of another activity, as Android does. */
    private fun MainActivity.onResumeAgain() = controller.pause().resume()

    private lateinit var controller: ActivityController<MainActivity>

    private fun opened(intent: Intent = Intent(Intent.ACTION_MAIN)): MainActivity {
        controller = start(intent)
        return controller.get()
    }

    private fun provide(name: String, data: ByteArray): Uri = Uri.parse("content://test/$name").also {
        shadowOf(app.contentResolver).registerInputStreamSupplier(it) { ByteArrayInputStream(data) }
    }

    @Test
    fun `a refused camera says so and offers to allow it`() {
        val activity = opened()
        shadowOf(app).denyPermissions(Manifest.permission.CAMERA)
        activity.onRequestPermissionsResult(MainActivity.CAMERA, arrayOf(Manifest.permission.CAMERA), intArrayOf(-1))
        assertTrue(activity.sees(R.id.refused))
        assertEquals(activity.getString(R.string.camera_refused), activity.text(R.id.refused_text))
        assertTrue(activity.sees(R.id.allow))
    }

    @Test
    fun `a photo goes in and Python's label comes out`() {
        val activity = opened()
        activity.press(R.id.tab_photo)
        activity.press(R.id.choose)
        val asked = shadowOf(activity).nextStartedActivityForResult.intent
        assertEquals("image/*", asked.type)
        val photo = vectors.resolve("images/orientation-6.png").readBytes()
        activity.receive(asked, provide("photo.png", photo))
        val expected = topK(activity.workspace.run { logitsOf(photo) }, 3)
        val tiny = EdgePackage(vectors.resolve("package"))
        val rows = activity.findViewById<ViewGroup>(R.id.answer_rows)
        val labels = (0 until rows.childCount).map { rows.getChildAt(it).findViewById<TextView>(R.id.label).text.toString() }
        assertEquals(expected.map { tiny.label(it.index) }, labels)
        assertTrue("ms" in activity.text(R.id.latency))
        assertTrue("percent" in rows.getChildAt(0).contentDescription)
    }

    private fun logitsOf(file: ByteArray): FloatArray =
        sepvit.edge.Session(EdgePackage(vectors.resolve("package")), sepvit.edge.app.engine.engines)
            .use { it.outputs(decodeImage(file)).single() }

    private fun opened(kind: String): MainActivity {
        vectors.resolve(kind).copyRecursively(external.resolve("packages/$kind"))
        return opened().also {
            it.workspace.choose(kind)
            it.settle()
        }
    }

    private fun MainActivity.rows(): List<View> {
        val rows = findViewById<ViewGroup>(R.id.answer_rows)
        return (0 until rows.childCount).map { rows.getChildAt(it) }.filter { it.visibility == View.VISIBLE }
    }

    private fun MainActivity.choosePhoto(photo: ByteArray) {
        press(R.id.tab_photo)
        press(R.id.choose)
        receive(shadowOf(this).nextStartedActivityForResult.intent, provide("photo.png", photo))
    }

    private val MainActivity.picture
        get() = (findViewById<ImageView>(R.id.photo).drawable as BitmapDrawable).bitmap

    @Test
    fun `a segmentation package draws its class map, with a legend`() {
        val activity = opened("segmentation")
        val photo = vectors.resolve("images/orientation-6.png").readBytes()
        activity.choosePhoto(photo)
        val map = activity.workspace.session().answer(decodeImage(photo)).answer as ClassMap
        assertEquals(map.shares.map { it.label }, activity.rows().map { it.findViewById<TextView>(R.id.label).text.toString() })
        for ((row, share) in activity.rows().zip(map.shares)) {
            assertNull(row.findViewById(R.id.bar), "no bars")
            val colour = (row.findViewById<View>(R.id.colour).background as ColorDrawable).color
            assertEquals(OPAQUE or colourOf(share.index), colour)
        }
        // Drawn over the photo: the pixel is a mix of the photo's and the class's colour.
        val (x, y) = activity.picture.width / 2 to activity.picture.height / 2
        val pixels = decodeImage(photo)
        val cover = colourOf(classOf(map.classes[y * pixels.width + x]))
        for ((channel, shift) in listOf(0 to 16, 1 to 8, 2 to 0)) {
            val before = pixels.rgb[3 * (y * pixels.width + x) + channel].toInt() and 0xFF
            val mixed = before + ((cover shr shift and 0xFF) - before) * 140 / 255.0
            assertEquals(mixed, (activity.picture.getPixel(x, y) shr shift and 0xFF).toDouble(), 3.0)
        }
        activity.press(R.id.tab_self_check)
        assertEquals(activity.getString(R.string.check_passed), activity.text(R.id.verdict))
        assertTrue("pixels or boxes in common 100 %" in activity.text(R.id.numbers))
        activity.press(R.id.tab_about)
        assertTrue("segmentation" in activity.text(R.id.facts) && "48 x 32 pixels" in activity.text(R.id.facts))
    }

    @Test
    fun `a detection package draws its boxes, with labels and scores`() {
        val activity = opened("detection")
        val photo = vectors.resolve("images/orientation-6.png").readBytes()
        activity.choosePhoto(photo)
        val boxes = (activity.workspace.session().answer(decodeImage(photo)).answer as Boxes).boxes
        assertTrue(boxes.size > 3)
        assertEquals(boxes.map { it.label }, activity.rows().map { it.findViewById<TextView>(R.id.label).text.toString() })
        val score = activity.getString(R.string.probability, 100.0 * boxes[0].score)
        assertEquals(score, activity.rows()[0].findViewById<TextView>(R.id.probability).text.toString())
        assertNull(activity.rows()[0].findViewById(R.id.bar), "no bars")
        val drawing = drawingOf(Boxes(Size(100, 50), listOf(LabelledBox("x", 1, 0.9f, Corners(20f, 10f, 80f, 40f)))))!!
        assertEquals(640 to 320, drawing.width to drawing.height)
        assertEquals(OPAQUE or colourOf(1), drawing.getPixel(300, 256), "the lower edge")
        assertEquals(OPAQUE or colourOf(1), drawing.getPixel(512, 200), "the right edge")
        assertEquals(0, drawing.getPixel(300, 200), "inside")
        assertEquals(0, drawing.getPixel(600, 300), "outside")
        activity.press(R.id.tab_self_check)
        assertEquals(activity.getString(R.string.check_passed), activity.text(R.id.verdict))
    }

    @Test
    fun `another package clears the answer of the one before`() {
        val activity = opened("segmentation")
        activity.choosePhoto(vectors.resolve("images/orientation-6.png").readBytes())
        assertTrue(activity.rows().all { it.findViewById<View>(R.id.colour) != null })
        activity.workspace.choose("tiny")
        activity.onResumeAgain()
        activity.settle()
        assertTrue(activity.rows().isNotEmpty() && activity.rows().all { it.findViewById<View>(R.id.bar) != null })
    }

    @Test
    fun `an answer that differs from Python's is named`() {
        val activity = opened("segmentation")
        val honest = activity.workspace.engines
        activity.workspace.engines = { packed, threads ->
            val engine = honest(packed, threads)!!
            object : sepvit.edge.InferenceEngine by engine {
                override fun run(input: sepvit.edge.InputTensor) = engine.run(input).also { it[0][1] += 9f }
            }
        }
        activity.workspace.choose(null)
        activity.workspace.choose("segmentation")
        activity.press(R.id.tab_self_check)
        assertTrue("output logits" in activity.text(R.id.verdict), activity.text(R.id.verdict))
    }

    @Test
    fun `a file that is not an image shows a sentence`() {
        val activity = opened()
        activity.press(R.id.tab_photo)
        activity.press(R.id.choose)
        val asked = shadowOf(activity).nextStartedActivityForResult.intent
        activity.receive(asked, provide("text.jpg", "plain text".toByteArray()))
        assertTrue("not an image" in activity.text(R.id.message))
        assertEquals(0, activity.findViewById<ViewGroup>(R.id.answer_rows).childCount)
    }

    @Test
    fun `the self-check is green, and red for wrong logits`() {
        val activity = opened()
        activity.press(R.id.tab_self_check)
        assertEquals(activity.getString(R.string.check_passed), activity.text(R.id.verdict))
        assertEquals(activity.getColor(R.color.passed), activity.findViewById<TextView>(R.id.verdict).currentTextColor)
        assertTrue("200.0 dB" in activity.text(R.id.numbers))

        val honest = activity.workspace.engines
        activity.workspace.engines = { packed, threads ->
            val engine = honest(packed, threads)!!
            object : sepvit.edge.InferenceEngine by engine {
                override fun run(input: sepvit.edge.InputTensor) = engine.run(input).also { it[0][1] += 2f }
            }
        }
        activity.workspace.choose(null)
        activity.workspace.choose("tiny")
        activity.press(R.id.check)
        assertTrue("logits" in activity.text(R.id.verdict))
        assertEquals(activity.getColor(R.color.failed), activity.findViewById<TextView>(R.id.verdict).currentTextColor)
    }

    @Test
    fun `a damaged package shows why it is refused, on every screen that needs it`() {
        external.resolve("packages/tiny/labels.txt").appendText("x")
        val activity = opened()
        for (tab in listOf(R.id.tab_self_check, R.id.tab_about)) {
            activity.press(tab)
            assertTrue(activity.sees(R.id.message))
            assertTrue("labels.txt was changed since it was exported" in activity.text(R.id.message))
        }
        activity.press(R.id.tab_benchmark)
        activity.press(R.id.start)
        assertTrue("labels.txt was changed" in activity.text(R.id.result))
        activity.press(R.id.tab_camera)
        assertFalse(activity.sees(R.id.message))
    }

    @Test
    fun `an app with trusted keys shows that a package is not signed, and opens a signed one`() {
        val case = JSONArray(vectors.resolve("signatures.json").readText()).getJSONObject(0)
        (app as EdgeApp).workspace = Workspace(app) {
            if (it == "trust.pem") case.getString("keys").byteInputStream() else throw FileNotFoundException(it)
        }
        val activity = opened()
        activity.press(R.id.tab_self_check)
        assertTrue("tiny is not signed: model.sig is missing" in activity.text(R.id.message))
        val signature = case.getJSONArray("edits").getJSONObject(0).getString("text")
        external.resolve("packages/tiny/model.sig").writeText(signature)
        activity.press(R.id.check)
        assertEquals(activity.getString(R.string.check_passed), activity.text(R.id.verdict))
    }

    @Test
    fun `about shows the manifest`() {
        val activity = opened()
        activity.press(R.id.tab_about)
        val facts = activity.text(R.id.facts)
        for (fact in listOf("Mean colour", "onnxruntime", "fp32", "4 classes", "32 x 32 pixels", "1.17")) {
            assertTrue(fact in facts, "$fact in $facts")
        }
    }

    @Test
    fun `the benchmark shows its numbers and shares its document`() {
        val activity = opened()
        activity.press(R.id.tab_benchmark)
        activity.findViewById<EditText>(R.id.runs).setText("7")
        activity.press(R.id.start)
        assertTrue("p50" in activity.text(R.id.result) && "7 runs" in activity.text(R.id.result))
        activity.press(R.id.share)
        val chooser = shadowOf(activity).nextStartedActivity
        @Suppress("DEPRECATION")
        val sent = chooser.getParcelableExtra<Intent>(Intent.EXTRA_INTENT)!!
        assertEquals("application/json", sent.type)
        assertValid(sent.getStringExtra(Intent.EXTRA_TEXT)!!, 7)
    }

    private fun assertValid(document: String, runs: Int) {
        val schema = JsonSchemaFactory.getInstance(SpecVersion.VersionFlag.V202012)
            .getSchema(File(System.getProperty("schemas"), "profile-2.0.schema.json").readText())
        assertEquals(emptySet(), schema.validate(document, InputFormat.JSON))
        val profile = Profile.fromJson(document)
        assertTrue(profile.complete)
        assertEquals("Android" to runs, profile.device.os to profile.latency!!.runs)
        assertEquals("android-app" to "onnxruntime", profile.producer.name to profile.runtime.name)
    }

    @Test
    fun `invalid numbers are refused`() {
        val activity = opened()
        activity.press(R.id.tab_benchmark)
        for ((value, sentence) in listOf("" to "a whole number is needed", "0" to "runs must be 1")) {
            activity.findViewById<EditText>(R.id.runs).setText(value)
            activity.press(R.id.start)
            assertTrue(sentence in activity.text(R.id.message), activity.text(R.id.message))
        }
    }

    private fun benchmark(vararg extras: Pair<String, Any>): Intent =
        Intent(MainActivity.BENCHMARK).setClass(app, MainActivity::class.java).apply {
            for ((name, value) in extras) if (value is Int) putExtra(name, value) else putExtra(name, value as String)
        }

    private val profiles get() = external.resolve("profiles")

    @Test
    fun `a computer starts the benchmark and finds its document`() {
        profiles.mkdirs()
        profiles.resolve("mine.json").writeText("an old one")
        opened(benchmark("package" to "tiny", "runs" to 9, "threads" to 1, "warmup" to 2, "output" to "mine"))
        assertValid(profiles.resolve("mine.json").readText(), 9)
        assertEquals(listOf("mine.json"), profiles.list()!!.toList())
    }

    @Test
    fun `a computer gets the sentence of the error`() {
        val cases = listOf(
            benchmark("package" to "none") to "unknown package 'none'",
            benchmark("package" to "../tiny") to "unknown package",
            benchmark("package" to "tiny", "runs" to 0) to "runs must be 1",
        )
        for ((intent, sentence) in cases) {
            opened(intent)
            assertTrue(sentence in profiles.resolve("profile.error").readText())
            assertFalse(profiles.resolve("profile.json").exists())
        }
        opened(benchmark("package" to "none", "output" to "../../evil"))
        assertFalse(external.parentFile!!.resolve("evil.error").exists())
    }

    private fun outputs(vararg extras: Pair<String, Any>): Intent =
        benchmark("package" to "tiny", "threads" to 1, "pixels" to "p.u8", "output" to "mine", *extras)
            .setAction(MainActivity.OUTPUTS)

    @Test
    fun `a computer sends images and finds their logits`() {
        val tiny = EdgePackage(vectors.resolve("package"))
        val golden = tiny.golden()
        val found = external.resolve("outputs")
        found.mkdirs()
        found.resolve("mine.f32").writeText("an old one")
        val sent = external.resolve("pixels/p.u8").also { it.parentFile!!.mkdirs() }
        sent.writeBytes(golden.getValue("pixels").bytes())
        val activity = opened(outputs("digest" to tiny.manifest.digest))
        val logits = Tensor("F32", golden.getValue("package_logits").shape, ByteBuffer.wrap(found.resolve("mine.f32").readBytes()))
        assertTrue(sqnrDb(golden.getValue("package_logits").floats(), logits.floats()) > 80)
        assertFalse(sent.exists())
        assertFalse(activity.sees(R.id.message))
        // what does not fit is a sentence, and leaves no logits of an earlier run
        val cases = listOf(
            outputs("digest" to "0".repeat(64)) to "another package",
            outputs("digest" to tiny.manifest.digest) to "the images are not on the device",
            outputs("digest" to tiny.manifest.digest, "pixels" to "../packages/tiny/labels.txt") to "not on the device",
        )
        for ((intent, sentence) in cases) {
            assertTrue(sentence in opened(intent).text(R.id.message))
            assertTrue(sentence in found.resolve("mine.error").readText())
            assertFalse(found.resolve("mine.f32").exists())
        }
        sent.writeBytes(ByteArray(7))
        opened(outputs("digest" to tiny.manifest.digest))
        assertTrue("7 bytes are not images" in found.resolve("mine.error").readText())
    }

    @Test
    fun `a package is imported from a file, and a wrong file shows its sentence`() {
        val activity = opened()
        activity.press(R.id.import_package)
        val asked = shadowOf(activity).nextStartedActivityForResult.intent
        val zip = ByteArrayOutputStream()
        ZipOutputStream(zip).use { out ->
            for (file in vectors.resolve("package").listFiles()!!) {
                out.putNextEntry(ZipEntry("folder/${file.name}"))
                out.write(file.readBytes())
            }
        }
        activity.receive(asked, provide("mine.zip", zip.toByteArray()))
        assertTrue("package" == activity.workspace.chosen, activity.workspace.chosen)
        assertTrue("Imported" in activity.text(R.id.message))
        activity.press(R.id.tab_self_check)
        assertEquals(activity.getString(R.string.check_passed), activity.text(R.id.verdict))

        activity.press(R.id.tab_about)
        assertTrue(activity.sees(R.id.remove))
        activity.press(R.id.remove)
        assertFalse("package" in activity.workspace.names())
        assertFalse(activity.sees(R.id.remove))

        activity.press(R.id.import_package)
        val again = shadowOf(activity).nextStartedActivityForResult.intent
        activity.receive(again, provide("text.zip", "no zip".toByteArray()))
        assertTrue("choose another one" in activity.text(R.id.message))
    }

    @Test
    fun `another package is chosen from the list`() {
        vectors.resolve("package").copyRecursively(external.resolve("packages/tiny-2"))
        val activity = opened()
        val spinner = activity.findViewById<Spinner>(R.id.packages)
        val names = (0 until spinner.count).map { spinner.getItemAtPosition(it) }
        assertTrue(names.containsAll(listOf("tiny", "tiny-2")))
        spinner.setSelection(names.indexOf("tiny-2"))
        activity.settle()
        assertEquals("tiny-2", activity.workspace.chosen)
    }

    @Test
    fun `without a package the app says how to get one`() {
        external.resolve("packages").deleteRecursively()
        (app as EdgeApp).workspace = Workspace(app) { throw FileNotFoundException(it) }
        val activity = Robolectric.buildActivity(MainActivity::class.java).setup().get()
        activity.settle()
        assertTrue("sepvit_edge.bundle" in activity.text(R.id.message))
    }

    @Test
    fun `the packages that the app was built with pass their self-check`() {
        val bundled = (app as EdgeApp).workspace.names() - "tiny"
        assumeTrue("bundle one first: python -m sepvit_edge.bundle PACKAGE --app android", bundled.isNotEmpty())
        val activity = opened()
        activity.press(R.id.tab_self_check)
        for (name in bundled) {
            activity.workspace.choose(name)
            activity.press(R.id.check)
            assertEquals(activity.getString(R.string.check_passed), activity.text(R.id.verdict), name)
            println("$name: ${activity.text(R.id.numbers)}")
        }
    }

    @Test
    fun `a turned phone keeps the screen and the result`() {
        opened()
        controller.get().press(R.id.tab_benchmark)
        controller.get().press(R.id.start)
        val before = controller.get().text(R.id.result)
        RuntimeEnvironment.setQualifiers("+land")
        controller.recreate()
        val activity = controller.get()
        activity.settle()
        assertTrue(activity.sees(R.id.runs))
        assertEquals(before, activity.text(R.id.result))
    }

    @Test
    fun `dark mode has other colours, with enough contrast`() {
        val light = opened().getColor(R.color.passed)
        RuntimeEnvironment.setQualifiers("+night")
        val activity = opened()
        assertNotEquals(light, activity.getColor(R.color.passed))
        val value = android.util.TypedValue()
        activity.theme.resolveAttribute(android.R.attr.colorBackground, value, true)
        assertTrue(Color.luminance(activity.getColor(R.color.passed)) > Color.luminance(value.data) + 0.2f)
    }

    @Test
    fun `the largest font still leaves every screen usable`() {
        RuntimeEnvironment.setFontScale(2f)
        val activity = opened()
        for (tab in listOf(R.id.tab_photo, R.id.tab_benchmark, R.id.tab_self_check, R.id.tab_about, R.id.tab_camera)) {
            activity.press(tab)
            assertTrue(activity.findViewById<ViewGroup>(R.id.content).getChildAt(0).height > 0)
        }
    }

    @Test
    fun `TalkBack has a name for everything that can be pressed`() {
        val activity = opened()
        for (tab in listOf(R.id.tab_photo, R.id.tab_benchmark, R.id.tab_self_check, R.id.tab_about, R.id.tab_camera)) {
            activity.press(tab)
            every(activity.window.decorView) { view ->
                val named = view.contentDescription != null || (view as? TextView)?.text?.isNotEmpty() == true ||
                    view is EditText || // which has a label
                    view is TextView && view !is Button // no button, only text that can be selected
                if (view.isClickable && view.isShown && view.id != View.NO_ID) {
                    assertTrue(named, activity.resources.getResourceName(view.id))
                }
            }
        }
    }

    private fun every(view: View, visit: (View) -> Unit) {
        visit(view)
        if (view is ViewGroup) for (i in 0 until view.childCount) every(view.getChildAt(i), visit)
    }
}
