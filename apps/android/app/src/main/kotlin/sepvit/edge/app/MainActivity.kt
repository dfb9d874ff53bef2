package sepvit.edge.app

import android.app.Activity
import android.content.ActivityNotFoundException
import android.content.Intent
import android.net.Uri
import android.os.Bundle
import android.provider.OpenableColumns
import android.view.View
import android.view.ViewGroup
import android.widget.AdapterView
import android.widget.ArrayAdapter
import android.widget.Button
import android.widget.Spinner
import android.widget.TextView

/** The five screens, the choice of the package above them, and results of other activities. */
class MainActivity : Activity(), AdapterView.OnItemSelectedListener {
    val workspace: Workspace get() = (application as EdgeApp).workspace

    private val tabs = listOf(
        R.id.tab_camera, R.id.tab_photo, R.id.tab_benchmark, R.id.tab_self_check, R.id.tab_about,
    )
    private lateinit var screens: List<Screen>
    private lateinit var packages: Spinner
    private lateinit var message: TextView
    private var shown = 0
    private var resumed = false

    override fun onCreate(state: Bundle?) {
        super.onCreate(state)
        setContentView(R.layout.main)
        packages = findViewById(R.id.packages)
        message = findViewById(R.id.message)
        screens = listOf(
            CameraScreen(this), PhotoScreen(this), BenchmarkScreen(this), SelfCheckScreen(this),
            AboutScreen(this),
        )
        tabs.forEachIndexed { i, tab -> findViewById<Button>(tab).setOnClickListener { choose(i) } }
        findViewById<Button>(R.id.import_package).setOnClickListener {
            val choice = Intent(Intent.ACTION_OPEN_DOCUMENT).addCategory(Intent.CATEGORY_OPENABLE)
                .setType("application/zip")
            startForResult(choice, PACKAGE)
        }
        shown = state?.getInt(SHOWN) ?: 0
        listPackages()
        attach()
        if (state == null) obey(intent)
    }

    override fun onNewIntent(intent: Intent) {
        super.onNewIntent(intent)
        obey(intent)
    }

    /** Does what a computer asks for (apps/README.md). */
    private fun obey(intent: Intent?) {
        when (intent?.action) {
            BENCHMARK -> {
                choose(tabs.indexOf(R.id.tab_benchmark))
                workspace.benchmarks.start(intent)
            }
            OUTPUTS -> {
                tell(getString(R.string.images_running))
                workspace.images.start(intent) { if (!isDestroyed) tell(it?.let(::sentence)) }
            }
        }
    }

    override fun onSaveInstanceState(state: Bundle) {
        super.onSaveInstanceState(state)
        state.putInt(SHOWN, shown)
    }

    override fun onResume() {
        super.onResume()
        resumed = true
        screens[shown].show()
    }

    override fun onPause() {
        resumed = false
        screens[shown].hide()
        super.onPause()
    }

    fun choose(screen: Int) {
        if (screen == shown) return
        if (resumed) screens[shown].hide()
        shown = screen
        tell(null)
        attach()
        if (resumed) screens[shown].show()
    }

    private fun attach() {
        val content = findViewById<ViewGroup>(R.id.content)
        content.removeAllViews()
        content.addView(screens[shown].view)
        tabs.forEachIndexed { i, tab ->
            val button = findViewById<Button>(tab)
            button.isSelected = i == shown // TalkBack says so
            button.alpha = if (i == shown) 1f else 0.6f
        }
    }

    fun listPackages(choose: String? = workspace.chosen) {
        val names = workspace.names()
        workspace.choose(choose?.takeIf { it in names } ?: names.firstOrNull())
        packages.onItemSelectedListener = null
        packages.adapter = ArrayAdapter(this, android.R.layout.simple_spinner_dropdown_item, names)
        packages.setSelection(names.indexOf(workspace.chosen).coerceAtLeast(0), false)
        packages.onItemSelectedListener = this
        tell(workspace.fault ?: getString(R.string.no_package).takeIf { names.isEmpty() })
    }

    override fun onItemSelected(parent: AdapterView<*>, view: View?, position: Int, id: Long) {
        val name = parent.getItemAtPosition(position) as String
        if (name == workspace.chosen) return
        workspace.choose(name)
        tell(null)
        if (resumed) screens[shown].show()
    }

    override fun onNothingSelected(parent: AdapterView<*>) {}

    /** Shows a sentence above the screen; null removes it. */
    fun tell(sentence: String?) {
        message.text = sentence
        message.visibility = if (sentence == null) View.GONE else View.VISIBLE
    }

    fun startForResult(intent: Intent, request: Int) = try {
        @Suppress("DEPRECATION") // its successor is in androidx, which nothing else here needs
        startActivityForResult(intent, request)
    } catch (_: ActivityNotFoundException) {
        tell("no app on this device can choose files")
    }

    @Deprecated("Deprecated in Java")
    override fun onActivityResult(request: Int, result: Int, data: Intent?) {
        val uri = data?.data ?: return
        if (result != RESULT_OK) return
        tell(null)
        when (request) {
            PHOTO -> workspace.photo = uri // shown when the screen is, which comes next
            PACKAGE -> importFrom(uri)
        }
    }

    private fun importFrom(uri: Uri) = workspace.work({
        val name = contentResolver.query(uri, arrayOf(OpenableColumns.DISPLAY_NAME), null, null, null)
            ?.use { if (it.moveToFirst()) it.getString(0) else null } ?: "package"
        contentResolver.open(uri).use { store.import(it, name) }
    }) { result ->
        if (isDestroyed) return@work
        result.onSuccess {
            listPackages(it)
            tell(getString(R.string.imported, it))
            if (resumed) screens[shown].show()
        }.onFailure { tell(sentence(it)) }
    }

    override fun onRequestPermissionsResult(request: Int, permissions: Array<String>, results: IntArray) {
        super.onRequestPermissionsResult(request, permissions, results)
        if (request == CAMERA && resumed && shown == 0) screens[0].show()
    }

    companion object {
        const val CAMERA = 1
        const val PHOTO = 2
        const val PACKAGE = 3
        const val BENCHMARK = "sepvit.edge.action.BENCHMARK"
        const val OUTPUTS = "sepvit.edge.action.OUTPUTS"
        private const val SHOWN = "shown"
    }
}
