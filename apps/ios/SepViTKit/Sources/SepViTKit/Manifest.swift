import Foundation

/// The parts of manifest.json, version 2, that an app uses.
///
/// Its schema in export/ is compiled into this library through the link beside this file.
public struct Manifest: Codable, Sendable {
    /// The version that this library reads; other minor versions are opened as well.
    public static let schemaVersion = "2.2"
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
        /// Height and width of a dense model's input.
        public let inputSize: [Int]?
    }

    public struct Input: Codable, Sendable {
        public let name: String
        public let shape: [Int]
        public let dtype: Dtype
        public let layout: Layout
        public let resizeShorterSide, cropSize: Int
        public let crop: Double
        public let mean, std: [Double]
        /// How the whole image lies in a dense model's input.
        public let fit: String?

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
            fit = nil
        }
    }

    public struct Output: Codable, Sendable {
        public let name, meaning: String
        public let shape: [Int]
        public let dtype: String?

        /// Numbers of one image.
        var numbers: Int { shape.dropFirst().reduce(1, *) }
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

    public enum Task: String, Codable, CaseIterable, Sendable {
        case classification, segmentation, detection

        /// Meanings of the outputs that the task needs.
        var meanings: [String] {
            switch self {
            case .classification: ["class_logits"]
            case .segmentation: ["class_map_logits"]
            case .detection: ["box_class_logits", "box_deltas"]
            }
        }
    }

    /// How the outputs of a dense package become an answer.
    public enum Postprocessing: Codable, Equatable, Sendable {
        case segmentation(SegmentationRule)
        case detection(DetectionRule)

        private enum Key: String, CodingKey { case task }

        public init(from decoder: any Decoder) throws {
            let task = try decoder.container(keyedBy: Key.self).decode(Task.self, forKey: .task)
            self =
                task == .segmentation
                ? .segmentation(try SegmentationRule(from: decoder))
                : .detection(try DetectionRule(from: decoder))
        }

        public func encode(to encoder: any Encoder) throws {
            var container = encoder.container(keyedBy: Key.self)
            try container.encode(task, forKey: .task)
            switch self {
            case .segmentation(let rule): try rule.encode(to: encoder)
            case .detection(let rule): try rule.encode(to: encoder)
            }
        }

        var task: Task { if case .segmentation = self { .segmentation } else { .detection } }
    }

    private static let wholeTopLeft = "whole-top-left"

    public let digest: String
    public let task: Task
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
    public let postprocessing: Postprocessing?

    /// The outputs that the task needs, in the order in which an engine returns them.
    public var answers: [Output] {
        task.meanings.flatMap { meaning in outputs.filter { $0.meaning == meaning } }
    }

    /// Size of the model's input in pixels.
    public var inputSize: Size {
        guard let sides = model.inputSize, sides.count == 2 else {
            return Size(width: input.cropSize, height: input.cropSize)
        }
        return Size(width: sides[1], height: sides[0])
    }

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
        if let task = document["task"]?.string, Task(rawValue: task) == nil {
            let known = Task.allCases.map(\.rawValue).joined(separator: ", ")
            throw SepViTError(
                "\(name) is for the task '\(task.prefix(40))', which this app does not run "
                    + "(it runs \(known)); update the app",
                .task
            )
        }
        if let fault = try Self.schema().fault(in: document) {
            throw SepViTError("\(name)/\(Self.fileName) is not valid: \(fault)", .invalid)
        }
        let decoder = JSONDecoder()
        decoder.keyDecodingStrategy = .convertFromSnakeCase
        self = try decoder.decode(Manifest.self, from: data)
        if let fault = contradiction {
            throw SepViTError("\(name)/\(Self.fileName) is not valid: \(fault)", .invalid)
        }
    }

    /// What is wrong although each field is right; nil if nothing is.
    private var contradiction: String? {
        for meaning in task.meanings {
            let found = outputs.filter { $0.meaning == meaning }
            guard found.count == 1, found[0].dtype ?? "float32" == "float32" else {
                return "outputs: a \(task) package has one output with the meaning \(meaning), in float32"
            }
        }
        if task == .classification {
            return input.fit == nil ? nil : "input.fit: a classification package does not have one"
        }
        guard let rule = postprocessing, rule.task == task else {
            return "postprocessing: it is not for \(task)"
        }
        guard input.fit == Self.wholeTopLeft else { return "input.fit: it is not \(Self.wholeTopLeft)" }
        guard model.inputSize != nil else { return "model.input_size: a dense model has one" }
        let (size, classes) = (inputSize, model.numClasses)
        var fits: Bool
        switch rule {
        case .segmentation(let rule):
            fits = size.width % rule.stride == 0 && size.height % rule.stride == 0
            let sides = [classes, size.height / rule.stride, size.width / rule.stride]
            fits = fits && answers.map { Array($0.shape.dropFirst()) } == [sides]
        case .detection(let rule):
            let count = anchors(rule, in: size).reduce(0) { $0 + $1.count }
            fits = answers.map { Array($0.shape.dropFirst()) } == [[count, classes], [count, 4]]
        }
        return fits ? nil : "outputs: their shapes do not fit the input and the postprocessing"
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
