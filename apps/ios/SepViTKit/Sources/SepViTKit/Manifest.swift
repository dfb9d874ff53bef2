import Foundation

/// manifest.json: what a package says about itself, the parts that an app uses.
///
/// Its schema is export/manifest.schema.json, which is compiled into this library (a link to it stands
/// beside this file).
public struct Manifest: Codable, Sendable {
    public static let schemaVersion = 1
    public static let fileName = "manifest.json"
    public static let labels = "labels.txt"
    public static let golden = "golden.safetensors"

    public enum Precision: String, Codable, Sendable { case fp32, fp16, int8 }
    public enum Dtype: String, Codable, Sendable { case uint8, float32 }
    public enum Layout: String, Codable, Sendable { case nhwc = "NHWC", nchw = "NCHW" }

    public struct Model: Codable, Sendable {
        public let variant, name: String
        public let numClasses, imageSize, parameters, macs: Int
    }

    public struct Input: Codable, Sendable {
        public let name: String
        public let shape: [Int]
        public let dtype: Dtype
        public let layout: Layout
        public let resizeShorterSide, cropSize: Int
        public let crop: Double
        public let mean, std: [Double]

        public init(
            name: String = "pixels", shape: [Int], dtype: Dtype = .uint8, layout: Layout = .nhwc,
            resizeShorterSide: Int, cropSize: Int, crop: Double = 1,
            mean: [Double] = [0.5, 0.5, 0.5], std: [Double] = [0.5, 0.5, 0.5]
        ) {
            self.name = name
            self.shape = shape
            self.dtype = dtype
            self.layout = layout
            self.resizeShorterSide = resizeShorterSide
            self.cropSize = cropSize
            self.crop = crop
            self.mean = mean
            self.std = std
        }
    }

    public struct Output: Codable, Sendable {
        public let name: String
        public let shape: [Int]
    }

    public struct Runtime: Codable, Sendable {
        public let name, version, minimum, below: String
    }

    public struct FloatLayer: Codable, Sendable {
        public let name, reason: String
    }

    public struct Quantization: Codable, Sendable {
        public let scheme: String
        public let floatLayers: [FloatLayer]
        public let calibrationImages: Int
    }

    public struct Source: Codable, Sendable {
        public let weightsSha256: String
        public let trainedOn: String?
    }

    public struct File: Codable, Sendable {
        public let path, sha256: String
        public let size: Int
    }

    public struct Parity: Codable, Sendable {
        public let data: String
        public let images: Int
        public let maxAbsError, logitsRange, sqnrDb, top1Agreement: Double
        public let top1Reference, top1Package: Double?
    }

    public let digest: String
    public let model: Model
    public let input: Input
    public let output: Output
    public let target: String
    public let precision: Precision
    public let quantization: Quantization?
    public let runtime: Runtime
    public let source: Source
    public let files: [File]
    public let parity: Parity?

    /// Read a manifest and check it: schema version, digest, then every field.
    ///
    /// - Parameter name: What to call the package in an error.
    /// - Throws: `SepViTError` that says what is wrong with it.
    public init(_ data: Data, name: String) throws {
        guard let document = try? JSONDecoder().decode(JSON.self, from: data),
            let version = document["schema_version"]
        else {
            throw SepViTError(
                "\(name)/\(Self.fileName) is damaged: it is no manifest; export the package again",
                .damagedManifest
            )
        }
        guard version == .number(Double(Self.schemaVersion)) else {
            let found = version.number.map { String(Int($0)) } ?? "unknown"
            throw SepViTError(
                "\(name) has manifest schema \(found), this app reads \(Self.schemaVersion); "
                    + "update the app or export the package again",
                .schema
            )
        }
        // The digest first: a changed bit is damage, wherever it stands.
        guard document["digest"] == .string(Self.digest(of: data)) else {
            throw SepViTError(
                "\(name)/\(Self.fileName) was changed since it was exported; export the package again",
                .digest
            )
        }
        if let fault = try Self.schema().fault(in: document) {
            throw SepViTError("\(name)/\(Self.fileName) is not valid: \(fault)", .invalid)
        }
        let decoder = JSONDecoder()
        decoder.keyDecodingStrategy = .convertFromSnakeCase
        self = try decoder.decode(Manifest.self, from: data)
    }

    private static func schema() throws -> JSONSchema {
        try JSONSchema(Data(PackageResources.manifest_schema_json))
    }

    /// SHA-256 of the manifest's own bytes, with the digest's 64 characters set to zero.
    public static func digest(of data: Data) -> String {
        var sealed = [UInt8](data)
        let key = Array(#""digest": ""#.utf8)
        let hexadecimal = Set("0123456789abcdef".utf8)
        let last = sealed.count - key.count - 65
        for start in stride(from: 0, through: last, by: 1) where sealed[start] == key[0] {
            let value = start + key.count
            guard sealed[start..<value].elementsEqual(key), sealed[value + 64] == key[0],
                sealed[value..<value + 64].allSatisfy(hexadecimal.contains)
            else { continue }
            sealed.replaceSubrange(value..<value + 64, with: repeatElement(UInt8(ascii: "0"), count: 64))
            break
        }
        return SepViTKit.sha256(Data(sealed))
    }
}
