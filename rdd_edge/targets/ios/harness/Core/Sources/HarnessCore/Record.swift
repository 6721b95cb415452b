import Foundation

private let unreported = "the system does not report it"

extension Work {
    /// record.json: what was `measured`, and in `missing` the reason of each null.
    func record(_ device: DeviceInfo, _ measured: [String: JSON], place: Place, started: String) -> JSON {
        let (info, manifest, reasons) = (runtime.info, bundle.manifest, reasons(runtime.info.name))
        var fields = reasons.mapValues { _ in JSON.null }.merging(measured) { $1 }
        fields.merge([
            "schema_version": .int(1), "target": JSON(manifest.target), "precision": JSON(manifest.precision),
            "bundle_sha256": JSON(bundle.sha256), "checkpoint_sha256": JSON(manifest.checkpointSHA256),
            "checkpoint": .null,
            "where": JSON(place.rawValue), "started_at": JSON(started), "batch": JSON(manifest.batch),
            "artifact_bytes": JSON(bundle.artifactBytes), "power_mode": JSON(device.powerMode),
            "device": .object([
                "name": JSON(device.name), "system": JSON(device.system), "machine": JSON(device.machine),
                "processor": JSON(device.processor), "cores": JSON(device.cores),
                "memory_bytes": JSON(device.memoryBytes),
            ]),
            "runtime": .object(["name": JSON(info.name), "version": JSON(info.version), "backend": JSON(info.backend)]),
        ]) { $1 }
        var missing = reasons.filter { fields[$0.key] == .null }
        for name in nulls(fields["conditions"]) { missing["conditions.\(name)"] = unreported }
        fields["missing"] = .object(missing.mapValues { JSON($0) })
        return .object(fields)
    }

    /// Why a field may be null.
    private func reasons(_ runtime: String) -> [String: String] {
        [
            "threads": "\(runtime) takes no number of threads",
            "transfers": "\(runtime) does not time copies separately: a latency includes them",
            "operators": "\(runtime) is not asked for the time of each operator",
            "compiled_before": "Core ML does not report whether its cache had the compiled model",
            "clocks_locked": "an app cannot lock the clocks",
            "conditions": unreported, "peak_memory_bytes": unreported, "baseline_memory_bytes": unreported,
            "power_mode": "the system reported no power mode",
            "samples": "the plan has no samples",
        ]
    }

    /// The fields of a condition that are null at every moment.
    private func nulls(_ conditions: JSON?) -> [String] {
        guard case .list(let moments) = conditions else { return [] }
        let rows = moments.compactMap { moment -> [String: JSON]? in
            if case .object(let row) = moment { row } else { nil }
        }
        return rows.first.map { $0.keys.filter { name in rows.allSatisfy { $0[name] == .null } } } ?? []
    }
}

/// The machine's states by moment; what is no plausible value is dropped, and null stands for nothing but nulls.
func conditions(_ states: KeyValuePairs<String, Condition>) -> JSON {
    let rows = states.map { _, state -> [String: JSON] in
        [
            "temperature_c": .null, "clock_mhz": .null, "gpu_clock_mhz": .null, "gpu_load": .null, "power_w": .null,
            "thermal_headroom": .null, "throttled": JSON(state.throttled), "thermal_state": JSON(state.thermalState),
            "battery_level": JSON(state.batteryLevel.flatMap { (0...1).contains($0) ? $0 : nil }),
            "charging": JSON(state.charging), "foreground": JSON(state.foreground),
        ]
    }
    if rows.allSatisfy({ $0.values.allSatisfy { $0 == .null } }) { return .null }
    return .list(zip(states, rows).map { state, row in .object(row.merging(["when": JSON(state.key)]) { $1 }) })
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
