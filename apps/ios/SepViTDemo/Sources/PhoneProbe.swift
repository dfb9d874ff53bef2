import Foundation
import SepViTKit
import UIKit

/// Reads the device's properties and state, and this process's memory, from iOS.
struct PhoneProbe: DeviceProbe {
    let device: Device
    let memorySource = "phys_footprint"
    private let battery: (percent: Double?, charging: Bool?)

    @MainActor init() {
        let system = UIDevice.current
        system.isBatteryMonitoringEnabled = true
        let known = system.batteryState != .unknown
        battery = (
            known ? Double(system.batteryLevel * 100) : nil,
            known ? system.batteryState != .unplugged : nil
        )
        let process = ProcessInfo.processInfo
        device = Device(
            name: Self.identifier, model: Self.identifier, architecture: "arm64",
            os: system.systemName, osVersion: system.systemVersion,
            logicalCores: process.activeProcessorCount,
            memoryMb: Double(process.physicalMemory) / 1e6
        )
    }

    /// "iPhone16,2"
    private static var identifier: String {
        var facts = utsname()
        uname(&facts)
        return withUnsafeBytes(of: &facts.machine) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
    }

    func conditions() -> Conditions {
        let process = ProcessInfo.processInfo
        let state =
            switch process.thermalState {
            case .nominal: "nominal"
            case .fair: "fair"
            case .serious: "serious"
            case .critical: "critical"
            @unknown default: "unknown"
            }
        return Conditions(
            thermalState: state, batteryPercent: battery.percent, charging: battery.charging,
            lowPowerMode: process.isLowPowerModeEnabled
        )
    }

    func memoryMb() -> Double? {
        var info = task_vm_info_data_t()
        var count = mach_msg_type_number_t(
            MemoryLayout<task_vm_info_data_t>.size / MemoryLayout<natural_t>.size
        )
        let status = withUnsafeMutablePointer(to: &info) {
            $0.withMemoryRebound(to: integer_t.self, capacity: Int(count)) {
                task_info(mach_task_self_, task_flavor_t(TASK_VM_INFO), $0, &count)
            }
        }
        return status == KERN_SUCCESS ? Double(info.phys_footprint) / 1e6 : nil
    }

    func notMeasured() -> [Profile.NotMeasured] {
        [
            .init("energy", "iOS does not report power to apps."),
            .init("operations", "Core ML does not report times per operation to apps."),
            .init("roofs", "The app measures only the model."),
            .init("before.temperatures_c", "iOS reports a thermal state instead."),
            .init("before.frequencies_mhz", "iOS does not report them."),
            .init("runtime.threads", "Core ML chooses the number of threads."),
        ]
    }

    /// Return the milliseconds since this process started.
    static func sinceProcessStart() -> Double? {
        var info = kinfo_proc()
        var size = MemoryLayout<kinfo_proc>.stride
        var name = [CTL_KERN, KERN_PROC, KERN_PROC_PID, getpid()]
        guard sysctl(&name, u_int(name.count), &info, &size, nil, 0) == 0 else { return nil }
        let start = info.kp_proc.p_starttime
        let seconds = Double(start.tv_sec) + Double(start.tv_usec) / 1e6
        return (Date().timeIntervalSince1970 - seconds) * 1e3
    }
}
