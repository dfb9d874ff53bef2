// swift-tools-version: 6.0
// Built and run by .ci/ios, which gives the repository's address; an app gives the published one.

import Foundation
import PackageDescription

let address = ProcessInfo.processInfo.environment["SEPVIT_EDGE"] ?? "https://github.com/OWNER/sepvit-edge.git"

let package = Package(
    name: "Example",
    platforms: [.iOS(.v17), .macOS(.v14)],
    dependencies: [.package(url: address, branch: "main")],
    targets: [
        .executableTarget(
            name: "Example", dependencies: [.product(name: "SepViTKit", package: "sepvit-edge")]
        )
    ]
)
