package sepvit.edge.app

import android.view.View
import android.view.ViewGroup
import android.widget.ProgressBar
import android.widget.TextView
import kotlin.math.roundToInt
import sepvit.edge.Answered
import sepvit.edge.Boxes
import sepvit.edge.ClassMap
import sepvit.edge.Classes
import sepvit.edge.colourOf

/**
 * Fills layout/answer.xml: a classifier's classes with bars, the legend of a class map, or boxes; and the
 * time it took.
 *
 * @param most the largest number of rows.
 */
class AnswerView(root: View, private val most: Int) {
    private val rows = root.findViewById<ViewGroup>(R.id.answer_rows)
    private val latency = root.findViewById<TextView>(R.id.latency)

    private class Row(val label: String, val index: Int, val share: Double)

    fun show(found: Answered) {
        when (val answer = found.answer) {
            is Classes -> fill(R.layout.class_row, answer.classes.map { Row(it.label, it.index, it.probability) })
            is ClassMap -> fill(R.layout.legend_row, answer.shares.map { Row(it.label, it.index, it.share) })
            is Boxes -> fill(R.layout.legend_row, answer.boxes.map { Row(it.label, it.index, it.score.toDouble()) })
        }
        val context = rows.context
        latency.text = context.getString(R.string.latency, found.preprocessingMs, found.inferenceMs)
        val all = (found.answer as? Boxes)?.boxes?.size ?: return
        if (all == 0) latency.text = context.getString(R.string.nothing_found, latency.text)
        else if (all > most) latency.text = context.getString(R.string.more_boxes, all - most, latency.text)
    }

    private fun fill(layout: Int, found: List<Row>) {
        if (rows.tag != layout) rows.removeAllViews()
        rows.tag = layout
        val shown = found.take(most)
        while (rows.childCount < shown.size) View.inflate(rows.context, layout, rows)
        for (i in 0 until rows.childCount) {
            val row = rows.getChildAt(i)
            row.visibility = if (i < shown.size) View.VISIBLE else View.GONE
            if (i < shown.size) fill(row, shown[i])
        }
    }

    private fun fill(row: View, found: Row) {
        val percent = 100 * found.share
        row.findViewById<TextView>(R.id.label).text = found.label
        row.findViewById<TextView>(R.id.probability).text = row.context.getString(R.string.probability, percent)
        row.findViewById<ProgressBar>(R.id.bar)?.progress = (10 * percent).roundToInt()
        row.findViewById<View>(R.id.colour)?.setBackgroundColor(OPAQUE or colourOf(found.index))
        row.contentDescription =
            row.context.getString(R.string.class_probability, found.label, percent.roundToInt())
    }

    fun clear() {
        rows.removeAllViews()
        latency.text = null
    }
}

internal const val OPAQUE = 0xFF shl 24
