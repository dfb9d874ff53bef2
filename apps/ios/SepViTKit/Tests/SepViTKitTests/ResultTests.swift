import Foundation
import SepViTKit
import Testing

/// The tiny package's model, which tells a mean colour, by hand.
struct MeanColour: EngineKind, InferenceEngine {
    let target = "onnxruntime"
    let version = "1.29"
    let runtime = RuntimeUsed(name: "by hand", version: "1", execution: "CPU", threads: 1)

    func load(_: Package) throws -> any InferenceEngine { self }

    func run(_ input: InputTensor) throws -> [[Float]] {
        guard case .uint8(let values) = input.values else { throw SepViTError("uint8 is expected") }
        let pixels = Double(values.count / 3)
        let mean = (0..<3).map { channel in
            stride(from: channel, to: values.count, by: 3).reduce(0) { $0 + Double(values[$1]) } / pixels
        }
        let (r, g, b) = (mean[0], mean[1], mean[2])
        let rows = [4 * r - 2 * g - 2 * b, 4 * g - 2 * r - 2 * b, 4 * b - 2 * r - 2 * g, r + g + b]
        return [rows.enumerated().map { Float($1 / 64 - ($0 == 3 ? 5 : 0)) }]
    }
}

/// A change of one tensor of the golden vectors.
struct GoldenEdit: Decodable {
    let tensor: String
    let offset: Int
    let values: [Double]

    func applied(to golden: [String: Tensor]) -> [String: Tensor] {
        var changed = golden
        changed[tensor] = golden[tensor]?.edited(from: offset, values)
        return changed
    }
}

private struct SelfCheckCase: Decodable {
    let name: String
    let edit: GoldenEdit?
    let passed: Bool
    let failsAt: String?
    let image, differentValues: Int?
    let maxDifference, sqnrDb, referenceSqnrDb: Double?
}

