import Foundation
import HarnessCore

/// A program that is given the artifact's path, a number of threads, N,C,H,W and the number of labels of a batch. An l
/// on its standard input asks for a load, answered by r; an x and a batch, float32 then int64, for its images, float32.
final class ChildRuntime: ModelRuntime {
    let info = RuntimeInfo(name: "fakert", version: "7.0", backend: "coreml")
    private let command: String
    private var child: (process: Process, input: FileHandle, output: FileHandle)?

    init(_ command: String) { self.command = command }

    func build(_ bundle: ModelBundle) throws {
        close()
        let (process, input, output, manifest) = (Process(), Pipe(), Pipe(), bundle.manifest)
        let shape = manifest.shape.map(String.init).joined(separator: ",")
        process.executableURL = URL(fileURLWithPath: "/bin/sh")
        process.arguments = ["-c", "exec \(command) \"$@\"", "sh", bundle.artifact.path, "1", shape]
        process.arguments?.append(manifest.classes == nil ? "0" : "\(manifest.batch)")
        (process.standardInput, process.standardOutput) = (input, output)
        try process.run()
        child = (process, input.fileHandleForWriting, output.fileHandleForReading)
    }

    func load(_ bundle: ModelBundle) throws {
        guard try ask(Data("l".utf8), 1) == Data("r".utf8) else { throw Failure.answer }
    }

    func run(_ z: [Float], labels: [Int64]?) throws -> [Float] {
        var batch = Data("x".utf8)
        z.withUnsafeBytes { batch.append(contentsOf: $0) }
        labels?.withUnsafeBytes { batch.append(contentsOf: $0) }
        let x = try ask(batch, 4 * z.count)
        return x.withUnsafeBytes { bytes in
            (0..<z.count).map { bytes.loadUnaligned(fromByteOffset: 4 * $0, as: Float.self) }
        }
    }

    func close() {
        try? child?.input.close()
        child?.process.waitUntilExit()
        child = nil
    }

    private func ask(_ message: Data, _ count: Int) throws -> Data {
        guard let child else { throw Failure.ended }
        try child.input.write(contentsOf: message)
        var answer = Data()
        while answer.count < count {
            guard let part = try child.output.read(upToCount: count - answer.count), !part.isEmpty else {
                throw Failure.ended
            }
            answer += part
        }
        return answer
    }

    private enum Failure: String, Error, CustomStringConvertible {
        case answer = "the child process did not load the artifact"
        case ended = "the child process has ended"

        var description: String { rawValue }
    }
}

enum Fault: String { case none, `throw`, hang, crash, swap }

/// Another runtime with something planted that goes wrong.
final class FaultyRuntime: ModelRuntime {
    private let other: ModelRuntime
    private let fault: Fault
    private var runs = 0
    private var shape: [Int] = []

    init(_ other: ModelRuntime, _ fault: Fault) { (self.other, self.fault) = (other, fault) }

    var info: RuntimeInfo { other.info }

    func build(_ bundle: ModelBundle) throws {
        shape = bundle.manifest.shape
        try other.build(bundle)
    }

    func load(_ bundle: ModelBundle) throws { try other.load(bundle) }

    func run(_ z: [Float], labels: [Int64]?) throws -> [Float] {
        runs += 1
        switch fault {
        case .throw where runs == 3: throw Planted()
        case .hang where runs == 3: while true { sleep(60) }
        case .crash where runs == 3: abort()
        case .swap: return swapped(try other.run(z, labels: labels))
        default: return try other.run(z, labels: labels)
        }
    }

    func close() { other.close() }

    private func swapped(_ x: [Float]) -> [Float] {
        let (channels, pixels) = (shape[1], shape[2] * shape[3])
        return x.indices.map { i in
            let channel = i / pixels % channels
            return x[i + (channels - 1 - 2 * channel) * pixels]
        }
    }

    private struct Planted: Error, CustomStringConvertible { let description = "a planted fault" }
}
