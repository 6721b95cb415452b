import CryptoKit
import Foundation
import HarnessFakes
import XCTest

@testable import HarnessCore

typealias Object = [String: Any]

/// A test with a folder of its own.
class FolderCase: XCTestCase {
    private(set) var temporary = URL(fileURLWithPath: "/")
    let files = FileManager.default

    override func setUpWithError() throws {
        temporary = files.temporaryDirectory.appendingPathComponent("rdd-edge-\(UUID().uuidString)")
        try files.createDirectory(at: temporary, withIntermediateDirectories: true)
    }

    override func tearDownWithError() throws { try files.removeItem(at: temporary) }

    func below(_ path: String) -> URL { temporary.appendingPathComponent(path) }

    /// A fresh bundle of tanh in `temporary`, whose manifest `change` may alter.
    func bundle(
        _ name: String = "bundle", batch: Int = 1, classes: Int? = nil, change: (inout Object) -> Void = { _ in }
    ) throws -> URL {
        try? files.removeItem(at: below(name))
        return try writeBundle(below(name), batch: batch, classes: classes, change: change)
    }

    func planFile(_ plan: Object) throws -> URL {
        try data(plan).write(to: below("plan.json"))
        return below("plan.json")
    }

    /// Every path below the folder.
    func everything() -> Set<String> { Set(files.enumerator(atPath: temporary.path)!.map { "\($0)" }) }
}

func data(_ document: Any) -> Data { try! JSONSerialization.data(withJSONObject: document, options: [.sortedKeys]) }

func object(_ data: Data) -> Object { try! JSONSerialization.jsonObject(with: data) as! Object }

func schemaFile(_ name: String) -> URL {
    let root = (0..<6).reduce(URL(fileURLWithPath: #filePath)) { folder, _ in folder.deletingLastPathComponent() }
    return root.appendingPathComponent("rdd_edge/schemas/golden/\(name).json")
}

/// A document of rdd_edge/schemas/golden.
func golden(_ name: String) -> Object { object(try! Data(contentsOf: schemaFile(name))) }

func sha256(_ data: Data) -> String { hex(SHA256.hash(data: data)) }

func bytes<T>(_ values: [T]) -> Data { values.withUnsafeBytes { Data($0) } }

/// Writes a bundle of tanh and returns its folder. Its artifact is a folder, as a package of Core ML is.
func writeBundle(_ folder: URL, batch: Int, classes: Int?, change: (inout Object) -> Void) throws -> URL {
    let (samples, size) = (5, 3 * 4 * 6)
    let z = (0..<UInt64(samples)).flatMap { PortableNoise.normals(seed: 9, index: $0, size: size) }
    let labels = classes.map { n in (0..<samples).map { Int64($0 % n) } }
    var content = [
        "model.mlpackage/Manifest.json": Data("{}".utf8), "model.mlpackage/Data/weight.bin": Data("fine".utf8),
        "parity/z.f32": bytes(z), "parity/x.f32": bytes(tanhImages(z, labels)),
    ]
    content["parity/label.i64"] = labels.map { bytes($0) }
    for name in ["words", "normals", "labels", "rounding"] {
        content["contract/\(name).json"] = try Data(contentsOf: schemaFile(name))
    }
    for (name, content) in content {
        let file = folder.appendingPathComponent(name)
        try FileManager.default.createDirectory(at: file.deletingLastPathComponent(), withIntermediateDirectories: true)
        try content.write(to: file)
    }
    var manifest = manifest(batch, classes, content.mapValues { sha256($0) })
    change(&manifest)
    try data(manifest).write(to: folder.appendingPathComponent("manifest.json"))
    return folder
}

private func manifest(_ batch: Int, _ classes: Int?, _ files: [String: String]) -> Object {
    [
        "schema_version": 1, "target": "ios", "precision": "fp16", "artifact": "model.mlpackage",
        "input": tensor("z", "float32", nil, nil, [batch, 3, 4, 6]),
        "label": classes.map { tensor("label", "int32", 0, $0 - 1, [batch]) as Any } ?? NSNull(),
        "output": tensor("x", "float32", -1, 1, [batch, 3, 4, 6]),
        "schedule": "cosine", "t": 1.0, "class_names": NSNull(), "conversion": NSNull(),
        "checkpoint_sha256": String(repeating: "c", count: 64), "quantization": NSNull(),
        "parity": [
            "samples": 5, "seed": 9, "psnr_db": 99.0, "worst_psnr_db": 98.5, "reason": NSNull(), "low_allowed": false,
        ] as Object,
        "rewrites": ["fold_time"], "tool_versions": ["fake": "7.0"],
        "needs": [
            "backend": "coreml",
            "runtime": ["name": "Core ML specification", "least": "8", "below": NSNull()] as Object,
            "system": ["name": "iOS", "least": "17", "below": NSNull()] as Object,
            "architectures": ["arm64"], "compute_units": "cpuAndNeuralEngine",
        ] as Object,
        "default_plan": plan(), "files": files,
    ]
}

private func tensor(_ name: String, _ type: String, _ low: Int?, _ high: Int?, _ shape: [Int]) -> Object {
    ["name": name, "shape": shape, "dtype": type, "low": low ?? NSNull() as Any, "high": high ?? NSNull() as Any]
}

let planSeed: UInt64 = 1 << 63 + 3

func plan(runs: Int = 6, samples: Int = 11, floats: Int = 4, seconds: Double = 0) -> Object {
    [
        "schema_version": 1,
        "performance": ["warmup": 2, "runs": runs, "seconds": seconds, "starts": 2] as Object,
        "accuracy": ["samples": samples, "seed": planSeed, "floats": floats] as Object,
        "threads": 2,
    ]
}
