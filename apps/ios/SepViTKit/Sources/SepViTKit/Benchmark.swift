import Foundation

/// The number and length of a benchmark's runs.
public struct BenchmarkOptions: Sendable {
    /// Maximum number of runs before the timed ones; fewer if times become stable earlier.
    public var warmUp: Int
    public var runs: Int
    /// Duration of the sustained run after the timed runs, in seconds; 0 for none.
    public var sustainedS: Double

    public init(warmUp: Int = 50, runs: Int = 100, sustainedS: Double = 0) {
        self.warmUp = warmUp
        self.runs = runs
        self.sustainedS = sustainedS
    }
}

/// Reads the device's properties and state, and this process's memory.
public protocol DeviceProbe: Sendable {
    var device: Device { get }
    /// Name of the system's memory figure, for example "phys_footprint".
    var memorySource: String { get }
    func conditions() -> Conditions
    /// Return the memory of this process in 10^6 bytes.
    func memoryMb() -> Double?
    func notMeasured() -> [Profile.NotMeasured]
}

/// Progress of a benchmark.
public struct Progress: Sendable {
    public enum Step: String, Sendable { case checking, warmingUp, timing, preprocessing, sustained }

    public let step: Step
    /// 0..1
    public let share: Double
}

/// Measures a package on this device and returns the profile document.
public struct Benchmark: Sendable {
    private static let preprocessingRuns = 30
    /// Times are stable when the medians of two consecutive windows differ by less than this share.
    private static let stableWindow = 5
    private static let stableShare = 0.05
    private static let sustainedPoints = 60.0
    private static let shortestPointS = 1.0

    public let options: BenchmarkOptions
    public let probe: any DeviceProbe
    public let producer: Profile.Producer

    public init(_ options: BenchmarkOptions, probe: any DeviceProbe, appVersion: String) {
        self.options = options
        self.probe = probe
        producer = Profile.Producer(name: "ios-app", version: appVersion)
    }

    /// Time a loaded package on its golden pixels. Cancelling the task ends a sustained run early; before
    /// that, the benchmark throws.
    ///
    /// - Throws: `SepViTError` if the self-check fails: wrong answers are not timed.
    public func run(
        _ session: Session, coldStart: ColdStart? = nil, report: (Progress) -> Void = { _ in }
    ) throws -> Profile {
        report(Progress(step: .checking, share: 0))
        let golden = try session.package.golden()
        let check = try selfCheck(session, golden: golden)
        guard check.passed else {
            let step = check.failsAt?.rawValue ?? ""
            throw SepViTError(
                "the self-check failed at the \(step), so nothing was timed; open the self-check for details"
            )
        }
        let manifest = session.package.manifest
        let each = manifest.inputSize.width * manifest.inputSize.height * 3
        let pixels = Array((golden["pixels"]?.bytes ?? []).prefix(each))
        let loaded = probe.memoryMb()
        var peak = loaded
        func timed() throws -> Double {
            try Self.milliseconds { _ = try session.run(pixels) }
        }

        let before = probe.conditions()
        var warm: [Double] = []
        while warm.count < options.warmUp, !Self.isStable(warm) {
            try Task.checkStopped()
            warm.append(try timed())
            report(Progress(step: .warmingUp, share: Double(warm.count) / Double(options.warmUp)))
        }
        var runs: [Double] = []
        while runs.count < options.runs {
            try Task.checkStopped()
            runs.append(try timed())
            report(Progress(step: .timing, share: Double(runs.count) / Double(options.runs)))
        }
        let steady = probe.memoryMb()
        peak = [peak, steady].compactMap { $0 }.max()

        report(Progress(step: .preprocessing, share: 0))
        // Image 2 is the one of 320 x 240 in exported packages.
        let image = try goldenImage(golden, min(2, check.images - 1))
        let resizing = try (0..<Self.preprocessingRuns).map { _ in
            try Self.milliseconds { _ = try inputPixels(image, manifest) }
        }
        let sustained = options.sustainedS > 0 ? try sustain(timed, report) : nil
        return Profile(
            producer: producer,
            package: Profile.MeasuredPackage(
                digest: manifest.digest, variant: manifest.model.variant, target: manifest.target,
                precision: manifest.precision, imageSize: manifest.model.imageSize,
                numClasses: manifest.model.numClasses, batch: manifest.input.shape.first ?? 1,
                modelMb: Double(session.package.size) / 1e6, macs: manifest.model.macs
            ),
            runtime: session.engine.runtime,
            device: probe.device,
            golden: Profile.Golden(
                images: check.images, sqnrDb: check.maxAbsError == 0 ? nil : check.sqnrDb,
                minimumSqnrDb: check.minimumSqnrDb, maxAbsError: check.maxAbsError,
                top1Agreement: check.agreement, preprocessingIdentical: true, passed: true
            ),
            method: Profile.Method(
                clock: "ContinuousClock", clockResolutionNs: Self.clockResolutionNs(),
                warmupRuns: warm.count, warmupStable: Self.isStable(warm)
            ),
            before: before,
            after: probe.conditions(),
            coldStart: coldStart,
            latency: Profile.Latency(runs),
            preprocessing: Profile.Latency(resizing),
            memory: peak.map {
                Memory(source: probe.memorySource, loadedMb: loaded, steadyMb: steady, peakMb: $0)
            },
            sustained: sustained,
            notMeasured: probe.notMeasured()
                + (coldStart == nil
                    ? [.init("cold_start", "The app was already running.")] : [])
        )
    }

