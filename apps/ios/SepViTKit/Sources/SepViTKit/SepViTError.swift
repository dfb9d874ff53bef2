import Foundation

/// Something a user can act on: one sentence that says what is wrong and what to do.
public struct SepViTError: LocalizedError, Equatable, Sendable {
    /// What kind of refusal it is; the shared test vectors name the same kinds.
    public enum Kind: String, Sendable {
        case noManifest = "no-manifest"
        case damagedManifest = "damaged-manifest"
        case schema, digest, invalid, path, missing, changed
        case target, runtime
        case size, image, tensors, other
    }

    public let message: String
    public let kind: Kind

    public init(_ message: String, _ kind: Kind = .other) {
        self.message = message
        self.kind = kind
    }

    public var errorDescription: String? { message }
}
