package sepvit.edge

import java.io.File

/** What the system tells about a device; the Android app adds what only Android knows. */
interface DeviceProbe {
    val device: Device

    fun conditions(): Conditions

    fun memory(): MemoryReading?

    /** Milliseconds since this process was started; null where the system does not tell. */
    fun processAgeMs(): Double?
}

/** Resident memory now and at its highest, in MB of 10^6 bytes. */
data class MemoryReading(val residentMb: Double, val peakMb: Double)

/** What every Linux kernel tells, Android's included, as far as the app may read it. */
object LinuxFiles {
    private val cpus: List<File> =
        File("/sys/devices/system/cpu").listFiles { file -> file.name.matches(Regex("cpu\\d+")) }
            .orEmpty().sortedBy(::number)

    fun frequenciesMhz(): List<Double>? = ofEachCore("cpufreq/scaling_cur_freq") { it.toDouble() / 1e3 }

    fun governors(): List<String>? = ofEachCore("cpufreq/scaling_governor") { it }?.distinct()

    /** Cores by their highest frequency, slowest first. */
    fun clusters(): List<CoreCluster>? =
        ofEachCore("cpufreq/cpuinfo_max_freq") { it.toDouble() / 1e3 }?.let { highest ->
            cpus.map(::number).zip(highest).groupBy({ it.second }, { it.first }).toSortedMap()
                .map { (mhz, cores) -> CoreCluster(cores, maxMhz = mhz) }
        }

    /** Features that decide how fast low precision is, by the kernel's names. */
    fun cpuFeatures(): List<String>? = read("/proc/cpuinfo")?.lineSequence()
        ?.firstOrNull { it.startsWith("Features") || it.startsWith("flags") }
        ?.substringAfter(':')?.trim()?.split(' ')
        ?.filter { it in setOf("asimdhp", "asimddp", "i8mm", "bf16", "sve", "atomics", "avx2", "avx512_vnni") }

    fun memoryMb(): Double? = kilobytes("/proc/meminfo", "MemTotal")

    fun resident(): MemoryReading? {
        val now = kilobytes("/proc/self/status", "VmRSS") ?: return null
        return MemoryReading(now, kilobytes("/proc/self/status", "VmHWM") ?: return null)
    }

    private fun kilobytes(path: String, field: String): Double? =
        read(path)?.lineSequence()?.firstOrNull { it.startsWith("$field:") }
            ?.filter(Char::isDigit)?.toDoubleOrNull()?.times(1024 / 1e6)

    private fun <T> ofEachCore(file: String, convert: (String) -> T): List<T>? =
        cpus.map { read("$it/$file")?.trim()?.let(convert) ?: return null }.ifEmpty { null }

    private fun number(cpu: File) = cpu.name.removePrefix("cpu").toInt()

    private fun read(path: String): String? = try {
        File(path).readText()
    } catch (_: java.io.IOException) {
        null // this system keeps it to itself
    }
}
