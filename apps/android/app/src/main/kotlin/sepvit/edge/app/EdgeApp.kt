package sepvit.edge.app

import android.app.Application

/** Keeps what outlives an activity, which Android makes anew at every rotation. */
class EdgeApp : Application() {
    val workspace: Workspace by lazy { Workspace(this) }
}
