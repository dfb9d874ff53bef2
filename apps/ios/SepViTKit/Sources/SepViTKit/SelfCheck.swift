import Foundation

/// The result of checking this device against a package's golden vectors.
public struct SelfCheck: Sendable {
    public enum Step: String, Sendable { case pixels, tensor, logits }

    public let images: Int
    /// The first step that failed; nil if all passed.
    public let failsAt: Step?
    /// The first image whose pixels or tensor differ, or the one whose logits differ most.
    public let image: Int
    /// Number of its values that differ.
    public let differentValues: Int
    /// Largest difference: in levels if pixels differ, else of the logits over all images.
    public let maxDifference: Double
    /// SQNR of the logits against the package's in Python, at most 200 dB.
    public let sqnrDb: Double
    public let minimumSqnrDb: Double
    /// SQNR of the logits against the fp32 reference, for information only.
    public let referenceSqnrDb: Double
    /// Largest difference of the logits.
    public let maxAbsError: Double
    /// Share of the images with the same class as in Python, 0..1.
    public let top1Agreement: Double

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

/// Repeat a package's golden vectors, image -> pixels -> tensor -> logits, and report the first step
/// that differs and by how much. tests/vectors/README.md has the rule.
public func selfCheck(_ session: Session, golden: [String: Tensor]? = nil) throws -> SelfCheck {
    let golden = try golden ?? session.package.golden()
    let manifest = session.package.manifest
    let (input, classes) = (manifest.input, manifest.model.numClasses)
    func floats(_ name: String) throws -> [Float] {
        guard let values = golden[name]?.floats else { throw missing(name) }
        return values
    }
    guard let stored = golden["pixels"], let pixels = stored.bytes else { throw missing("pixels") }
    let images = stored.shape.first ?? 0
    let each = input.cropSize * input.cropSize * 3
    let (expected, reference) = (try floats("package_logits"), try floats("reference_logits"))
    guard images > 0, pixels.count == images * each, expected.count == images * classes,
        reference.count == expected.count
    else {
        throw SepViTError("the golden vectors do not fit the manifest; export the package again")
    }

    var different: (image: Int, values: Int, levels: Int)?
    var wrongTensor: Int?
    var logits: [Float] = []
    for image in 0..<images {
        let wanted = Array(pixels[image * each..<(image + 1) * each])
        let found = try preprocess(goldenImage(golden, image), input)
        let apart = zip(found, wanted).map { abs(Int($0) - Int($1)) }
        if different == nil, let levels = apart.max(), levels > 0 {
            different = (image, apart.count { $0 > 0 }, levels)
        }
        if InputTensor(wanted, input).pixels(input) != wanted { wrongTensor = wrongTensor ?? image }
        // The golden pixels, so that a wrong resize does not look like a wrong model.
        logits += try session.run(wanted)
    }
    let errors = zip(expected, logits).map { abs(Double($0) - Double($1)) }
    let worst = errors.indices.max { errors[$0] < errors[$1] } ?? 0
    let noise = sqnrDb(expected, logits)
    let minimum = minimumSqnrDb(manifest.precision)
    // Not "noise < minimum": NaN must fail.
    let failsAt: SelfCheck.Step? =
        if different != nil { .pixels } else if wrongTensor != nil { .tensor } else if noise
            >= minimum
        { nil } else { .logits }
    return SelfCheck(
        images: images,
        failsAt: failsAt,
        image: different?.image ?? wrongTensor ?? worst / classes,
        differentValues: different?.values ?? 0,
        maxDifference: different.map { Double($0.levels) } ?? errors[worst],
        sqnrDb: noise,
        minimumSqnrDb: minimum,
        referenceSqnrDb: sqnrDb(reference, logits),
        maxAbsError: errors[worst],
        top1Agreement: agreement(expected, logits, classes: classes)
    )
}

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

private func agreement(_ a: [Float], _ b: [Float], classes: Int) -> Double {
    func best(_ values: [Float], _ row: Int) -> Int? {
        let logits = values[row * classes..<(row + 1) * classes]
        return logits.indices.max { logits[$0] < logits[$1] }
    }
    let rows = a.count / classes
    return Double((0..<rows).count { best(a, $0) == best(b, $0) }) / Double(rows)
}

private func missing(_ name: String) -> SepViTError {
    SepViTError("\(name) is missing from the golden vectors; export the package again")
}
