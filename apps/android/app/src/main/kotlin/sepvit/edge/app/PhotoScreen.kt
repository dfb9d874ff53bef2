package sepvit.edge.app

import android.content.ContentResolver
import android.content.Intent
import android.graphics.Bitmap
import android.graphics.Canvas
import android.graphics.Rect
import android.net.Uri
import android.widget.Button
import android.widget.ImageView
import java.io.FileNotFoundException
import java.io.InputStream
import sepvit.edge.Answered
import sepvit.edge.Pixels

/** A photo from the device, with the model's answer. */
class PhotoScreen(activity: MainActivity) : Screen(activity, R.layout.photo) {
    private val photo: ImageView = find(R.id.photo)
    private val answers = AnswerView(view, ROWS)

    init {
        find<Button>(R.id.choose).setOnClickListener {
            val choice = Intent(Intent.ACTION_OPEN_DOCUMENT)
                .addCategory(Intent.CATEGORY_OPENABLE).setType("image/*")
            activity.startForResult(choice, MainActivity.PHOTO)
        }
    }

    override fun show() {
        workspace.photo?.let(::run)
    }

    private class Shown(val picture: Bitmap, val found: Answered)

    private fun run(uri: Uri) {
        work({
            val pixels = decodeImage(activity.contentResolver.open(uri).use { it.readBytes() })
            val found = session().answer(pixels)
            Shown(thumbnail(pixels).with(drawingOf(found.answer)), found)
        }) { result ->
            result.tellFailure()
            answers.clear()
            photo.setImageBitmap(result.getOrNull()?.picture)
            result.onSuccess { answers.show(it.found) }
        }
    }

    /** Every n-th pixel: enough to recognise it. */
    private fun thumbnail(pixels: Pixels): Bitmap {
        val step = maxOf(1, maxOf(pixels.width, pixels.height) / 1024)
        val (width, height) = maxOf(1, pixels.width / step) to maxOf(1, pixels.height / step)
        val colours = IntArray(width * height) {
            val at = 3 * (it / width * step * pixels.width + it % width * step)
            val (r, g, b) = (0..2).map { c -> pixels.rgb[at + c].toInt() and 0xFF }
            -0x1000000 or (r shl 16) or (g shl 8) or b
        }
        return Bitmap.createBitmap(colours, width, height, Bitmap.Config.ARGB_8888)
    }
}

/** Draws another picture over this one. */
private fun Bitmap.with(drawing: Bitmap?): Bitmap {
    if (drawing == null) return this
    val whole = copy(Bitmap.Config.ARGB_8888, true)
    Canvas(whole).drawBitmap(drawing, null, Rect(0, 0, width, height), null)
    return whole
}

/** Rows below the photo. */
private const val ROWS = 20

/** A document that the user chose. */
fun ContentResolver.open(uri: Uri): InputStream = try {
    openInputStream(uri) ?: throw FileNotFoundException(uri.toString())
} catch (error: SecurityException) {
    // After a restart Android may have forgotten that the user chose it.
    throw FileNotFoundException(error.message)
}
