package sepvit.edge.app

import android.annotation.SuppressLint
import android.content.Context
import android.graphics.ImageFormat
import android.graphics.SurfaceTexture
import android.hardware.camera2.CameraAccessException
import android.hardware.camera2.CameraCaptureSession
import android.hardware.camera2.CameraCharacteristics
import android.hardware.camera2.CameraDevice
import android.hardware.camera2.CameraManager
import android.hardware.camera2.CaptureRequest
import android.media.Image
import android.media.ImageReader
import android.os.Handler
import android.os.HandlerThread
import android.util.Size
import android.view.Surface
import java.util.concurrent.atomic.AtomicBoolean
import kotlin.math.abs
import sepvit.edge.Pixels
import sepvit.edge.Plane
import sepvit.edge.yuvToPixels

/**
 * The back camera with a preview and upright frames.
 *
 * @param frame is called with a frame on the camera's thread, and again only after [next].
 * @param failed is called on the camera's thread if no camera can be used.
 */
class Camera(
    context: Context,
    private val frame: (Pixels) -> Unit,
    private val failed: () -> Unit,
) {
    private val manager = context.getSystemService(CameraManager::class.java)
    private val thread = HandlerThread("camera").apply { start() }
    private val handler = Handler(thread.looper)
    private val busy = AtomicBoolean(false)
    private val closed = AtomicBoolean(false)
    private var device: CameraDevice? = null
    private var reader: ImageReader? = null
    private var preview: Surface? = null

    /**
     * Opens the camera.
     *
     * @param turn rotation of the screen from the device's natural orientation in degrees.
     * @param ready is called with the preview's size and rotation, before the first frame.
     */
    @SuppressLint("MissingPermission") // the screen asks for it first
    fun open(texture: SurfaceTexture, turn: Int, ready: (Size, Int) -> Unit) {
        handler.post {
            try {
                val id = backCamera() ?: return@post failed()
                val facts = manager.getCameraCharacteristics(id)
                val size = bestSize(facts)
                val rotation = ((facts[CameraCharacteristics.SENSOR_ORIENTATION] ?: 90) - turn + 360) % 360
                texture.setDefaultBufferSize(size.width, size.height)
                preview = Surface(texture)
                reader = ImageReader.newInstance(size.width, size.height, ImageFormat.YUV_420_888, 2)
                    .apply { setOnImageAvailableListener({ take(it, rotation) }, handler) }
                ready(size, rotation)
                manager.openCamera(id, Opened(), handler)
            } catch (_: CameraAccessException) {
                failed()
            } catch (_: SecurityException) {
                failed() // taken away in the settings while the app was open
            } catch (_: IllegalArgumentException) {
                failed() // unplugged between being found and being opened
            }
        }
    }

    /** Requests the next frame. */
    fun next() = busy.set(false)

    fun close() {
        closed.set(true)
        handler.post {
            device?.close()
            reader?.close()
            preview?.release()
            thread.quitSafely()
        }
    }

    private fun backCamera(): String? {
        val ids = manager.cameraIdList
        return ids.firstOrNull {
            manager.getCameraCharacteristics(it)[CameraCharacteristics.LENS_FACING] ==
                CameraCharacteristics.LENS_FACING_BACK
        } ?: ids.firstOrNull()
    }

    /** Returns the size nearest to 640 x 480. Larger frames only take longer to convert. */
    private fun bestSize(facts: CameraCharacteristics): Size =
        facts[CameraCharacteristics.SCALER_STREAM_CONFIGURATION_MAP]
            ?.getOutputSizes(ImageFormat.YUV_420_888)
            ?.minByOrNull { abs(it.width * it.height - 640 * 480) } ?: Size(640, 480)

    private fun take(reader: ImageReader, rotation: Int) {
        reader.acquireLatestImage()?.use { image ->
            if (!closed.get() && busy.compareAndSet(false, true)) frame(pixelsOf(image).upright(exif(rotation)))
        }
    }

    private fun pixelsOf(image: Image): Pixels {
        val (y, u, v) = image.planes.map { Plane(it.buffer, it.rowStride, it.pixelStride) }
        return yuvToPixels(image.width, image.height, y, u, v)
    }

    private inner class Opened : CameraDevice.StateCallback() {
        override fun onOpened(camera: CameraDevice) {
            device = camera
            if (closed.get()) return camera.close()
            val surfaces = listOfNotNull(preview, reader?.surface)
            @Suppress("DEPRECATION") // its successor came with Android 9
            camera.createCaptureSession(surfaces, Configured(camera, surfaces), handler)
        }

        override fun onDisconnected(camera: CameraDevice) = camera.close()

        override fun onError(camera: CameraDevice, error: Int) {
            camera.close()
            failed()
        }
    }

    private inner class Configured(
        private val camera: CameraDevice,
        private val surfaces: List<Surface>,
    ) : CameraCaptureSession.StateCallback() {
        override fun onConfigured(session: CameraCaptureSession) {
            if (closed.get()) return
            try {
                val request = camera.createCaptureRequest(CameraDevice.TEMPLATE_PREVIEW)
                surfaces.forEach(request::addTarget)
                request.set(CaptureRequest.CONTROL_AF_MODE, CaptureRequest.CONTROL_AF_MODE_CONTINUOUS_PICTURE)
                session.setRepeatingRequest(request.build(), null, handler)
            } catch (_: CameraAccessException) {
                failed()
            } catch (_: IllegalStateException) {
                // closed in the meantime
            }
        }

        override fun onConfigureFailed(session: CameraCaptureSession) = failed()
    }
}

/** Returns the EXIF orientation of an image that must be turned clockwise by [rotation] degrees. */
private fun exif(rotation: Int): Int = when (rotation) {
    90 -> 6
    180 -> 3
    270 -> 8
    else -> 1
}
