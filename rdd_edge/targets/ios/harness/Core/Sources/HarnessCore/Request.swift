import Foundation

/// A run that a driver asks for by the launch arguments of the harness's README.
public struct Request: Equatable, Sendable {
    public let bundle: URL
    public let plan: URL?  // nil: the bundle's own
    public let out: URL
    public let options: Options

    public init(bundle: URL, plan: URL? = nil, out: URL, options: Options = Options()) {
        (self.bundle, self.plan, self.out, self.options) = (bundle, plan, out, options)
    }

    /// Reads the arguments, whose paths are below `root`; nil where none names a bundle. Throws `HarnessError` for a
    /// path that leads out of `root` and for a number that is none.
    ///
    /// What does not begin with two dashes is the system's, such as the app's own path and what Xcode adds.
    public init?(arguments: [String], root: URL, place: Place) throws {
        guard arguments.contains("--bundle") else { return nil }
        let values = try Self.values(arguments)
        let (bundle, out) = (try Self.path("--bundle", values, root), try Self.path("--out", values, root))
        guard let bundle, let out else { throw HarnessError(.usage, "there is no argument --out") }
        var options = Options(bundleSHA256: values["--bundle-sha256"], place: place)
        options.minPSNR = try Self.number("--min-psnr-db", values)
        options.stallSeconds = try Self.number("--stall-seconds", values) ?? options.stallSeconds
        self.init(bundle: bundle, plan: try Self.path("--plan", values, root), out: out, options: options)
    }

    /// Removes what earlier calls left in the driver's folder below `root`: a driver can copy files there, and remove none.
    public func removeLeftovers(root: URL) {
        let folder = root.appendingPathComponent("driver", isDirectory: true)
        let used = [bundle, plan, out].map { $0?.lastPathComponent }
        let names = (try? FileManager.default.contentsOfDirectory(atPath: folder.path)) ?? []
        for name in names where !used.contains(name) {
            try? FileManager.default.removeItem(at: folder.appendingPathComponent(name))
        }
    }

    private static func values(_ arguments: [String]) throws -> [String: String] {
        let known = ["--bundle", "--bundle-sha256", "--plan", "--out", "--min-psnr-db", "--stall-seconds"]
        var values: [String: String] = [:]
        for (i, name) in arguments.enumerated() where name.hasPrefix("--") {
            guard known.contains(name) else { throw HarnessError(.usage, "there is no argument \(name)") }
            guard let value = arguments.dropFirst(i + 1).first, !value.hasPrefix("--") else {
                throw HarnessError(.usage, "\(name) has no value")
            }
            guard values.updateValue(value, forKey: name) == nil else {
                throw HarnessError(.usage, "\(name) is given twice")
            }
        }
        return values
    }

    /// A path below `root` that no link leads out of.
    private static func path(_ name: String, _ values: [String: String], _ root: URL) throws -> URL? {
        guard let path = values[name] else { return nil }
        guard isInside(path) else { throw HarnessError(.usage, "\(name) is not a path below \(root.path)") }
        return try path.split(separator: "/").reduce(root) { folder, part in
            let file = folder.appendingPathComponent(String(part))
            guard (try? FileManager.default.destinationOfSymbolicLink(atPath: file.path)) == nil else {
                throw HarnessError(.usage, "\(name) leads through a symbolic link")
            }
            return file
        }
    }

    private static func number(_ name: String, _ values: [String: String]) throws -> Double? {
        guard let text = values[name] else { return nil }
        guard let number = Double(text), number.isFinite, number > 0 else {
            throw HarnessError(.usage, "\(name) is not a positive number")
        }
        return number
    }
}

/// The lines by which a driver follows a run on standard output, each with a prefix that tells it from the system's: at
/// most two a second and one at each new stage, then how the run ended. `write` is called with a line without its end.
public final class ProgressLines: @unchecked Sendable {  // `lock` guards what changes
    private let write: (String) -> Void
    private let lock = NSLock()
    private var stage = ""
    private var lastLine = SuspendingClock.now

    public init(write: @escaping (String) -> Void) { self.write = write }

    public func progress(_ stage: String, _ done: Int) {
        lock.withLock {
            guard stage != self.stage || done == 0 || seconds(since: lastLine) >= 0.5 else { return }
            (self.stage, lastLine) = (stage, .now)
            line("\(stage) \(done)")
        }
    }

    public func ended(_ outcome: Outcome) {
        switch outcome {
        case .finished(_, _, let test, let medianMs):
            let words = String(format: "done %.3f ms median, %.1f dB from the student", medianMs, test.psnrDb)
            lock.withLock { line(words) }
        case .failed(let error, _): failed(error)
        }
    }

    public func failed(_ error: HarnessError) {
        lock.withLock { line("error \(error.kind.rawValue) \(error.sentence)") }
    }

    private func line(_ text: String) { write("rdd-edge: \(text)") }
}
