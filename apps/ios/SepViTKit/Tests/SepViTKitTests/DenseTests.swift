import Foundation
import Testing

@testable import SepViTKit

/// The tiny dense packages' models by hand: rows of weights on the mean colours of squares.
private struct Colours: EngineKind, InferenceEngine {
    let target = "onnxruntime"
    let version = "1.29"
    let runtime = RuntimeUsed(name: "by hand", version: "1", execution: "CPU", threads: 1)
    var task = Manifest.Task.segmentation

    func load(_ package: Package) throws -> any InferenceEngine {
        Colours(task: package.manifest.task)
    }

    private static let strong: [[Float]] = [[4, -2, -2], [-2, 4, -2], [-2, -2, 4]]
    private static let deltas: [[Float]] = [
        [1, 0, 0, -0.25], [0, 1, 0, -0.25], [1, 1, 0, -0.5], [0, 1, 1, -0.5],
        [0, 0, 1, 0], [1, 0, 0, -0.25], [1, 0, 1, -0.25], [0, 1, 0, 0],
    ]

    func run(_ input: InputTensor) throws -> [[Float]] {
        guard case .uint8(let values) = input.values else { throw SepViTError("uint8 is expected") }
        if task == .segmentation {
            let squares = means(values, 4)
            let rows = Self.strong.map { $0 + [0] } + [[1, 1, 1, -4]]
            return [rows.flatMap { row in squares.map { dot(row, $0, 64) } }]
        }
        let squares = means(values, 8)
        let rows = Self.strong.map { $0 + [-3] } + Self.strong.map { $0 + [-4] }
        return [
            squares.flatMap { mean in rows.map { dot($0, mean, 64) } },
            squares.flatMap { mean in Self.deltas.map { dot($0, mean, 512) } },
        ]
    }

    private func dot(_ row: [Float], _ mean: [Float], _ divisor: Float) -> Float {
        (row[0] * mean[0] + row[1] * mean[1] + row[2] * mean[2]) / divisor + row[3]
    }

    /// Mean colours of the squares of a 48 x 32 input, row by row.
    private func means(_ values: [UInt8], _ side: Int) -> [[Float]] {
        stride(from: 0, to: 32, by: side).flatMap { top in
            stride(from: 0, to: 48, by: side).map { left in
                (0..<3).map { channel in
                    var sum = 0
                    for y in top..<top + side {
                        for x in left..<left + side { sum += Int(values[3 * (y * 48 + x) + channel]) }
                    }
                    return Float(sum) / Float(side * side)
                }
            }
        }
    }
}

private func packaged(_ kind: String) throws -> Package {
    try Package(Vectors.folder.appendingPathComponent(kind))
}

private struct DenseCase: Decodable {
    let name, package: String
    let edit: GoldenEdit?
    let passed: Bool
    let failsAt, output: String?
    let image, differentValues: Int?
    let maxDifference, sqnrDb, agreement: Double?
}

