import Foundation

/// The result of checking this device against a package's golden vectors.
public struct SelfCheck: Sendable {
    public enum Step: String, Sendable { case pixels, tensor, logits, outputs, answer }

    public let images: Int
    /// The first step that failed; nil if all passed.
    public let failsAt: Step?
    /// The first image whose pixels or tensor differ, or the one whose output differs most.
    public let image: Int
    /// Number of its values that differ.
    public let differentValues: Int
    /// Largest difference: in levels if pixels differ, else of the output over all images.
    public let maxDifference: Double
    /// The output with the smallest SQNR; the figures below are its.
    public let output: String
    /// SQNR against the package's output in Python, at most 200 dB.
    public let sqnrDb: Double
    public let minimumSqnrDb: Double
    /// SQNR against the fp32 reference, for information only.
    public let referenceSqnrDb: Double
    /// Largest difference of the output.
    public let maxAbsError: Double
    /// Share of the images with the same class as in Python, or of the same pixels or boxes, 0..1.
    public let agreement: Double
    /// Nil for a classifier, whose agreement decides nothing.
    public let minimumAgreement: Double?

    public var passed: Bool { failsAt == nil }
}

/// Return the SQNR that another device must reach (tests/vectors/minimum_sqnr.json).
public func minimumSqnrDb(_ precision: Manifest.Precision) -> Double {
    switch precision {
    case .fp32: 80
    case .fp16: 40
    case .int8: 20
    }
}

/// Return the share of pixels or boxes that a dense model's answer must have in common with Python's.
public func minimumAgreement(_ precision: Manifest.Precision) -> Double {
    switch precision {
    case .fp32: 0.95
    case .fp16: 0.8
    case .int8: 0.5
    }
}

/// Repeat a package's golden vectors, image -> pixels -> tensor -> outputs -> answer, and report the
/// first step that differs and by how much. tests/vectors/README.md has the rule.
public func selfCheck(_ session: Session, golden: [String: Tensor]? = nil) throws -> SelfCheck {
    let golden = try golden ?? session.package.golden()
    let manifest = session.package.manifest
    let (input, size) = (manifest.input, manifest.inputSize)
    guard let stored = golden["pixels"], let pixels = stored.bytes else { throw missing("pixels") }
    let images = stored.shape.first ?? 0
    let each = size.width * size.height * 3
    guard images > 0, pixels.count == images * each else { throw doNotFit() }
    var outputs = try manifest.answers.map { try GoldenOutput($0, manifest.task, golden, images) }

    var different: (image: Int, values: Int, levels: Int)?
    var wrongTensor: Int?
    var common = (same: 0, all: 0)
    for image in 0..<images {
        let wanted = Array(pixels[image * each..<(image + 1) * each])
        let picture = try goldenImage(golden, image)
        let found = try inputPixels(picture, manifest).pixels
        let apart = zip(found, wanted).map { abs(Int($0) - Int($1)) }
        if different == nil, let levels = apart.max(), levels > 0 {
            different = (image, apart.count { $0 > 0 }, levels)
        }
        if InputTensor(wanted, input).pixels(input, size) != wanted { wrongTensor = wrongTensor ?? image }
        // The golden pixels, so that a wrong resize does not look like a wrong model.
        let results = try session.run(wanted)
        for (i, result) in results.enumerated() { outputs[i].take(result) }
        let (same, all) = try compareAnswers(results, manifest, golden, image, picture)
        common = (common.same + same, common.all + all)
    }
    let worst = outputs.min { $0.rank < $1.rank } ?? outputs[0]
    let dense = manifest.task != .classification
    let agreement = common.all == 0 ? 1 : Double(common.same) / Double(common.all)
    let least = dense ? minimumAgreement(manifest.precision) : nil
    let minimum = minimumSqnrDb(manifest.precision)
    let failsAt: SelfCheck.Step? =
        if different != nil {
            .pixels
        } else if wrongTensor != nil {
            .tensor
        } else if !(worst.sqnrDb >= minimum) {  // not "<": NaN must fail
            dense ? .outputs : .logits
        } else if agreement < least ?? 0 {
            .answer
        } else {
            nil
        }
    return SelfCheck(
        images: images,
        failsAt: failsAt,
        image: different?.image ?? wrongTensor ?? worst.worstImage,
        differentValues: different?.values ?? 0,
        maxDifference: different.map { Double($0.levels) } ?? worst.largest,
        output: worst.facts.name,
        sqnrDb: worst.sqnrDb,
        minimumSqnrDb: minimum,
        referenceSqnrDb: sqnrDb(worst.reference, worst.measured),
        maxAbsError: worst.largest,
        agreement: agreement,
        minimumAgreement: least
    )
}

/// One output of the golden images: by the package and the reference in Python, and on this device.
private struct GoldenOutput {
    let facts: Manifest.Output
    let each: Int
    let expected, reference: [Float]
    var measured: [Float] = []

