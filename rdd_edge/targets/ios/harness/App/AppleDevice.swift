import Foundation
import HarnessCore
import UIKit

#if canImport(Darwin)
@preconcurrency import Darwin  // mach_task_self_ is a variable, although nobody changes it
#endif

/// What iOS tells of this device. Apps see no temperature, clock or power.
final class AppleDevice: HarnessDevice, @unchecked Sendable {
    private let lock = NSLock()
    /// What only the main thread may ask for; `lock` guards it.
    private var state: (foreground: Bool, batteryLevel: Double?, charging: Bool?)

    #if targetEnvironment(simulator)
    static let place = Place.simulator
    #else
    static let place = Place.device
    #endif

    /// Follows the battery and the foreground for as long as the app runs, which has one such object.
    @MainActor
    init() {
        UIDevice.current.isBatteryMonitoringEnabled = true
        state = (UIApplication.shared.applicationState == .active, nil, nil)
        update(foreground: nil)
        let names: [(Notification.Name, foreground: Bool?)] = [
            (UIApplication.didBecomeActiveNotification, true),
            (UIApplication.willResignActiveNotification, false),  // applicationState is still the old one by then
            (UIDevice.batteryLevelDidChangeNotification, nil),
            (UIDevice.batteryStateDidChangeNotification, nil),
        ]
        for (name, foreground) in names {
            _ = NotificationCenter.default.addObserver(forName: name, object: nil, queue: .main) { [weak self] _ in
                MainActor.assumeIsolated { self?.update(foreground: foreground) }
            }
        }
    }

    func info() -> DeviceInfo {
        let process = ProcessInfo.processInfo
        let simulated = process.environment["SIMULATOR_MODEL_IDENTIFIER"]
        return DeviceInfo(
            name: "Apple \(simulated ?? Self.machine)",
            system: "iOS \(process.operatingSystemVersion.text)",
            machine: simulated == nil ? "arm64" : Self.machine,  // a device has its model there
            cores: process.processorCount,
            memoryBytes: Int64(process.physicalMemory),
            powerMode: process.isLowPowerModeEnabled ? "low power mode" : nil)
    }

    func condition() -> Condition {
        let (now, memory, heat) = (lock.withLock { state }, processMemory(), thermalState())
        return Condition(
            thermalState: heat, throttled: heat.map { ["serious", "critical"].contains($0) },
            batteryLevel: now.batteryLevel, charging: now.charging, foreground: now.foreground,
            memoryBytes: memory?.now, peakMemoryBytes: memory?.peak)
    }

    func thermalState() -> String? {
        [0: "nominal", 1: "fair", 2: "serious", 3: "critical"][ProcessInfo.processInfo.thermalState.rawValue]
    }

    /// E.g. iPhone16,2; the marketing name is not to be had without a table that ages.
    private static var machine: String {
        var names = utsname()
        uname(&names)
        return withUnsafeBytes(of: &names.machine) { String(decoding: $0.prefix { $0 != 0 }, as: UTF8.self) }
    }

    /// Reads the battery, and takes `foreground` where it is told.
    @MainActor
    private func update(foreground: Bool?) {
        let (level, plug) = (UIDevice.current.batteryLevel, UIDevice.current.batteryState)
        lock.withLock {
            let charging = plug == .unknown ? nil : plug != .unplugged
            state = (foreground ?? state.foreground, level < 0 ? nil : Double(level), charging)
        }
    }
}

/// The memory that iOS charges to this process, in bytes, and the most that it was; nil where the kernel refuses.
private func processMemory() -> (now: Int64, peak: Int64)? {
    var info = task_vm_info_data_t()
    let words = MemoryLayout<task_vm_info_data_t>.size / MemoryLayout<natural_t>.size
    var count = mach_msg_type_number_t(words)
    let result = withUnsafeMutablePointer(to: &info) {
        $0.withMemoryRebound(to: integer_t.self, capacity: words) {
            task_info(mach_task_self_, task_flavor_t(TASK_VM_INFO), $0, &count)
        }
    }
    guard result == KERN_SUCCESS else { return nil }
    return (Int64(info.phys_footprint), info.ledger_phys_footprint_peak)
}
