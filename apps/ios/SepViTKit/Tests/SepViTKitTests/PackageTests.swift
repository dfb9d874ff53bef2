import Foundation
import SepViTKit
import Testing

struct Edit: Decodable {
    let op: String
    let file, text, from, to, target: String?
    let byte, bit, bytes: Int?

    func apply(to folder: URL) throws {
        let url = folder.appendingPathComponent(file ?? Manifest.fileName)
        switch op {
        case "flip":
            var data = [UInt8](try Data(contentsOf: url))
            data[byte!] ^= 1 << UInt8(bit!)
            try Data(data).write(to: url)
        case "truncate": try Data(contentsOf: url).prefix(bytes!).write(to: url)
        case "append": try (Data(contentsOf: url) + Data(text!.utf8)).write(to: url)
        case "write": try Data(text!.utf8).write(to: url)
        case "delete": try FileManager.default.removeItem(at: url)
        case "replace":
            let content = try String(contentsOf: url, encoding: .utf8)
            try #require(content.contains(from!))
            try Data(content.replacingOccurrences(of: from!, with: to!).utf8).write(to: url)
        case "seal":
            let data = try Data(contentsOf: url)
            let content = String(decoding: data, as: UTF8.self)
            let old = try #require(content.range(of: "[0-9a-f]{64}", options: .regularExpression))
            let sealed = content.replacingCharacters(in: old, with: Manifest.digest(of: data))
            try Data(sealed.utf8).write(to: url)
        case "link":
            let outside = folder.appendingPathComponent(target!).standardizedFileURL
            try Data(text!.utf8).write(to: outside)
            try FileManager.default.removeItem(at: url)
            try FileManager.default.createSymbolicLink(at: url, withDestinationURL: outside)
        default: throw SepViTError("unknown edit \(op)")
        }
    }
}

struct PackageCase: Decodable, Sendable, CustomTestStringConvertible {
    let name: String
    let edits: [Edit]
    let kind: String?
    let mentions: [String]
    let omits: [String]?

    var testDescription: String { name }

    func edited() throws -> URL {
        let folder = try Vectors.packageCopy()
        for edit in edits { try edit.apply(to: folder) }
        return folder
    }

    func check(_ error: SepViTError?) throws {
        let error = try #require(error, "\(name) was not refused")
        #expect(error.kind.rawValue == kind, "\(name): \(error.message)")
        for word in mentions { #expect(error.message.contains(word), "\(name): \(error.message)") }
        for word in omits ?? [] { #expect(!error.message.contains(word), "\(name): \(error.message)") }
        #expect(!error.message.contains("\n"), "\(name)")
    }
}

@Test func damagedPackagesAreRefused() throws {
    let cases = try Vectors.cases("packages", of: PackageCase.self)
    #expect(cases.count > 40)
    for c in cases {
        let folder = try c.edited()
        defer { try? FileManager.default.removeItem(at: folder.deletingLastPathComponent()) }
        if c.kind == nil {
            #expect(try Package(folder).labels == ["red", "grün", "blue", "grey"], "\(c.name)")
            continue
        }
        do {
            _ = try Package(folder)
            Issue.record("\(c.name) was opened")
        } catch let error as SepViTError {
            try c.check(error)
        }
    }
}

@Test func packagesForOthersAreNotLoaded() throws {
    struct Never: EngineKind {
        let target = "onnxruntime"
        let version = "1.29"
        func load(_: Package) throws -> any InferenceEngine { throw SepViTError("it was loaded") }
    }
    for c in try Vectors.cases("sessions", of: PackageCase.self) {
        let package = try Package(c.edited())
        do {
            _ = try Session(package, Never())
        } catch let error as SepViTError {
            try c.check(error)
        }
    }
}

private struct VersionCase: Decodable {
    let version, minimum, below: String
    let app: Bool
}

@Test func versionsAreInTheirRange() throws {
    for c in try Vectors.cases("versions", of: VersionCase.self) {
        #expect(isInRange(c.version, c.minimum, c.below) == c.app, "\(c)")
    }
}

private struct SafeTensorsCase: Decodable {
    struct Listed: Decodable {
        let dtype: String
        let shape: [Int]
        let values: [Double]
    }

    let name, hex: String
    let tensors: [String: Listed]?
}

@Test func safeTensorsAreReadOrRefused() throws {
    for c in try Vectors.cases("safetensors", of: SafeTensorsCase.self) {
        let data = Data(bytes(hexadecimal: c.hex))
        guard let tensors = c.tensors else {
            #expect(throws: SepViTError.self, "\(c.name)") { try readSafeTensors(data) }
            continue
        }
        let found = try readSafeTensors(data)
        #expect(Set(found.keys) == Set(tensors.keys), "\(c.name)")
        for (name, listed) in tensors {
            let tensor = try #require(found[name])
            #expect(tensor.shape == listed.shape)
            let values = tensor.bytes.map { $0.map(Double.init) } ?? tensor.floats?.map(Double.init)
            #expect(values == listed.values)
            #expect((tensor.bytes != nil) == (listed.dtype == "U8"))
        }
    }
}
