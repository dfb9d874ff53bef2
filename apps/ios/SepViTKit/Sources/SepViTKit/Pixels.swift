/// An image as 8-bit samples, row by row.
///
/// 1 channel is grey, 2 are grey and transparency, 3 are RGB, 4 are RGB and transparency.
/// Preprocessing ignores transparency, as in Python.
public struct Pixels: Equatable, Sendable {
    public let width, height, channels: Int
    /// `width * height * channels` values.
    public let data: [UInt8]

    public init(width: Int, height: Int, channels: Int = 3, data: [UInt8]) {
        precondition(data.count == width * height * channels, "the values do not fit the size")
        self.width = width
        self.height = height
        self.channels = channels
        self.data = data
    }

    /// Return the image turned and mirrored by an EXIF orientation (1 to 8).
    public func oriented(_ orientation: Int) -> Pixels {
        guard (2...8).contains(orientation) else { return self }
        // 1-4 keep rows as rows, 5-8 turn them into columns; the source's x or y then runs backwards.
        let swapped = orientation >= 5
        let flipX = [2, 3, 7, 8].contains(orientation)
        let flipY = [3, 4, 6, 7].contains(orientation)
        let (outWidth, outHeight) = swapped ? (height, width) : (width, height)
        let out = [UInt8](unsafeUninitializedCapacity: data.count) { out, count in
            data.withUnsafeBufferPointer { source in
                var to = 0
                for y in 0..<outHeight {
                    for x in 0..<outWidth {
                        let (u, v) = swapped ? (y, x) : (x, y)
                        let column = flipX ? width - 1 - u : u
                        let row = flipY ? height - 1 - v : v
                        let from = (row * width + column) * channels
                        for channel in 0..<channels { out[to + channel] = source[from + channel] }
                        to += channels
                    }
                }
            }
            count = data.count
        }
        return Pixels(width: outWidth, height: outHeight, channels: channels, data: out)
    }
}
