// swift-tools-version: 6.0

import PackageDescription

let package = Package(
    name: "SepViTKit",
    platforms: [.iOS(.v17), .macOS(.v14)],
    products: [.library(name: "SepViTKit", targets: ["SepViTKit"])],
    targets: [
        .target(name: "SepViTKit", resources: [.embedInCode("manifest.schema.json")]),
        .testTarget(name: "SepViTKitTests", dependencies: ["SepViTKit"]),
    ]
)

#if os(Linux)
// CryptoKit and Core ML are Apple's alone. Here OpenSSL verifies signatures, and a real model goes
// through the same interface in ONNX Runtime.
package.targets[0].dependencies = ["COpenSSL"]
package.targets += [
    .systemLibrary(name: "COpenSSL", pkgConfig: "libcrypto", providers: [.apt(["libssl-dev"])]),
    .systemLibrary(
        name: "COnnxRuntime", pkgConfig: "libonnxruntime",
        providers: [.apt(["libonnxruntime-dev"])]
    ),
    .testTarget(name: "OnnxRuntimeTests", dependencies: ["SepViTKit", "COnnxRuntime"]),
]
#endif
