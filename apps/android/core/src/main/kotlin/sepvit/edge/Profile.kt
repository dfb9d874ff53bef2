package sepvit.edge

import kotlinx.serialization.Serializable

/**
 * Version 2 of the profile document: the result of measuring one package on one device. Its schema
 * is in export/. Field names end in the unit. A value that was not measured is null, and
 * [notMeasured] states the reason.
 */
@Serializable
data class Profile(
    val schemaVersion: String = "2.0",
    val complete: Boolean,
    val incompleteReason: String? = null,
    val emulated: Boolean = false,
    val producer: Producer,
    val `package`: ProfiledPackage,
    val runtime: RuntimeUsed,
    val device: Device,
    val golden: Golden? = null,
    val method: Method? = null,
    val before: Conditions? = null,
    val after: Conditions? = null,
    val coldStart: ColdStart? = null,
    val latency: Latency? = null,
    val preprocessing: Latency? = null,
    val memory: Memory? = null,
    val sustained: Sustained? = null,
    val notMeasured: List<NotMeasured> = emptyList(),
) {
    fun toJson(): String = documents.encodeToString(serializer(), this)

    companion object {
        fun fromJson(text: String): Profile = documents.decodeFromString(serializer(), text)
    }
}

@Serializable
data class Producer(val name: String = "android-app", val version: String)

@Serializable
data class ProfiledPackage(
    val digest: String,
    val variant: String,
    val target: String,
    val precision: Precision,
    val imageSize: Int,
    val numClasses: Int,
    val batch: Int,
    val modelMb: Double,
    val macs: Long,
)

@Serializable
data class RuntimeUsed(
    val name: String,
    val version: String,
    val execution: String,
    val threads: Int? = null,
    val settings: Map<String, String> = emptyMap(),
)

@Serializable
data class Device(
    val name: String,
    val model: String? = null,
    val soc: String? = null,
    val cpu: String? = null,
    val architecture: String? = null,
    val os: String? = null,
    val osVersion: String? = null,
    val logicalCores: Int? = null,
    val clusters: List<CoreCluster>? = null,
    val cpuFeatures: List<String>? = null,
    val memoryMb: Double? = null,
)

@Serializable
data class CoreCluster(val cores: List<Int>, val part: String? = null, val maxMhz: Double? = null)

@Serializable
data class Golden(
    val images: Int,
    val sqnrDb: Double?,
    val minimumSqnrDb: Double,
    val maxAbsError: Double,
    val top1Agreement: Double,
    val preprocessingIdentical: Boolean? = null,
    val passed: Boolean,
)

@Serializable
data class Method(
    val clock: String,
    val clockResolutionNs: Double? = null,
    val warmupRuns: Int,
    val warmupStable: Boolean,
)

@Serializable
data class Conditions(
    val frequenciesMhz: List<Double>? = null,
    val governors: List<String>? = null,
    val temperaturesC: Map<String, Double>? = null,
    val thermalState: String? = null,
    val batteryPercent: Double? = null,
    val charging: Boolean? = null,
    val lowPowerMode: Boolean? = null,
)

@Serializable
data class ColdStart(
    val starts: Int,
    val totalMs: Double,
    val importMs: Double? = null,
    val loadMs: Double,
    val firstRunMs: Double,
    val fileCache: String = "unknown",
)

@Serializable
data class Latency(
    val runs: Int,
    val minMs: Double,
    val meanMs: Double,
    val p50Ms: Double,
    val p90Ms: Double,
    val p99Ms: Double,
    val maxMs: Double,
    val runsMs: List<Double>,
)

@Serializable
data class Memory(
    val source: String,
    val baselineMb: Double? = null,
    val loadedMb: Double? = null,
    val steadyMb: Double? = null,
    val peakMb: Double? = null,
)

@Serializable
data class Sustained(val requestedS: Double, val points: List<SustainedPoint>)

@Serializable
data class SustainedPoint(
    val timeS: Double,
    val runs: Int,
    val p50Ms: Double,
    val p90Ms: Double,
    val maxMs: Double,
    val frequencyMhz: Double? = null,
    val temperatureC: Double? = null,
    val thermalState: String? = null,
)

@Serializable
data class NotMeasured(val what: String, val reason: String)