    init(
        _ facts: Manifest.Output, _ task: Manifest.Task, _ golden: [String: Tensor], _ images: Int
    ) throws {
        self.facts = facts
        let name = task == .classification ? "_logits" : ".\(facts.name)"
        let step = keptStep(facts.numbers)
        each = (facts.numbers + step - 1) / step
        expected = try floats(golden, "package\(name)")
        reference = try floats(golden, "reference\(name)")
        guard expected.count == images * each, reference.count == expected.count else {
            throw doNotFit()
        }
    }

    /// Take the numbers of the next image that golden vectors keep.
    mutating func take(_ output: [Float]) {
        measured += stride(from: 0, to: output.count, by: keptStep(output.count)).map { output[$0] }
    }

    private var errors: [Double] { zip(expected, measured).map { abs(Double($0) - Double($1)) } }
    private var worst: Int { errors.indices.max { errors[$0] < errors[$1] } ?? 0 }
    var largest: Double { errors.max() ?? 0 }
    var worstImage: Int { worst / each }
    var sqnrDb: Double { SepViTKit.sqnrDb(expected, measured) }
    /// NaN is the worst.
    var rank: Double { sqnrDb.isNaN ? -.infinity : sqnrDb }
}

/// The step between the numbers of an output that golden vectors of dense packages keep.
func keptStep(_ numbers: Int) -> Int { (numbers + 65_535) / 65_536 | 1 }

/// Count what the finished answers to a golden image have in common, and all that they have.
private func compareAnswers(
    _ outputs: [[Float]], _ manifest: Manifest, _ golden: [String: Tensor], _ image: Int,
    _ picture: Pixels
) throws -> (same: Int, all: Int) {
    switch manifest.task {
    case .classification:
        let classes = outputs[0].count
        let wanted = Array(
            try floats(golden, "package_logits")[image * classes..<(image + 1) * classes]
        )
        return (best(wanted) == best(outputs[0]) ? 1 : 0, 1)
    case .segmentation:
        let map = denseMap(outputs, manifest)
        guard let stored = golden["package.class_map"] else { throw missing("package.class_map") }
        let classes = stored.bytes?.map(Int.init) ?? stored.floats?.map { Int($0) } ?? []
        guard classes.count >= (image + 1) * map.count else { throw doNotFit() }
        let wanted = classes[image * map.count..<(image + 1) * map.count]
        return (zip(map, wanted).count { Int($0) == $1 }, map.count)
    case .detection:
        let whole = Size(width: picture.width, height: picture.height)
        let content = contentSize(of: whole, in: manifest.inputSize)
        let found = denseBoxes(outputs, manifest, content: content)
        let boxes = try floats(golden, "package.boxes.\(image)")
        let scores = try floats(golden, "package.scores.\(image)")
        let labels = try floats(golden, "package.classes.\(image)")
        guard boxes.count == 4 * scores.count, labels.count == scores.count else { throw doNotFit() }
        let wanted = scores.indices.map { i in
            Detection(
                box: Corners(boxes[4 * i], boxes[4 * i + 1], boxes[4 * i + 2], boxes[4 * i + 3]),
                score: scores[i], label: Int(labels[i])
            )
        }
        return (2 * sharedBoxes(found, wanted), found.count + wanted.count)
    }
}

private func floats(_ golden: [String: Tensor], _ name: String) throws -> [Float] {
    guard let values = golden[name]?.floats else { throw missing(name) }
    return values
}

private func best(_ logits: [Float]) -> Int? { logits.indices.max { logits[$0] < logits[$1] } }

/// Return a golden image before resizing.
public func goldenImage(_ golden: [String: Tensor], _ index: Int) throws -> Pixels {
    guard let tensor = golden["image.\(index)"], let bytes = tensor.bytes else {
        throw missing("image.\(index)")
    }
    guard (2...3).contains(tensor.shape.count) else {
        throw SepViTError("golden image \(index) is not an image; export the package again")
    }
    let channels = tensor.shape.count == 3 ? tensor.shape[2] : 1
    return Pixels(
        width: tensor.shape[1], height: tensor.shape[0], channels: channels, data: bytes
    )
}

/// Return the signal-to-quantisation-noise ratio (SQNR) in dB: 10 log10(sum s² / sum (s - m)²).
///
/// The result is at most 200 dB, also for identical values: float32 cannot resolve more.
public func sqnrDb(_ signal: [Float], _ measured: [Float]) -> Double {
    let power = signal.reduce(0) { $0 + Double($1) * Double($1) }
    let noise = zip(signal, measured).reduce(0) { $0 + pow(Double($1.0) - Double($1.1), 2) }
    return noise == 0 ? 200 : min(10 * log10(power / noise), 200)
}

private func doNotFit() -> SepViTError {
    SepViTError("the golden vectors do not fit the manifest; export the package again")
}

private func missing(_ name: String) -> SepViTError {
    SepViTError("\(name) is missing from the golden vectors; export the package again")
}
