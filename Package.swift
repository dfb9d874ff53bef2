// swift-tools-version: 6.0
// SepViTKit by the repository's address: SwiftPM looks for a package at the top. Its own folder,
// apps/ios/SepViTKit, has the tests.

import PackageDescription

let package = Package(
    name: "sepvit-edge",
    platforms: [.iOS(.v17), .macOS(.v14)],
    products: [.library(name: "SepViTKit", targets: ["SepViTKit"])],
    targets: [
        .target(
            name: "SepViTKit", path: "apps/ios/SepViTKit/Sources/SepViTKit",
            resources: [.embedInCode("manifest.schema.json")]
        )
    ]
)

#if os(Linux)
package.targets[0].dependencies = ["COpenSSL"]
package.targets += [
    .systemLibrary(
        name: "COpenSSL", path: "apps/ios/SepViTKit/Sources/COpenSSL", pkgConfig: "libcrypto",
        providers: [.apt(["libssl-dev"])]
    )
]
#endif
