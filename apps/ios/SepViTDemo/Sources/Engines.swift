import Foundation
import SepViTKit

/// The folder of the packages that come with the app.
let bundledPackages = Bundle.main.bundleURL.appendingPathComponent("packages")

/// Check a package, which a trusted key must have signed if the app has such keys.
func openPackage(_ url: URL) throws -> Package {
    try Package(url, trust: TrustedKeys.ofApp(bundledPackages))
}

/// Return the engine of a package's target: Core ML, or Core AI where the system has it.
func engine(for package: Package, _ units: ComputeUnits) -> any EngineKind {
    #if canImport(CoreAI)
    if package.manifest.target == "coreai", #available(iOS 27.0, macOS 27.0, *) {
        return CoreAIPackages(units: units)
    }
    #endif
    return CoreML(units: units)
}
