package sepvit.edge

import java.io.File

/** Reads the device's properties and state. */
interface DeviceProbe {
    val device: Device

    fun conditions(): Conditions

    fun memory(): MemoryReading?

    /** Returns the milliseconds since this process started; null if the system does not report it. */
    fun processAgeMs(): Double?
}

/** Resident memory and its peak in 10^6 bytes. */
data class MemoryReading(val residentMb: Double, val peakMb: Double)

/** Files of the Linux kernel that an app may read, also on Android. */
object LinuxFiles {
    private val cpus: List<File> =
        File("/sys/devices/system/cpu").listFiles { file -> file.name.matches(Regex("cpu\\d+")) }
            .orEmpty().sortedBy(::number)

    fun frequenciesMhz(): List<Double>? = ofEachCore("cpufreq/scaling_cur_freq") { it.toDouble() / 1e3 }

    fun governors(): List<String>? = ofEachCore("cpufreq/scaling_governor") { it }?.distinct()

    /** Returns the cores grouped by their highest frequency, slowest first. */
    fun clusters(): List<CoreCluster>? =
        ofEachCore("cpufreq/cpuinfo_max_freq") { it.toDouble() / 1e3 }?.let { highest ->
            cpus.map(::number).zip(highest).groupBy({ it.second }, { it.first }).toSortedMap()
                .map { (mhz, cores) -> CoreCluster(cores, maxMhz = mhz) }
        }

    /** Returns the CPU features that speed up low precision, by the kernel's names. */
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
        null // not readable on this system
    }
}