@Test func theSelfCheckOfDensePackages() throws {
    for c in try Vectors.cases("dense_self_check", of: DenseCase.self) {
        let session = try Session(packaged(c.package), Colours())
        let golden = try session.package.golden()
        let found = try selfCheck(session, golden: c.edit?.applied(to: golden) ?? golden)
        #expect(found.passed == c.passed, "\(c.name)")
        #expect(found.failsAt?.rawValue == c.failsAt, "\(c.name)")
        if let image = c.image { #expect(found.image == image, "\(c.name)") }
        if let output = c.output { #expect(found.output == output, "\(c.name)") }
        if let values = c.differentValues { #expect(found.differentValues == values) }
        if let difference = c.maxDifference { #expect(found.maxDifference == difference, "\(c.name)") }
        if let sqnr = c.sqnrDb { #expect(abs(found.sqnrDb - sqnr) < 1e-6, "\(c.name)") }
        if let share = c.agreement { #expect(abs(found.agreement - share) < 1e-9, "\(c.name)") }
    }
}

@Test func aClassMapIsInTheImagesOwnPixels() throws {
    let package = try packaged("segmentation")
    let session = try Session(package, Colours())
    // Blue above, red below.
    let data = (0..<60 * 80 * 3).map { $0 % 3 == ($0 / 3 < 60 * 40 ? 2 : 0) ? 250 : 0 as UInt8 }
    let image = Pixels(width: 60, height: 80, data: data)
    let (pixels, content) = try inputPixels(image, package.manifest)
    #expect(content == Size(width: 24, height: 32))
    let size = Size(width: 60, height: 80)
    let found = answer(try session.run(pixels), package, image: size, content: content)
    guard case .classMap(let map, let shares) = found else {
        Issue.record("\(found)")
        return
    }
    #expect(map.count == 60 * 80 && map.first == 2 && map.last == 0)
    #expect(Set(shares.map(\.label)) == ["blue", "red"])
    #expect(shares.allSatisfy { abs($0.share - 0.5) < 0.05 })
}

@Test func boxesComeBackToTheImage() throws {
    let package = try packaged("detection")
    let session = try Session(package, Colours())
    let golden = try package.golden()
    let image = try goldenImage(golden, 0)
    let (pixels, content) = try inputPixels(image, package.manifest)
    let size = Size(width: image.width, height: image.height)
    let found = answer(try session.run(pixels), package, image: size, content: content)
    guard case .boxes(let boxes) = found else {
        Issue.record("\(found)")
        return
    }
    #expect(boxes.map(\.score) == golden["package.scores.0"]?.floats)
    let c = try #require(golden["package.boxes.0"]?.floats)
    #expect(boxes[0].box == Corners(c[0], c[1], c[2], c[3]).back(to: size, content: content))
    #expect(boxes.allSatisfy { $0.label == package.labels[$0.index] })
}

@Test(arguments: [
    ("segmentation", "\"stride\": 4", "\"stride\": 8", "shapes"),
    ("segmentation", "whole-top-left", "middle", "input.fit"),
    ("segmentation", "\"num_classes\": 4", "\"num_classes\": 5", "shapes"),
    ("detection", "\"score_threshold\": 0.3", "\"score_threshold\": 2", "score_threshold"),
    ("detection", "\"meaning\": \"box_deltas\"", "\"meaning\": \"corners\"", "box_deltas"),
    ("detection", "20,\n    \"task\": \"detection\"", "20,\n    \"task\": \"pose\"", "task"),
])
func aManifestThatContradictsItselfIsRefused(_ kind: String, _ old: String, _ new: String, _ word: String)
    throws
{
    let text = String(decoding: try Vectors.data("\(kind)/manifest.json"), as: UTF8.self)
    try #require(text.contains(old))
    let changed = text.replacingOccurrences(of: old, with: new)
    let digest = try #require(changed.range(of: "[0-9a-f]{64}", options: .regularExpression))
    let sealed = changed.replacingCharacters(
        in: digest, with: Manifest.digest(of: Data(changed.utf8))
    )
    do {
        _ = try Manifest(Data(sealed.utf8), name: kind)
        Issue.record("\(new) was read")
    } catch let error as SepViTError {
        #expect(error.kind == .invalid && error.message.contains(word), "\(error.message)")
    }
}

private struct FitCase: Decodable {
    let width, height: Int
    let seed: UInt32
    let mean: [Double]
    let input, content: [Int]
    let sha256: String
    let box, boxBack: [Float]
    let mapBackSha256: String
}

private func size(_ sides: [Int]) -> Size { Size(width: sides[0], height: sides[1]) }

private func corners(_ values: [Float]) -> Corners {
    Corners(values[0], values[1], values[2], values[3])
}

private func digest(_ classes: [UInt16]) -> String { sha256(Data(classes.map { UInt8($0) })) }

@Test func anImageFitsIntoAnInputAndComesBack() throws {
    for c in try Vectors.cases("fit", of: FitCase.self) {
        let (image, input) = (Size(width: c.width, height: c.height), size(c.input))
        let noise = Vectors.noise(c.width, c.height, seed: c.seed)
        let (pixels, content) = fitImage(noise, mean: c.mean, in: input)
        #expect(content == size(c.content))
        #expect(sha256(Data(pixels)) == c.sha256)
        #expect(corners(c.box).back(to: image, content: content) == corners(c.boxBack))
        let bytes = Vectors.noise(input.width, input.height, seed: c.seed + 7).data
        let classes = stride(from: 0, to: bytes.count, by: 3).map { UInt16(bytes[$0] >> 4) }
        let back = mapBack(classes, input: input, image: image, content: content)
        #expect(digest(back) == c.mapBackSha256)
    }
}

private struct ExponentialCase: Decodable { let x, exp: Double }

@Test func theExponentialIsPythonsToTheBit() throws {
    for c in try Vectors.cases("exponential", of: ExponentialCase.self) {
        #expect(exponential(c.x) == c.exp, "\(c.x)")
    }
}

/// Numbers that every language makes for itself.
private func numbers(_ count: Int, _ seed: UInt32, _ middle: Float, _ divisor: Float) -> [Float] {
    Vectors.noise(count, 1, seed: seed).data.prefix(count).map { (Float($0) - middle) / divisor }
}

private struct ClassMapCase: Decodable {
    let classes, height, width: Int
    let seed: UInt32
    let divisor: Float
    let copied: Bool
    let sha256: String
}

@Test func classMapsArePythons() throws {
    for c in try Vectors.cases("class_maps", of: ClassMapCase.self) {
        let area = c.width * c.height
        var logits = numbers(c.classes * area, c.seed, 128, c.divisor)
        if c.copied {
            logits.replaceSubrange(4 * area..<5 * area, with: logits[2 * area..<3 * area])
            for i in 9 * area..<10 * area { logits[i] = .nan }
        }
        let found = classMap(logits, classes: c.classes, size: Size(width: c.width, height: c.height))
        #expect(digest(found) == c.sha256, "\(c.seed)")
    }
}

private struct DetectionCase: Decodable {
    let name: String
    let input, content: [Int]
    let classes: Int
    let seed: UInt32
    let middle: Float
    let rule: DetectionRule
    let boxes: [[Float]]
    let scores: [Float]
    let labels: [Int]
}

@Test func boxesArePythons() throws {
    for c in try Vectors.cases("detections", of: DetectionCase.self) {
        let count = anchors(c.rule, in: size(c.input)).reduce(0) { $0 + $1.count }
        let found = detect(
            logits: numbers(count * c.classes, c.seed, c.middle, 8),
            deltas: numbers(count * 4, c.seed + 50, 128, 64), classes: c.classes, rule: c.rule,
            input: size(c.input), content: size(c.content)
        )
        let wanted = c.labels.indices.map {
            Detection(box: corners(c.boxes[$0]), score: c.scores[$0], label: c.labels[$0])
        }
        #expect(found == wanted, "\(c.name)")
    }
}

@Test func whatIsNotANumberIsNotFound() throws {
    let rule = try #require(Vectors.cases("detections", of: DetectionCase.self).first).rule
    let input = Size(width: 64, height: 64)
    let count = anchors(rule, in: input).reduce(0) { $0 + $1.count }
    let none = [Float](repeating: .nan, count: count * 4)
    for logits in [[Float](repeating: 0, count: count), [Float](repeating: .nan, count: count)] {
        #expect(detect(logits: logits, deltas: none, classes: 1, rule: rule, input: input).isEmpty)
    }
}

private struct KeptCase: Decodable { let numbers, step: Int }

@Test func goldenVectorsKeepEveryKthNumber() throws {
    for c in try Vectors.cases("kept", of: KeptCase.self) { #expect(keptStep(c.numbers) == c.step) }
}

private struct ColourCase: Decodable {
    let `class`: Int
    let rgb: [UInt8]
}

@Test func classesHaveTheColoursThatPythonDraws() throws {
    for c in try Vectors.cases("colours", of: ColourCase.self) {
        let found = colour(ofClass: c.class)
        #expect([found.red, found.green, found.blue] == c.rgb, "\(c.class)")
    }
}
