package sepvit.edge.app

import android.app.Application

/** Keeps what outlives an activity, which Android makes anew at every rotation. */
class EdgeApp : Application() {
    lateinit var workspace: Workspace

    override fun onCreate() {
        super.onCreate()
        workspace = Workspace(this)
    }
}
