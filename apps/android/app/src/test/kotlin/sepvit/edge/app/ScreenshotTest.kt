package sepvit.edge.app

import android.graphics.Bitmap
import android.graphics.Canvas
import android.os.Looper
import android.view.View
import android.widget.Button
import java.io.File
import kotlin.test.assertTrue
import org.junit.Test
import org.junit.runner.RunWith
import org.robolectric.Robolectric
import org.robolectric.RobolectricTestRunner
import org.robolectric.RuntimeEnvironment
import org.robolectric.Shadows.shadowOf
import org.robolectric.annotation.Config
import org.robolectric.annotation.GraphicsMode
import sepvit.edge.Answered
import sepvit.edge.Classes
import sepvit.edge.LabelledClass

/** Draws every screen to target/screenshots, for whoever changes one. */
@RunWith(RobolectricTestRunner::class)
@Config(sdk = [34], qualifiers = "w411dp-h731dp-xhdpi")
@GraphicsMode(GraphicsMode.Mode.NATIVE)
class ScreenshotTest {
    private val screens = mapOf(
        "camera" to R.id.tab_camera, "photo" to R.id.tab_photo, "benchmark" to R.id.tab_benchmark,
        "self-check" to R.id.tab_self_check, "about" to R.id.tab_about,
    )

    @Test
    fun light() = draw("light", 1f)

    @Test
    @Config(qualifiers = "+night")
    fun dark() = draw("dark", 1f)

    @Test
    fun `large font`() = draw("large", 2f)

    private fun draw(name: String, scale: Float) {
        RuntimeEnvironment.setFontScale(scale)
        val app = RuntimeEnvironment.getApplication()
        vectors.resolve("package").copyRecursively(app.getExternalFilesDir(null)!!.resolve("packages/tiny"))
        (app as EdgeApp).workspace.choose("tiny")
        val activity = Robolectric.buildActivity(MainActivity::class.java).setup().get()
        for ((screen, tab) in screens) {
            activity.findViewById<Button>(tab).performClick()
            activity.settle()
            if (screen == "benchmark") {
                activity.findViewById<Button>(R.id.start).performClick()
                activity.settle()
            }
            if (screen == "photo") AnswerView(activity.findViewById(R.id.answer), 20).show(
                Answered(
                    Classes(listOf("tabby cat" to 0.72, "tiger cat, a label that takes more than one line" to 0.21, "lynx" to 0.03)
                        .mapIndexed { i, (label, share) -> LabelledClass(label, i, share) }),
                    3.2, 11.8,
                ),
            )
            shadowOf(Looper.getMainLooper()).idle()
            val picture = picture(activity.window.decorView)
            val colours = IntArray(picture.width * picture.height)
                .also { picture.getPixels(it, 0, picture.width, 0, 0, picture.width, picture.height) }.toSet()
            assertTrue(colours.size > 20, "$screen is blank")
            val file = File("target/screenshots/$name-$screen.png").apply { parentFile!!.mkdirs() }
            file.outputStream().use { picture.compress(Bitmap.CompressFormat.PNG, 100, it) }
        }
    }

    private fun picture(view: View): Bitmap =
        Bitmap.createBitmap(view.width, view.height, Bitmap.Config.ARGB_8888).also { view.draw(Canvas(it)) }
}

/** Waits until the inference thread and the main one have nothing more to do. */
fun MainActivity.settle() = repeat(2) {
    var done = false
    workspace.work({}) { done = true }
    while (!done) {
        shadowOf(Looper.getMainLooper()).idle()
        Thread.sleep(2)
    }
    shadowOf(Looper.getMainLooper()).idle()
}
