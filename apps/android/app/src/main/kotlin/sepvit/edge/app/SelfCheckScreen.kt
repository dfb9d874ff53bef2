package sepvit.edge.app

import android.widget.Button
import android.widget.TextView
import sepvit.edge.SelfCheck
import sepvit.edge.selfCheck

/** The result of the self-check, green or red, with the numbers. */
class SelfCheckScreen(activity: MainActivity) : Screen(activity, R.layout.self_check) {
    private val verdict: TextView = find(R.id.verdict)
    private val numbers: TextView = find(R.id.numbers)

    init {
        find<Button>(R.id.check).setOnClickListener {
            activity.tell(null)
            check()
        }
    }

    override fun show() = check()

    private fun check() {
        verdict.text = null
        numbers.text = null
        work({ selfCheck(session()) }) { result ->
            result.tellFailure()
            result.onSuccess(::describe)
        }
    }

    private fun describe(found: SelfCheck) {
        verdict.text = when (found.failsAt) {
            null -> text(R.string.check_passed)
            SelfCheck.Step.PIXELS -> text(R.string.check_failed, text(R.string.check_pixels))
            SelfCheck.Step.TENSOR -> text(R.string.check_failed, text(R.string.check_tensor))
            SelfCheck.Step.LOGITS -> text(R.string.check_failed, text(R.string.check_logits))
            SelfCheck.Step.OUTPUTS -> text(R.string.check_failed, text(R.string.check_outputs, found.output.orEmpty()))
            SelfCheck.Step.ANSWER -> text(R.string.check_failed, text(R.string.check_answer))
        }
        verdict.setTextColor(activity.getColor(if (found.passed) R.color.passed else R.color.failed))
        val sqnr = found.sqnrDb
        numbers.text = if (sqnr == null) text(
            R.string.check_pixels_numbers, found.image ?: 0, found.differentValues, found.maxDifference,
        ) else text(
            R.string.check_numbers, found.images, found.maxDifference, sqnr, found.minimumSqnrDb,
            found.referenceSqnrDb ?: 0.0, 100 * (found.agreement ?: 0.0),
            text(if (found.minimumAgreement == null) R.string.check_same_class else R.string.check_same_answer),
        )
    }
}
