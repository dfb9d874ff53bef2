package sepvit.edge.app

import android.content.Context
import android.content.Intent
import android.content.IntentFilter
import android.os.BatteryManager
import android.os.Build
import android.os.PowerManager
import android.os.Process
import android.os.SystemClock
import sepvit.edge.Conditions
import sepvit.edge.Device
import sepvit.edge.DeviceProbe
import sepvit.edge.LinuxFiles

/** Reads the device's properties and state from Android. */
class AndroidProbe(private val context: Context) : DeviceProbe {
    private val power = context.getSystemService(PowerManager::class.java)

    override val device = Device(
        name = "${Build.MANUFACTURER} ${Build.MODEL}",
        model = Build.MODEL,
        soc = if (Build.VERSION.SDK_INT >= 31) "${Build.SOC_MANUFACTURER} ${Build.SOC_MODEL}" else null,
        cpu = Build.HARDWARE,
        architecture = Build.SUPPORTED_ABIS.firstOrNull(),
        os = "Android",
        osVersion = Build.VERSION.RELEASE,
        logicalCores = Runtime.getRuntime().availableProcessors(),
        clusters = LinuxFiles.clusters(),
        cpuFeatures = LinuxFiles.cpuFeatures(),
        memoryMb = LinuxFiles.memoryMb(),
    )

    override fun conditions(): Conditions {
        val battery = context.registerReceiver(null, IntentFilter(Intent.ACTION_BATTERY_CHANGED))
        val temperature = battery?.getIntExtra(BatteryManager.EXTRA_TEMPERATURE, 0)?.takeIf { it > 0 }
        val level = battery?.getIntExtra(BatteryManager.EXTRA_LEVEL, -1) ?: -1
        val scale = battery?.getIntExtra(BatteryManager.EXTRA_SCALE, -1) ?: -1
        return Conditions(
            frequenciesMhz = LinuxFiles.frequenciesMhz(),
            governors = LinuxFiles.governors(),
            // The only sensor that apps may read.
            temperaturesC = temperature?.let { mapOf("battery" to it / 10.0) },
            thermalState = if (Build.VERSION.SDK_INT >= 29) thermal(power.currentThermalStatus) else null,
            batteryPercent = if (level >= 0 && scale > 0) 100.0 * level / scale else null,
            charging = battery?.let { it.getIntExtra(BatteryManager.EXTRA_PLUGGED, 0) != 0 },
            lowPowerMode = power.isPowerSaveMode,
        )
    }

    override fun memory() = LinuxFiles.resident()

    override fun processAgeMs(): Double =
        (SystemClock.elapsedRealtime() - Process.getStartElapsedRealtime()).toDouble()

    private fun thermal(status: Int): String =
        listOf("none", "light", "moderate", "severe", "critical", "emergency", "shutdown")
            .getOrElse(status) { status.toString() }
}