@Test func theSelfCheckSaysWhereADeviceDiffers() throws {
    let session = try Session(
        Package(Vectors.folder.appendingPathComponent("package")), MeanColour()
    )
    for c in try Vectors.cases("self_check", of: SelfCheckCase.self) {
        let golden = try session.package.golden()
        let found = try selfCheck(session, golden: c.edit?.applied(to: golden) ?? golden)
        #expect(found.passed == c.passed, "\(c.name)")
        #expect(found.failsAt?.rawValue == c.failsAt, "\(c.name)")
        if let image = c.image { #expect(found.image == image, "\(c.name)") }
        if let values = c.differentValues { #expect(found.differentValues == values) }
        if let difference = c.maxDifference { #expect(abs(found.maxDifference - difference) < 1e-9) }
        if let sqnr = c.sqnrDb { #expect(abs(found.sqnrDb - sqnr) < 1e-6, "\(c.name)") }
        if let sqnr = c.referenceSqnrDb { #expect(abs(found.referenceSqnrDb - sqnr) < 1e-6) }
    }
}

private struct MinimumCase: Decodable {
    let precision: Manifest.Precision
    let minimumSqnrDb, minimumAgreement: Double
}

@Test func asNearAsEveryOtherLanguageAsksFor() throws {
    let cases = try Vectors.cases("minimum_sqnr", of: MinimumCase.self)
    #expect(cases.count == 3)
    for c in cases {
        #expect(minimumSqnrDb(c.precision) == c.minimumSqnrDb, "\(c.precision)")
        #expect(minimumAgreement(c.precision) == c.minimumAgreement, "\(c.precision)")
    }
}

extension Tensor {
    fileprivate func edited(from offset: Int, _ new: [Double]) -> Tensor {
        switch values {
        case .uint8(var values):
            for (i, value) in new.enumerated() { values[offset + i] = UInt8(value) }
            return Tensor(shape: shape, values: .uint8(values))
        case .float32(var values):
            for (i, value) in new.enumerated() { values[offset + i] = Float(value) }
            return Tensor(shape: shape, values: .float32(values))
        }
    }
}

private struct TopCase: Decodable {
    let logits: [Float]
    let k: Int
    let indices: [Int]
    let probabilities: [Double]
}

@Test func topClassesKeepTheOrderOfTies() throws {
    for c in try Vectors.cases("top_k", of: TopCase.self) {
        let labels = c.logits.indices.map(String.init)
        let found = topClasses(c.logits, labels: labels, count: c.k)
        #expect(found.map(\.index) == c.indices)
        for (class_, exact) in zip(found, c.probabilities) {
            #expect(abs(class_.probability - exact) <= 1e-6 * exact)
        }
    }
}

private struct StatisticsCase: Decodable {
    let samples: [Double]
    let count: Int
    let p50, p90, p99, max, mean: Double
}

@Test func statisticsAreNumPys() throws {
    for c in try Vectors.cases("statistics", of: StatisticsCase.self) {
        let pairs = [
            (percentile(c.samples, 50), c.p50), (percentile(c.samples, 90), c.p90),
            (percentile(c.samples, 99), c.p99), (percentile(c.samples, 100), c.max),
            (mean(c.samples), c.mean),
        ]
        for (found, exact) in pairs { #expect(abs(found - exact) <= 1e-9 * abs(exact)) }
        #expect(Profile.Latency(c.samples).runs == c.count)
    }
}

struct TestProbe: DeviceProbe {
    let device = Device(name: "a test", os: "Linux", logicalCores: 2)
    let memorySource = "a test"
    func conditions() -> Conditions { Conditions(thermalState: "nominal", batteryPercent: 50) }
    func memoryMb() -> Double? { 12.5 }
    func notMeasured() -> [Profile.NotMeasured] { [.init("energy", "The test does not look.")] }
}

@Test func theBenchmarkGivesAProfileDocument() throws {
    let session = try Session(
        Package(Vectors.folder.appendingPathComponent("package")), MeanColour()
    )
    let options = BenchmarkOptions(warmUp: 40, runs: 20, sustainedS: 2.2)
    var steps: Set<String> = []
    let profile = try Benchmark(options, probe: TestProbe(), appVersion: "0.1.0")
        .run(session) { steps.insert($0.step.rawValue) }
    let text = try profile.json()
    let document = try JSONDecoder().decode(JSON.self, from: text)
    let url = Vectors.repository.appendingPathComponent("export/profile-2.0.schema.json")
    let schema = try JSONSchema(Data(contentsOf: url), rejectsUnknownKeys: true)
    #expect(schema.fault(in: document) == nil)
    let readable = try #require(Vectors.cases("profiles", of: [String: JSON].self).first)
    #expect(document["schema_version"] == readable["document"]?["schema_version"])
    #expect(document["latency"]?["runs"] == .number(20))
    #expect(document["golden"]?["sqnr_db"] == .null)
    #expect(document["producer"]?["name"] == .string("ios-app"))
    #expect(profile.sustained?.points.isEmpty == false)
    #expect(steps == ["checking", "warmingUp", "timing", "preprocessing", "sustained"])
    // A misspelt field is a fault here; a reader ignores it.
    guard case .object(var members) = document else { return }
    members["latencies"] = .number(1)
    #expect(schema.fault(in: .object(members)) == "latencies is not a known key")
    #expect(try JSONSchema(Data(contentsOf: url)).fault(in: .object(members)) == nil)
}

@Test func aStoppedBenchmarkGivesNoDocument() async throws {
    let session = try Session(
        Package(Vectors.folder.appendingPathComponent("package")), MeanColour()
    )
    let task = Task {
        withUnsafeCurrentTask { $0?.cancel() }
        return try Benchmark(BenchmarkOptions(), probe: TestProbe(), appVersion: "0").run(session)
    }
    let result = await task.result
    #expect(throws: SepViTError.self) { try result.get() }
}
