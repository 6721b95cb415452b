import Foundation

let manifestName = "manifest.json"
private let mostCount = 10_000_000
private let mostValues = Double(1 << 26)  // of one array: 256 MiB of float32

/// What the harness is asked to do: `runs` and `seconds` are both the least; `floats` images are kept unrounded.
struct Plan: Document, Sendable {
    let warmup, runs: Int
    let seconds: Double
    let starts: Int  // of the process, where the driver starts it; here there is one
    let samples: Int
    let seed: UInt64
    let floats: Int
    let threads: Int  // of the processor; Core ML takes no number of them

    init(_ fields: Fields) throws {
        try fields.checkVersion()
        let (performance, accuracy) = (try fields.section("performance"), try fields.section("accuracy"))
        warmup = try performance.int("warmup", 0...1_000_000, default: 10)
        runs = try performance.int("runs", 1...mostCount, default: 1024)
        seconds = try performance.double("seconds", 0...86_400, default: 60)
        starts = try performance.int("starts", 1...100, default: 3)
        samples = try accuracy.int("samples", 0...mostCount, default: 2000)
        seed = try accuracy.value("seed", default: 0)
        floats = try accuracy.int("floats", 0...mostCount, default: 256)
        threads = try fields.int("threads", 1...1024, default: 2)
        for part in [performance, accuracy, fields] { try part.finish() }
    }

    /// plan.json, with every default.
    var json: JSON {
        let times = ["warmup": JSON(warmup), "runs": JSON(runs), "seconds": JSON(seconds), "starts": JSON(starts)]
        let images = ["samples": JSON(samples), "seed": .seed(seed), "floats": JSON(floats)]
        return .object([
            "schema_version": .int(1), "performance": .object(times), "accuracy": .object(images),
            "threads": JSON(threads),
        ])
    }
}

/// What the artifact needs: a `backend` of the `runtime`, and the `system`, each from its least version on.
public struct Needs: Sendable {
    public let backend: String
    public let runtime, system: Requirement
    public let computeUnits: String?  // as Core ML names them, e.g. all or cpuAndNeuralEngine; nil: its default

    init(_ fields: Fields) throws {
        backend = try fields.name("backend")
        runtime = try Requirement(fields.section("runtime"))
        system = try Requirement(fields.section("system"))
        computeUnits = try fields.optional("compute_units") { try fields.text($0) }
        try fields.finish("architectures")
    }

    public struct Requirement: Sendable {
        public let name, least: String
        public let below: String?  // the first version that does not do

        init(_ fields: Fields) throws {
            name = try fields.text("name", ".+")
            least = try fields.text("least", ".+")
            below = try fields.optional("below") { try fields.text($0) }
            try fields.finish()
        }
    }
}

/// An input or output of the artifact.
public struct Tensor: Equatable, Sendable {
    public let name, type: String  // the type is float32, int32 or int64
    public let shape: [Int]
    fileprivate let classes: Int?  // of labels from 0 to a whole number

    init(_ fields: Fields) throws {
        name = try fields.name("name")
        type = try fields.text("dtype", "float32|int32|int64")
        shape = try fields.ints("shape", 1...65_536)
        let low: Double? = try fields.optional("low") { try fields.value($0) }
        let high: Double? = try fields.optional("high") { try fields.value($0) }
        let isLabel = type != "float32" && low == 0 && (0..<Double(Int32.max)).contains(high ?? -1)
        classes = isLabel ? high.flatMap(Int.init(exactly:)).map { $0 + 1 } : nil
        try fields.finish()
    }
}

/// What a manifest says of the artifact, as far as a device needs it.
public struct Manifest: Document, Sendable {
    public let input, output: Tensor
    public let label: Tensor?  // N class labels of a conditional model
    public let target, precision: String
    public let artifact: String  // relative path of a file or a folder
    public let checkpointSHA256: String
    public let needs: Needs
    let paritySamples: Int  // the self-test's images
    let paritySeed: UInt64
    let defaultPlan: Plan
    let files: [String: String]  // SHA-256 of every file but the manifest, by relative path

    public var shape: [Int] { input.shape }  // N, C, H, W of input and output; N is the batch
    public var classes: Int? { label?.classes }  // of a conditional model
    public var batch: Int { shape[0] }
    public var imageSize: Int { shape[1] * shape[2] * shape[3] }

    init(_ fields: Fields) throws {
        try fields.checkVersion()
        input = try Tensor(fields.section("input"))
        output = try Tensor(fields.section("output"))
        label = try fields.optional("label") { try Tensor(fields.section($0)) }
        target = try fields.name("target")
        precision = try fields.name("precision")
        artifact = try fields.text("artifact")
        checkpointSHA256 = try fields.sha256("checkpoint_sha256")
        needs = try Needs(fields.section("needs"))
        let parity = try fields.section("parity")
        paritySamples = try parity.int("samples", 1...mostCount)
        paritySeed = try parity.value("seed")
        try parity.finish("psnr_db", "worst_psnr_db", "reason", "low_allowed")
        defaultPlan = try Plan(fields.section("default_plan"))
        files = try fields.value("files")
        _ = try fields.double("t", 1...1, default: 1)
        try fields.finish("schedule", "conversion", "class_names", "quantization", "rewrites", "tool_versions")
        try checkTensors(fields)
        try checkPaths(fields)
    }

    private func checkTensors(_ fields: Fields) throws {
        guard shape.count == 4, output.shape == shape else {
            throw fields.wrong("output", "and input have no common shape (N, C, H, W)")
        }
        guard input.type == "float32", output.type == "float32" else { throw fields.wrong("input", "is not float32") }
        if let label, label.shape != [batch] || classes == nil {
            throw fields.wrong("label", "is not (N,) whole numbers from 0 to a highest one")
        }
        let values = shape.dropFirst().reduce(Double(max(paritySamples, batch))) { $0 * Double($1) }
        guard values <= mostValues else { throw fields.wrong("input", "is larger than this harness takes") }
    }

    private func checkPaths(_ fields: Fields) throws {
        for path in files.keys.sorted() + [artifact] {
            guard isInside(path), path != manifestName, isPrintable(path) else {
                throw fields.wrong("files", "names \(path), which is no path inside the bundle")
            }
        }
        if let path = files.first(where: { !matches($0.value, "[0-9a-f]{64}") })?.key {
            throw fields.wrong("files", "has no SHA-256 for \(path)")
        }
        let reserved = ["parity", "contract", "harness"].contains(artifact.prefix { $0 != "/" })
        guard !reserved, files.keys.contains(where: isOfArtifact) else {
            throw fields.wrong("artifact", "is not among the files, or is where a bundle keeps something else")
        }
    }

    /// Whether this file of the bundle is the artifact or a part of it.
    func isOfArtifact(_ path: String) -> Bool { "\(path)/".hasPrefix("\(artifact)/") }
}

/// Whether a relative path leads to something below where it begins.
func isInside(_ path: String) -> Bool {
    path.split(separator: "/", omittingEmptySubsequences: false).allSatisfy { !["", ".", ".."].contains($0) }
}
