import CryptoKit
import Foundation

/// This device's images for the parity inputs against the student's: PSNR in dB, peak 2.0, 200 where identical.
public struct SelfTest: Equatable, Sendable {
    public let noiseMaxDifference: Double
    public let psnrDb: Double  // median over the images
    public let worstPsnrDb: Double
    public let samples: Int

    public init(noiseMaxDifference: Double, psnrDb: Double, worstPsnrDb: Double, samples: Int) {
        (self.noiseMaxDifference, self.psnrDb) = (noiseMaxDifference, psnrDb)
        (self.worstPsnrDb, self.samples) = (worstPsnrDb, samples)
    }
}

/// What is done with one bundle by one plan; `report` is told of each step and may throw to end it.
final class Work {
    let runtime: ModelRuntime
    let bundle: ModelBundle
    let plan: Plan
    private let report: (_ stage: String, _ done: Int) throws -> Void
    private(set) var latencyMs: [Double] = []  // of every timed run, in order
    private var firsts: [String: JSON] = [:]  // fields of the record: from where the device meets the artifact

    private var manifest: Manifest { bundle.manifest }
    private var size: Int { manifest.imageSize }
    private var name: String { "\(runtime.info.name) \(runtime.info.version)" }

    init(
        _ runtime: ModelRuntime, _ bundle: ModelBundle, _ plan: Plan,
        _ report: @escaping (_ stage: String, _ done: Int) throws -> Void
    ) {
        (self.runtime, self.bundle, self.plan, self.report) = (runtime, bundle, plan, report)
    }

    /// Proves the device before it is timed: its noise, labels and rounding, then the artifact's images.
    func prove(_ device: HarnessDevice, minPSNR: Double?) throws -> SelfTest {
        try report("verify", 0)
        let difference = try proveNoise()
        try meet(device)
        try report("verify", 0)
        let expected = try bundle.parityFloats("x.f32")
        var psnrs: [Double] = []
        try images(manifest.paritySeed, manifest.paritySamples, "verify") { x in
            for row in 0..<x.count / size {
                let other = expected[(psnrs.count * size)..<((psnrs.count + 1) * size)]
                psnrs.append(psnr(x[(row * size)..<((row + 1) * size)], other))
            }
        }
        let (middle, worst) = (median(psnrs), psnrs.min() ?? 0)
        if let minPSNR, !(middle >= minPSNR) {
            let found = String(format: "%.1f dB", middle)
            throw error("is \(found) from the student on this device, and \(minPSNR) dB are required", .threshold)
        }
        return SelfTest(noiseMaxDifference: difference, psnrDb: middle, worstPsnrDb: worst, samples: psnrs.count)
    }

    /// Builds, loads and runs the artifact for the first time and takes the times: a later load finds what Core ML has
    /// compiled for this device's processors, which can take minutes, in its cache.
    private func meet(_ device: HarnessDevice) throws {
        let (z, labels) = inputs(manifest.paritySeed, Array(0..<manifest.batch))
        firsts["baseline_memory_bytes"] = JSON(device.condition().memoryBytes)
        firsts["build_ms"] = try timed("build", 0) { try guarded("build") { try runtime.build(bundle) } }
        firsts["load_ms"] = try timed("load", 0) { try guarded("load") { try runtime.load(bundle) } }
        firsts["first_inference_ms"] = try timed("first", 0) { _ = try execute(z, labels) }
    }

    /// Everything but the artifact; returns how far the noise made here is from that of the bundle.
    private func proveNoise() throws -> Double {
        let (info, needed) = (runtime.info, manifest.needs.backend)
        guard [info.name, info.backend].contains(needed) else {
            throw error("has not the backend \(needed), which the bundle is for")
        }
        if let found = try Golden.difference(bundle.folder.appendingPathComponent("contract")) {
            throw error("was not run: this device computes other \(found)")
        }
        let (z, labels) = inputs(manifest.paritySeed, Array(0..<manifest.paritySamples))
        let golden = try bundle.parityFloats("z.f32")
        let difference = zip(z, golden).map { abs(Double($0) - Double($1)) }.max() ?? 0
        guard difference <= 1e-6 else { throw error("was not run: the noise made here differs from parity/z.f32") }
        if let labels, try labels != bundle.parityLabels() {
            throw error("was not run: the class labels made here differ from parity/label.i64")
        }
        return difference
    }

    /// The timed runs, then the samples, which are written to `folder`. Returns fields of the record.
    func measure(_ device: HarnessDevice, _ folder: RunFolder) throws -> [String: JSON] {
        let (z, labels) = inputs(plan.seed, Array(0..<manifest.batch))
        let before = device.condition()
        var fields = firsts.merging(["starts": .int(1)]) { $1 }
        fields["second_load_ms"] = try timed("load", 1) { try guarded("load") { try runtime.load(bundle) } }
        for run in 0..<plan.warmup {
            try report("warmup", run)
            _ = try execute(z, labels)
        }
        try report("time", 0)
        var heat = Heat(device)
        let begin = SuspendingClock.now
        while latencyMs.count < plan.runs || (seconds(since: begin) < plan.seconds && latencyMs.count < mostTimed) {
            heat.watch(latencyMs.count)
            latencyMs.append(try milliseconds { _ = try execute(z, labels) })
            try report("time", latencyMs.count)
        }
        fields["latency_ms"] = .list(latencyMs.map(JSON.double))
        fields["thermal_changes"] = .list(heat.changes)
        let during = device.condition()
        fields["peak_memory_bytes"] = JSON(during.peakMemoryBytes)
        fields["samples"] = plan.samples == 0 ? .null : try sample(folder)
        fields["conditions"] = conditions(["before": before, "during": during, "after": device.condition()])
        return fields
    }

