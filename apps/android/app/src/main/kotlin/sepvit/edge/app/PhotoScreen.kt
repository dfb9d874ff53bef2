package sepvit.edge.app

import android.content.ContentResolver
import android.content.Intent
import android.graphics.Bitmap
import android.net.Uri
import android.widget.Button
import android.widget.ImageView
import java.io.FileNotFoundException
import java.io.InputStream
import sepvit.edge.Classification
import sepvit.edge.Pixels

/** A photo from the device, classified. */
class PhotoScreen(activity: MainActivity) : Screen(activity, R.layout.photo) {
    private val photo: ImageView = find(R.id.photo)
    private val classes = ClassesView(view)

    init {
        find<Button>(R.id.choose).setOnClickListener {
            val choice = Intent(Intent.ACTION_OPEN_DOCUMENT)
                .addCategory(Intent.CATEGORY_OPENABLE).setType("image/*")
            activity.startForResult(choice, MainActivity.PHOTO)
        }
    }

    override fun show() {
        workspace.photo?.let(::classify)
    }

    private class Answer(val thumbnail: Bitmap, val result: Classification)

    private fun classify(uri: Uri) {
        work({
            val pixels = decodeImage(activity.contentResolver.open(uri).use { it.readBytes() })
            Answer(thumbnail(pixels), session().classify(pixels))
        }) { result ->
            result.tellFailure()
            classes.clear()
            photo.setImageBitmap(result.getOrNull()?.thumbnail)
            result.onSuccess { classes.show(it.result) }
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

/** A document that the user chose. */
fun ContentResolver.open(uri: Uri): InputStream = try {
    openInputStream(uri) ?: throw FileNotFoundException(uri.toString())
} catch (error: SecurityException) {
    // After a restart Android may have forgotten that the user chose it.
    throw FileNotFoundException(error.message)
}
