#if canImport(CoreAI)
import CoreAI
import Foundation
import SepViTKit

/// Core AI: a package's model.aimodel, which the system specialises for the device and keeps.
@available(iOS 27.0, macOS 27.0, *)
struct CoreAIPackages: EngineKind {
    let target = "coreai"
    let units: ComputeUnits

    /// The manifest's range is about coreai-core, which wrote the package.
    let version = "1.0"

    func load(_ package: Package) throws -> any InferenceEngine {
        guard
            let path = package.manifest.files.map(\.path).first(where: { $0.contains(".aimodel/") })
        else { throw SepViTError("the .aimodel is missing; export the package again", .missing) }
        let folder = String(path.prefix(upTo: path.range(of: ".aimodel/")!.upperBound))
        let url = package.url.appendingPathComponent(folder)
        let function: InferenceFunction?
        do {
            function = try waiting {
                let model = try await AIModel(contentsOf: url, options: units.coreAI)
                return try model.loadFunction(named: "main")
            }
        } catch {
            throw SepViTError("Core AI cannot load the package: \(error.localizedDescription)")
        }
        guard let function else {
            throw SepViTError("the model does not have the function main; export the package again")
        }
        return CoreAIEngine(function, package.manifest, units)
    }
}

@available(iOS 27.0, macOS 27.0, *)
extension ComputeUnits {
    /// Core AI leaves units out for the CPU alone; the others are preferences.
    var coreAI: SpecializationOptions {
        switch self {
        case .all: .default
        case .cpuAndNeuralEngine: SpecializationOptions(preferredComputeUnitKind: .neuralEngine)
        case .cpuAndGPU: SpecializationOptions(preferredComputeUnitKind: .gpu)
        case .cpuOnly: .cpuOnly
        }
    }
}

@available(iOS 27.0, macOS 27.0, *)
struct CoreAIEngine: InferenceEngine {
    let runtime: RuntimeUsed
    private let function: InferenceFunction
    private let input: String
    private let outputs: [String]

    init(_ function: InferenceFunction, _ manifest: Manifest, _ units: ComputeUnits) {
        self.function = function
        input = manifest.input.name
        outputs = manifest.answers.map(\.name)
        let system = ProcessInfo.processInfo.operatingSystemVersion
        runtime = RuntimeUsed(
            name: "Core AI",
            version: "\(system.majorVersion).\(system.minorVersion).\(system.patchVersion)",
            execution: units.rawValue
        )
    }

    func run(_ input: InputTensor) throws -> [[Float]] {
        guard case .float32(let pixels) = input.values else {
            throw SepViTError("packages for Core AI take float32 pixels; export the package again")
        }
        return try waiting { try await answers(pixels, input.shape) }
    }

    private func answers(_ pixels: [Float], _ shape: [Int]) async throws -> [[Float]] {
        var found = try await function.run(inputs: [input: NDArray(scalars: pixels, shape: shape)])
        var answers: [[Float]] = []
        for name in outputs {
            guard let array = found.remove(name)?.ndArray else {
                throw SepViTError("the model does not have the output \(name); export the package again")
            }
            guard let numbers = array.view(as: Float.self).contiguousElements else {
                throw SepViTError("the output \(name) is not in one piece; export the package again")
            }
            answers.append(numbers.indices.map { numbers[$0] })
        }
        return answers
    }
}

/// Wait for asynchronous work. Engines are called on a thread that may wait, never on the main one.
private func waiting<Value: Sendable>(
    _ work: @escaping @Sendable () async throws -> Value
) throws -> Value {
    let done = DispatchSemaphore(value: 0)
    let answer = Answer<Value>()
    Task.detached {
        do { answer.result = .success(try await work()) } catch { answer.result = .failure(error) }
        done.signal()
    }
    done.wait()
    return try answer.result!.get()
}

/// Written before the semaphore is signalled, and read behind it.
private final class Answer<Value>: @unchecked Sendable {
    var result: Result<Value, any Error>?
}
#endif
