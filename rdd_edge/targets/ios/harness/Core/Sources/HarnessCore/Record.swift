import Foundation

/// A thermal state that began after so many timed runs.
struct ThermalChange { let run: Int, state: String }

/// The samples of a run as its record holds them.
struct Samples {
    let count: Int
    let shape: [Int]  // N, C, H, W
    let seed: UInt64
    let u8SHA256: String
    let floats: Int
    let f32SHA256: String?

    var json: JSON {
        .object([
            "count": JSON(count), "height": JSON(shape[2]), "width": JSON(shape[3]), "channels": JSON(shape[1]),
            "seed": .seed(seed), "u8_sha256": JSON(u8SHA256), "floats": JSON(floats), "f32_sha256": JSON(f32SHA256),
        ])
    }
}

/// What was measured in one run, in milliseconds and bytes.
struct Measured {
    let baselineMemoryBytes: Int64?
    let before: Condition
    var buildMs, loadMs, secondLoadMs, firstInferenceMs: Double?
    var latencyMs: [Double] = []  // of every timed run, in order
    var thermalChanges: [ThermalChange] = []
    var during, after: Condition?
    var samples: Samples?

    init(baselineMemoryBytes: Int64?, before: Condition) {
        (self.baselineMemoryBytes, self.before) = (baselineMemoryBytes, before)
    }

    var fields: [String: JSON] {
        [
            "build_ms": JSON(buildMs), "load_ms": JSON(loadMs), "second_load_ms": JSON(secondLoadMs),
            "first_inference_ms": JSON(firstInferenceMs), "latency_ms": .list(latencyMs.map(JSON.double)),
            "thermal_changes": .list(thermalChanges.map { .object(["run": JSON($0.run), "state": JSON($0.state)]) }),
            "peak_memory_bytes": JSON(during?.peakMemoryBytes), "baseline_memory_bytes": JSON(baselineMemoryBytes),
            "samples": samples?.json ?? .null, "starts": .int(1),
        ]
    }

    /// The states by moment.
    var conditions: [[String: JSON]] {
        [("before", before), ("during", during), ("after", after)].compactMap { moment, state in
            state.map { $0.fields.merging(["when": JSON(moment)]) { $1 } }
        }
    }
}

extension Condition {
    /// Without what is no plausible value.
    fileprivate var fields: [String: JSON] {
        [
            "temperature_c": .null, "clock_mhz": .null, "gpu_clock_mhz": .null, "gpu_load": .null, "power_w": .null,
            "thermal_headroom": .null, "throttled": JSON(throttled), "thermal_state": JSON(thermalState),
            "battery_level": JSON(batteryLevel.flatMap { (0...1).contains($0) ? $0 : nil }),
            "charging": JSON(charging), "foreground": JSON(foreground),
        ]
    }
}

extension SelfTest {
    /// selftest.json.
    func json(threshold: Double?) -> JSON {
        .object([
            "schema_version": .int(1), "noise_max_difference": JSON(noiseMaxDifference), "psnr_db": JSON(psnrDb),
            "worst_psnr_db": JSON(worstPsnrDb), "threshold_db": JSON(threshold), "samples": JSON(samples),
        ])
    }
}

extension Work {
    /// record.json: what was measured, and in `missing` the reason of each null.
    func record(_ device: DeviceInfo, _ measured: Measured, place: Place, started: String) -> JSON {
        let (info, manifest, conditions) = (runtime.info, bundle.manifest, measured.conditions)
        let unknown = names(conditions)
        let isSilent = conditions.allSatisfy { $0.count == unknown.count + 1 }
        var fields = measured.fields
        fields.merge([
            "schema_version": .int(1), "target": JSON(manifest.target), "precision": JSON(manifest.precision),
            "bundle_sha256": JSON(bundle.sha256), "checkpoint_sha256": JSON(manifest.checkpointSHA256), "checkpoint": .null,
            "where": JSON(place.rawValue), "started_at": JSON(started), "device": machine(device),
            "runtime": .object(["name": JSON(info.name), "version": JSON(info.version), "backend": JSON(info.backend)]),
            "conditions": isSilent ? .null : .list(conditions.map(JSON.object)), "power_mode": JSON(device.powerMode),
            "batch": JSON(manifest.batch), "artifact_bytes": JSON(bundle.artifactBytes),
        ]) { $1 }
        let reasons = reasons(info.name)
        fields.merge(reasons.mapValues { _ in .null }) { known, _ in known }
        var missing = reasons.filter { fields[$0.key] == .null }
        for name in isSilent ? [] : unknown { missing["conditions.\(name)"] = unreported }
        fields["missing"] = .object(missing.mapValues { JSON($0) })
        return .object(fields)
    }

    /// The fields that are null at every moment.
    private func names(_ conditions: [[String: JSON]]) -> [String] {
        (conditions.first ?? [:]).keys.filter { name in conditions.allSatisfy { $0[name] == .null } }
    }

    private func machine(_ info: DeviceInfo) -> JSON {
        .object([
            "name": JSON(info.name), "system": JSON(info.system), "machine": JSON(info.machine),
            "processor": JSON(info.processor), "cores": JSON(info.cores), "memory_bytes": JSON(info.memoryBytes),
        ])
    }

    /// Why a field may be null.
    private func reasons(_ runtime: String) -> [String: String] {
        [
            "threads": "\(runtime) takes no number of threads",
            "transfers": "\(runtime) does not time copies separately: a latency includes them",
            "operators": "\(runtime) is not asked for the time of each operator",
            "compiled_before": "Core ML does not report whether its cache had the compiled model",
            "clocks_locked": "an app cannot lock the clocks",
            "conditions": unreported,
            "power_mode": "the system reported no power mode",
            "peak_memory_bytes": unreported,
            "baseline_memory_bytes": unreported,
            "samples": "the plan has no samples",
        ]
    }
}

private let unreported = "the system does not report it"
