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
// Core ML is Apple's alone. Here a real model goes through the same interface in ONNX Runtime.
package.targets += [
    .systemLibrary(
        name: "COnnxRuntime", pkgConfig: "libonnxruntime",
        providers: [.apt(["libonnxruntime-dev"])]
    ),
    .testTarget(name: "OnnxRuntimeTests", dependencies: ["SepViTKit", "COnnxRuntime"]),
]
#endif
