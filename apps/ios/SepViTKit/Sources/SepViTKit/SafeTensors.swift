import Foundation

/// A tensor of a .safetensors file.
public struct Tensor: Equatable, Sendable {
    public enum Values: Equatable, Sendable {
        case uint8([UInt8])
        case float32([Float])
    }

    public let shape: [Int]
    public let values: Values

    public init(shape: [Int], values: Values) {
        self.shape = shape
        self.values = values
    }

    public var bytes: [UInt8]? { if case .uint8(let values) = values { values } else { nil } }
    public var floats: [Float]? { if case .float32(let values) = values { values } else { nil } }
}

private struct Entry: Decodable {
    let dtype: String
    let shape: [Int]
    let dataOffsets: [Int]

    enum CodingKeys: String, CodingKey {
        case dtype, shape
        case dataOffsets = "data_offsets"
    }
}

/// Read a .safetensors file: a little-endian 64-bit length, a JSON header of that length, the tensors.
///
/// Format: https://huggingface.co/docs/safetensors
///
/// - Throws: `SepViTError` if the file is damaged, or has a dtype other than U8 and F32.
public func readSafeTensors(_ data: Data) throws -> [String: Tensor] {
    func damaged(_ why: String) -> SepViTError {
        SepViTError("the safetensors file is damaged: \(why)", .tensors)
    }
    let bytes = [UInt8](data)
    guard bytes.count >= 8 else { throw damaged("its header is missing") }
    let length = bytes.withUnsafeBytes { UInt64(littleEndian: $0.loadUnaligned(as: UInt64.self)) }
    guard length <= UInt64(bytes.count - 8) else { throw damaged("its header is cut off") }
    let start = 8 + Int(length)
    let header = Data(bytes[8..<start])
    guard let entries = try? JSONDecoder().decode([String: Skipping<Entry>].self, from: header)
    else { throw damaged("its header is not a JSON object") }

    var tensors: [String: Tensor] = [:]
    var places: [Range<Int>] = []
    for (name, found) in entries where name != "__metadata__" {
        guard let entry = found.value, entry.dataOffsets.count == 2,
            (entry.shape + entry.dataOffsets).allSatisfy({ $0 >= 0 })
        else { throw damaged("tensor \(name) has an invalid shape or offset") }
        guard let itemBytes = ["U8": 1, "F32": 4][entry.dtype] else {
            throw SepViTError("tensor \(name) has dtype \(entry.dtype), not U8 or F32", .tensors)
        }
        let size = entry.shape.reduce(Optional(itemBytes)) { product, side in
            guard let (value, overflow) = product?.multipliedReportingOverflow(by: side), !overflow
            else { return nil }
            return value
        }
        let (low, high) = (entry.dataOffsets[0], entry.dataOffsets[1])
        guard let size, high >= low, high - low == size, high <= bytes.count - start else {
            throw damaged("tensor \(name) does not fit its place")
        }
        places.append(low..<high)
        let body = bytes[start + low..<start + high]
        tensors[name] = Tensor(
            shape: entry.shape,
            values: entry.dtype == "U8" ? .uint8(Array(body)) : .float32(littleEndianFloats(body))
        )
    }
    places.sort { ($0.lowerBound, $0.upperBound) < ($1.lowerBound, $1.upperBound) }
    let covered = places.reduce(0) { at, place in place.lowerBound == at ? place.upperBound : -1 }
    guard covered == bytes.count - start else { throw damaged("its tensors do not cover it") }
    return tensors
}

/// An entry, or nil for another value, such as the metadata.
private struct Skipping<Value: Decodable>: Decodable {
    let value: Value?

    init(from decoder: any Decoder) throws {
        value = try? Value(from: decoder)
    }
}

private func littleEndianFloats(_ bytes: ArraySlice<UInt8>) -> [Float] {
    bytes.withUnsafeBytes { raw in
        (0..<raw.count / 4).map {
            let bits = raw.loadUnaligned(fromByteOffset: 4 * $0, as: UInt32.self)
            return Float(bitPattern: UInt32(littleEndian: bits))
        }
    }
}
