import Foundation
import SepViTKit
import Testing

private struct ResizeCase: Decodable {
    let width, height: Int
    let seed: UInt32
    let to: [Int]
    let sha256: String
    let pixels: String?
}

@Test func resizingGivesPillowsBytes() throws {
    let cases = try Vectors.cases("resize", of: ResizeCase.self)
    #expect(cases.count > 200)
    for c in cases {
        let found = resize(
            Vectors.noise(c.width, c.height, seed: c.seed), width: c.to[0], height: c.to[1]
        )
        if let pixels = c.pixels { #expect(hexadecimal(found) == pixels) }
        #expect(sha256(Data(found)) == c.sha256, "\(c.width) x \(c.height) to \(c.to)")
    }
}

private struct PreprocessCase: Decodable {
    let width, height: Int
    let seed: UInt32?
    let resizeShorterSide, cropSize: Int
    let resized: [Int]?
    let sha256, refused: String?
}

@Test func preprocessingGivesPythonsBytesAndRefusesWhatPythonRefuses() throws {
    let cases = try Vectors.cases("preprocess", of: PreprocessCase.self)
    #expect(cases.count > 100)
    for c in cases {
        let side = c.cropSize
        let input = Manifest.Input(
            shape: [1, side, side, 3], resizeShorterSide: c.resizeShorterSide, cropSize: side
        )
        guard let seed = c.seed else {
            #expect(throws: SepViTError(c.refused ?? "", .size)) {
                try checkSize(c.width, c.height)
                _ = try resizedSize(c.width, c.height, c.resizeShorterSide)
            }
            continue
        }
        let image = Vectors.noise(c.width, c.height, seed: seed)
        if let refused = c.refused {
            #expect(throws: SepViTError(refused, .size)) { try preprocess(image, input) }
        } else {
            let size = try resizedSize(c.width, c.height, c.resizeShorterSide)
            #expect([size.0, size.1] == c.resized)
            let found = try preprocess(image, input)
            #expect(sha256(Data(found)) == c.sha256, "\(c.width) x \(c.height)")
        }
    }
}

@Test(arguments: [1, 2, 4]) func greyAndTransparencyAreReadAsRGB(channels: Int) {
    let grey: [UInt8] = [10, 20, 30, 40]
    let rgb = grey.flatMap { [$0, $0, $0] }
    let data: [UInt8] = grey.enumerated().flatMap { i, value -> [UInt8] in
        switch channels {
        case 1: [value]
        case 2: [value, UInt8(i)]
        default: [value, value, value, UInt8(i)]
        }
    }
    let image = Pixels(width: 2, height: 2, channels: channels, data: data)
    let expected = resize(Pixels(width: 2, height: 2, data: rgb), width: 5, height: 3)
    #expect(resize(image, width: 5, height: 3) == expected)
}

private struct ImageCase: Decodable {
    let file: String
    let orientation: Int?
    let width, height: Int?
}

@Test func orientationIsReadFromFiles() throws {
    for c in try Vectors.cases("images", of: ImageCase.self) {
        let file = [UInt8](try Vectors.data("images/\(c.file)"))
        if let orientation = c.orientation {
            #expect(exifOrientation(of: file) == orientation, "\(c.file)")
        }
        for length in stride(from: 0, to: file.count, by: 7) {
            #expect((1...8).contains(exifOrientation(of: Array(file.prefix(length)))))
        }
    }
}

@Test func pixelsAreTurnedAsPythonTurnsThem() throws {
    let expected = try readSafeTensors(Vectors.data("images/expected.safetensors"))
    func pixels(_ file: String) throws -> Pixels {
        let tensor = try #require(expected[file])
        let data = try #require(tensor.bytes)
        return Pixels(width: tensor.shape[1], height: tensor.shape[0], data: data)
    }
    // PNG files hold the image turned the other way: undone, all are the same.
    let undone = [1: 1, 2: 2, 3: 3, 4: 4, 5: 5, 6: 8, 7: 7, 8: 6]
    let stored = try pixels("orientation-1.png")
    for (orientation, inverse) in undone {
        let upright = try pixels("orientation-\(orientation).png")
        #expect(stored.oriented(orientation) == upright, "\(orientation)")
        #expect(upright.oriented(inverse) == stored, "\(orientation)")
    }
}

@Test func sha256IsTheStandards() {
    #expect(
        sha256(Data()) == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    )
    #expect(
        sha256(Data("abc".utf8))
            == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    )
    let million = Data(repeating: UInt8(ascii: "a"), count: 1_000_000)
    #expect(
        sha256(million) == "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0"
    )
}
