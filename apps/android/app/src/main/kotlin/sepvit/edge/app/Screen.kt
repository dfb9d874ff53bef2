package sepvit.edge.app

import android.view.View

/** One of the five screens, made anew with its activity; what must last is in [Workspace]. */
abstract class Screen(protected val activity: MainActivity, layout: Int) {
    val view: View = activity.layoutInflater.inflate(layout, null)
    protected val workspace get() = activity.workspace

    protected fun <T : View> find(id: Int): T = view.findViewById(id)

    protected fun text(id: Int, vararg values: Any): String = activity.getString(id, *values)

    /** The screen is seen, or another package was chosen while it is. */
    open fun show() {}

    /** The screen is no longer seen. */
    open fun hide() {}

    /**
     * Does some work on the inference thread; its result arrives on the main one, and only as long
     * as this activity lives.
     */
    protected fun <T> work(job: Workspace.() -> T, done: (Result<T>) -> Unit) =
        workspace.work(job) { if (!activity.isDestroyed) done(it) }

    /** A success leaves what is shown: it may be about something that the user did meanwhile. */
    protected fun <T> Result<T>.tellFailure(): Result<T> = onFailure { activity.tell(sentence(it)) }
}
