import Foundation

// By a library everywhere: CryptoKit on Apple's systems, OpenSSL's libcrypto on Linux.

#if canImport(CryptoKit)
import CryptoKit

/// SHA-256 in hexadecimal.
public func sha256(_ data: Data) -> String { hexadecimal(SHA256.hash(data: data)) }

/// A public key on P-256.
struct PublicKey: Sendable {
    private let key: P256.Signing.PublicKey

    /// - Parameter der: SubjectPublicKeyInfo. The result is nil for anything else, and another curve.
    init?(der: Data) {
        guard let key = try? P256.Signing.PublicKey(derRepresentation: der) else { return nil }
        self.key = key
    }

    /// Return whether a signature, in DER, is this key's: ECDSA with SHA-256.
    func hasSigned(_ data: Data, _ signature: Data) -> Bool {
        guard let signature = try? P256.Signing.ECDSASignature(derRepresentation: signature)
        else { return false }
        return key.isValidSignature(signature, for: data)
    }
}
#else
import COpenSSL

/// SHA-256 in hexadecimal.
public func sha256(_ data: Data) -> String {
    var digest = [UInt8](repeating: 0, count: 32)
    let done = data.withUnsafeBytes {
        EVP_Digest($0.baseAddress, $0.count, &digest, nil, EVP_sha256(), nil)
    }
    precondition(done == 1, "OpenSSL has no SHA-256")
    return hexadecimal(digest)
}

/// A public key on P-256.
struct PublicKey: Sendable {
    private let der: Data

    /// - Parameter der: SubjectPublicKeyInfo. The result is nil for anything else, and another curve.
    init?(der: Data) {
        self.der = der
        let curve = withKey { key -> String in
            var name = [CChar](repeating: 0, count: 32)
            guard EVP_PKEY_get_group_name(key, &name, name.count, nil) == 1 else { return "" }
            return String(decoding: name.prefix { $0 != 0 }.map(UInt8.init), as: UTF8.self)
        }
        guard curve == "prime256v1" else { return nil } // OpenSSL's name of P-256
    }

    /// Return whether a signature, in DER, is this key's: ECDSA with SHA-256.
    func hasSigned(_ data: Data, _ signature: Data) -> Bool {
        let (data, signature) = ([UInt8](data), [UInt8](signature))
        return withKey { key in
            let context = EVP_MD_CTX_new()
            defer { EVP_MD_CTX_free(context) }
            return EVP_DigestVerifyInit(context, nil, EVP_sha256(), nil, key) == 1
                && EVP_DigestVerify(context, signature, signature.count, data, data.count) == 1
        } ?? false
    }

    /// Return the result of work with OpenSSL's form of the key; nil if the DER is not one key.
    private func withKey<Result>(_ work: (OpaquePointer) -> Result) -> Result? {
        [UInt8](der).withUnsafeBufferPointer { bytes in
            var end = bytes.baseAddress
            guard let key = d2i_PUBKEY(nil, &end, bytes.count) else { return nil }
            defer { EVP_PKEY_free(key) }
            return end == bytes.baseAddress.map { $0 + bytes.count } ? work(key) : nil
        }
    }
}
#endif

private func hexadecimal(_ bytes: some Sequence<UInt8>) -> String {
    bytes.map { String(format: "%02x", $0) }.joined()
}
