/// A class of a class map.
public struct ClassShare: Equatable, Sendable {
    public let index: Int
    public let label: String
    /// Share of the image's pixels, 0..1.
    public let share: Double
}

/// An object in an image.
public struct LabelledBox: Equatable, Sendable {
    public let index: Int
    public let label: String
    public let score: Float
    /// In pixels of the image.
    public let box: Corners
}

/// What a package says about an image, by its task.
public enum Answer: Equatable, Sendable {
    /// The most probable classes.
    case classes([ClassProbability])
    /// The class of each pixel of the image, row by row, and the classes in it, the largest first.
    case classMap([UInt16], [ClassShare])
    /// Objects, the best first.
    case boxes([LabelledBox])
}

/// Turn an upright image into the model's input pixels.
///
/// - Returns: RGB, row by row, and the size of the image inside the input.
/// - Throws: `SepViTError` if the image is too small, too large or too narrow.
public func inputPixels(_ image: Pixels, _ manifest: Manifest) throws -> (pixels: [UInt8], content: Size) {
    guard manifest.task != .classification else {
        return (try preprocess(image, manifest.input), manifest.inputSize)
    }
    try checkSize(image.width, image.height)
    return fitImage(image, mean: manifest.input.mean, in: manifest.inputSize)
}

/// Boxes with a lower score are not shown; `sepvit-edge predict` has the same limit.
private let leastScore: Float = 0.3

/// Finish the outputs for an image.
///
/// - Parameters:
///   - outputs: As `Session.run` returns them.
///   - content: Size of the image inside the input (`inputPixels`).
public func answer(
    _ outputs: [[Float]], _ package: Package, image: Size, content: Size
) -> Answer {
    let (manifest, labels) = (package.manifest, package.labels)
    switch manifest.task {
    case .classification: return .classes(topClasses(outputs[0], labels: labels))
    case .segmentation:
        let map = mapBack(
            denseMap(outputs, manifest), input: manifest.inputSize, image: image, content: content
        )
        return .classMap(map, shares(map, labels))
    case .detection:
        let shown = denseBoxes(outputs, manifest, content: content).filter { $0.score >= leastScore }
        let found = shown.map {
            LabelledBox(
                index: $0.label, label: labels[$0.label], score: $0.score,
                box: $0.box.back(to: image, content: content)
            )
        }
        return .boxes(found)
    }
}

/// Return the class of each pixel of the input of a segmentation package.
func denseMap(_ outputs: [[Float]], _ manifest: Manifest) -> [UInt16] {
    guard case .segmentation(let rule) = manifest.postprocessing else { return [] }
    let input = manifest.inputSize
    let size = Size(width: input.width / rule.stride, height: input.height / rule.stride)
    return classMap(outputs[0], classes: manifest.model.numClasses, size: size, stride: rule.stride)
}

/// Return the boxes of a detection package, in pixels of the input.
func denseBoxes(_ outputs: [[Float]], _ manifest: Manifest, content: Size) -> [Detection] {
    guard case .detection(let rule) = manifest.postprocessing else { return [] }
    return detect(
        logits: outputs[0], deltas: outputs[1], classes: manifest.model.numClasses, rule: rule,
        input: manifest.inputSize, content: content
    )
}

private func shares(_ map: [UInt16], _ labels: [String]) -> [ClassShare] {
    var counts = [Int](repeating: 0, count: labels.count)
    for index in map { counts[Int(index)] += 1 }
    return counts.indices.filter { counts[$0] > 0 }
        .sorted { (counts[$1], $0) < (counts[$0], $1) }
        .map { ClassShare(index: $0, label: labels[$0], share: Double(counts[$0]) / Double(map.count)) }
}

/// Return the colour of a class, 0...255, as Python draws it.
public func colour(ofClass index: Int) -> (red: UInt8, green: UInt8, blue: UInt8) {
    let (saturation, value) = (0.75, 0.95)
    let turn = (Double(index) * 0.618034).truncatingRemainder(dividingBy: 1) * 6
    let rest = turn - turn.rounded(.down)
    let low = value * (1 - saturation)
    let falling = value * (1 - saturation * rest)
    let rising = value * (1 - saturation * (1 - rest))
    let parts =
        switch Int(turn) {
        case 0: (value, rising, low)
        case 1: (falling, value, low)
        case 2: (low, value, rising)
        case 3: (low, falling, value)
        case 4: (rising, low, value)
        default: (value, low, falling)
        }
    func byte(_ part: Double) -> UInt8 { UInt8((255 * part).rounded()) }
    return (byte(parts.0), byte(parts.1), byte(parts.2))
}
