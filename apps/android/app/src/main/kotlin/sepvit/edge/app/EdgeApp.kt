package sepvit.edge.app

import android.app.Application

/** Keeps the state of the app. Android recreates the activity at every rotation. */
class EdgeApp : Application() {
    lateinit var workspace: Workspace

    override fun onCreate() {
        super.onCreate()
        workspace = Workspace(this)
    }
}
