import CoreML
import CoreVideo
import SepViTKit

/// Core ML: a package's model.mlpackage, compiled on the device.
struct CoreML: EngineKind {
    let target = "coreml"
    let units: ComputeUnits

    /// The manifest's range is about coremltools, which wrote the package. Core ML itself checks the
    /// specification version on loading.
    let version = "9.0"

    func load(_ package: Package) throws -> any InferenceEngine {
        guard
            let path = package.manifest.files.map(\.path).first(where: { $0.contains(".mlpackage/") })
        else { throw SepViTError("the .mlpackage is missing; export the package again", .missing) }
        let folder = String(path.prefix(upTo: path.range(of: ".mlpackage/")!.upperBound))
        do {
            let compiled = try Self.compiled(package.url.appendingPathComponent(folder), package)
            let configuration = MLModelConfiguration()
            configuration.computeUnits = units.coreML
            let model = try MLModel(contentsOf: compiled, configuration: configuration)
            return CoreMLEngine(model, compiled, package.manifest, units)
        } catch {
            throw SepViTError("Core ML cannot load the package: \(error.localizedDescription)")
        }
    }

    /// Return the compiled model. Compiling takes seconds, so the result is cached by the manifest's digest.
    private static func compiled(_ model: URL, _ package: Package) throws -> URL {
        let caches = try FileManager.default.url(
            for: .cachesDirectory, in: .userDomainMask, appropriateFor: nil, create: true
        )
        let kept = caches.appendingPathComponent("\(package.manifest.digest).mlmodelc")
        if !FileManager.default.fileExists(atPath: kept.path) {
            try FileManager.default.moveItem(at: MLModel.compileModel(at: model), to: kept)
        }
        return kept
    }
}

/// The units on which Core ML may compute.
enum ComputeUnits: String, CaseIterable, Identifiable, Sendable {
    case all, cpuAndNeuralEngine, cpuAndGPU, cpuOnly

    var id: Self { self }

    var coreML: MLComputeUnits {
        switch self {
        case .all: .all
        case .cpuAndNeuralEngine: .cpuAndNeuralEngine
        case .cpuAndGPU: .cpuAndGPU
        case .cpuOnly: .cpuOnly
        }
    }

    var title: String {
        switch self {
        case .all: "All"
        case .cpuAndNeuralEngine: "CPU and Neural Engine"
        case .cpuAndGPU: "CPU and GPU"
        case .cpuOnly: "CPU only"
        }
    }
}

final class CoreMLEngine: InferenceEngine, @unchecked Sendable {
    let runtime: RuntimeUsed
    let compiled: URL
    private let model: MLModel
    private let manifest: Manifest
    private let units: ComputeUnits

    init(_ model: MLModel, _ compiled: URL, _ manifest: Manifest, _ units: ComputeUnits) {
        self.model = model
        self.compiled = compiled
        self.manifest = manifest
        self.units = units
        let system = ProcessInfo.processInfo.operatingSystemVersion
        runtime = RuntimeUsed(
            name: "Core ML",
            version: "\(system.majorVersion).\(system.minorVersion).\(system.patchVersion)",
            execution: units.rawValue
        )
    }

    func run(_ input: InputTensor) throws -> [[Float]] {
        // Core ML does not support uint8 tensors: packages take float32, or an image.
        guard case .float32(let values) = input.values else {
            throw SepViTError("Core ML does not support uint8 pixels; export the package again")
        }
        let name = manifest.input.name
        let value =
            model.modelDescription.inputDescriptionsByName[name]?.type == .image
            ? MLFeatureValue(pixelBuffer: try pixelBuffer(values, manifest.inputSize))
            : MLFeatureValue(multiArray: try multiArray(values, input.shape))
        let feed = try MLDictionaryFeatureProvider(dictionary: [name: value])
        let output = try model.prediction(from: feed)
        return try manifest.answers.map { facts in
            guard let array = output.featureValue(for: facts.name)?.multiArrayValue else {
                throw SepViTError(
                    "the model does not have the output \(facts.name); export the package again"
                )
            }
            return MLShapedArray<Float>(converting: array).scalars
        }
    }

    private func multiArray(_ values: [Float], _ shape: [Int]) throws -> MLMultiArray {
        let array = try MLMultiArray(shape: shape.map(NSNumber.init), dataType: .float32)
        array.withUnsafeMutableBufferPointer(ofType: Float.self) { buffer, _ in
            _ = buffer.update(fromContentsOf: values)
        }
        return array
    }

    /// Convert a float32 NCHW input to an image. Core ML does not resize it, because it has the input's
    /// exact size.
    private func pixelBuffer(_ planes: [Float], _ size: SepViTKit.Size) throws -> CVPixelBuffer {
        var created: CVPixelBuffer?
        CVPixelBufferCreate(
            nil, size.width, size.height, kCVPixelFormatType_32BGRA,
            [kCVPixelBufferIOSurfacePropertiesKey: [:]] as CFDictionary, &created
        )
        guard let buffer = created else { throw SepViTError("not enough memory for an image; close other apps and try again") }
        CVPixelBufferLockBaseAddress(buffer, [])
        defer { CVPixelBufferUnlockBaseAddress(buffer, []) }
        guard let base = CVPixelBufferGetBaseAddress(buffer) else { return buffer }
        let pixels = base.assumingMemoryBound(to: UInt8.self)
        let pitch = CVPixelBufferGetBytesPerRow(buffer)
        let area = size.width * size.height
        for y in 0..<size.height {
            for x in 0..<size.width {
                let (from, to) = (y * size.width + x, y * pitch + x * 4)
                pixels[to] = UInt8(planes[2 * area + from])
                pixels[to + 1] = UInt8(planes[area + from])
                pixels[to + 2] = UInt8(planes[from])
                pixels[to + 3] = 255
            }
        }
        return buffer
    }

    /// Return the number of operations that Core ML plans to run on each unit.
    func computePlan() async throws -> [(where: String, operations: Int)] {
        let configuration = MLModelConfiguration()
        configuration.computeUnits = units.coreML
        let plan = try await MLComputePlan.load(contentsOf: compiled, configuration: configuration)
        guard case .program(let program) = plan.modelStructure,
            let main = program.functions["main"]
        else { return [] }
        var counts: [String: Int] = [:]
        for operation in main.block.operations {
            guard let usage = plan.deviceUsage(for: operation) else { continue }
            let name =
                switch usage.preferred {
                case .cpu: "CPU"
                case .gpu: "GPU"
                case .neuralEngine: "Neural Engine"
                @unknown default: "other"
                }
            counts[name, default: 0] += 1
        }
        return counts.sorted { $0.value > $1.value }.map { (where: $0.key, operations: $0.value) }
    }
}
