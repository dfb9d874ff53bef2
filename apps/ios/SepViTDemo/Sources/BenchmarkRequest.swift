import Foundation
import SepViTKit

/// A benchmark that the launch arguments request:
/// `--benchmark PACKAGE --runs 100 --warm-up 50 --sustained 0 --compute-units all --output result`.
struct BenchmarkRequest: Sendable {
    let package: String
    let options: BenchmarkOptions
    let units: ComputeUnits
    let output: String

    static let ofLaunch = BenchmarkRequest(ProcessInfo.processInfo.arguments)
    static let results = URL.documentsDirectory.appendingPathComponent("profiles")

    init?(_ arguments: [String]) {
        func value(_ name: String) -> String? {
            guard let at = arguments.firstIndex(of: name), at + 1 < arguments.count else { return nil }
            return arguments[at + 1]
        }
        guard let package = value("--benchmark") else { return nil }
        self.package = package
        var options = BenchmarkOptions()
        if let runs = value("--runs").flatMap(Int.init), runs > 0 { options.runs = runs }
        if let warmUp = value("--warm-up").flatMap(Int.init), warmUp >= 0 { options.warmUp = warmUp }
        if let seconds = value("--sustained").flatMap(Double.init), seconds >= 0 {
            options.sustainedS = seconds
        }
        self.options = options
        units = value("--compute-units").flatMap(ComputeUnits.init) ?? .all
        output = value("--output") ?? "result"
    }

    /// Measure from a cold start, and write NAME.json, or NAME.error with the sentence of the error.
    @MainActor func run() async {
        let probe = PhoneProbe()
        let files = FileManager.default
        let place = Self.results.appendingPathComponent(output)
        let (json, failure) = (place.appendingPathExtension("json"), place.appendingPathExtension("error"))
        try? files.createDirectory(at: Self.results, withIntermediateDirectories: true)
        try? files.removeItem(at: json)
        try? files.removeItem(at: failure)
        let folders = [bundledPackages, AppModel.imported]
        let result = await Task.detached { [self] in
            Result { try measure(folders, probe) }
        }.value
        do {
            try result.get().write(to: json, options: .atomic)
        } catch {
            try? Data(error.localizedDescription.utf8).write(to: failure, options: .atomic)
        }
    }

    private func measure(_ folders: [URL], _ probe: PhoneProbe) throws -> Data {
        let places = folders.map { $0.appendingPathComponent(package) }
        guard let url = places.first(where: { FileManager.default.fileExists(atPath: $0.path) }) else {
            throw SepViTError("unknown package '\(package)'; import it or bundle it with the app")
        }
        let checked = try openPackage(url)
        var opened: Session?
        let load = try Benchmark.milliseconds { opened = try Session(checked, engine(for: checked, units)) }
        guard let session = opened else { throw SepViTError("the package could not be opened") }
        let size = checked.manifest.inputSize
        let grey = [UInt8](repeating: 127, count: size.width * size.height * 3)
        let first = try Benchmark.milliseconds { _ = try session.run(grey) }
        let cold = PhoneProbe.sinceProcessStart().map {
            ColdStart(totalMs: $0, loadMs: load, firstRunMs: first)
        }
        return try Benchmark(options, probe: probe, appVersion: appVersion)
            .run(session, coldStart: cold).json()
    }
}

let appVersion = Bundle.main.infoDictionary?["CFBundleShortVersionString"] as? String ?? "unknown"
