import Foundation
import SepViTKit
import Testing

private let repository = (0..<6).reduce(URL(fileURLWithPath: #filePath)) { url, _ in
    url.deletingLastPathComponent()
}

@Test(arguments: ["package", "segmentation", "detection"])
func theTinyPackagesGivePythonsBits(_ kind: String) throws {
    let folder = repository.appendingPathComponent("tests/vectors/\(kind)")
    let session = try Session(Package(folder), OnnxRuntime())
    let found = try selfCheck(session)
    #expect(found.passed)
    #expect(found.maxAbsError == 0)
    #expect(found.agreement == 1)
}

/// A real SepViT-Lite, exported by `python tests/make_vectors.py --package FOLDER`.
private let exported = ProcessInfo.processInfo.environment["SEPVIT_PACKAGE"]

@Test(.enabled(if: exported != nil, "SEPVIT_PACKAGE names no package"))
func aRealPackageGivesPythonsLogits() throws {
    let folder = try allowingDebiansRuntime(URL(fileURLWithPath: exported ?? ""))
    defer { try? FileManager.default.removeItem(at: folder) }
    let session = try Session(Package(folder), OnnxRuntime())
    let found = try selfCheck(session)
    print("SQNR against Python's package \(found.sqnrDb) dB, largest difference \(found.maxAbsError)")
    #expect(found.passed, "fails at \(found.failsAt?.rawValue ?? "")")
    #expect(found.agreement == 1)
    let milliseconds = try Benchmark.milliseconds {
        let photo = Pixels(
            width: 4000, height: 3000, data: [UInt8](repeating: 127, count: 36_000_000)
        )
        _ = try preprocess(photo, session.package.manifest.input)
    }
    print("preprocessing of 12 megapixels: \(milliseconds) ms")
}

/// Copy a package and lower its minimum runtime version: Debian's is older, but runs opset 20 as well.
private func allowingDebiansRuntime(_ package: URL) throws -> URL {
    let copy = FileManager.default.temporaryDirectory.appendingPathComponent(UUID().uuidString)
    try FileManager.default.copyItem(at: package, to: copy)
    let url = copy.appendingPathComponent(Manifest.fileName)
    let text = try String(contentsOf: url, encoding: .utf8).replacingOccurrences(
        of: #""minimum": "1.23""#, with: #""minimum": "1.21""#
    )
    let digest = try #require(text.range(of: "[0-9a-f]{64}", options: .regularExpression))
    let sealed = text.replacingCharacters(in: digest, with: Manifest.digest(of: Data(text.utf8)))
    try Data(sealed.utf8).write(to: url)
    return copy
}