    private func sustain(
        _ timed: () throws -> Double, _ report: (Progress) -> Void
    ) throws -> Profile.Sustained {
        let clock = ContinuousClock()
        let start = clock.now
        let piece = max(options.sustainedS / Self.sustainedPoints, Self.shortestPointS)
        var points: [Profile.SustainedPoint] = []
        var times: [Double] = []
        var elapsed = 0.0
        while elapsed < options.sustainedS, !Task.isCancelled {
            times.append(try timed())
            elapsed = Self.milliseconds(clock.now - start) / 1000
            guard elapsed >= piece * Double(points.count + 1) || elapsed >= options.sustainedS else {
                continue
            }
            points.append(
                Profile.SustainedPoint(
                    timeS: rounded(elapsed), runs: times.count,
                    p50Ms: rounded(percentile(times, 50)), p90Ms: rounded(percentile(times, 90)),
                    maxMs: rounded(percentile(times, 100)),
                    thermalState: probe.conditions().thermalState
                )
            )
            times = []
            report(Progress(step: .sustained, share: min(elapsed / options.sustainedS, 1)))
        }
        return Profile.Sustained(requestedS: options.sustainedS, points: points)
    }

    /// Return the time of a piece of work in milliseconds.
    public static func milliseconds(_ work: () throws -> Void) rethrows -> Double {
        milliseconds(try ContinuousClock().measure(work))
    }

    static func milliseconds(_ duration: Duration) -> Double {
        Double(duration.components.seconds) * 1e3 + Double(duration.components.attoseconds) / 1e15
    }

    private static func isStable(_ times: [Double]) -> Bool {
        guard times.count >= 2 * stableWindow else { return false }
        let last = percentile(Array(times.suffix(stableWindow)), 50)
        let before = percentile(Array(times.suffix(2 * stableWindow).prefix(stableWindow)), 50)
        return abs(last - before) <= stableShare * before
    }

    /// Return the smallest difference between two readings of the clock.
    private static func clockResolutionNs() -> Double? {
        let clock = ContinuousClock()
        var last = clock.now
        var smallest: Double?
        for _ in 0..<10_000 {
            let now = clock.now
            let nanoseconds = milliseconds(now - last) * 1e6
            if nanoseconds > 0 { smallest = min(smallest ?? nanoseconds, nanoseconds) }
            last = now
        }
        return smallest.map { $0.rounded() }
    }
}

extension Task where Success == Never, Failure == Never {
    fileprivate static func checkStopped() throws {
        if isCancelled {
            throw SepViTError("the benchmark was stopped; run it again for a result")
        }
    }
}
