import Foundation
import HarnessCore

/// x = tanh(z), times a tenth of the class label; `before` is called with the number of each run and may throw.
open class TanhRuntime: ModelRuntime {
    public private(set) var calls: [String] = []
    public var info = RuntimeInfo(name: "fakert", version: "7.0", backend: "coreml")
    private let before: (Int) throws -> Void
    private var runs = 0
    private var built = false
    private var loaded = false

    public init(before: @escaping (Int) throws -> Void = { _ in }) { self.before = before }

    open func build(_ bundle: ModelBundle) throws {
        calls.append("build")
        built = true
    }

    open func load(_ bundle: ModelBundle) throws {
        calls.append("load")
        guard built else { throw Unprepared() }
        loaded = true
    }

    open func run(_ z: [Float], labels: [Int64]?) throws -> [Float] {
        calls.append("run")
        guard loaded else { throw Unprepared() }
        runs += 1
        try before(runs)
        return tanhImages(z, labels)
    }

    open func close() {
        calls.append("close")
        (built, loaded) = (false, false)
    }
}

/// A load without a build, or a run without a load.
private struct Unprepared: Error {}

/// x (N, C, H, W) for z and the N labels.
public func tanhImages(_ z: [Float], _ labels: [Int64]?) -> [Float] {
    let size = z.count / (labels?.count ?? 1)
    return z.enumerated().map { i, z in
        Float(tanh(Double(z))) * (labels.map { Float(Double($0[i / size]) / 10) } ?? 1)
    }
}

/// A device that tells `told`, and `heat` when it is asked for its thermal state alone.
public final class FakeDevice: HarnessDevice {
    public static let condition = Condition(
        thermalState: "nominal", throttled: false, batteryLevel: 0.8, charging: false, foreground: true,
        memoryBytes: 50_000_000, peakMemoryBytes: 123_456_789)
    private let told: Condition
    private let heat: () -> String?

    public init(_ told: Condition = FakeDevice.condition, heat: @escaping () -> String? = { "nominal" }) {
        (self.told, self.heat) = (told, heat)
    }

    public func info() -> DeviceInfo {
        DeviceInfo(name: "simulated iPhone", system: "iOS 17.0", machine: "arm64", cores: 6, memoryBytes: 8_000_000_000)
    }

    public func condition() -> Condition { told }

    public func thermalState() -> String? { heat() }
}
