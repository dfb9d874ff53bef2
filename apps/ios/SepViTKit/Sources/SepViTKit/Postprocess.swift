// From raw outputs of dense models to class maps and boxes, the same bits as in Python. The rule is
// stated in tests/vectors/README.md: all arithmetic in double precision, in this order.

/// Width and height in pixels.
public struct Size: Equatable, Sendable {
    public let width, height: Int

    public init(width: Int, height: Int) {
        self.width = width
        self.height = height
    }
}

/// How the logits of a segmentation package become a class map.
public struct SegmentationRule: Codable, Equatable, Sendable {
    /// Input pixels per logit.
    public let stride: Int
}

/// How the outputs of a detection package become boxes.
public struct DetectionRule: Codable, Equatable, Sendable {
    public let strides: [Int]
    public let ratios, scales: [Double]
    public let sizeDeltaLimit, scoreThreshold: Double
    public let levelCandidates: Int
    public let iouThreshold: Double
    public let maxDetections: Int
}

/// A box in pixels; right and bottom are exclusive.
public struct Corners: Equatable, Sendable {
    public let left, top, right, bottom: Float

    public init(_ left: Float, _ top: Float, _ right: Float, _ bottom: Float) {
        self.left = left
        self.top = top
        self.right = right
        self.bottom = bottom
    }

    var area: Double { (Double(right) - Double(left)) * (Double(bottom) - Double(top)) }

    /// Move a box of the input back to the image.
    public func back(to image: Size, content: Size) -> Corners {
        let x = Double(image.width) / Double(content.width)
        let y = Double(image.height) / Double(content.height)
        return Corners(
            Float(Double(left) * x), Float(Double(top) * y), Float(Double(right) * x),
            Float(Double(bottom) * y)
        )
    }
}

public struct Detection: Equatable, Sendable {
    public let box: Corners
    public let score: Float
    public let label: Int

    public init(box: Corners, score: Float, label: Int) {
        self.box = box
        self.score = score
        self.label = label
    }
}

/// Return the size of a whole image inside an input, in its own proportions.
public func contentSize(of image: Size, in input: Size) -> Size {
    if image.width * input.height >= image.height * input.width {
        return Size(width: input.width, height: max(1, image.height * input.width / image.width))
    }
    return Size(width: max(1, image.width * input.height / image.height), height: input.height)
}

/// Put a whole image into the top left corner of an input, with the mean colour around it.
///
/// - Parameter mean: Mean per channel, for pixels scaled to 0..1.
/// - Returns: RGB, row by row, and the size of the image in it.
public func fitImage(_ image: Pixels, mean: [Double], in input: Size) -> (pixels: [UInt8], content: Size) {
    let content = contentSize(of: Size(width: image.width, height: image.height), in: input)
    let resized = resize(image, width: content.width, height: content.height)
    let colour = mean.map { UInt8((255 * $0 + 0.5).rounded(.down)) }
    var pixels = (0..<input.width * input.height * 3).map { colour[$0 % 3] }
    let line = content.width * 3
    for y in 0..<content.height {
        let start = y * input.width * 3
        pixels.replaceSubrange(start..<start + line, with: resized[y * line..<(y + 1) * line])
    }
    return (pixels, content)
}

/// Cut the image out of a class map of the input, and resize it to the image's nearest pixels.
public func mapBack(_ classes: [UInt16], input: Size, image: Size, content: Size) -> [UInt16] {
    func source(_ at: Int, _ to: Int, _ of: Int) -> Int { (2 * at + 1) * of / (2 * to) }
    let columns = (0..<image.width).map { source($0, image.width, content.width) }
    return (0..<image.height).flatMap { y in
        let row = source(y, image.height, content.height) * input.width
        return columns.map { classes[row + $0] }
    }
}

/// Compute e^x by operations that every language rounds alike; `exp` differs.
func exponential(_ x: Double) -> Double {
    if x.isNaN { return x }
    let clipped = min(max(x, -88), 88)
    let k = (clipped * 1.4426950408889634 + 0.5).rounded(.down)
    let r = clipped - k * 0.6931471805599453
    var s = 1.0
    for i in stride(from: 13.0, to: 0, by: -1) { s = 1 + r * s / i }
    return Double(sign: .plus, exponent: Int(k), significand: s)
}

/// Return the class of each pixel of the input.
///
/// - Parameter logits: `classes * height * width` values of `size`.
/// - Returns: `height * stride` rows of `width * stride` classes.
public func classMap(_ logits: [Float], classes: Int, size: Size, stride: Int = 4) -> [UInt16] {
    let columns = taps(size.width, stride)
    let rows = taps(size.height, stride)
    let across = columns.count
    var chosen = [UInt16](repeating: 0, count: across * rows.count)
    var best = [Double](repeating: -.infinity, count: chosen.count)
    var wide = [Double](repeating: 0, count: size.height * across)
    for label in 0..<classes {
        for y in 0..<size.height {
            let line = (label * size.height + y) * size.width
            for (x, tap) in columns.enumerated() {
                wide[y * across + x] = tap.blend(
                    Double(logits[line + tap.before]), Double(logits[line + tap.after])
                )
            }
        }
        for (y, tap) in rows.enumerated() {
            for x in 0..<across {
                let value = tap.blend(wide[tap.before * across + x], wide[tap.after * across + x])
                let at = y * across + x
                if value > best[at] {
                    best[at] = value
                    chosen[at] = UInt16(label)
                }
            }
        }
    }
    return chosen
}

