import Foundation
import Testing

@testable import SepViTKit

private struct SignatureCase: Decodable {
    let name, keys: String
    let now: Date
    let edits: [Edit]
    let kind: String?
    let mentions: [String]

    static func all() throws -> [SignatureCase] {
        let decoder = JSONDecoder()
        decoder.dateDecodingStrategy = .iso8601
        return try decoder.decode([SignatureCase].self, from: Vectors.data("signatures.json"))
    }

    func edited() throws -> URL {
        let folder = try Vectors.packageCopy()
        for edit in edits { try edit.apply(to: folder) }
        return folder
    }
}

private func refusal(_ work: () throws -> Void) throws -> SepViTError? {
    do { try work() } catch let error as SepViTError { return error }
    return nil
}

@Test func signaturesAreAcceptedOrRefusedByTheirKindOfFault() throws {
    let cases = try SignatureCase.all()
    #expect(cases.count > 30)
    for c in cases {
        let folder = try c.edited()
        defer { try? FileManager.default.removeItem(at: folder.deletingLastPathComponent()) }
        let error = try refusal { try TrustedKeys(pem: c.keys).verify(folder, now: c.now) }
        let message = error?.message ?? "accepted"
        #expect(error?.kind.rawValue == c.kind, "\(c.name): \(message)")
        for word in c.mentions { #expect(message.contains(word), "\(c.name): \(message)") }
        #expect(!message.contains("\n"), "\(c.name)")
    }
}

@Test func linksAreNotSigned() throws {
    let c = try #require(try SignatureCase.all().first)
    for path in ["labels.txt", "model.sig"] {
        let folder = try c.edited()
        defer { try? FileManager.default.removeItem(at: folder.deletingLastPathComponent()) }
        let (file, outside) = (folder.appendingPathComponent(path), folder.appendingPathExtension("x"))
        try FileManager.default.moveItem(at: file, to: outside)
        try FileManager.default.createSymbolicLink(at: file, withDestinationURL: outside)
        let error = try refusal { try TrustedKeys(pem: c.keys).verify(folder, now: c.now) }
        let message = error?.message ?? "accepted"
        let sentence = path == "labels.txt" ? "is a link or a device" : "model.sig is damaged"
        #expect(message.contains(sentence), "\(message)")
    }
}

@Test func keysThatAreNoneAreRefused() throws {
    let p384 = """
        -----BEGIN PUBLIC KEY-----
        MHYwEAYHKoZIzj0CAQYFK4EEACIDYgAErQP7zFm2PpaJAlAP9A3i4I9JrvjS24PJ
        si6wtoTdsXXOpwEJm880unlg1DzR7+D4PX4MuIQHwqsMVYTxOhTpnPA7j+8rSELO
        k0jcyqBCzRzcrMm4QP+euHzPmeVqYmyy
        -----END PUBLIC KEY-----
        """
    let texts = ["", "a key", "-----BEGIN PUBLIC KEY-----AAAA-----END PUBLIC KEY-----", p384]
    for pem in texts {
        #expect(throws: SepViTError.self, "\(pem)") { try TrustedKeys(pem: pem) }
    }
}

/// Of the keys in trust.pem beside an app's packages.
@Test func anAppAsksForSignatures() throws {
    let c = try #require(try SignatureCase.all().first { $0.name == "valid" })
    let folder = try c.edited()
    let packages = folder.deletingLastPathComponent()
    defer { try? FileManager.default.removeItem(at: packages) }
    #expect(try TrustedKeys.ofApp(packages) == nil)

    let file = packages.appendingPathComponent("trust.pem")
    try Data(c.keys.utf8).write(to: file)
    let package = try Package(folder, trust: TrustedKeys.ofApp(packages))
    #expect(package.labels == ["red", "grün", "blue", "grey"])
    try FileManager.default.removeItem(at: folder.appendingPathComponent("model.sig"))
    let error = try refusal { _ = try Package(folder, trust: TrustedKeys.ofApp(packages)) }
    #expect(
        error?.message == "package is not signed: model.sig is missing; use a signed package"
    )
    #expect(try Package(folder).labels.count == 4)

    try Data().write(to: file)
    #expect(throws: SepViTError.self) { try TrustedKeys.ofApp(packages) }
}
