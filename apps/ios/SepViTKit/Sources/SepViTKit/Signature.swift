import Foundation

/// Signatures of packages, as docs/signatures.md describes them: whose files they are.
public struct TrustedKeys: Sendable {
    /// The file beside an app's packages with the public keys of which one must have signed each.
    public static let fileName = "trust.pem"
    static let signature = "model.sig"
    private static let largest = 1 << 22

    private let keys: [PublicKey]

    /// - Parameter pem: Public keys on P-256, in PEM, one after the other.
    /// - Throws: `SepViTError` if there is no key, or one that is not on P-256.
    public init(pem: String) throws {
        let blocks = pem.matches(of: /-----BEGIN PUBLIC KEY-----([^-]*)-----END PUBLIC KEY-----/)
        keys = try blocks.map { block in
            let text = block.1.filter { !$0.isWhitespace }
            guard let der = Data(base64Encoded: text), let key = PublicKey(der: der) else {
                throw SepViTError("a trusted key is not a public key on the curve P-256")
            }
            return key
        }
        if keys.isEmpty { throw SepViTError("there is no trusted public key in PEM; give one") }
    }

    /// Read the keys of an app; nil if it does not ask for signatures.
    ///
    /// - Parameter packages: The folder that `bundle` has written, with or without `trust.pem`.
    public static func ofApp(_ packages: URL) throws -> TrustedKeys? {
        let url = packages.appendingPathComponent(fileName)
        guard FileManager.default.fileExists(atPath: url.path) else { return nil }
        return try TrustedKeys(pem: String(contentsOf: url, encoding: .utf8))
    }

    /// Check that one of the keys has signed exactly the files of a package.
    ///
    /// - Throws: `SepViTError` whose kind says what is wrong.
    public func verify(_ folder: URL, now: Date = Date()) throws {
        let name = folder.lastPathComponent
        let data = try Self.read(folder)
        do {
            let envelope = try SignedFiles.envelope(data)
            guard keys.contains(where: { $0.hasSigned(envelope.encoded, envelope.signature) }) else {
                throw SepViTError(
                    "\(name) is not signed by a trusted key, or its signature was changed; "
                        + "use a package of a source that you trust",
                    .untrusted
                )
            }
            let signed = try SignedFiles(envelope.payload)
            if let expires = signed.expires, now >= expires.time {
                throw SepViTError(
                    "the signature of \(name) has expired on \(expires.text); use a newer package",
                    .expired
                )
            }
            try Self.compare(folder, signed.digests)
        } catch is DecodingError {
            throw Self.damaged(name)
        }
    }

    private static func read(_ folder: URL) throws -> Data {
        let (name, url) = (folder.lastPathComponent, folder.appendingPathComponent(signature))
        var isFolder: ObjCBool = false
        guard FileManager.default.fileExists(atPath: url.path, isDirectory: &isFolder),
            !isFolder.boolValue
        else {
            throw SepViTError(
                "\(name) is not signed: \(signature) is missing; use a signed package", .unsigned
            )
        }
        let facts = try FileManager.default.attributesOfItem(atPath: url.path)
        guard facts[.type] as? FileAttributeType == .typeRegular,
            let size = facts[.size] as? Int, size <= largest
        else { throw damaged(name) }
        return try Data(contentsOf: url)
    }

    private static func compare(_ folder: URL, _ signed: [String: String]) throws {
        let (name, found) = (folder.lastPathComponent, try digests(folder))
        for path in Set(signed.keys).union(found.keys).sorted() where signed[path] != found[path] {
            let (what, kind): (String, SepViTError.Kind) =
                if found[path] == nil {
                    ("is signed, but missing", .missing)
                } else if signed[path] == nil {
                    ("was added after it was signed", .added)
                } else {
                    ("was changed after it was signed", .changed)
                }
            throw SepViTError("\(name): \(path) \(what); use an untouched copy of the package", kind)
        }
    }

    /// Return the SHA-256 of every file of a folder but the signature.
    private static func digests(_ folder: URL) throws -> [String: String] {
        let root = folder.resolvingSymlinksInPath()
        var found: [String: String] = [:]
        for path in try FileManager.default.subpathsOfDirectory(atPath: root.path).sorted()
        where path != signature {
            let url = root.appendingPathComponent(path)
            switch try FileManager.default.attributesOfItem(atPath: url.path)[.type]
                as? FileAttributeType
            {
            case .typeDirectory: continue
            case .typeRegular: found[path] = sha256(try Data(contentsOf: url, options: .mappedIfSafe))
            default:
                throw SepViTError(
                    "\(folder.lastPathComponent): \(path) is a link or a device, "
                        + "which cannot be signed",
                    .changed
                )
            }
        }
        return found
    }

    private static func damaged(_ name: String) -> SepViTError {
        SepViTError(
            "\(name)/\(signature) is damaged, or is not a signature of files by a key",
            .damagedSignature
        )
    }
}
