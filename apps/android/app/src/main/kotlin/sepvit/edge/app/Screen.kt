package sepvit.edge.app

import android.view.View

/** One of the five screens. It is recreated with its activity; lasting state is in [Workspace]. */
abstract class Screen(protected val activity: MainActivity, layout: Int) {
    val view: View = activity.layoutInflater.inflate(layout, null)
    protected val workspace get() = activity.workspace

    protected fun <T : View> find(id: Int): T = view.findViewById(id)

    protected fun text(id: Int, vararg values: Any): String = activity.getString(id, *values)

    /** Called when the screen is shown, and when another package is chosen while it is. */
    open fun show() {}

    /** Called when the screen is hidden. */
    open fun hide() {}

    /**
     * Runs [job] on the inference thread and passes its result to [done] on the main thread, unless the
     * activity was destroyed meanwhile.
     */
    protected fun <T> work(job: Workspace.() -> T, done: (Result<T>) -> Unit) =
        workspace.work(job) { if (!activity.isDestroyed) done(it) }

    /** Shows the sentence of a failure. A success does not clear an earlier message. */
    protected fun <T> Result<T>.tellFailure(): Result<T> = onFailure { activity.tell(sentence(it)) }
}
