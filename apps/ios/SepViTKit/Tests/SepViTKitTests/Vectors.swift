import Foundation
import SepViTKit

/// Reads tests/vectors, which Python made.
enum Vectors {
    static let repository = (0..<6).reduce(URL(fileURLWithPath: #filePath)) { url, _ in
        url.deletingLastPathComponent()
    }
    static let folder = repository.appendingPathComponent("tests/vectors")

    static func data(_ path: String) throws -> Data {
        try Data(contentsOf: folder.appendingPathComponent(path))
    }

    static func cases<Case: Decodable>(_ name: String, of _: Case.Type = Case.self) throws -> [Case] {
        let decoder = JSONDecoder()
        decoder.keyDecodingStrategy = .convertFromSnakeCase
        return try decoder.decode([Case].self, from: data("\(name).json"))
    }

    /// The pixels that every language makes for itself.
    static func noise(_ width: Int, _ height: Int, seed: UInt32) -> Pixels {
        var state = seed
        let data = (0..<width * height * 3).map { _ -> UInt8 in
            state = state &* 1_664_525 &+ 1_013_904_223
            return UInt8(state >> 24)
        }
        return Pixels(width: width, height: height, data: data)
    }

    /// A copy of the tiny package, to be damaged.
    static func packageCopy() throws -> URL {
        let parent = FileManager.default.temporaryDirectory
            .appendingPathComponent("sepvit-\(UUID().uuidString)")
        try FileManager.default.createDirectory(at: parent, withIntermediateDirectories: true)
        let copy = parent.appendingPathComponent("package")
        try FileManager.default.copyItem(at: folder.appendingPathComponent("package"), to: copy)
        return copy
    }
}

func hexadecimal(_ bytes: [UInt8]) -> String {
    bytes.map { ($0 < 16 ? "0" : "") + String($0, radix: 16) }.joined()
}

func bytes(hexadecimal text: String) -> [UInt8] {
    let digits = text.utf8.map { UInt8(Character(UnicodeScalar($0)).hexDigitValue ?? 0) }
    return stride(from: 0, to: digits.count, by: 2).map { digits[$0] << 4 | digits[$0 + 1] }
}
