import Foundation

/// The list of files that was signed, and the first moment at which it is no longer valid.
///
/// Everything here throws `DecodingError` for a document of another form.
struct SignedFiles {
    private static let bundle = "application/vnd.dev.sigstore.bundle.v0.3+json"
    private static let payload = "application/vnd.in-toto+json"

    /// SHA-256 by the file's path.
    let digests: [String: String]
    let expires: (time: Date, text: String)?

    /// What was signed, of which nothing is looked at before its signature is found good.
    struct Envelope {
        let payload, signature: Data

        /// DSSE's encoding of the payload and its type: the bytes of the signature.
        var encoded: Data {
            let type = SignedFiles.payload
            return Data("DSSEv1 \(type.utf8.count) \(type) \(payload.count) ".utf8) + payload
        }
    }

    static func envelope(_ data: Data) throws -> Envelope {
        let document = try JSONDecoder().decode(SigstoreBundle.self, from: data)
        let envelope = document.dsseEnvelope
        guard document.mediaType == bundle, envelope.payloadType == payload,
            envelope.signatures.count == 1
        else { throw otherForm() }
        return Envelope(payload: envelope.payload, signature: envelope.signatures[0].sig)
    }

    /// - Parameter payload: What a trusted key has signed.
    init(_ payload: Data) throws {
        let statement = try JSONDecoder().decode(Statement.self, from: payload)
        let (predicate, resources) = (statement.predicate, statement.predicate.resources)
        guard statement._type == "https://in-toto.io/Statement/v1",
            statement.predicateType == "https://model_signing/signature/v1.0",
            predicate.serialization.method == "files",
            predicate.serialization.hash_type == "sha256",
            resources.allSatisfy({ $0.algorithm == "sha256" }),
            let root = digestOfDigests(resources.map(\.digest)),
            statement.subject.map(\.digest.sha256) == [root]
        else { throw otherForm() }
        digests = try Dictionary(resources.map { ($0.name, $0.digest) }) { _, _ in throw otherForm() }
        expires = try predicate.expires.map { (try time($0), $0) }
    }
}

private struct SigstoreBundle: Decodable {
    struct Envelope: Decodable {
        struct Signature: Decodable { let sig: Data }

        let payload: Data
        let payloadType: String
        let signatures: [Signature]
    }

    let mediaType: String
    let dsseEnvelope: Envelope
}

// The fields have their names in the document.
private struct Statement: Decodable {
    struct Subject: Decodable {
        struct Digest: Decodable { let sha256: String }
        let digest: Digest
    }
    struct Predicate: Decodable {
        struct Serialization: Decodable { let method, hash_type: String }
        struct Resource: Decodable { let name, algorithm, digest: String }
        let serialization: Serialization
        let resources: [Resource]
        let expires: String?
    }

    let _type, predicateType: String
    let subject: [Subject]
    let predicate: Predicate
}

/// Return the SHA-256 of digests one after the other; nil if one of them is not a digest.
private func digestOfDigests(_ digests: [String]) -> String? {
    var all = Data()
    for digest in digests {
        guard digest.wholeMatch(of: /[0-9a-f]{64}/) != nil else { return nil }
        let digits = Array(digest)
        for i in stride(from: 0, to: 64, by: 2) {
            guard let byte = UInt8(String(digits[i...i + 1]), radix: 16) else { return nil }
            all.append(byte)
        }
    }
    return sha256(all)
}

/// Read a time such as 2027-06-30T23:59:59Z, and no other notation.
private func time(_ text: String) throws -> Date {
    let format = ISO8601DateFormatter()
    guard let time = format.date(from: text), format.string(from: time) == text else {
        throw otherForm()
    }
    return time
}

private func otherForm() -> DecodingError {
    .dataCorrupted(.init(codingPath: [], debugDescription: "not a signature of files"))
}
