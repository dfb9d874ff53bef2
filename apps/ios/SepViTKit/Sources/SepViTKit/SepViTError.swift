import Foundation

/// An error for users: one sentence that says what is wrong and what to do.
public struct SepViTError: LocalizedError, Equatable, Sendable {
    /// Kind of the refusal, with the name that the shared test vectors use.
    public enum Kind: String, Sendable {
        case noManifest = "no-manifest"
        case damagedManifest = "damaged-manifest"
        case newerSchema = "newer-schema"
        case olderSchema = "older-schema"
        case digest, invalid, path, missing, changed, added
        case unsigned, untrusted, expired
        case damagedSignature = "damaged-signature"
        case task, target, runtime
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
