import CoreML
import Foundation
import HarnessCore

/// An `.mlpackage` in Core ML, on the compute units that its manifest asks for.
final class CoreMLRuntime: ModelRuntime {
    private let system: OperatingSystemVersion
    private let folder: URL
    private var compiled: URL?
    private var loaded: (model: MLModel, manifest: Manifest)?
    private var units = "all"

    /// `system` is this device's iOS; `folder` is for the compiled model, and what it holds is removed.
    init(
        system: OperatingSystemVersion = ProcessInfo.processInfo.operatingSystemVersion,
        folder: URL = FileManager.default.temporaryDirectory.appendingPathComponent("compiled", isDirectory: true)
    ) {
        self.system = system
        self.folder = folder
    }

    /// The backend is that of the bundle that was built last.
    var info: RuntimeInfo {
        RuntimeInfo(name: "coreml", version: "iOS \(system.text)", backend: "\(units) compute units")
    }

    func build(_ bundle: ModelBundle) throws {
        close()
        let needs = bundle.manifest.needs
        let here = [system.majorVersion, system.minorVersion, system.patchVersion]
        if here.lexicographicallyPrecedes(needs.system.least.split(separator: ".").map { Int($0) ?? 0 }) {
            throw unusable("the bundle needs iOS \(needs.system.least), and this is iOS \(system.text)")
        }
        _ = try computeUnits(named: needs.computeUnits)
        units = needs.computeUnits ?? "all"
        let made = try autoreleasepool { try MLModel.compileModel(at: bundle.artifact) }
        // A new place each time, or Core ML might take what it has cached for the bundle before.
        let place = folder.appendingPathComponent(UUID().uuidString, isDirectory: true)
        try FileManager.default.createDirectory(at: place, withIntermediateDirectories: true)
        let target = place.appendingPathComponent(made.lastPathComponent, isDirectory: true)
        try FileManager.default.moveItem(at: made, to: target)
        compiled = target
    }

    func load(_ bundle: ModelBundle) throws {
        loaded = nil  // a second load must not find the first in memory
        guard let compiled else { throw unusable("the model was not built") }
        let configuration = MLModelConfiguration()
        configuration.computeUnits = try computeUnits(named: bundle.manifest.needs.computeUnits)
        let model = try autoreleasepool { try MLModel(contentsOf: compiled, configuration: configuration) }
        loaded = (model, bundle.manifest)
    }

    func run(_ z: [Float], labels: [Int64]?) throws -> [Float] {
        guard let (model, manifest) = loaded else { throw unusable("the model was not loaded") }
        let shape = manifest.shape
        guard z.count == shape.reduce(1, *) else { throw unusable("\(z.count) values do not fill the shape \(shape)") }
        // Core ML leaves buffers to a pool that this thread would otherwise drain only at its end.
        return try autoreleasepool {
            var inputs = [manifest.input.name: MLFeatureValue(multiArray: try multiArray(z, shape: shape))]
            if let labels, let label = manifest.label {
                let values = MLShapedArray(scalars: labels.map { Int32($0) }, shape: label.shape)
                inputs[label.name] = MLFeatureValue(shapedArray: values)
            }
            let outputs = try model.prediction(from: MLDictionaryFeatureProvider(dictionary: inputs))
            let x = outputs.featureValue(for: manifest.output.name)?.multiArrayValue
            guard let x, x.shape.map(\.intValue) == shape else {
                throw unusable("the model has no output \(manifest.output.name) of the shape \(shape)")
            }
            return floats(x, shape: shape)
        }
    }

    /// Frees the model and removes what was compiled, also by a run that the driver ended.
    func close() {
        (loaded, compiled) = (nil, nil)
        try? FileManager.default.removeItem(at: folder)
    }
}

extension OperatingSystemVersion {
    /// As people write it, e.g. 18.1 or 18.1.2.
    var text: String { "\(majorVersion).\(minorVersion)" + (patchVersion == 0 ? "" : ".\(patchVersion)") }
}

/// The units that a manifest names as Swift does; all of them where it names none. Throws for another name.
func computeUnits(named name: String?) throws -> MLComputeUnits {
    switch name {
    case nil, "all": return .all
    case "cpuOnly": return .cpuOnly
    case "cpuAndGPU": return .cpuAndGPU
    case "cpuAndNeuralEngine": return .cpuAndNeuralEngine
    case let name?: throw unusable("the bundle asks for the compute units \(name), which this app does not know")
    }
}

/// A float32 array of the shape N C H W with `values` in that order.
private func multiArray(_ values: [Float], shape: [Int]) throws -> MLMultiArray {
    let array = try MLMultiArray(shape: shape.map { NSNumber(value: $0) }, dataType: .float32)
    array.withUnsafeMutableBufferPointer(ofType: Float.self) { target, strides in
        for (row, offset) in rowOffsets(shape, strides).enumerated() {
            let start = target.baseAddress! + offset
            for column in 0..<shape[3] { start[column * strides[3]] = values[row * shape[3] + column] }
        }
    }
    return array
}

/// The values of an array in the order N C H W. Core ML may hand out float16 or padded rows, whatever the model says.
private func floats(_ array: MLMultiArray, shape: [Int]) -> [Float] {
    // The conversion takes some 60 ns a value, which a run would count as latency.
    guard array.dataType == .float32, array.strides.last == 1 else { return MLShapedArray(converting: array).scalars }
    return array.withUnsafeBufferPointer(ofType: Float.self) { source in
        let offsets = rowOffsets(shape, array.strides.map(\.intValue))
        return offsets.flatMap { UnsafeBufferPointer(start: source.baseAddress! + $0, count: shape[3]) }
    }
}

/// Where each row begins, in the order N C H.
private func rowOffsets(_ shape: [Int], _ strides: [Int]) -> [Int] {
    zip(shape, strides).dropLast().reduce([0]) { offsets, axis in
        offsets.flatMap { offset in (0..<axis.0).map { offset + $0 * axis.1 } }
    }
}

private func unusable(_ sentence: String) -> HarnessError { HarnessError(kind: .artifact, sentence: sentence) }
