import Foundation

/// Version 2 of the profile document: the result of measuring one package on one device.
///
/// Its schema is in export/. Field names end in the unit. A value that was not measured is nil, and
/// `notMeasured` states the reason.
public struct Profile: Codable, Sendable {
    public struct Producer: Codable, Sendable {
        public let name: String
        public let version: String
    }

    public struct MeasuredPackage: Codable, Sendable {
        public let digest, variant, target: String
        public let precision: Manifest.Precision
        public let imageSize, numClasses, batch: Int
        public let modelMb: Double
        public let macs: Int
    }

    public struct Golden: Codable, Sendable {
        public let images: Int
        /// Nil if all logits are identical.
        public let sqnrDb: Double?
        public let minimumSqnrDb, maxAbsError, top1Agreement: Double
        public let preprocessingIdentical, passed: Bool

        /// Write `sqnr_db` even if it is nil: the schema requires the key.
        public func encode(to encoder: any Encoder) throws {
            var container = encoder.container(keyedBy: CodingKeys.self)
            try container.encode(images, forKey: .images)
            try container.encode(sqnrDb, forKey: .sqnrDb)
            try container.encode(minimumSqnrDb, forKey: .minimumSqnrDb)
            try container.encode(maxAbsError, forKey: .maxAbsError)
            try container.encode(top1Agreement, forKey: .top1Agreement)
            try container.encode(preprocessingIdentical, forKey: .preprocessingIdentical)
            try container.encode(passed, forKey: .passed)
        }
    }

    public struct Method: Codable, Sendable {
        public let clock: String
        public let clockResolutionNs: Double?
        public let warmupRuns: Int
        public let warmupStable: Bool
    }

    public struct Latency: Codable, Sendable {
        public let runs: Int
        public let minMs, meanMs, p50Ms, p90Ms, p99Ms, maxMs: Double
        public let runsMs: [Double]

        /// Summarise runs in milliseconds, rounded to 0.1 microseconds.
        public init(_ runs: [Double]) {
            runsMs = runs.map(rounded)
            self.runs = runs.count
            minMs = percentile(runsMs, 0)
            meanMs = rounded(mean(runsMs))
            p50Ms = rounded(percentile(runsMs, 50))
            p90Ms = rounded(percentile(runsMs, 90))
            p99Ms = rounded(percentile(runsMs, 99))
            maxMs = percentile(runsMs, 100)
        }
    }

    public struct SustainedPoint: Codable, Sendable {
        public let timeS: Double
        public let runs: Int
        public let p50Ms, p90Ms, maxMs: Double
        public let thermalState: String?
    }

    public struct Sustained: Codable, Sendable {
        public let requestedS: Double
        public let points: [SustainedPoint]
    }

    public struct NotMeasured: Codable, Sendable {
        public let what, reason: String

        public init(_ what: String, _ reason: String) {
            self.what = what
            self.reason = reason
        }
    }

    public var schemaVersion = "2.0"
    public var complete = true
    public var emulated = false
    public let producer: Producer
    public let package: MeasuredPackage
    public let runtime: RuntimeUsed
    public let device: Device
    public let golden: Golden
    public let method: Method
    public let before, after: Conditions?
    public let coldStart: ColdStart?
    public let latency, preprocessing: Latency
    public let memory: Memory?
    public let sustained: Sustained?
    public let notMeasured: [NotMeasured]

    /// Return the document as JSON.
    public func json() throws -> Data {
        let encoder = JSONEncoder()
        encoder.keyEncodingStrategy = .convertToSnakeCase
        encoder.outputFormatting = [.prettyPrinted, .sortedKeys, .withoutEscapingSlashes]
        return try encoder.encode(self)
    }
}

/// The runtime and its settings.
public struct RuntimeUsed: Codable, Sendable {
    public let name, version, execution: String
    public let threads: Int?
    public let settings: [String: String]

    public init(
        name: String, version: String, execution: String, threads: Int? = nil,
        settings: [String: String] = [:]
    ) {
        self.name = name
        self.version = version
        self.execution = execution
        self.threads = threads
        self.settings = settings
    }
}

/// The device's properties that its system reports.
public struct Device: Codable, Sendable {
    public let name: String
    public let model, soc, architecture, os, osVersion: String?
    public let logicalCores: Int?
    public let memoryMb: Double?

    public init(
        name: String, model: String? = nil, soc: String? = nil, architecture: String? = nil,
        os: String? = nil, osVersion: String? = nil, logicalCores: Int? = nil,
        memoryMb: Double? = nil
    ) {
        self.name = name
        self.model = model
        self.soc = soc
        self.architecture = architecture
        self.os = os
        self.osVersion = osVersion
        self.logicalCores = logicalCores
        self.memoryMb = memoryMb
    }
}

/// State of the device at one moment.
public struct Conditions: Codable, Sendable {
    /// "nominal", "fair", "serious" or "critical".
    public let thermalState: String?
    public let batteryPercent: Double?
    public let charging, lowPowerMode: Bool?

    public init(
        thermalState: String? = nil, batteryPercent: Double? = nil, charging: Bool? = nil,
        lowPowerMode: Bool? = nil
    ) {
        self.thermalState = thermalState
        self.batteryPercent = batteryPercent
        self.charging = charging
        self.lowPowerMode = lowPowerMode
    }
}

/// Times from the start of the process to its first answer.
public struct ColdStart: Codable, Sendable {
    public let starts: Int
    public let totalMs, loadMs, firstRunMs: Double
    public let fileCache: String

    public init(totalMs: Double, loadMs: Double, firstRunMs: Double) {
        starts = 1
        self.totalMs = totalMs
        self.loadMs = loadMs
        self.firstRunMs = firstRunMs
        fileCache = "unknown"
    }
}

/// Memory of the process in 10^6 bytes.
public struct Memory: Codable, Sendable {
    public let source: String
    public let loadedMb, steadyMb, peakMb: Double?
}
