package sepvit.edge.app

import android.view.View
import android.widget.Button
import android.widget.TextView
import sepvit.edge.EdgePackage
import sepvit.edge.Precision

/** The package's manifest. An imported package can be removed. */
class AboutScreen(activity: MainActivity) : Screen(activity, R.layout.about) {
    private val facts: TextView = find(R.id.facts)

    private val remove: Button = find(R.id.remove)

    init {
        remove.setOnClickListener {
            val name = workspace.chosen ?: return@setOnClickListener
            workspace.choose(null) // frees the model before its file goes
            work({ store.remove(name) }) {
                activity.listPackages()
                show()
            }
        }
    }

    override fun show() {
        val imported = workspace.chosen?.let(workspace.store::isImported) ?: false
        remove.visibility = if (imported) View.VISIBLE else View.GONE
        work({ openPackage() }) { result ->
            result.tellFailure()
            facts.text = result.fold(::describe) { null }
        }
    }

    private fun describe(packed: EdgePackage): String {
        val manifest = packed.manifest
        val lines = mutableListOf(
            text(
                R.string.about_text, manifest.model.name, manifest.model.numClasses,
                manifest.inputSize.width, manifest.inputSize.height, manifest.target, precision(manifest.precision),
                manifest.model.parameters / 1e6, manifest.model.macs / 1e6, packed.modelSize / 1e6,
                manifest.runtime.name, manifest.runtime.version, manifest.runtime.minimum,
                manifest.runtime.below, manifest.task.key,
            ),
        )
        manifest.quantization?.let {
            lines += text(R.string.about_quantized, it.scheme, it.floatLayers.size)
        }
        manifest.parity?.let {
            var line = text(
                R.string.about_parity, it.images, it.data, it.sqnrDb, 100 * it.top1Agreement,
            )
            val (ours, reference) = it.top1Package to it.top1Reference
            if (ours != null && reference != null) {
                line += text(R.string.about_top1, 100 * ours, 100 * reference)
            }
            lines += line
        }
        lines += text(R.string.about_digest, manifest.digest)
        lines += text(R.string.about_app, workspace.version)
        return lines.joinToString("\n\n")
    }

    private fun precision(precision: Precision) = precision.name.lowercase()
}
