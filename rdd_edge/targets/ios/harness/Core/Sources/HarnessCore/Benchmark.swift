import Foundation

/// Where a run takes place; only a device's time says something about devices.
public enum Place: String, Sendable { case device, simulator, host }

/// How to run, apart from the plan.
public struct Options: Equatable, Sendable {
    public var bundleSHA256: String?  // that manifest.json must have
    public var minPSNR: Double?  // least median of the self-test in dB; nil: it is reported only
    public var stallSeconds: Double  // after which a stage without progress is given up
    public var place: Place

    public init(
        bundleSHA256: String? = nil, minPSNR: Double? = nil, stallSeconds: Double = 600, place: Place = .device
    ) {
        (self.bundleSHA256, self.minPSNR) = (bundleSHA256, minPSNR)
        (self.stallSeconds, self.place) = (stallSeconds, place)
    }
}

/// How a run ended.
public enum Outcome: Sendable {
    case finished(folder: URL, bundle: ModelBundle, test: SelfTest, medianMs: Double)
    case failed(HarnessError, written: Bool)  // whether the out folder holds its error.json
}

/// One benchmark run of a bundle: hashes, self-tests, build, load, first inference, second load, warm-up, timed runs,
/// samples. `run` blocks: call it once, off the main thread. `cancel` may be called from any thread, and `progress` is
/// called from that of the runtime.
public final class Benchmark: @unchecked Sendable {  // `lock` guards what changes; the rest is the run's thread's
    private let runtime: ModelRuntime
    private let device: HarnessDevice
    private let options: Options
    private let progress: (_ stage: String, _ done: Int) -> Void

    private let lock = NSCondition()
    private var end: HarnessError?  // why the run ends early
    private var stage = "check"
    private var lastProgress = SuspendingClock.now
    private var result: Result<Outcome, Error>?

    public init(
        runtime: ModelRuntime, device: HarnessDevice, options: Options = Options(),
        progress: @escaping (_ stage: String, _ done: Int) -> Void = { _, _ in }
    ) {
        (self.runtime, self.device, self.options, self.progress) = (runtime, device, options, progress)
    }

    public func cancel() {
        lock.withLock { end = HarnessError(.device, "the run was cancelled in stage \(stage)") }
    }

    /// Runs the bundle by the plan in the file `plan`, or by its own where that is nil. `out` then holds the run, or
    /// error.json alone. A runtime that does not come back leaves its thread behind.
    public func run(bundle: URL, plan: URL?, out: URL) -> Outcome {
        lock.withLock { lastProgress = .now }
        let thread = Thread { [self] in
            let result = Result { try measure(bundle, plan, out) }
            lock.withLock {
                self.result = result
                lock.signal()
            }
        }
        thread.qualityOfService = .userInteractive  // else the system may choose its slower cores
        thread.start()
        do {
            return try awaited()
        } catch {
            let failure = error as? HarnessError ?? HarnessError(.device, "the harness failed: \(reason(error))")
            return .failed(failure, written: write(failure, out))
        }
    }

    private func awaited() throws -> Outcome {
        try lock.withLock {
            while true {
                if let result { return try result.get() }
                if lock.wait(until: Date(timeIntervalSinceNow: 0.05)) { continue }
                guard seconds(since: lastProgress) >= options.stallSeconds else { continue }
                let what = "there was no progress for \(options.stallSeconds) s in stage \(stage): it was given up"
                let error = HarnessError(.artifact, what)
                end = error
                throw error
            }
        }
    }

    private func write(_ error: HarnessError, _ out: URL) -> Bool {
        let document = JSON.object([
            "schema_version": .int(1), "kind": JSON(error.kind.rawValue), "sentence": JSON(error.sentence),
        ])
        do {
            try RunFolder(out).publish { try $0.write("error.json", document) }
            return true
        } catch {
            return false
        }
    }

    private func report(_ stage: String, _ done: Int) throws {
        try lock.withLock {
            (self.stage, lastProgress) = (stage, .now)
            if let end { throw end }
        }
        progress(stage, done)
    }

    private func measure(_ folder: URL, _ planFile: URL?, _ out: URL) throws -> Outcome {
        let started = ISO8601DateFormatter().string(from: Date())
        let bundle = try ModelBundle.read(folder, expected: options.bundleSHA256, report: report)
        let plan = try planFile.map { try Plan.read($0, limit: 1 << 16) } ?? bundle.manifest.defaultPlan
        let work = Work(runtime, bundle, plan, report)
        defer { runtime.close() }
        return try RunFolder(out).publish { run in
            let test = try work.prove(device, minPSNR: options.minPSNR)
            let measured = try work.measure(device, run)
            // What was measured is what was named.
            _ = try ModelBundle.read(folder, expected: bundle.sha256, report: report)
            try run.write("plan.json", plan.json)
            try run.write("selftest.json", test.json(threshold: options.minPSNR))
            try run.write("record.json", work.record(device.info(), measured, place: options.place, started: started))
            try report("publish", 0)
            return .finished(folder: out, bundle: bundle, test: test, medianMs: median(work.latencyMs))
        }
    }
}
