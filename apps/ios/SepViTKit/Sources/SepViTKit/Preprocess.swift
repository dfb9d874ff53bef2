// The rule from an image to a package's input pixels, byte for byte as in Python
// (sepvit_edge/data/preprocess.py): the shorter side is resized with Pillow's antialiased BILINEAR, the
// longer one in proportion, rounded down, first along the rows and then along the columns; then the
// centre square is cut out. Scaling and normalising are inside the graph.

/// Largest number of pixels, as in Python. A larger image is a mistake or an attack.
public let maxPixels = 100_000_000

/// Reject an image that is too small or too large to classify.
public func checkSize(_ width: Int, _ height: Int, name: String = "the image") throws {
    if min(width, height) < 2 {
        throw SepViTError(
            "\(name) is \(width) x \(height) pixels; an image needs 2 x 2 at least", .size
        )
    }
    if width * height > maxPixels {
        throw SepViTError(
            "\(name) is \(width) x \(height) pixels, over \(maxPixels / 1_000_000) megapixels; "
                + "scale it down first",
            .size
        )
    }
}

/// Turn an upright image into the model's input pixels.
///
/// - Returns: RGB, `cropSize * cropSize * 3` values, row by row.
/// - Throws: `SepViTError` if the image is too small, too large or too narrow.
public func preprocess(_ image: Pixels, _ input: Manifest.Input) throws -> [UInt8] {
    try checkSize(image.width, image.height)
    let (width, height) = try resizedSize(image.width, image.height, input.resizeShorterSide)
    let side = input.cropSize
    let box = Box(left: (width - side) / 2, top: (height - side) / 2, width: side, height: side)
    return resize(image, width: width, height: height, box: box)
}

/// Return width and height after resizing the shorter side to `shorter`.
public func resizedSize(_ width: Int, _ height: Int, _ shorter: Int) throws -> (Int, Int) {
    let size =
        width <= height
        ? (shorter, height * shorter / width) : (width * shorter / height, shorter)
    if size.0 * size.1 > maxPixels {
        throw SepViTError(
            "an image of \(width) x \(height) pixels is too narrow to classify; crop it first", .size
        )
    }
    return size
}

/// A part of an image.
public struct Box: Sendable {
    public let left, top, width, height: Int

    public init(left: Int, top: Int, width: Int, height: Int) {
        self.left = left
        self.top = top
        self.width = width
        self.height = height
    }
}

/// Resize as Pillow's `Image.resize` with BILINEAR, and cut a box out.
///
/// Only the box is computed: along the rows, rounded to 8 bits, then along the columns.
///
/// - Returns: RGB of the box, row by row.
public func resize(_ image: Pixels, width: Int, height: Int, box: Box? = nil) -> [UInt8] {
    let box = box ?? Box(left: 0, top: 0, width: width, height: height)
    let columns = Filter(from: image.width, to: width, first: box.left, samples: box.width)
    let rows = Filter(from: image.height, to: height, first: box.top, samples: box.height)
    let used = rows.used
    let channels = image.channels
    let colours = channels > 2 ? 2 : 0
    let narrow = resample(
        image.data, columns, lines: used.count, start: used.lowerBound * image.width * channels,
        lineStep: image.width * channels, sampleStep: channels,
        colours: (colours / 2, colours), toLine: box.width * 3, toSample: 3
    )
    return resample(
        narrow, rows, lines: box.width, start: -used.lowerBound * box.width * 3,
        lineStep: 3, sampleStep: box.width * 3, colours: (1, 2), toLine: 3, toSample: box.width * 3
    )
}

/// Resample lines along one axis to RGB. Steps are counted in values; `colours` has the offsets of green
/// and blue from red.
private func resample(
    _ data: [UInt8], _ filter: Filter, lines: Int, start: Int, lineStep: Int, sampleStep: Int,
    colours: (green: Int, blue: Int), toLine: Int, toSample: Int
) -> [UInt8] {
    let size = lines * filter.starts.count * 3
    return [UInt8](unsafeUninitializedCapacity: size) { out, count in
        data.withUnsafeBufferPointer { data in
            filter.weights.withUnsafeBufferPointer { weights in
                for line in 0..<lines {
                    for i in 0..<filter.starts.count {
                        var from = start + line * lineStep + filter.starts[i] * sampleStep
                        var (r, g, b) = (Filter.half, Filter.half, Filter.half)
                        for at in i * filter.stride..<i * filter.stride + filter.counts[i] {
                            let weight = weights[at]
                            r &+= Int32(data[from]) &* weight
                            g &+= Int32(data[from + colours.green]) &* weight
                            b &+= Int32(data[from + colours.blue]) &* weight
                            from += sampleStep
                        }
                        let to = line * toLine + i * toSample
                        out[to] = UInt8(min(r >> Filter.precisionBits, 255))
                        out[to + 1] = UInt8(min(g >> Filter.precisionBits, 255))
                        out[to + 2] = UInt8(min(b >> Filter.precisionBits, 255))
                    }
                }
            }
        }
        count = size
    }
}

/// Weights of output samples along one axis: a triangle as wide as the reduction.
///
/// Output i is the sum over `counts[i]` inputs from `starts[i]` on, with the fixed-point weights from
/// `weights[i * stride]` on.
private struct Filter {
    /// Fractional bits of the weights, as in Pillow.
    static let precisionBits: Int32 = 22
    static let half: Int32 = 1 << (precisionBits - 1)

    var starts: [Int] = []
    var counts: [Int] = []
    var weights: [Int32]
    let stride: Int

    init(from inSize: Int, to outSize: Int, first: Int, samples: Int) {
        let scale = Double(inSize) / Double(outSize)
        let support = max(scale, 1)
        // Pillow multiplies by the reciprocal; a division would round differently.
        let reciprocal = 1 / support
        stride = Int(support.rounded(.up)) * 2 + 1
        weights = [Int32](repeating: 0, count: samples * stride)
        for i in 0..<samples {
            let center = (Double(first + i) + 0.5) * scale
            let start = max(Int(center - support + 0.5), 0)
            let count = min(Int(center + support + 0.5), inSize) - start
            let exact = (0..<count).map {
                max(1 - abs((Double($0 + start) - center + 0.5) * reciprocal), 0)
            }
            let sum = exact.reduce(0, +)
            for (k, weight) in exact.enumerated() {
                weights[i * stride + k] = Int32(0.5 + weight / sum * Double(1 << Self.precisionBits))
            }
            starts.append(start)
            counts.append(count)
        }
    }

    /// The range of inputs that the outputs need.
    var used: Range<Int> { starts[0]..<starts[starts.count - 1] + counts[counts.count - 1] }
}
