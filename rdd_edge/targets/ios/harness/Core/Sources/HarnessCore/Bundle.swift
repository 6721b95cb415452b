import CryptoKit
import Foundation

private let mostFiles = 100_000

/// A bundle whose files are those that its manifest names; `sha256`, of manifest.json, is its identity.
public final class ModelBundle: Sendable {
    public let folder: URL
    public let manifest: Manifest
    public let sha256: String

    public var artifact: URL { folder.appendingPathComponent(manifest.artifact) }

    private init(_ folder: URL, _ manifest: Manifest, _ sha256: String) {
        (self.folder, self.manifest, self.sha256) = (folder, manifest, sha256)
    }

    /// Reads a bundle and checks the hash of every file. `expected` is that of its manifest; `report` may throw to end
    /// it. Throws `HarnessError` where there is no bundle, or where a file is truncated, changed, a link, or foreign.
    public static func read(
        _ folder: URL, expected: String? = nil, report: (_ stage: String, _ done: Int) throws -> Void = { _, _ in }
    ) throws -> ModelBundle {
        let path = folder.appendingPathComponent(manifestName)
        guard FileManager.default.fileExists(atPath: path.path) else {
            throw HarnessError(.missing, "\(folder.path) is not a bundle: it has no \(manifestName)")
        }
        let data = try readFile(path, limit: 1 << 22)
        let manifest = try Manifest.read(data, path)
        try checkFiles(folder, manifest.files, report)
        let sha256 = hex(SHA256.hash(data: data))
        guard sha256 == expected ?? sha256 else {
            throw HarnessError.corrupt("\(folder.path) is another bundle than the one asked for: \(sha256)")
        }
        return ModelBundle(folder, manifest, sha256)
    }

    /// Whether the folder holds the files with these hashes, and no others.
    private static func checkFiles(
        _ folder: URL, _ hashes: [String: String], _ report: (_ stage: String, _ done: Int) throws -> Void
    ) throws {
        let found = try filesBelow(folder).subtracting([manifestName])
        for (i, (name, hash)) in hashes.sorted(by: { $0.key < $1.key }).enumerated() {
            try report("check", i)
            let file = folder.appendingPathComponent(name)
            guard found.contains(name) else { throw HarnessError.corrupt("\(file.path) is missing from the bundle") }
            guard try sha256Of(file) == hash else {
                throw HarnessError.corrupt("\(file.path) is not what its manifest names: its SHA-256 differs")
            }
        }
        if let name = found.filter({ hashes[$0] == nil && !isSystemFile($0) }).min() {
            let why = "the manifest does not list it; remove the file"
            throw HarnessError.corrupt("\(folder.path)/\(name) is foreign: \(why)")
        }
    }

    /// Size of the artifact, all its files together.
    var artifactBytes: Int64 {
        let names = manifest.files.keys.filter(manifest.isOfArtifact)
        return names.reduce(0) { $0 + (regularSize(folder.appendingPathComponent($1)) ?? 0) }
    }

    /// Inputs ("z.f32") or the student's images ("x.f32") of the parity check, N C H W.
    func parityFloats(_ name: String) throws -> [Float] {
        let bits: [UInt32] = try vector(name, manifest.paritySamples * manifest.imageSize)
        let values = bits.map { Float(bitPattern: $0) }
        guard values.allSatisfy(\.isFinite) else {
            throw HarnessError.corrupt("\(folder.path)/parity/\(name) has values that are not finite")
        }
        return values
    }

    func parityLabels() throws -> [Int64] { try vector("label.i64", manifest.paritySamples) }

    /// So many little-endian numbers.
    private func vector<T: FixedWidthInteger>(_ name: String, _ count: Int) throws -> [T] {
        let (file, size) = (folder.appendingPathComponent("parity/\(name)"), count * MemoryLayout<T>.size)
        let data = try readFile(file, limit: size)
        guard data.count == size else {
            throw HarnessError.corrupt("\(file.path) has not the \(manifest.paritySamples) samples of the manifest")
        }
        return data.withUnsafeBytes { bytes in
            stride(from: 0, to: size, by: MemoryLayout<T>.size).map {
                T(littleEndian: bytes.loadUnaligned(fromByteOffset: $0, as: T.self))
            }
        }
    }
}

/// All files below a folder by relative path; refuses links and what is neither a file nor a folder.
private func filesBelow(_ root: URL) throws -> Set<String> {
    var (files, folders, count) = (Set<String>(), [""], 0)
    while let folder = folders.popLast() {
        let names = try listed(root.appendingPathComponent(folder))
        count += names.count
        guard count <= mostFiles else { throw HarnessError.corrupt("\(root.path) holds more than \(mostFiles) files") }
        for path in names.map({ folder.isEmpty ? $0 : "\(folder)/\($0)" }) {
            let file = root.appendingPathComponent(path).path
            switch try? FileManager.default.attributesOfItem(atPath: file)[.type] as? FileAttributeType {
            case .typeRegular: files.insert(path)
            case .typeDirectory: folders.append(path)
            case .typeSymbolicLink: throw HarnessError.corrupt("\(file) is a symbolic link, and a bundle has none")
            default: throw HarnessError.corrupt("\(file) is neither a file nor a folder")
            }
        }
    }
    return files
}

private func listed(_ folder: URL) throws -> [String] {
    do {
        return try FileManager.default.contentsOfDirectory(atPath: folder.path)
    } catch {
        throw HarnessError(.missing, "cannot read \(folder.path): \(reason(error))")
    }
}

/// Whether a relative path is a file that a system or Python leaves behind, which is no part of a bundle.
private func isSystemFile(_ path: String) -> Bool {
    let parts = path.split(separator: "/")
    let name = parts.last ?? ""
    let isKnown = [".DS_Store", "Thumbs.db", "desktop.ini"].contains(name)
    return isKnown || name.hasPrefix("._") || parts.contains("__pycache__")
}

/// In pieces, since an artifact may be larger than the memory that an app may take.
private func sha256Of(_ file: URL) throws -> String {
    var (digest, buffer) = (SHA256(), [UInt8](repeating: 0, count: 1 << 16))
    guard let stream = InputStream(url: file) else { throw HarnessError(.missing, "cannot read \(file.path)") }
    stream.open()
    defer { stream.close() }
    while true {
        let count = stream.read(&buffer, maxLength: buffer.count)
        guard count >= 0 else { throw HarnessError(.missing, "cannot read \(file.path)") }
        if count == 0 { return hex(digest.finalize()) }
        buffer.withUnsafeBytes { digest.update(bufferPointer: UnsafeRawBufferPointer(rebasing: $0[..<count])) }
    }
}

/// The bytes of a digest in hexadecimal.
func hex<Bytes: Sequence>(_ bytes: Bytes) -> String where Bytes.Element == UInt8 {
    bytes.map { String(format: "%02x", $0) }.joined()
}
