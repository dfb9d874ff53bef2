package sepvit.edge.app

import android.content.Intent
import android.view.View
import android.view.WindowManager
import android.widget.Button
import android.widget.EditText
import android.widget.ProgressBar
import android.widget.TextView
import sepvit.edge.BenchmarkPlan
import sepvit.edge.Profile

/** The benchmark: its settings, its result, and the JSON document to share. */
class BenchmarkScreen(activity: MainActivity) : Screen(activity, R.layout.benchmark) {
    private val start: Button = find(R.id.start)
    private val share: Button = find(R.id.share)
    private val progress: ProgressBar = find(R.id.progress)
    private val result: TextView = find(R.id.result)
    private val runner get() = workspace.benchmarks

    init {
        start.setOnClickListener { if (runner.running) runner.stop() else start() }
        share.setOnClickListener {
            val document = runner.last?.getOrNull()?.toJson() ?: return@setOnClickListener
            val send = Intent(Intent.ACTION_SEND).setType("application/json")
                .putExtra(Intent.EXTRA_TEXT, document)
            activity.startActivity(Intent.createChooser(send, null))
        }
    }

    override fun show() {
        runner.changed = { if (!activity.isDestroyed) update() }
        update()
    }

    override fun hide() {
        runner.changed = {}
    }

    private fun start() {
        val plan = try {
            BenchmarkPlan(
                number(R.id.threads, R.string.threads), number(R.id.warm_up, R.string.warm_up),
                number(R.id.runs, R.string.runs), number(R.id.sustained, R.string.sustained),
            )
        } catch (error: IllegalArgumentException) {
            return activity.tell(error.message)
        }
        activity.tell(null)
        runner.start(workspace.chosen, plan)
    }

    private fun number(field: Int, name: Int): Int =
        requireNotNull(find<EditText>(field).text.toString().toIntOrNull()) {
            text(R.string.number_needed, text(name))
        }

    private fun update() {
        start.setText(if (runner.running) R.string.benchmark_stop else R.string.benchmark_start)
        progress.visibility = if (runner.running) View.VISIBLE else View.INVISIBLE
        progress.progress = (1000 * runner.progress).toInt()
        val keep = WindowManager.LayoutParams.FLAG_KEEP_SCREEN_ON
        if (runner.running) activity.window.addFlags(keep) else activity.window.clearFlags(keep)
        val last = runner.last?.takeUnless { runner.running }
        share.visibility = if (last?.isSuccess == true) View.VISIBLE else View.GONE
        result.text = last?.fold(::describe, ::sentence)
    }

    private fun describe(profile: Profile): String {
        val lines = mutableListOf<String>()
        profile.incompleteReason?.let { lines += text(R.string.benchmark_incomplete, it) }
        profile.latency?.run {
            lines += text(
                R.string.benchmark_result, p50Ms, p90Ms, p99Ms, maxMs, meanMs, runs,
                profile.runtime.threads ?: 0, profile.preprocessing?.p50Ms ?: 0.0,
            )
        }
        return lines.joinToString("\n")
    }
}
