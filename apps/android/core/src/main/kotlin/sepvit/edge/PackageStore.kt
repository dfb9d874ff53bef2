package sepvit.edge

import java.io.EOFException
import java.io.File
import java.io.FileNotFoundException
import java.io.IOException
import java.io.InputStream
import java.util.zip.ZipException
import java.util.zip.ZipInputStream
import kotlinx.serialization.Serializable
import kotlinx.serialization.SerializationException

/** The bundled packages, from packages/index.json in the app's assets (apps/README.md). */
@Serializable
private data class Index(val packages: List<IndexEntry>)

@Serializable
private data class IndexEntry(val folder: String, val files: List<String>)

/**
 * The packages that the app can open: bundled and imported ones.
 *
 * Runtimes open files, not assets, so each bundled package is copied to [folder] once. If the bundled
 * files have trust.pem, one of its keys must have signed each package.
 *
 * @param folder the app's folder for packages.
 * @param version the app's version. A new version replaces the copies of bundled packages.
 * @param pushed the folder into which a computer puts packages with adb; null without one.
 * @param asset opens a bundled file by its path below packages/.
 */
class PackageStore(
    private val folder: File,
    version: String,
    private val pushed: File? = null,
    private val asset: (String) -> InputStream,
) {
    private val bundled = File(folder, "bundled-$version")
    private val imported = File(folder, "imported")

    private val trust by lazy {
        try {
            TrustedKeys(asset("trust.pem").use { it.reader().readText() })
        } catch (_: FileNotFoundException) {
            null
        } catch (error: IllegalArgumentException) {
            throw Refusal(
                Refusal.Kind.INVALID, "packages/trust.pem is damaged: ${error.message}; run the bundle command", error,
            )
        }
    }

    /** Returns the names of all packages in the order in which to show them. */
    fun names(): List<String> {
        val found = index().map { it.folder } +
            listOfNotNull(imported, pushed).flatMap { it.list().orEmpty().sorted() }
                .filterNot { it.startsWith(".") }
        return found.distinct()
    }

    /**
     * Opens and checks a package. Imported and pushed packages hide a bundled one of the same name.
     *
     * @throws Refusal if the name is unknown, or the package is damaged or not signed as asked for.
     */
    fun open(name: String): EdgePackage {
        val entry = index().find { it.folder == name }
        val own = listOfNotNull(imported, pushed).map { File(it, name) }.find { it.isDirectory }
        return when {
            name.isEmpty() || '/' in name || name.startsWith(".") -> unknown(name)
            own != null -> EdgePackage(own, trust)
            entry != null -> EdgePackage(copied(entry), trust)
            else -> unknown(name)
        }
    }

    private fun unknown(name: String): Nothing = throw Refusal(
        Refusal.Kind.NO_MANIFEST,
        "unknown package '$name' (available: ${names().joinToString()})",
    )

    /**
     * Imports a package from a .zip of its folder.
     *
     * @param name the name under which to keep it.
     * @return that name with the characters replaced that a folder's name cannot have.
     * @throws Refusal if the file is not a valid package; nothing is kept then.
     */
    fun import(archive: InputStream, name: String): String {
        val clean = name.removeSuffix(".zip").replace(Regex("[^\\p{L}\\p{N}._-]"), "_").trimStart('.')
            .ifEmpty { "package" }
        replacing(File(imported, clean)) { partial ->
            unzip(archive, partial)
            val top = partial.listFiles().orEmpty().singleOrNull()?.takeIf { it.isDirectory } ?: partial
            EdgePackage(top, trust)
            top
        }
        return clean
    }

    fun remove(name: String) {
        if (name in imported.list().orEmpty()) File(imported, name).deleteRecursively()
    }

    fun isImported(name: String) = name in imported.list().orEmpty()

    private fun index(): List<IndexEntry> = try {
        asset("index.json").use { documents.decodeFromString<Index>(it.reader().readText()).packages }
    } catch (_: IOException) {
        emptyList() // an app without bundled packages
    } catch (error: SerializationException) {
        throw Refusal(Refusal.Kind.INVALID, "packages/index.json is damaged; run the bundle command", error)
    }

    private fun copied(entry: IndexEntry): File {
        val target = File(bundled, entry.folder)
        if (target.isDirectory) return target
        folder.listFiles { file -> file.name.startsWith("bundled-") && file != bundled }
            .orEmpty().forEach(File::deleteRecursively)
        replacing(target) { partial ->
            for (path in entry.files) {
                val file = inside(partial, path)
                file.parentFile!!.mkdirs()
                asset("${entry.folder}/$path").use { input -> file.outputStream().use(input::copyTo) }
            }
            partial
        }
        return target
    }

    /** Fills a folder beside [target], then moves the result of [fill] there: all or nothing. */
    private fun replacing(target: File, fill: (File) -> File) {
        val partial = File(target.parentFile, "$PARTIAL${target.name}")
        partial.deleteRecursively()
        if (!partial.mkdirs()) throw Refusal(Refusal.Kind.ARCHIVE, FULL)
        try {
            val filled = fill(partial)
            target.deleteRecursively()
            if (!filled.renameTo(target)) throw Refusal(Refusal.Kind.ARCHIVE, FULL)
        } catch (error: IOException) {
            throw if (error is ZipException || error is EOFException) notAnArchive() else Refusal(Refusal.Kind.ARCHIVE, FULL, error)
        } finally {
            partial.deleteRecursively()
        }
    }

    private fun unzip(archive: InputStream, into: File) {
        var left = MAX_BYTES
        var entries = 0
        ZipInputStream(archive).use { zip ->
            while (true) {
                val entry = zip.nextEntry ?: break
                entries++
                val file = inside(into, entry.name)
                if (entry.isDirectory) {
                    file.mkdirs()
                    continue
                }
                file.parentFile!!.mkdirs()
                file.outputStream().use { out ->
                    val piece = ByteArray(1 shl 16)
                    while (true) {
                        val read = zip.read(piece)
                        if (read < 0) break
                        left -= read
                        if (left < 0 || entries > MAX_ENTRIES) throw Refusal(
                            Refusal.Kind.ARCHIVE, "the file unpacks to more than 2 GB; it is not a package",
                        )
                        out.write(piece, 0, read)
                    }
                }
            }
        }
        if (entries == 0) throw notAnArchive()
    }

    private fun notAnArchive() =
        Refusal(Refusal.Kind.ARCHIVE, "the file is not a .zip of a package; choose another one")

    private fun inside(root: File, path: String): File {
        val file = File(root, path).canonicalFile
        if (!file.startsWith(root.canonicalFile)) throw Refusal(
            Refusal.Kind.PATH, "the archive names the file '$path', which leaves the folder",
        )
        return file
    }

    private companion object {
        const val PARTIAL = ".partial-"
        const val MAX_BYTES = 2_000_000_000L
        const val MAX_ENTRIES = 10_000
        const val FULL = "the package cannot be stored; free some space and try again"
    }
}
