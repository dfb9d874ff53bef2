import Foundation
import Observation
import SepViTKit

/// The packages and the open one, which the screens show.
@MainActor @Observable final class AppModel {
    enum State {
        case opening, none
        case open(Session)
        case failed(String)
    }

    private(set) var packages: [URL] = []
    private(set) var state = State.opening
    private(set) var current: URL?
    var units = ComputeUnits.all {
        didSet { current.map(open) }
    }

    /// The index of bundled packages, written by `python -m sepvit_edge.bundle --app ios`.
    private struct Index: Decodable {
        struct Entry: Decodable { let folder: String }
        let packages: [Entry]
    }

    static let imported = URL.documentsDirectory.appendingPathComponent("packages")

    func start() {
        refresh()
        let wanted = BenchmarkRequest.ofLaunch?.package
        if let first = packages.first(where: { $0.lastPathComponent == wanted }) ?? packages.first {
            open(first)
        } else {
            state = .none
        }
    }

    func refresh() {
        let index = bundledPackages.appendingPathComponent("index.json")
        let entries = (try? JSONDecoder().decode(Index.self, from: Data(contentsOf: index)))?.packages
        let own = (entries ?? []).map { bundledPackages.appendingPathComponent($0.folder) }
        let found = try? FileManager.default.contentsOfDirectory(
            at: Self.imported, includingPropertiesForKeys: nil
        )
        packages = own + (found ?? []).sorted { $0.path < $1.path }
    }

    func open(_ url: URL) {
        current = url
        state = .opening
        let units = units
        Task {
            let result = await Task.detached { () -> Result<Session, any Error> in
                Result {
                    let package = try openPackage(url)
                    return try Session(package, engine(for: package, units))
                }
            }.value
            guard current == url else { return }
            switch result {
            case .success(let session): state = .open(session)
            case .failure(let error): state = .failed(error.localizedDescription)
            }
        }
    }

    /// Check a package's folder from the Files app, and keep a copy.
    func add(_ url: URL) throws {
        let allowed = url.startAccessingSecurityScopedResource()
        defer { if allowed { url.stopAccessingSecurityScopedResource() } }
        let files = FileManager.default
        let staged = files.temporaryDirectory.appendingPathComponent(UUID().uuidString)
        defer { try? files.removeItem(at: staged) }
        let copy = staged.appendingPathComponent(url.lastPathComponent)
        try files.createDirectory(at: staged, withIntermediateDirectories: true)
        try files.copyItem(at: url, to: copy)
        _ = try openPackage(copy)
        try files.createDirectory(at: Self.imported, withIntermediateDirectories: true)
        let kept = Self.imported.appendingPathComponent(url.lastPathComponent)
        if files.fileExists(atPath: kept.path) {
            _ = try files.replaceItemAt(kept, withItemAt: copy)
        } else {
            try files.moveItem(at: copy, to: kept)
        }
        refresh()
        open(kept)
    }

    func remove(_ url: URL) throws {
        try FileManager.default.removeItem(at: url)
        refresh()
        guard current == url else { return }
        if let first = packages.first { open(first) } else { state = .none }
    }

    func isImported(_ url: URL) -> Bool { url.path.hasPrefix(Self.imported.path) }
}
