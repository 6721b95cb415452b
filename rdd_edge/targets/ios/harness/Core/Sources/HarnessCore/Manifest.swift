import Foundation

let manifestName = "manifest.json"
private let mostCount = 10_000_000
private let mostValues = Double(1 << 26)  // of one array: 256 MiB of float32

/// What the harness is asked to do: `runs` and `seconds` are both the least; `floats` images are kept unrounded.
struct Plan: Document, Sendable {
    struct Performance: Document, Sendable {
        var warmup = 10
        var runs = 1024
        var seconds = 60.0
        var starts = 3  // of the process, where the driver starts it; here there is one

        init() {}

        init(_ fields: Fields) throws {
            warmup = try fields.int("warmup", 0...1_000_000, default: warmup)
            runs = try fields.int("runs", 1...mostCount, default: runs)
            seconds = try fields.double("seconds", 0...86_400, default: seconds)
            starts = try fields.int("starts", 1...100, default: starts)
            try fields.finish()
        }
    }

    struct Accuracy: Document, Sendable {
        var samples = 2000
        var seed: UInt64 = 0
        var floats = 256

        init() {}

        init(_ fields: Fields) throws {
            samples = try fields.int("samples", 0...mostCount, default: samples)
            seed = try fields.value("seed", default: seed)
            floats = try fields.int("floats", 0...mostCount, default: floats)
            try fields.finish()
        }
    }

    let performance: Performance
    let accuracy: Accuracy
    let threads: Int  // of the processor; Core ML takes no number of them

    init(_ fields: Fields) throws {
        try fields.checkVersion()
        performance = try fields.part("performance", default: Performance())
        accuracy = try fields.part("accuracy", default: Accuracy())
        threads = try fields.int("threads", 1...1024, default: 2)
        try fields.finish()
    }

    /// plan.json, with every default.
    var json: JSON {
        let (p, a) = (performance, accuracy)
        let times = ["warmup": JSON(p.warmup), "runs": JSON(p.runs), "seconds": JSON(p.seconds), "starts": JSON(p.starts)]
        let images = ["samples": JSON(a.samples), "seed": .seed(a.seed), "floats": JSON(a.floats)]
        return .object([
            "schema_version": .int(1), "performance": .object(times), "accuracy": .object(images), "threads": JSON(threads),
        ])
    }
}

/// What the artifact needs: a `backend` of the `runtime`, and the `system`, each from its least version on.
public struct Needs: Document, Sendable {
    public let backend: String
    public let runtime, system: Requirement
    public let computeUnits: String?  // as Core ML names them, e.g. all or cpuAndNeuralEngine; nil: its default

    init(_ fields: Fields) throws {
        backend = try fields.name("backend")
        runtime = try fields.part("runtime")
        system = try fields.part("system")
        computeUnits = try fields.isNull("compute_units") ? nil : fields.text("compute_units")
        try fields.finish("architectures")
    }

    public struct Requirement: Document, Sendable {
        public let name, least: String
        public let below: String?  // the first version that does not do

        init(_ fields: Fields) throws {
            name = try fields.text("name", ".+")
            least = try fields.text("least", ".+")
            below = try fields.isNull("below") ? nil : fields.text("below")
            try fields.finish()
        }
    }
}

/// An input or output of the artifact.
public struct Tensor: Document, Equatable, Sendable {
    public let name: String
    public let type: String  // float32, int32 or int64
    public let shape: [Int]
    fileprivate let low, high: Double?

    init(_ fields: Fields) throws {
        name = try fields.name("name")
        type = try fields.text("dtype", "float32|int32|int64")
        shape = try fields.ints("shape", 1...65_536)
        low = try fields.isNull("low") ? nil : fields.value("low")
        high = try fields.isNull("high") ? nil : fields.value("high")
        try fields.finish()
    }

    /// The number of labels from 0 to a whole number; nil where they are not such.
    fileprivate var classes: Int? {
        guard type != "float32", low == 0, let high, (0..<Double(Int32.max)).contains(high) else { return nil }
        return Int(exactly: high).map { $0 + 1 }
    }
}

/// What a manifest says of the artifact, as far as a device needs it.
public struct Manifest: Document, Sendable {
    public let shape: [Int]  // N, C, H, W of input and output; N is the batch
    public let classes: Int?  // of a conditional model
    public let input, output: Tensor
    public let label: Tensor?  // N class labels
    public let target, precision: String
    public let artifact: String  // relative path of a file or a folder
    public let checkpointSHA256: String
    public let needs: Needs
    let parity: Parity
    let defaultPlan: Plan
    let files: [String: String]  // SHA-256 of every file but the manifest, by relative path

    public var batch: Int { shape[0] }
    public var imageSize: Int { shape[1] * shape[2] * shape[3] }

    /// The self-test's number of images, and the seed of their noise.
    struct Parity: Document, Sendable {
        let samples: Int
        let seed: UInt64

        init(_ fields: Fields) throws {
            samples = try fields.int("samples", 1...mostCount)
            seed = try fields.value("seed")
            try fields.finish("psnr_db", "worst_psnr_db", "reason", "low_allowed")
        }
    }

    init(_ fields: Fields) throws {
        try fields.checkVersion()
        input = try fields.part("input")
        output = try fields.part("output")
        label = try fields.isNull("label") ? nil : fields.part("label") as Tensor
        (shape, classes) = (input.shape, label?.classes)
        target = try fields.name("target")
        precision = try fields.name("precision")
        artifact = try fields.text("artifact")
        checkpointSHA256 = try fields.sha256("checkpoint_sha256")
        needs = try fields.part("needs")
        parity = try fields.part("parity")
        defaultPlan = try fields.part("default_plan")
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
        let values = shape.dropFirst().reduce(Double(max(parity.samples, batch))) { $0 * Double($1) }
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