/// The two neighbours of an output along an axis, and the second one's weight.
private struct Tap {
    let before, after: Int
    let weight: Double

    func blend(_ first: Double, _ second: Double) -> Double { first * (1 - weight) + second * weight }
}

private func taps(_ length: Int, _ stride: Int) -> [Tap] {
    (0..<length * stride).map { i in
        let place = max((Double(i) + 0.5) / Double(stride) - 0.5, 0)
        let before = Int(place)
        return Tap(before: before, after: min(before + 1, length - 1), weight: place - Double(before))
    }
}

struct Anchor {
    let x, y, width, height: Double
}

/// Return the anchors of each level.
func anchors(_ rule: DetectionRule, in input: Size) -> [[Anchor]] {
    rule.strides.map { stride in
        let side = Double(stride)
        let shapes = rule.ratios.flatMap { ratio in
            rule.scales.map { scale in
                (side * scale * (1 / ratio.squareRoot()), side * scale * ratio.squareRoot())
            }
        }
        let (rows, columns) = (
            (input.height + stride - 1) / stride, (input.width + stride - 1) / stride
        )
        return (0..<rows * columns).flatMap { place in
            shapes.map { width, height in
                Anchor(
                    x: Double(stride * (place % columns)), y: Double(stride * (place / columns)),
                    width: width, height: height
                )
            }
        }
    }
}

private struct Candidate {
    let order: Int
    let score: Float

    func isBefore(_ other: Candidate) -> Bool {
        score == other.score ? order < other.order : score > other.score
    }
}

/// Return the boxes that a detector finds in one image, the best first, in pixels of the input.
///
/// - Parameters:
///   - logits: A row of `classes` values for each anchor.
///   - deltas: Four values for each anchor.
///   - content: Size of the image inside the input.
public func detect(
    logits: [Float], deltas: [Float], classes: Int, rule: DetectionRule, input: Size,
    content: Size? = nil
) -> [Detection] {
    let content = content ?? input
    var found: [(candidate: Candidate, box: Corners)] = []
    var first = 0
    for level in anchors(rule, in: input) {
        for one in candidates(logits, first * classes, level.count * classes, rule) {
            let row = one.order / classes
            let box = decode(level[row - first], deltas, 4 * row, rule.sizeDeltaLimit, content)
            if box.right > box.left && box.bottom > box.top { found.append((one, box)) }
        }
        first += level.count
    }
    found.sort { $0.candidate.isBefore($1.candidate) }
    var kept: [Detection] = []
    for (one, box) in found {
        if kept.count == rule.maxDetections { break }
        let label = one.order % classes
        let hidden = kept.contains { $0.label == label && overlap($0.box, box) > rule.iouThreshold }
        if !hidden { kept.append(Detection(box: box, score: one.score, label: label)) }
    }
    return kept
}

/// Return the best pairs of anchor and class of a level.
private func candidates(_ logits: [Float], _ start: Int, _ count: Int, _ rule: DetectionRule)
    -> [Candidate]
{
    let pairs = (start..<start + count).compactMap { order -> Candidate? in
        let score = Float(1 / (1 + exponential(-Double(logits[order]))))
        return Double(score) > rule.scoreThreshold ? Candidate(order: order, score: score) : nil
    }
    return Array(pairs.sorted { $0.isBefore($1) }.prefix(rule.levelCandidates))
}

private func decode(
    _ anchor: Anchor, _ deltas: [Float], _ at: Int, _ limit: Double, _ content: Size
) -> Corners {
    let delta = deltas[at..<at + 4].map(Double.init)
    // A box with a NaN has no area; `min` and `max` would lose it.
    if delta.contains(where: \.isNaN) { return Corners(.nan, .nan, .nan, .nan) }
    func clipped(_ value: Double) -> Double { min(max(value, -limit), limit) }
    func inside(_ value: Double, _ most: Int) -> Float { Float(min(max(value, 0), Double(most))) }
    let x = anchor.x + delta[0] * anchor.width
    let y = anchor.y + delta[1] * anchor.height
    let halfWidth = anchor.width * exponential(clipped(delta[2])) * 0.5
    let halfHeight = anchor.height * exponential(clipped(delta[3])) * 0.5
    return Corners(
        inside(x - halfWidth, content.width), inside(y - halfHeight, content.height),
        inside(x + halfWidth, content.width), inside(y + halfHeight, content.height)
    )
}

/// Compute intersection over union.
func overlap(_ a: Corners, _ b: Corners) -> Double {
    let width = max(Double(min(a.right, b.right)) - Double(max(a.left, b.left)), 0)
    let height = max(Double(min(a.bottom, b.bottom)) - Double(max(a.top, b.top)), 0)
    let shared = width * height
    return shared / (a.area + b.area - shared)
}

/// Count the boxes of `other` that `one` has too.
///
/// From the best one down, each takes the free box of its class that it overlaps most, by half at least.
func sharedBoxes(_ one: [Detection], _ other: [Detection]) -> Int {
    var free = one
    return other.count { wanted in
        var best: (index: Int, overlap: Double)?
        for (i, candidate) in free.enumerated() where candidate.label == wanted.label {
            let share = overlap(candidate.box, wanted.box)
            if share >= 0.5 && share > best?.overlap ?? 0 { best = (i, share) }
        }
        if let best { free.remove(at: best.index) }
        return best != nil
    }
}
