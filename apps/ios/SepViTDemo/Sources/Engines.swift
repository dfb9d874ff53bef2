import SepViTKit

/// Return the engine of a package's target: Core ML, or Core AI where the system has it.
func engine(for package: Package, _ units: ComputeUnits) -> any EngineKind {
    #if canImport(CoreAI)
    if package.manifest.target == "coreai", #available(iOS 27.0, macOS 27.0, *) {
        return CoreAIPackages(units: units)
    }
    #endif
    return CoreML(units: units)
}
