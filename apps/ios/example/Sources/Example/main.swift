// Built and run by .ci/ios; docs/apps.md has the same lines.
import Foundation

// docs
import SepViTKit

func check(_ folder: URL, _ image: Pixels, _ engine: any EngineKind) throws -> Answer {
    let package = try Package(folder)  // every byte is checked
    let session = try Session(package, engine)  // for Core ML: SepViTDemo's CoreMLEngine.swift
    let (pixels, content) = try inputPixels(image, package.manifest)
    let size = Size(width: image.width, height: image.height)
    return answer(try session.run(pixels), package, image: size, content: content)
}
// end

/// An engine for this example alone: all logits are zero.
struct Zero: EngineKind, InferenceEngine {
    let target = "onnxruntime"
    let version = "1.29"
    let runtime = RuntimeUsed(name: "example", version: "1", execution: "CPU", threads: 1)
    func load(_: Package) throws -> any InferenceEngine { self }
    func run(_: InputTensor) throws -> [[Float]] { [[0, 0, 0, 0]] }
}

let image = Pixels(width: 40, height: 30, data: [UInt8](repeating: 127, count: 3600))
print(try check(URL(fileURLWithPath: CommandLine.arguments[1]), image, Zero()))
