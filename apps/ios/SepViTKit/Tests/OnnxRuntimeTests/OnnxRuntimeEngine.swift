import COnnxRuntime
import Foundation
import SepViTKit

/// ONNX Runtime's C library, to run a real model without Core ML.
struct OnnxRuntime: EngineKind {
    let target = "onnxruntime"

    var version: String {
        OrtGetApiBase().pointee.GetVersionString().map { String(cString: $0) } ?? "0"
    }

    func load(_ package: Package) throws -> any InferenceEngine {
        guard let api = OrtGetApiBase().pointee.GetApi(UInt32(ORT_API_VERSION))?.pointee else {
            throw SepViTError("this ONNX Runtime is older than its header")
        }
        return try OnnxRuntimeEngine(api, package, version: version)
    }
}

final class OnnxRuntimeEngine: InferenceEngine, @unchecked Sendable {
    let runtime: RuntimeUsed
    private let api: OrtApi
    private let manifest: Manifest
    private var environment, session, memory: OpaquePointer?

    init(_ api: OrtApi, _ package: Package, version: String) throws {
        self.api = api
        manifest = package.manifest
        runtime = RuntimeUsed(
            name: "onnxruntime", version: version, execution: "CPUExecutionProvider", threads: 1
        )
        try check(api.CreateEnv(ORT_LOGGING_LEVEL_FATAL, "SepViTKit", &environment))
        var options: OpaquePointer?
        try check(api.CreateSessionOptions(&options))
        defer { api.ReleaseSessionOptions(options) }
        try check(api.SetIntraOpNumThreads(options, 1))
        let model = package.url.appendingPathComponent("model.onnx").path
        try check(api.CreateSession(environment, model, options, &session))
        try check(api.CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, &memory))
    }

    deinit {
        api.ReleaseMemoryInfo(memory)
        api.ReleaseSession(session)
        api.ReleaseEnv(environment)
    }

    func run(_ input: InputTensor) throws -> [[Float]] {
        switch input.values {
        case .uint8(var values):
            try values.withUnsafeMutableBytes {
                try run($0, input.shape, ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8)
            }
        case .float32(var values):
            try values.withUnsafeMutableBytes {
                try run($0, input.shape, ONNX_TENSOR_ELEMENT_DATA_TYPE_FLOAT)
            }
        }
    }

    private func run(
        _ bytes: UnsafeMutableRawBufferPointer, _ shape: [Int], _ type: ONNXTensorElementDataType
    ) throws -> [[Float]] {
        var tensor: OpaquePointer?
        let sides = shape.map(Int64.init)
        try check(
            api.CreateTensorWithDataAsOrtValue(
                memory, bytes.baseAddress, bytes.count, sides, sides.count, type, &tensor
            )
        )
        defer { api.ReleaseValue(tensor) }
        return try manifest.answers.map { try run(tensor, output: $0.name) }
    }

    /// Run the model for one output; a test may take its time.
    private func run(_ tensor: OpaquePointer?, output name: String) throws -> [Float] {
        var output: OpaquePointer?
        try manifest.input.name.withCString { inputName in
            try name.withCString { outputName in
                let inputs: [UnsafePointer<CChar>?] = [inputName]
                let outputs: [UnsafePointer<CChar>?] = [outputName]
                let tensors: [OpaquePointer?] = [tensor]
                try check(api.Run(session, nil, inputs, tensors, 1, outputs, 1, &output))
            }
        }
        defer { api.ReleaseValue(output) }
        var facts: OpaquePointer?
        try check(api.GetTensorTypeAndShape(output, &facts))
        defer { api.ReleaseTensorTypeAndShapeInfo(facts) }
        var count = 0
        try check(api.GetTensorShapeElementCount(facts, &count))
        var data: UnsafeMutableRawPointer?
        try check(api.GetTensorMutableData(output, &data))
        guard let floats = data?.assumingMemoryBound(to: Float.self) else { return [] }
        return Array(UnsafeBufferPointer(start: floats, count: count))
    }

    private func check(_ status: OrtStatusPtr?) throws {
        guard let status else { return }
        defer { api.ReleaseStatus(status) }
        let message = api.GetErrorMessage(status).map { String(cString: $0) } ?? "unknown"
        throw SepViTError("ONNX Runtime: \(message)")
    }
}
