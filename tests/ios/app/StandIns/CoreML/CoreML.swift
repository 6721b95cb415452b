import Foundation

/// Computes tanh(z), times a tenth of the label where there is one. How the artifact's text begins chooses the way x is
/// handed out: "float16" in that type, "padded" with rows longer than they are wide, "narrow" in another shape,
/// anything else plainly. Text that begins with "broken" does not compile.
open class MLModel {
    private let word: String

    /// Models that are loaded, the most that were at one time, and the units that the last one was given.
    public nonisolated(unsafe) static var open = 0
    public nonisolated(unsafe) static var mostOpen = 0
    public nonisolated(unsafe) static var lastUnits: MLComputeUnits?

    public convenience init(contentsOf url: URL) throws {
        try self.init(contentsOf: url, configuration: MLModelConfiguration())
    }

    public init(contentsOf url: URL, configuration: MLModelConfiguration) throws {
        word = try String(decoding: Data(contentsOf: url.appendingPathComponent("model")), as: UTF8.self)
        MLModel.open += 1
        MLModel.mostOpen = max(MLModel.mostOpen, MLModel.open)
        MLModel.lastUnits = configuration.computeUnits
    }

    deinit { MLModel.open -= 1 }

    /// Core ML writes the compiled model to a temporary folder, from which the app has to take it.
    open class func compileModel(at modelURL: URL) throws -> URL {
        let data = try Data(contentsOf: modelURL)
        if data.starts(with: Data("broken".utf8)) { throw CocoaError(.fileReadCorruptFile) }
        let name = modelURL.deletingPathExtension().lastPathComponent
        let folder = FileManager.default.temporaryDirectory.appendingPathComponent(
            "\(UUID().uuidString)/\(name).mlmodelc")
        try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
        try data.write(to: folder.appendingPathComponent("model"))
        return folder
    }

    open class func compileModel(at modelURL: URL) async throws -> URL {
        try await Task { try compiled(modelURL) }.value
    }

    private class func compiled(_ url: URL) throws -> URL { try compileModel(at: url) }

    open func prediction(from input: MLFeatureProvider) throws -> MLFeatureProvider {
        guard let z = input.featureValue(for: "z")?.multiArrayValue else { throw CocoaError(.keyValueValidation) }
        let labels = input.featureValue(for: "label")?.multiArrayValue
        guard z.dataType == .float32, labels.map({ $0.dataType == .int32 }) ?? true else {
            throw CocoaError(.keyValueValidation)
        }
        let shape = z.shape.map(\.intValue)
        let size = z.count / shape[0]
        let x = z.values.enumerated().map { index, value in
            tanh(value) * (labels.map { $0.values[index / size] / 10 } ?? 1)
        }
        let type: MLMultiArrayDataType = word.hasPrefix("float16") ? .float16 : .float32
        let given = word.hasPrefix("narrow") ? [shape.reduce(1, *)] : shape
        let output = MLMultiArray(x, shape: given, type: type, padding: word.hasPrefix("padded") ? 5 : 0)
        return try MLDictionaryFeatureProvider(dictionary: ["x": MLFeatureValue(multiArray: output)])
    }
}

open class MLModelConfiguration {
    open var computeUnits = MLComputeUnits.all
    public init() {}
}

public enum MLComputeUnits: Int, Sendable {
    case cpuOnly, cpuAndGPU, all, cpuAndNeuralEngine
}

public enum MLMultiArrayDataType: Int, Sendable {
    case double = 65600, float32 = 65568, float16 = 65552, int32 = 131104
}

open class MLMultiArray {
    open private(set) var shape: [NSNumber]
    open private(set) var strides: [NSNumber]
    open private(set) var dataType: MLMultiArrayDataType
    open var count: Int { shape.reduce(1) { $0 * $1.intValue } }
    private var bytes: [UInt8]

    /// Whether new arrays have padded rows, which Core ML does not exclude.
    public nonisolated(unsafe) static var padsNewArrays = false

    public convenience init(shape: [NSNumber], dataType: MLMultiArrayDataType) throws {
        let sizes = shape.map(\.intValue)
        let zeros = [Float](repeating: 0, count: sizes.reduce(1, *))
        self.init(zeros, shape: sizes, type: dataType, padding: MLMultiArray.padsNewArrays ? 3 : 0)
    }

    open func withUnsafeMutableBufferPointer<S: MLShapedArrayScalar, R>(
        ofType type: S.Type, _ body: (UnsafeMutableBufferPointer<S>, [Int]) throws -> R
    ) rethrows -> R {
        precondition(S.multiArrayDataType == dataType, "the array has another type")
        return try bytes.withUnsafeMutableBytes { try body($0.bindMemory(to: S.self), strides.map(\.intValue)) }
    }

    open func withUnsafeBufferPointer<S: MLShapedArrayScalar, R>(
        ofType type: S.Type, _ body: (UnsafeBufferPointer<S>) throws -> R
    ) rethrows -> R {
        precondition(S.multiArrayDataType == dataType, "the array has another type")
        return try bytes.withUnsafeBytes { try body($0.bindMemory(to: S.self)) }
    }

