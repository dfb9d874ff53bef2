import Foundation

/// The parts of manifest.json, version 2, that an app uses.
///
/// Its schema in export/ is compiled into this library through the link beside this file.
public struct Manifest: Codable, Sendable {
    /// The version that this library reads; other minor versions are opened as well.
    public static let schemaVersion = "2.0"
    public static let fileName = "manifest.json"
    public static let labels = "labels.txt"
    public static let golden = "golden.safetensors"

    public enum Precision: String, Codable, Sendable { case fp32, fp16, int8 }
    public enum Dtype: String, Codable, Sendable { case uint8, float32 }
    public enum Layout: String, Codable, Sendable { case nhwc = "NHWC", nchw = "NCHW" }

    public struct Model: Codable, Sendable {
        public let variant, name: String
        /// Name of the edge form.
        public let form: String
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
        public let name, meaning: String
        public let shape: [Int]
        public let dtype: String?
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

    private static let supportedTask = "classification"
    private static let classLogits = "class_logits"

    public let digest: String
    /// Always classification: a package for another task is refused.
    public let task: String
    public let model: Model
    public let input: Input
    public let outputs: [Output]
    public let target: String
    public let precision: Precision
    public let quantization: Quantization?
    public let runtime: Runtime
    public let source: Source
    public let files: [File]
    public let parity: Parity?

    /// Name of the output that holds the class logits.
    public var logits: String { outputs.first { $0.meaning == Self.classLogits }?.name ?? "" }

    /// Read a manifest and check its version, then its digest, then its fields.
    ///
    /// - Parameter name: Name of the package in error messages.
    /// - Throws: `SepViTError` that says what is wrong and what to do.
    public init(_ data: Data, name: String) throws {
        guard let document = try? JSONDecoder().decode(JSON.self, from: data),
            let version = document["schema_version"], let major = Self.major(of: version)
        else {
            throw SepViTError(
                "\(name)/\(Self.fileName) is damaged: it is not a manifest; "
                    + "export the package again",
                .damagedManifest
            )
        }
        let stated = version.string ?? String(major)
        let own = Self.major(of: .string(Self.schemaVersion)) ?? 0
        if major > own {
            throw SepViTError(
                "\(name) has manifest version \(stated), this app reads \(Self.schemaVersion); "
                    + "update the app",
                .newerSchema
            )
        }
        if major < own {
            throw SepViTError(
                "\(name) has manifest version \(stated), which is no longer read; "
                    + "make the package again: \(Self.exportCommand(for: document))",
                .olderSchema
            )
        }
        // The digest comes before the fields: a modified file is reported as such.
        guard document["digest"] == .string(Self.digest(of: data)) else {
            throw SepViTError(
                "\(name)/\(Self.fileName) was changed since it was exported; export the package again",
                .digest
            )
        }
        if let task = document["task"]?.string, task != Self.supportedTask {
            throw SepViTError(
                "\(name) is for the task '\(task.prefix(40))', which this app does not run "
                    + "(it runs \(Self.supportedTask)); update the app",
                .task
            )
        }
        if let fault = try Self.schema().fault(in: document) {
            throw SepViTError("\(name)/\(Self.fileName) is not valid: \(fault)", .invalid)
        }
        let decoder = JSONDecoder()
        decoder.keyDecodingStrategy = .convertFromSnakeCase
        self = try decoder.decode(Manifest.self, from: data)
        let logits = outputs.filter { $0.meaning == Self.classLogits }
        guard logits.count == 1, logits[0].dtype ?? "float32" == "float32" else {
            throw SepViTError(
                "\(name)/\(Self.fileName) is not valid: outputs: a classification package has one "
                    + "output with the meaning \(Self.classLogits), in float32",
                .invalid
            )
        }
    }

    /// Return the major number of a version, 1 for the number 1; nil for anything else.
    private static func major(of version: JSON) -> Int? {
        guard let text = version.string else { return version.number == 1 ? 1 : nil }
        let number = "(0|[1-9][0-9]{0,3})"
        guard text.wholeMatches("\(number)\\.\(number)") else { return nil }
        return Int(text.prefix { $0 != "." })
    }

    /// Return the command that makes a package of an older version again.
    private static func exportCommand(for document: JSON) -> String {
        // The manifest is not checked yet: only such words are copied into a command.
        let allowed = [("target", "[a-z][a-z0-9-]{0,39}"), ("precision", "fp32|fp16|int8")]
        let options = allowed.compactMap { key, pattern -> String? in
            guard let word = document[key]?.string, word.wholeMatches(pattern) else { return nil }
            return " --\(key) \(word)"
        }
        return "python -m sepvit_edge.export\(options.joined()) --weights CHECKPOINT"
    }

    private static func schema() throws -> JSONSchema {
        try JSONSchema(Data(PackageResources.manifest_schema_json))
    }

    /// Return the SHA-256 of a manifest whose digest is replaced by 64 zeros.
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

extension String {
    /// Return whether all of the string matches a regular expression.
    fileprivate func wholeMatches(_ pattern: String) -> Bool {
        range(of: "^(?:\(pattern))$", options: .regularExpression) == startIndex..<endIndex
    }
}
