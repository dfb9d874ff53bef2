/// A loaded model.
public protocol InferenceEngine: Sendable {
    /// The runtime's name, version and execution unit, as in the profile document.
    var runtime: RuntimeUsed { get }

    /// Run one batch and return what `Manifest.answers` names, each for the whole batch.
    func run(_ input: InputTensor) throws -> [[Float]]
}

/// Opens the packages of one target.
public protocol EngineKind: Sendable {
    var target: String { get }
    var version: String { get }
    func load(_ package: Package) throws -> any InferenceEngine
}

/// A model's input, in the dtype and layout that the manifest states.
public struct InputTensor: Equatable, Sendable {
    public let shape: [Int]
    public let values: Tensor.Values

    /// Put one image into a batch. The other images are black.
    ///
    /// - Parameter pixels: RGB, row by row (`inputPixels`).
    public init(_ pixels: [UInt8], _ input: Manifest.Input) {
        let area = pixels.count / 3
        var ordered = [UInt8](repeating: 0, count: input.shape.reduce(1, *))
        switch input.layout {
        case .nhwc: ordered.replaceSubrange(0..<pixels.count, with: pixels)
        case .nchw:
            for i in 0..<area {
                for channel in 0..<3 { ordered[channel * area + i] = pixels[i * 3 + channel] }
            }
        }
        shape = input.shape
        values = input.dtype == .uint8 ? .uint8(ordered) : .float32(ordered.map(Float.init))
    }

    /// Return the first image; nil if the tensor's shape does not fit the manifest's layout.
    func pixels(_ input: Manifest.Input, _ size: Size) -> [UInt8]? {
        let sides =
            input.layout == .nhwc ? [size.height, size.width, 3] : [3, size.height, size.width]
        guard Array(shape.dropFirst()) == sides else { return nil }
        let area = size.width * size.height
        let bytes: [UInt8] =
            switch values {
            case .uint8(let values): values
            case .float32(let values): values.map { UInt8($0) }
            }
        let (pixelStep, channelStep) = input.layout == .nhwc ? (3, 1) : (1, area)
        return (0..<area * 3).map { bytes[$0 / 3 * pixelStep + $0 % 3 * channelStep] }
    }
}

/// A loaded package that takes preprocessed pixels.
public struct Session: Sendable {
    public let package: Package
    public let engine: any InferenceEngine

    /// Load a checked package.
    ///
    /// - Throws: `SepViTError` if the package's target or runtime version is not supported.
    public init(_ package: Package, _ kind: any EngineKind) throws {
        try checkSupport(package.manifest, name: package.url.lastPathComponent, kind)
        self.package = package
        engine = try kind.load(package)
    }

    /// Run the model on preprocessed pixels and return the image's outputs that `Manifest.answers` names.
    public func run(_ pixels: [UInt8]) throws -> [[Float]] {
        let manifest = package.manifest
        let found = try engine.run(InputTensor(pixels, manifest.input))
        return try manifest.answers.enumerated().map { i, facts in
            let batch = manifest.input.shape.first ?? 1
            guard i < found.count, found[i].count == batch * facts.numbers else {
                let shape = facts.shape.map(String.init).joined(separator: " x ")
                throw SepViTError(
                    "the model's output \(facts.name) does not have the shape \(shape); export it again"
                )
            }
            return Array(found[i].prefix(facts.numbers))
        }
    }
}

/// Refuse a package that the app or the engine cannot run.
func checkSupport(_ manifest: Manifest, name: String, _ kind: any EngineKind) throws {
    guard manifest.target == kind.target else {
        throw SepViTError(
            "\(name) is for \(manifest.target), this app runs \(kind.target) packages; "
                + "export it with --target \(kind.target)",
            .target
        )
    }
    let facts = manifest.runtime
    guard isInRange(kind.version, facts.minimum, facts.below) else {
        throw SepViTError(
            "\(name) needs \(facts.name) \(facts.minimum) or later and older than \(facts.below), "
                + "this app has \(kind.version); export it again",
            .runtime
        )
    }
}

/// Return whether a runtime's version is in a manifest's range.
///
/// The lower bound is compared by major and minor number only, because the runtimes' builds for phones
/// have other patch releases.
public func isInRange(_ version: String, _ minimum: String, _ below: String) -> Bool {
    func numbers(_ text: String, _ parts: Int) -> [Int] {
        let found = text.split(separator: ".").map { Int($0.prefix(while: \.isNumber)) ?? 0 }
        return (0..<parts).map { $0 < found.count ? found[$0] : 0 }
    }
    return !numbers(version, 2).lexicographicallyPrecedes(numbers(minimum, 2))
        && numbers(version, 4).lexicographicallyPrecedes(numbers(below, 4))
}
