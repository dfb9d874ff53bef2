package sepvit.edge.app

import android.view.View
import android.view.ViewGroup
import android.widget.ProgressBar
import android.widget.TextView
import kotlin.math.roundToInt
import sepvit.edge.Classification

/** Fills layout/classes.xml: labels, bars, and the time it took. */
class ClassesView(root: View) {
    private val rows = root.findViewById<ViewGroup>(R.id.class_rows)
    private val latency = root.findViewById<TextView>(R.id.latency)

    fun show(result: Classification) {
        val context = rows.context
        while (rows.childCount < result.classes.size) {
            View.inflate(context, R.layout.class_row, rows)
        }
        for (i in 0 until rows.childCount) {
            val row = rows.getChildAt(i)
            val found = result.classes.getOrNull(i)
            row.visibility = if (found == null) View.GONE else View.VISIBLE
            if (found == null) continue
            val percent = 100 * found.probability
            row.findViewById<TextView>(R.id.label).text = found.label
            row.findViewById<TextView>(R.id.probability).text =
                context.getString(R.string.probability, percent)
            row.findViewById<ProgressBar>(R.id.bar).progress = (10 * percent).roundToInt()
            row.contentDescription =
                context.getString(R.string.class_probability, found.label, percent.roundToInt())
        }
        latency.text = context.getString(R.string.latency, result.preprocessingMs, result.inferenceMs)
    }

    fun clear() {
        rows.removeAllViews()
        latency.text = null
    }
}