    /// samples.u8 of every image and samples.f32 of the first ones, N H W C.
    private func sample(_ folder: RunFolder) throws -> JSON {
        try report("samples", 0)
        let kept = min(plan.floats, plan.samples)
        var (u8, f32, left) = (SHA256(), SHA256(), kept * size)
        try folder.write("samples.u8") { pixels in
            try folder.write("samples.f32") { floats in
                try images(plan.seed, plan.samples, "samples") { x in
                    let values = interleaved(x)
                    try append(Data(values.map(PortableNoise.toUInt8)), pixels, &u8)
                    let bits = values.prefix(left).map { $0.bitPattern.littleEndian }
                    left -= bits.count
                    try append(bits.withUnsafeBytes { Data($0) }, floats, &f32)
                }
            }
        }
        if kept == 0 { folder.delete("samples.f32") }
        let (shape, f32Hash) = (manifest.shape, hex(f32.finalize()))
        return .object([
            "count": JSON(plan.samples), "channels": JSON(shape[1]), "height": JSON(shape[2]), "width": JSON(shape[3]),
            "seed": .seed(plan.seed), "u8_sha256": JSON(hex(u8.finalize())), "floats": JSON(kept),
            "f32_sha256": kept == 0 ? .null : JSON(f32Hash),
        ])
    }

    private func append(_ bytes: Data, _ file: FileHandle, _ digest: inout SHA256) throws {
        digest.update(data: bytes)
        try file.write(contentsOf: bytes)
    }

    /// Passes the images of the first `total` samples to `use`, batch by batch. The last batch is filled up with its
    /// last sample, whose repetitions are left out.
    private func images(
        _ seed: UInt64, _ total: Int, _ stage: String, _ use: (ArraySlice<Float>) throws -> Void
    ) throws {
        for first in stride(from: 0, to: total, by: manifest.batch) {
            let (z, labels) = inputs(seed, (0..<manifest.batch).map { min(first + $0, total - 1) })
            let x = try execute(z, labels)
            guard x.count == z.count else { throw error("gave \(x.count) values, not \(z.count)") }
            if let bad = x.firstIndex(where: { !$0.isFinite }) {
                throw error("gave values that are not finite, first in image \(first + bad / size)")
            }
            let count = min(manifest.batch, total - first)
            try use(x.prefix(count * size))
            try report(stage, first + count)
        }
    }

    /// Noise of the samples with these indices, and the labels of a conditional model.
    private func inputs(_ seed: UInt64, _ indices: [Int]) -> ([Float], [Int64]?) {
        let z = indices.flatMap { PortableNoise.normals(seed: seed, index: UInt64($0), size: size) }
        let labels = manifest.classes.map { n in indices.map { PortableNoise.label(index: UInt64($0), classes: n) } }
        return (z, labels)
    }

    private func execute(_ z: [Float], _ labels: [Int64]?) throws -> [Float] {
        try guarded("run") { try runtime.run(z, labels: labels) }
    }

    /// Turns whatever a runtime throws into a sentence.
    private func guarded<Result>(_ action: String, _ body: () throws -> Result) throws -> Result {
        do {
            return try body()
        } catch {
            throw self.error("cannot \(action) \(bundle.artifact.path): \(reason(error))")
        }
    }

    private func timed(_ stage: String, _ done: Int, _ action: () throws -> Void) throws -> JSON {
        try report(stage, done)
        return JSON(try milliseconds(action))
    }

    private func error(_ what: String, _ kind: ErrorKind = .artifact) -> HarnessError {
        HarnessError(kind, "\(name) \(what)")
    }

    /// Whole images in N H W C order.
    private func interleaved(_ x: ArraySlice<Float>) -> [Float] {
        let (channels, pixels) = (manifest.shape[1], manifest.shape[2] * manifest.shape[3])
        return x.indices.map { x[$0 / size * size + $0 % channels * pixels + $0 % size / channels] }
    }
}

private let mostTimed = 1_000_000  // runs for the plan's seconds: many more make a record that no reader takes

/// The thermal states between the timed runs: the first one, and each change with the number of runs before it.
private struct Heat {
    let device: HarnessDevice
    var changes: [JSON] = []
    private var state: String?
    private var asked: SuspendingClock.Instant?

    init(_ device: HarnessDevice) { self.device = device }

    /// Asks the device, at most once a second.
    mutating func watch(_ runs: Int) {
        if let asked, seconds(since: asked) < 1 { return }
        asked = .now
        guard let now = device.thermalState(), now != state else { return }
        changes.append(.object(["run": JSON(runs), "state": JSON(now)]))
        state = now
    }
}

/// The time since then in seconds, without that in which the device slept.
func seconds(since begin: SuspendingClock.Instant) -> Double {
    begin.duration(to: .now) / .seconds(1)
}

private func milliseconds(_ action: () throws -> Void) rethrows -> Double {
    try SuspendingClock().measure(action) / .milliseconds(1)
}

/// PSNR in dB of one image against another.
private func psnr(_ a: ArraySlice<Float>, _ b: ArraySlice<Float>) -> Double {
    let sum = zip(a, b).reduce(0.0) { $0 + (Double($1.0) - Double($1.1)) * (Double($1.0) - Double($1.1)) }
    return min(10 * log10(4 * Double(a.count) / sum), 200)
}

/// The median of at least one value.
func median(_ values: [Double]) -> Double {
    let sorted = values.sorted()
    return (sorted[(sorted.count - 1) / 2] + sorted[sorted.count / 2]) / 2
}
