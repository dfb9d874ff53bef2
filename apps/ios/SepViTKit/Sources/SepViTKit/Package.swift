import Foundation

/// A package on disk. Every file's size and SHA-256 is checked.
public struct Package: Sendable {
    public let url: URL
    public let manifest: Manifest
    /// Class names in the order of the logits.
    public let labels: [String]

    /// Open a package's folder.
    ///
    /// - Parameter trust: Keys of which one must have signed it. Nil: a signature is not looked at.
    /// - Throws: `SepViTError` if a file was modified, this app does not support its version or task, or
    ///   a trusted signature is asked for and missing.
    public init(_ url: URL, trust: TrustedKeys? = nil) throws {
        self.url = url
        try trust?.verify(url)
        let name = url.lastPathComponent
        guard let data = try? Data(contentsOf: url.appendingPathComponent(Manifest.fileName)) else {
            throw SepViTError(
                "\(name) is not a package: \(Manifest.fileName) is missing", .noManifest
            )
        }
        manifest = try Manifest(data, name: name)
        for file in manifest.files { try Self.check(file, in: url) }
        for path in [Manifest.labels, Manifest.golden]
        where !manifest.files.contains(where: { $0.path == path }) {
            throw SepViTError("\(name) is incomplete: \(path) is missing; export it again", .missing)
        }
        let text = try String(contentsOf: url.appendingPathComponent(Manifest.labels), encoding: .utf8)
        var lines = text.split(omittingEmptySubsequences: false, whereSeparator: \.isNewline)
        if lines.last == "" { lines.removeLast() }
        labels = lines.map(String.init)
        guard labels.count == manifest.model.numClasses else {
            throw SepViTError(
                "\(name) has \(labels.count) labels for \(manifest.model.numClasses) classes; "
                    + "export it again",
                .invalid
            )
        }
    }

    private static func check(_ file: Manifest.File, in folder: URL) throws {
        let name = folder.lastPathComponent
        let url = folder.appendingPathComponent(file.path)
        let parts = file.path.split(separator: "/", omittingEmptySubsequences: false)
        let root = folder.resolvingSymlinksInPath().path
        let inside = url.resolvingSymlinksInPath().path.hasPrefix(root + "/")
        guard !file.path.hasPrefix("/"), !parts.contains(".."), !file.path.contains("\\"), inside
        else {
            throw SepViTError(
                "\(name) names the file \"\(file.path)\", which leaves the folder", .path
            )
        }
        var isFolder: ObjCBool = false
        guard FileManager.default.fileExists(atPath: url.path, isDirectory: &isFolder),
            !isFolder.boolValue
        else {
            throw SepViTError(
                "\(name) is incomplete: \(file.path) is missing; export it again", .missing
            )
        }
        let data = try Data(contentsOf: url, options: .mappedIfSafe)
        guard data.count == file.size, sha256(data) == file.sha256 else {
            throw SepViTError(
                "\(name)/\(file.path) was changed since it was exported; export it again", .changed
            )
        }
    }

    /// Size of the model files in bytes.
    public var size: Int {
        manifest.files.filter { ![Manifest.labels, Manifest.golden].contains($0.path) }
            .reduce(0) { $0 + $1.size }
    }

    /// Read the golden vectors: `image.0` ..., `pixels`, and both models' outputs.
    public func golden() throws -> [String: Tensor] {
        try readSafeTensors(Data(contentsOf: url.appendingPathComponent(Manifest.golden)))
    }
}
