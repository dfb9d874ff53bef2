package sepvit.edge.app

import android.content.Context
import android.content.Intent
import android.os.Handler
import android.os.Looper
import sepvit.edge.Benchmark
import sepvit.edge.BenchmarkPlan
import sepvit.edge.Profile

/** Runs one benchmark at a time, for the screen or for a computer; outlives the activity. */
class Benchmarks(private val context: Context, private val workspace: Workspace) {
    private val main = Handler(Looper.getMainLooper())
    @Volatile private var cancelled = false

    /** The properties below change on the main thread, which then calls [changed]. */
    var running = false
        private set
    var progress = 0.0
        private set
    var last: Result<Profile>? = null
        private set
    var changed: () -> Unit = {}

    /** Starts a benchmark if none is running. [output] is for a computer to fetch. */
    fun start(name: String?, plan: BenchmarkPlan, output: ResultFile? = null) {
        if (running) return
        running = true
        cancelled = false
        progress = 0.0
        last = null
        changed()
        workspace.work({
            release()
            Benchmark(
                openPackage(name), engines, plan, AndroidProbe(context), version,
                progress = ::report, cancelled = { cancelled },
            ).run()
        }) { result ->
            running = false
            last = result
            output?.write(result.map { it.toJson().toByteArray() })
            changed()
        }
    }

    fun stop() {
        cancelled = true
    }

    /**
     * Starts the benchmark of `am start -a sepvit.edge.action.BENCHMARK` (apps/README.md). The sentence
     * of an error is written where the computer looks for the result.
     */
    fun start(intent: Intent) {
        val output = ResultFile(context, "profiles", intent.getStringExtra("output"), "json")
        val plan = try {
            val default = BenchmarkPlan()
            BenchmarkPlan(
                intent.getIntExtra("threads", default.threads), intent.getIntExtra("warmup", default.warmUp),
                intent.getIntExtra("runs", default.runs),
                intent.getIntExtra("sustained", default.sustainedSeconds),
            )
        } catch (error: IllegalArgumentException) {
            last = Result.failure(error)
            return output.write(Result.failure(error))
        }
        start(intent.getStringExtra("package") ?: workspace.chosen, plan, output)
    }

    private fun report(share: Double) {
        main.post {
            progress = share
            changed()
        }
    }
}