    public convenience init<Shaped: MLShapedArrayProtocol>(_ shapedArray: Shaped) {
        let values = shapedArray.scalars.map { $0.number }
        self.init(values, shape: shapedArray.shape, type: Shaped.Scalar.multiArrayDataType, padding: 0)
    }

    /// Rows of the last axis have `padding` unused values after them, which are not numbers.
    init(_ values: [Float], shape: [Int], type: MLMultiArrayDataType, padding: Int) {
        self.shape = shape.map { NSNumber(value: $0) }
        dataType = type
        var strides = [1]
        for (axis, size) in shape.enumerated().dropFirst().reversed() {
            strides.insert(strides[0] * (size + (axis == shape.count - 1 ? padding : 0)), at: 0)
        }
        self.strides = strides.map { NSNumber(value: $0) }
        var bytes: [UInt8] = []
        func append<Scalar>(_ value: Scalar) { withUnsafeBytes(of: value) { bytes += $0 } }
        for (index, value) in values.enumerated() {
            let ends = (index + 1) % shape[shape.count - 1] == 0
            for number in [value] + (ends ? Array(repeating: Float.nan, count: padding) : []) {
                switch type {
                case .float32: append(number)
                case .float16: append(Float16(number))
                case .double: append(Double(number))
                case .int32: append(Int32(number))
                }
            }
        }
        self.bytes = bytes
    }

    /// All values in row-major order, without the padding.
    var values: [Float] {
        let sizes = shape.map(\.intValue)
        return (0..<count).map { index in
            var (rest, offset) = (index, 0)
            for axis in sizes.indices.reversed() {
                offset += rest % sizes[axis] * strides[axis].intValue
                rest /= sizes[axis]
            }
            return bytes.withUnsafeBytes { bytes in
                switch dataType {
                case .float32: bytes.loadUnaligned(fromByteOffset: 4 * offset, as: Float.self)
                case .float16: Float(bytes.loadUnaligned(fromByteOffset: 2 * offset, as: Float16.self))
                case .double: Float(bytes.loadUnaligned(fromByteOffset: 8 * offset, as: Double.self))
                case .int32: Float(bytes.loadUnaligned(fromByteOffset: 4 * offset, as: Int32.self))
                }
            }
        }
    }
}

public protocol MLShapedArrayScalar {
    static var multiArrayDataType: MLMultiArrayDataType { get }
    /// For the stand-in's conversions.
    var number: Float { get }
    init(number: Float)
}

extension Float: MLShapedArrayScalar {
    public static var multiArrayDataType: MLMultiArrayDataType { .float32 }
    public var number: Float { self }
    public init(number: Float) { self = number }
}

extension Int32: MLShapedArrayScalar {
    public static var multiArrayDataType: MLMultiArrayDataType { .int32 }
    public var number: Float { Float(self) }
    public init(number: Float) { self = Int32(number) }
}

public protocol MLShapedArrayProtocol {
    associatedtype Scalar: MLShapedArrayScalar
    var shape: [Int] { get }
    var scalars: [Scalar] { get }
}

public struct MLShapedArray<Scalar: MLShapedArrayScalar>: MLShapedArrayProtocol, @unchecked Sendable {
    public let shape: [Int]
    public let scalars: [Scalar]

    public init<S>(scalars: S, shape: [Int]) where S: Sequence, Scalar == S.Element {
        self.shape = shape
        self.scalars = Array(scalars)
        precondition(self.scalars.count >= shape.reduce(1, *), "too few scalars for the shape")
    }

    public init(converting multiArray: MLMultiArray) {
        self.init(scalars: multiArray.values.map { Scalar(number: $0) }, shape: multiArray.shape.map(\.intValue))
    }
}

open class MLFeatureValue {
    open private(set) var multiArrayValue: MLMultiArray?

    public init(multiArray: MLMultiArray) { multiArrayValue = multiArray }

    public convenience init<Scalar: MLShapedArrayScalar>(shapedArray: MLShapedArray<Scalar>) {
        self.init(multiArray: MLMultiArray(shapedArray))
    }
}

public protocol MLFeatureProvider {
    var featureNames: Set<String> { get }
    func featureValue(for featureName: String) -> MLFeatureValue?
}

open class MLDictionaryFeatureProvider: MLFeatureProvider {
    private let values: [String: MLFeatureValue]

    public init(dictionary: [String: Any]) throws {
        values = try dictionary.mapValues {
            guard let value = $0 as? MLFeatureValue else { throw CocoaError(.keyValueValidation) }
            return value
        }
    }

    open var featureNames: Set<String> { Set(values.keys) }
    open func featureValue(for featureName: String) -> MLFeatureValue? { values[featureName] }
}

/// Of ObjectiveC, which Foundation brings along on Apple's systems.
public func autoreleasepool<Result>(invoking body: () throws -> Result) rethrows -> Result {
    try body()
}
