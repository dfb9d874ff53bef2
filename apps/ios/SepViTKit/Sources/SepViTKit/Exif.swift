/// Return the EXIF orientation of a JPEG or PNG file, 1 to 8; 1 if it is missing or invalid.
public func exifOrientation(of file: [UInt8]) -> Int {
    guard let range = tiffRange(in: file) else { return 1 }
    return orientation(inTiff: Reader(bytes: file[range]))
}

/// Reads numbers at offsets from a start; nil past the end.
private struct Reader {
    let bytes: ArraySlice<UInt8>
    var littleEndian = false

    func number(_ at: Int, _ size: Int) -> Int? {
        guard at >= 0, at + size <= bytes.count else { return nil }
        let start = bytes.startIndex + at
        let found = bytes[start..<start + size]
        return (littleEndian ? Array(found.reversed()) : Array(found)).reduce(0) { $0 << 8 | Int($1) }
    }

    func text(_ at: Int, _ word: String) -> Bool {
        let start = bytes.startIndex + at
        return at >= 0 && at + word.utf8.count <= bytes.count
            && bytes[start..<start + word.utf8.count].elementsEqual(word.utf8)
    }
}

/// Return the range of the TIFF block that holds a file's EXIF.
private func tiffRange(in file: [UInt8]) -> Range<Int>? {
    let reader = Reader(bytes: file[...])
    func block(_ start: Int, _ end: Int) -> Range<Int> { start..<min(max(start, end), file.count) }
    if reader.number(0, 2) == 0xffd8 {
        var at = 2
        while let marker = reader.number(at, 2), marker >> 8 == 0xff {
            if marker == 0xffff {
                at += 1 // fill byte
                continue
            }
            guard marker != 0xffda, let length = reader.number(at + 2, 2) else { return nil }
            if marker == 0xffe1, reader.text(at + 4, "Exif\0\0") {
                return block(at + 10, at + 2 + length)
            }
            at += 2 + length
        }
    } else if reader.text(1, "PNG") {
        var at = 8
        while let length = reader.number(at, 4) {
            if reader.text(at + 4, "eXIf") {
                let start = at + 8 + (reader.text(at + 8, "Exif\0\0") ? 6 : 0)
                return start <= file.count ? block(start, at + 8 + length) : nil
            }
            at += 12 + length
        }
    }
    return nil
}

private func orientation(inTiff tiff: Reader) -> Int {
    var tiff = tiff
    guard tiff.text(0, "II") || tiff.text(0, "MM") else { return 1 }
    tiff.littleEndian = tiff.text(0, "II")
    guard let directory = tiff.number(4, 4), let count = tiff.number(directory, 2) else { return 1 }
    for entry in (0..<count).map({ directory + 2 + 12 * $0 }) {
        guard let tag = tiff.number(entry, 2) else { return 1 }
        guard tag == 0x0112 else { continue }
        let short = tiff.number(entry + 2, 2) == 3
        guard short, let value = tiff.number(entry + 8, 2), (1...8).contains(value) else { return 1 }
        return value
    }
    return 1
}
