// What Foundation brings along on Apple's systems and Linux lacks.
import Foundation

extension ProcessInfo {
    public enum ThermalState: Int, Sendable { case nominal, fair, serious, critical }

    /// What a test lets the device say.
    public nonisolated(unsafe) static var heat = ThermalState.nominal
    public nonisolated(unsafe) static var saves = false

    public var thermalState: ThermalState { ProcessInfo.heat }
    public var isLowPowerModeEnabled: Bool { ProcessInfo.saves }
}

public typealias mach_port_t = UInt32
public typealias mach_msg_type_number_t = UInt32
public typealias natural_t = UInt32
public typealias integer_t = Int32
public typealias kern_return_t = Int32
public typealias task_flavor_t = UInt32

public nonisolated(unsafe) var mach_task_self_: mach_port_t = 259
public let TASK_VM_INFO: Int32 = 22
public let KERN_SUCCESS: kern_return_t = 0
public let KERN_INVALID_ARGUMENT: kern_return_t = 4

/// The two members that the app reads, of 90 and more.
public struct task_vm_info_data_t {
    public var phys_footprint: UInt64 = 0
    public var ledger_phys_footprint_peak: Int64 = 0

    public init() {}
}

/// From /proc/self/status, in bytes.
public func task_info(
    _ task: mach_port_t, _ flavor: task_flavor_t, _ info: UnsafeMutablePointer<integer_t>!,
    _ count: UnsafeMutablePointer<mach_msg_type_number_t>!
) -> kern_return_t {
    let words = MemoryLayout<task_vm_info_data_t>.size / MemoryLayout<natural_t>.size
    guard task == mach_task_self_, flavor == TASK_VM_INFO, count.pointee == words else { return KERN_INVALID_ARGUMENT }
    let status = (try? String(contentsOfFile: "/proc/self/status", encoding: .utf8)) ?? ""
    func bytes(_ name: String) -> Int64 {
        let line = status.split(separator: "\n").first { $0.hasPrefix("\(name):") } ?? ""
        return (Int64(line.filter(\.isNumber)) ?? 0) * 1024
    }
    var result = task_vm_info_data_t()
    (result.phys_footprint, result.ledger_phys_footprint_peak) = (UInt64(bytes("VmRSS")), bytes("VmHWM"))
    withUnsafeBytes(of: result) { UnsafeMutableRawPointer(info).copyMemory(from: $0.baseAddress!, byteCount: $0.count) }
    return KERN_SUCCESS
}

extension URL {
    /// HARNESS_ROOT is the app's container on a simulated device.
    public static var documentsDirectory: URL {
        let environment = ProcessInfo.processInfo.environment
        if let root = environment["HARNESS_ROOT"] { return URL(fileURLWithPath: root, isDirectory: true) }
        return URL(fileURLWithPath: NSHomeDirectory()).appendingPathComponent("Documents", isDirectory: true)
    }
}
