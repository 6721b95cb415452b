import Foundation

/// A folder written beside `out` that takes its place in one step, so that `out` is there whole or not at all.
final class RunFolder {
    private let out: URL
    private let beside: URL
    private let files = FileManager.default

    /// Throws `HarnessError` where `out` is something else than a run, or cannot be written.
    init(_ out: URL) throws {
        self.out = out.standardizedFileURL
        let (parent, prefix) = (self.out.deletingLastPathComponent(), ".\(self.out.lastPathComponent).")
        beside = parent.appendingPathComponent(prefix + UUID().uuidString.lowercased().prefix(8))
        let names = try? files.contentsOfDirectory(atPath: out.path)
        let isOurs = names.map { $0.isEmpty || $0.contains("record.json") || $0.contains("error.json") }
        guard isOurs ?? !files.fileExists(atPath: out.path) else {
            throw HarnessError(.usage, "\(out.path) exists and is not a benchmark run: choose another folder")
        }
        for name in (try? files.contentsOfDirectory(atPath: parent.path)) ?? []
        where name.hasPrefix(prefix) && matches(String(name.dropFirst(prefix.count)), "[0-9a-f]{8}") {
            try? files.removeItem(at: parent.appendingPathComponent(name))  // of a run that was killed
        }
        try stored { try files.createDirectory(at: beside, withIntermediateDirectories: true) }
    }

    func write(_ name: String, _ document: JSON) throws {
        let data = try document.data()
        try write(name) { try $0.write(contentsOf: data) }
    }

    /// Writes a file and waits until it is on the disk. Throws `HarnessError` where that fails.
    func write(_ name: String, _ content: (FileHandle) throws -> Void) throws {
        let file = beside.appendingPathComponent(name)
        try stored {
            try Data().write(to: file)
            let handle = try FileHandle(forWritingTo: file)
            defer { try? handle.close() }
            try content(handle)
            try handle.synchronize()
        }
    }

    func delete(_ name: String) {
        try? files.removeItem(at: beside.appendingPathComponent(name))
    }

    /// Lets `fill` write the folder and puts it in place of an earlier run, or leaves that run where it fails.
    func publish<Result>(_ fill: (RunFolder) throws -> Result) throws -> Result {
        defer { try? files.removeItem(at: beside) }
        let result = try fill(self)
        try stored {
            if files.fileExists(atPath: out.path) { try files.removeItem(at: out) }
            try files.moveItem(at: beside, to: out)
        }
        return result
    }

    private func stored(_ action: () throws -> Void) throws {
        do {
            try action()
        } catch let error as HarnessError {
            throw error
        } catch {
            let isFull = systemNumber(error) == ENOSPC || (error as? CocoaError)?.code == .fileWriteOutOfSpace
            let why = "cannot write \(out.path): \(reason(error))"
            throw HarnessError(.storage, isFull ? "the disk is full: \(out.path) was not written" : why)
        }
    }
}
