package sepvit.edge.app

import android.content.Context
import android.content.Intent
import java.io.File
import sepvit.edge.Refusal
import sepvit.edge.Session
import sepvit.edge.logitsOf

/** The folder that a computer reads and writes by adb. */
private fun external(context: Context) = context.getExternalFilesDir(null) ?: context.filesDir

private val NAME = Regex("[A-Za-z0-9_-]{1,100}")

/** A result for a computer to fetch: a file, or the sentence of an error. Removes those of an earlier run. */
class ResultFile(context: Context, folder: String, name: String?, ending: String) {
    private val folder = external(context).resolve(folder).also { it.mkdirs() }
    private val stem = name?.takeIf { it.matches(NAME) } ?: folder.removeSuffix("s")
    private val found = this.folder.resolve("$stem.$ending")
    private val error = this.folder.resolve("$stem.error")

    init {
        found.delete()
        error.delete()
    }

    /** Writes under another name first, so that a computer never finds half of the file. */
    fun write(result: Result<ByteArray>) {
        val (target, data) = result.fold({ found to it }, { error to (sentence(it) + "\n").toByteArray() })
        val partial = File(target.path + ".partial")
        partial.writeBytes(data)
        partial.renameTo(target)
    }
}

/** Runs images of a computer, for `evaluate --device` (apps/README.md, "The benchmark from a computer"). */
class ImagesFromComputer(private val context: Context, private val workspace: Workspace) {
    /** Starts the run of `am start -a sepvit.edge.action.OUTPUTS`; [done] gets its error, or null. */
    fun start(intent: Intent, done: (Throwable?) -> Unit) {
        val file = ResultFile(context, "outputs", intent.getStringExtra("output"), "f32")
        workspace.work({ run(intent) }) { result ->
            file.write(result)
            done(result.exceptionOrNull())
        }
    }

    private fun Workspace.run(intent: Intent): ByteArray {
        release()
        val packed = openPackage(intent.getStringExtra("package"))
        if (packed.manifest.digest != intent.getStringExtra("digest")) throw Refusal(
            Refusal.Kind.CHANGED,
            "the app has another package of the name '${packed.folder.name}'; rename the folder on the computer",
        )
        val pixels = external(context).resolve("pixels").resolve(File(intent.getStringExtra("pixels").orEmpty()).name)
        if (!pixels.isFile) throw Refusal(Refusal.Kind.MISSING, "the images are not on the device; send them again")
        val threads = intent.getIntExtra("threads", 0).takeIf { it > 0 }
        return try {
            Session(packed, engines, threads).use { logitsOf(it, pixels.readBytes()) }
        } finally {
            pixels.delete()
        }
    }
}
