import Foundation

/// Name and version of what executes an artifact, and its backend where it has several.
public struct RuntimeInfo: Equatable, Sendable {
    public let name: String
    public let version: String
    public let backend: String?

    public init(name: String, version: String, backend: String? = nil) {
        (self.name, self.version, self.backend) = (name, version, backend)
    }
}

/// Builds, loads and runs an artifact, from one thread that has no autorelease pool of its own. An error that it throws
/// is reported as a sentence that names the artifact; an exception of Objective-C or a crash ends the app, and the
/// driver reports that.
public protocol ModelRuntime: AnyObject {
    /// Its name or its backend is the `needs.backend` of the bundles that it runs.
    var info: RuntimeInfo { get }

    /// Compiles the artifact for this device, in place of the one compiled before.
    func build(_ bundle: ModelBundle) throws

    /// Loads what was built, in place of the one loaded before.
    func load(_ bundle: ModelBundle) throws

    /// One batch: x (N, C, H, W) for z (N, C, H, W) and, for a conditional model, its N class labels.
    func run(_ z: [Float], labels: [Int64]?) throws -> [Float]

    /// Frees what is loaded and what was built: a build comes before the next load.
    func close()
}

/// The machine; nil where the system does not report something.
public struct DeviceInfo: Equatable, Sendable {
    public let name: String
    public let system: String
    public let machine: String  // instruction set, as `uname -m` names it
    public let processor: String?
    public let cores: Int?
    public let memoryBytes: Int64?
    public let powerMode: String?  // in the system's own words

    public init(
        name: String, system: String, machine: String, processor: String? = nil, cores: Int? = nil,
        memoryBytes: Int64? = nil, powerMode: String? = nil
    ) {
        (self.name, self.system, self.machine, self.processor) = (name, system, machine, processor)
        (self.cores, self.memoryBytes, self.powerMode) = (cores, memoryBytes, powerMode)
    }
}

/// The machine's state at one moment; nil where the system does not report something. iOS reports no temperature, no
/// clock and no power.
public struct Condition: Equatable, Sendable {
    public let thermalState: String?  // in the system's own words
    public let throttled: Bool?  // whether the system slows the processor because of heat
    public let batteryLevel: Double?  // 0 … 1
    public let charging: Bool?  // whether external power is connected
    public let foreground: Bool?  // whether this app is the one on the screen
    public let memoryBytes: Int64?  // the physical memory that this process holds
    public let peakMemoryBytes: Int64?  // the most that it has held

    public init(
        thermalState: String? = nil, throttled: Bool? = nil, batteryLevel: Double? = nil, charging: Bool? = nil,
        foreground: Bool? = nil, memoryBytes: Int64? = nil, peakMemoryBytes: Int64? = nil
    ) {
        (self.thermalState, self.throttled, self.batteryLevel) = (thermalState, throttled, batteryLevel)
        (self.charging, self.foreground) = (charging, foreground)
        (self.memoryBytes, self.peakMemoryBytes) = (memoryBytes, peakMemoryBytes)
    }
}

/// The machine, asked from the thread of the run.
public protocol HarnessDevice: AnyObject {
    func info() -> DeviceInfo

    func condition() -> Condition

    /// As in a condition, without the cost of the rest: it is asked once a second between the timed runs.
    func thermalState() -> String?
}
