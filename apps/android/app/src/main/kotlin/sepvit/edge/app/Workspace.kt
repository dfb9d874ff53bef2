package sepvit.edge.app

import android.content.Context
import android.net.Uri
import android.os.Handler
import android.os.Looper
import java.io.FileNotFoundException
import java.io.InputStream
import java.util.concurrent.Executors
import sepvit.edge.Benchmark
import sepvit.edge.EdgePackage
import sepvit.edge.EngineFactory
import sepvit.edge.PackageStore
import sepvit.edge.Refusal
import sepvit.edge.Session
import sepvit.edge.app.engine.engines as installedEngines

/**
 * The packages, the chosen one, and the thread on which models are loaded and run.
 *
 * Sessions are not thread-safe: only [worker] uses them.
 */
class Workspace(
    private val context: Context,
    asset: (String) -> InputStream = { context.assets.open("packages/$it") },
) {
    var engines: EngineFactory = installedEngines
    val version: String =
        context.packageManager.getPackageInfo(context.packageName, 0).versionName.orEmpty()
    private val external = context.getExternalFilesDir(null)
    val store =
        PackageStore(context.filesDir.resolve("packages"), version, external?.resolve("packages"), asset)
    private val worker = Executors.newSingleThreadExecutor { Thread(it, "inference") }
    private val main = Handler(Looper.getMainLooper())
    private var session: Session? = null
    val benchmarks = Benchmarks(context, this)
    val images = ImagesFromComputer(context, this)

    /** The last chosen photo. */
    var photo: Uri? = null

    /** Name of the chosen package; null without one. */
    var chosen: String? = null
        private set

    /** The reason if the packages cannot be listed. */
    var fault: String? = null
        private set

    fun names(): List<String> = try {
        fault = null
        store.names()
    } catch (refusal: Refusal) {
        fault = refusal.message
        emptyList()
    }

    fun choose(name: String?) {
        if (name == chosen) return
        chosen = name
        worker.execute {
            session?.close()
            session = null
        }
    }

    /** Opens the chosen package without an engine. This hashes all its files. */
    fun openPackage(name: String? = chosen): EdgePackage =
        store.open(name ?: throw Refusal(Refusal.Kind.NO_MANIFEST, context.getString(R.string.no_package)))

    /** Returns the loaded session of the chosen package; on [worker] only. */
    fun session(): Session = session ?: Session(openPackage(), engines).also {
        Benchmark.spendColdStart() // the next model that is loaded finds the runtime warm
        session = it
    }

    /** Frees the loaded model, so that a benchmark has all the memory; on [worker] only. */
    fun release() {
        session?.close()
        session = null
    }

    /**
     * Runs [job] on the worker thread and passes its result to [done] on the main thread.
     */
    fun <T> work(job: Workspace.() -> T, done: (Result<T>) -> Unit) = worker.execute {
        val result = runCatching { job() }
        main.post { done(result) }
    }
}

/** Returns the sentence to show for a failure. Anything but a [Refusal] is a bug in this app. */
fun sentence(error: Throwable): String = when (error) {
    is Refusal -> error.message
    is FileNotFoundException -> "the file cannot be read; choose another one"
    is IllegalArgumentException -> error.message ?: error.toString()
    else -> "unexpected: $error"
}
