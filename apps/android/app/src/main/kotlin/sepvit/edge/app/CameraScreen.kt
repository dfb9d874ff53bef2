package sepvit.edge.app

import android.Manifest
import android.content.Intent
import android.content.pm.PackageManager
import android.graphics.Matrix
import android.graphics.RectF
import android.graphics.SurfaceTexture
import android.net.Uri
import android.provider.Settings
import android.util.Size
import android.view.Surface
import android.view.TextureView
import android.view.View
import android.widget.Button
import android.widget.ImageView
import android.widget.TextView
import sepvit.edge.Pixels

/** The camera, with the model's answers as fast as the device can. */
class CameraScreen(activity: MainActivity) :
    Screen(activity, R.layout.camera), TextureView.SurfaceTextureListener {

    private val preview: TextureView = find(R.id.preview)
    private val refused: View = find(R.id.refused)
    private val refusedText: TextView = find(R.id.refused_text)
    private val allow: Button = find(R.id.allow)
    private val drawing: ImageView = find(R.id.drawing)
    private val answers = AnswerView(view, ROWS)
    private var camera: Camera? = null
    private var seen = false
    private var asked = false

    init {
        preview.surfaceTextureListener = this
        allow.setOnClickListener {
            // Once refused for good, Android asks no more: only its settings help.
            if (activity.shouldShowRequestPermissionRationale(Manifest.permission.CAMERA) || !asked) ask()
            else activity.startActivity(
                Intent(Settings.ACTION_APPLICATION_DETAILS_SETTINGS)
                    .setData(Uri.fromParts("package", activity.packageName, null)),
            )
        }
    }

    private fun ask() {
        asked = true
        activity.requestPermissions(arrayOf(Manifest.permission.CAMERA), MainActivity.CAMERA)
    }

    private val allowed
        get() = activity.checkSelfPermission(Manifest.permission.CAMERA) == PackageManager.PERMISSION_GRANTED

    override fun show() {
        seen = true
        drawing.setImageBitmap(null)
        answers.clear()
        refused.visibility = if (allowed) View.GONE else View.VISIBLE
        refusedText.setText(R.string.camera_refused)
        allow.visibility = View.VISIBLE
        camera?.next()
        if (allowed) start() else if (!asked) ask()
    }

    override fun hide() {
        seen = false
        camera?.close()
        camera = null
    }

    private fun start() {
        val texture = preview.surfaceTexture ?: return // comes with onSurfaceTextureAvailable
        if (camera != null || !seen || !allowed) return
        @Suppress("DEPRECATION") // its successor came with Android 11
        val turn = 90 * when (activity.windowManager.defaultDisplay.rotation) {
            Surface.ROTATION_90 -> 1
            Surface.ROTATION_180 -> 2
            Surface.ROTATION_270 -> 3
            else -> 0
        }
        camera = Camera(activity, ::answer, ::none).also { camera ->
            camera.open(texture, turn) { size, rotation ->
                activity.runOnUiThread { fit(size, rotation, turn) }
            }
        }
    }

    /** On the camera's thread. */
    private fun answer(frame: Pixels) = work({
        val found = session().answer(frame)
        found to drawingOf(found.answer)
    }) { result ->
        if (!seen) return@work
        // After a failure no other frame is taken until another package is chosen, or the screen.
        result.tellFailure().onSuccess { (found, picture) ->
            answers.show(found)
            drawing.setImageBitmap(picture)
            camera?.next()
        }
    }

    private fun none() = activity.runOnUiThread {
        refused.visibility = View.VISIBLE
        refusedText.setText(R.string.camera_none)
        allow.visibility = View.GONE
    }

    /** Android turns the preview for an upright phone only; fill the view without distortion. */
    private fun fit(size: Size, rotation: Int, turn: Int) {
        val (width, height) = preview.width.toFloat() to preview.height.toFloat()
        if (width == 0f || height == 0f) return
        val turned = rotation % 180 != 0
        val (w, h) = if (turned) size.height.toFloat() to size.width.toFloat()
        else size.width.toFloat() to size.height.toFloat()
        val fill = maxOf(width / w, height / h)
        preview.setTransform(
            Matrix().apply {
                val shown = if (turn % 180 == 0) RectF(0f, 0f, w * fill, h * fill)
                else RectF(0f, 0f, h * fill, w * fill)
                shown.offset(width / 2 - shown.centerX(), height / 2 - shown.centerY())
                setRectToRect(RectF(0f, 0f, width, height), shown, Matrix.ScaleToFit.FILL)
                postRotate(-turn.toFloat(), width / 2, height / 2)
            },
        )
    }

    override fun onSurfaceTextureAvailable(surface: SurfaceTexture, width: Int, height: Int) = start()

    override fun onSurfaceTextureSizeChanged(surface: SurfaceTexture, width: Int, height: Int) {}

    override fun onSurfaceTextureUpdated(surface: SurfaceTexture) {}

    override fun onSurfaceTextureDestroyed(surface: SurfaceTexture): Boolean {
        camera?.close()
        camera = null
        return true
    }

    private companion object {
        /** Rows below the preview. */
        const val ROWS = 5
    }
}
