import HarnessFakes
import XCTest

@testable import HarnessCore

/// Whole runs with a runtime that computes tanh, and the ways in which they fail.
final class BenchmarkTests: FolderCase {
    private var out: URL { below("out") }

    private func content(_ name: String) throws -> Data { try Data(contentsOf: out.appendingPathComponent(name)) }

    private func document(_ name: String) throws -> Object { object(try content(name)) }

    private func run(
        _ bundle: URL, _ runtime: ModelRuntime = TanhRuntime(), device: FakeDevice = FakeDevice(),
        options: Options = Options(), plan: Object? = nil, progress: @escaping (String, Int) -> Void = { _, _ in }
    ) throws -> Outcome {
        let benchmark = Benchmark(runtime: runtime, device: device, options: options, progress: progress)
        return benchmark.run(bundle: bundle, plan: try plan.map(planFile), out: out)
    }

    @discardableResult
    private func finished(_ outcome: Outcome) throws -> (test: SelfTest, medianMs: Double) {
        guard case .finished(_, _, let test, let medianMs) = outcome else {
            XCTFail("\(outcome)")
            throw XCTSkip("the run failed")
        }
        return (test, medianMs)
    }

    /// The error of a failed run, which is all that its out folder holds.
    @discardableResult
    private func failed(_ outcome: Outcome, at folder: URL? = nil) throws -> HarnessError {
        guard case .failed(let error, let written) = outcome else {
            XCTFail("\(outcome)")
            throw XCTSkip("the run did not fail")
        }
        XCTAssert(written, error.sentence)
        XCTAssertEqual(try files.contentsOfDirectory(atPath: (folder ?? out).path), ["error.json"])
        let file = object(try Data(contentsOf: (folder ?? out).appendingPathComponent("error.json")))
        XCTAssertEqual(Set(file.keys), ["schema_version", "kind", "sentence"])
        XCTAssertEqual(file["kind"] as? String, error.kind.rawValue)
        XCTAssertEqual(file["sentence"] as? String, error.sentence)
        XCTAssertEqual(leftovers(), [])
        return error
    }

    private func leftovers() -> [String] {
        try! files.contentsOfDirectory(atPath: temporary.path).filter { $0.hasPrefix(".out") }
    }

    func testTheWorkIsDoneInOrderAndToldOf() throws {
        let (runtime, told) = (TanhRuntime(), Box<[String]>([]))
        let found = try finished(run(bundle(), runtime) { stage, done in told.value.append("\(stage) \(done)") })
        let runs = { (count: Int) in [String](repeating: "run", count: count) }
        let proof = ["build", "load"] + runs(1 + 5)
        XCTAssertEqual(runtime.calls, proof + ["load"] + runs(2 + 6 + 11) + ["close"])
        let stages = told.value.map { $0.split(separator: " ")[0] }
        let order = stages.reduce(into: [Substring]()) { if $0.last != $1 { $0.append($1) } }
        let expected = "check verify build load first verify load warmup time samples check publish"
        XCTAssertEqual(order.joined(separator: " "), expected)
        XCTAssertEqual(told.value.last { $0.hasPrefix("verify") }, "verify 5")
        XCTAssertEqual(found.test, SelfTest(noiseMaxDifference: 0, psnrDb: 200, worstPsnrDb: 200, samples: 5))
        let names = Set(try files.contentsOfDirectory(atPath: out.path))
        XCTAssertEqual(names, ["plan.json", "record.json", "samples.f32", "samples.u8", "selftest.json"])
        XCTAssertEqual(leftovers(), [])
    }

    func testTheRecordHoldsRawFactsAndAReasonForEachNull() throws {
        let folder = try bundle(batch: 2, classes: 10)
        let found = try finished(run(folder))
        let record = try document("record.json")
        let manifest = try Data(contentsOf: folder.appendingPathComponent("manifest.json"))
        XCTAssertEqual(record["bundle_sha256"] as? String, sha256(manifest))
        let numbers = ["batch", "artifact_bytes", "baseline_memory_bytes", "peak_memory_bytes", "starts"]
        XCTAssertEqual(numbers.map { record[$0] as? Int }, [2, 6, 50_000_000, 123_456_789, 1])
        XCTAssertEqual(record["where"] as? String, "device")
        let latency = record["latency_ms"] as! [Double]
        XCTAssertEqual(latency.count, 6)
        XCTAssertEqual(latency.sorted().dropFirst(2).prefix(2).reduce(0, +) / 2, found.medianMs)
        for name in ["build_ms", "load_ms", "second_load_ms", "first_inference_ms"] {
            XCTAssertGreaterThan(record[name] as! Double, 0, name)
        }
        let started = record["started_at"] as! String
        XCTAssert(matches(started, "\\d{4}-\\d\\d-\\d\\dT\\d\\d:\\d\\d:\\d\\dZ"), started)
        let nulls = Set(record.filter { $0.value is NSNull && $0.key != "checkpoint" }.keys)
        XCTAssertEqual(nulls, ["threads", "transfers", "operators", "clocks_locked", "power_mode", "compiled_before"])
        let states = ["temperature_c", "clock_mhz", "gpu_clock_mhz", "gpu_load", "power_w", "thermal_headroom"]
        let missing = record["missing"] as! [String: String]
        XCTAssertEqual(Set(missing.keys), nulls.union(states.map { "conditions.\($0)" }))
        XCTAssertEqual(missing["compiled_before"], "Core ML does not report whether its cache had the compiled model")
        let conditions = record["conditions"] as! [Object]
        XCTAssertEqual(conditions.map { $0["when"] as! String }, ["before", "during", "after"])
        XCTAssertEqual(conditions[0]["thermal_state"] as? String, "nominal")
        XCTAssertEqual(conditions[0]["battery_level"] as? Double, 0.8)
        let flags = ["throttled", "charging", "foreground"].map { conditions[0][$0] as? Bool }
        XCTAssertEqual(flags, [false, false, true])
        XCTAssertEqual(NSDictionary(dictionary: try document("plan.json")), NSDictionary(dictionary: plan()))
    }

    func testAChangeOfTheThermalStateIsRecordedWithTheRunsBeforeIt() throws {
        let asked = Box(0)
        let device = FakeDevice {
            asked.value += 1
            return asked.value == 1 ? "nominal" : "serious"
        }
        let slow = TanhRuntime { _ in usleep(10_000) }
        try finished(run(bundle(), slow, device: device, plan: plan(seconds: 1.3)))
        let changes = try document("record.json")["thermal_changes"] as! [Object]
        XCTAssertEqual(changes.map { $0["state"] as! String }, ["nominal", "serious"])
        XCTAssertEqual(asked.value, 2)  // once a second
        let runs = changes.map { $0["run"] as! Int }
        XCTAssertEqual(runs.first, 0)
        let count = (try document("record.json")["latency_ms"] as! [Any]).count
        XCTAssert((1...count).contains(runs.last ?? 0))
    }

    func testTheSamplesAreThoseOfThePlansNoiseInNHWCOrder() throws {
        try finished(run(bundle(batch: 4, classes: 3)))
        let expected = (0..<11).flatMap { sample in
            let z = PortableNoise.normals(seed: planSeed, index: UInt64(sample), size: 72)
            let x = tanhImages(z, [Int64(sample % 3)])
            return (0..<72).map { x[$0 % 3 * 24 + $0 / 3] }
        }
        let samples = try document("record.json")["samples"] as! Object
        let (u8, f32) = (try content("samples.u8"), try content("samples.f32"))
        XCTAssertEqual(u8, Data(expected.map(PortableNoise.toUInt8)))
        XCTAssertEqual(f32, bytes(Array(expected.prefix(4 * 72))))
        XCTAssertEqual(samples["u8_sha256"] as? String, sha256(u8))
        XCTAssertEqual(samples["f32_sha256"] as? String, sha256(f32))
        let numbers = ["count", "height", "width", "channels", "floats"].map { samples[$0] as? Int }
        XCTAssertEqual(numbers, [11, 4, 6, 3, 4])
        XCTAssertEqual((samples["seed"] as? NSNumber)?.uint64Value, planSeed)
    }

    func testTheLastBatchIsFilledUpWithItsLastSample() throws {
        final class Watched: TanhRuntime {
            var seen: [[Int64]] = []

            override func run(_ z: [Float], labels: [Int64]?) throws -> [Float] {
                seen.append(labels ?? [])
                return try super.run(z, labels: labels)
            }
        }
        let runtime = Watched()
        try finished(run(bundle(batch: 4, classes: 3), runtime))
        XCTAssertEqual(Array(runtime.seen.prefix(3)), [[0, 1, 2, 0], [0, 1, 2, 0], [1, 1, 1, 1]])  // 5 parity images
        XCTAssertEqual(runtime.seen.last, [2, 0, 1, 1])  // 11 samples
    }

    func testItRunsAtLeastAsManyTimesAndAsLongAsThePlanSays() throws {
        try finished(run(bundle(), TanhRuntime { _ in usleep(10_000) }, plan: plan(runs: 3, samples: 0, seconds: 0.3)))
        let record = try document("record.json")
        let latency = record["latency_ms"] as! [Double]
        XCTAssert((4...30).contains(latency.count), "\(latency.count)")
        XCTAssert(latency.allSatisfy { $0 >= 10 && $0 < 300 }, "\(latency)")  // in milliseconds
        XCTAssertEqual((record["missing"] as! Object)["samples"] as? String, "the plan has no samples")
        XCTAssertFalse(files.fileExists(atPath: out.appendingPathComponent("samples.u8").path))
    }

    func testWhatTheSystemDoesNotTellIsNullAndWhatIsImplausibleIsDropped() throws {
        let silent = FakeDevice(Condition(batteryLevel: -1), heat: { nil })
        try finished(run(bundle(), device: silent, plan: plan(floats: 0)))
        let record = try document("record.json")
        for name in ["conditions", "peak_memory_bytes", "baseline_memory_bytes"] {
            XCTAssert(record[name] is NSNull, name)
            XCTAssertEqual((record["missing"] as! Object)[name] as? String, "the system does not report it")
        }
        XCTAssertEqual((record["thermal_changes"] as! [Any]).count, 0)
        XCTAssertFalse(files.fileExists(atPath: out.appendingPathComponent("samples.f32").path))
    }

    func testADeviceThatComputesSomethingElseIsRefusedBelowTheThresholdAndReportedAbove() throws {
        /// The channels in reverse order, as of a wrong layout.
        final class Swapped: TanhRuntime {
            override func run(_ z: [Float], labels: [Int64]?) throws -> [Float] {
                let x = try super.run(z, labels: labels)
                return Array(x[48...] + x[24..<48] + x[..<24])
            }
        }
        let error = try failed(run(bundle(), Swapped(), options: Options(minPSNR: 80)))
        XCTAssertEqual(error.kind, .threshold)
        let words = "dB from the student on this device, and 80.0 dB are required"
        XCTAssert(error.sentence.hasSuffix(words), error.sentence)
        let test = try finished(run(bundle(), Swapped())).test
        XCTAssert((0...20).contains(test.psnrDb), "\(test)")
        XCTAssertEqual(try document("selftest.json")["psnr_db"] as? Double, test.psnrDb)
        XCTAssert(try document("selftest.json")["threshold_db"] is NSNull)
    }

    func testOtherNoiseOrLabelsThanTheBundlesAreAnError() throws {
        let folder = try bundle(classes: 4)
        for (name, at) in [("parity/z.f32", 42), ("parity/label.i64", 8)] {
            let file = folder.appendingPathComponent(name)
            let good = try Data(contentsOf: file)
            var bad = good
            bad[at] = bad[at] &+ 64
            try bad.write(to: file)
            try rehash(folder, name)
            let error = try failed(run(folder))
            XCTAssertEqual(error.kind, .artifact)
            XCTAssert(error.sentence.contains("made here differ") && error.sentence.contains(name), error.sentence)
            try good.write(to: file)
            try rehash(folder, name)
        }
        try finished(run(folder))
    }

    func testADeviceThatComputesOtherGoldenVectorsIsNotRunAndTheVectorIsNamed() throws {
        for (name, from, to) in [
            ("words", "1713891541", "1713891542"), ("labels", "\"label\":5", "\"label\":6"),
            ("rounding", "\"pixel\":255", "\"pixel\":254"), ("normals", "\"z\":[", "\"z\":[9.5,"),
        ] {
            let (runtime, folder) = (TanhRuntime(), try bundle())
            let file = folder.appendingPathComponent("contract/\(name).json")
            let text = try String(contentsOf: file, encoding: .utf8)
            XCTAssert(text.contains(from), name)
            try Data(text.replacingOccurrences(of: from, with: to).utf8).write(to: file)
            try rehash(folder, "contract/\(name).json")
            let error = try failed(run(folder, runtime))
            XCTAssertEqual(error.kind, .artifact)
            let expected = "this device computes other \(name) than contract/\(name).json, case "
            XCTAssert(error.sentence.hasPrefix("fakert 7.0 was not run: \(expected)"), error.sentence)
            XCTAssertEqual(runtime.calls, ["close"])
        }
        let folder = try bundle()
        try Data("{\"cases\":[{\"index\":\"5\",\"classes\":0,\"label\":0}]}".utf8)
            .write(to: folder.appendingPathComponent("contract/labels.json"))
        try rehash(folder, "contract/labels.json")
        XCTAssert(try failed(run(folder)).sentence.contains("other labels"))
    }

    private func rehash(_ folder: URL, _ name: String) throws {
        let file = folder.appendingPathComponent("manifest.json")
        var manifest = object(try Data(contentsOf: file))
        var hashes = manifest["files"] as! Object
        hashes[name] = sha256(try Data(contentsOf: folder.appendingPathComponent(name)))
        manifest["files"] = hashes
        try data(manifest).write(to: file)
    }

    func testARuntimeThatThrowsInTheThirdTimedRunIsNamed() throws {
        struct Silent: Error {}
        let text = "arena\u{1b}[2J too small\nat frame 1"
        let thrown: [(Error, String)] = [
            (NSError(domain: "x", code: 1, userInfo: [NSLocalizedDescriptionKey: text]), "arena?[2J too small"),
            (Silent(), "Silent()"), (POSIXError(.ENOMEM), "Cannot allocate memory"),
            (HarnessError(kind: .device, sentence: "too old"), "too old"),
        ]
        for (error, words) in thrown {
            let runtime = TanhRuntime { if $0 == 5 + 1 + 2 + 3 { throw error } }
            let found = try failed(run(bundle(), runtime))
            XCTAssertEqual(found.kind, .artifact)
            let artifact = below("bundle/model.mlpackage").path
            XCTAssertEqual(found.sentence, "fakert 7.0 cannot run \(artifact): \(words)")
            XCTAssertEqual(runtime.calls.last, "close")
        }
    }

    func testABuildOrALoadThatFailsIsNamed() throws {
        final class Unfit: TanhRuntime {
            override func build(_ bundle: ModelBundle) throws { throw HarnessError(kind: .device, sentence: "too old") }
        }
        XCTAssert(try failed(run(bundle(), Unfit())).sentence.hasPrefix("fakert 7.0 cannot build "))
    }

    func testABundleForAnotherBackendIsRefusedBeforeItIsBuilt() throws {
        let runtime = TanhRuntime()
        let folder = try bundle { manifest in
            var needs = manifest["needs"] as! Object
            needs["backend"] = "xnnpack"
            manifest["needs"] = needs
        }
        let error = try failed(run(folder, runtime))
        XCTAssertEqual(error.sentence, "fakert 7.0 has not the backend xnnpack, which the bundle is for")
        XCTAssertEqual(runtime.calls, ["close"])
        runtime.info = RuntimeInfo(name: "xnnpack", version: "1", backend: nil)
        try finished(run(folder, runtime))
    }

    func testAVeryFastRuntimeDoesNotMakeARecordThatNoReaderTakes() throws {
        final class Instant: TanhRuntime {
            override func run(_ z: [Float], labels: [Int64]?) throws -> [Float] { z }
        }
        try finished(run(bundle(), Instant(), plan: plan(samples: 0, seconds: 3600)))
        XCTAssertEqual((try document("record.json")["latency_ms"] as? [Any])?.count, 1_000_000)
    }

    func testOutputsThatAreNoImagesAreRefused() throws {
        final class Wrong: TanhRuntime {
            var (change, runs): ((inout [Float]) -> Void, Int) = ({ _ in }, 0)

            override func run(_ z: [Float], labels: [Int64]?) throws -> [Float] {
                var x = try super.run(z, labels: labels)
                runs += 1
                if runs == 5 { change(&x) }  // the first inference is no image of the self-test
                return x
            }
        }
        let changes: [(String, (inout [Float]) -> Void)] = [
            ("not finite, first in image 3", { $0[7] = .nan }), ("not finite, first in image 3", { $0[7] = .infinity }),
            ("gave 71 values, not 72", { $0.removeLast() }), ("gave 73 values, not 72", { $0.append(0) }),
            ("gave 0 values, not 72", { $0 = [] }),
        ]
        for (words, change) in changes {
            let runtime = Wrong()
            runtime.change = change
            XCTAssert(try failed(run(bundle(), runtime)).sentence.contains(words), words)
        }
    }

    func testARuntimeThatIsStuckIsGivenUpAndChangesNothingLater() throws {
        let release = DispatchSemaphore(value: 0)
        let runtime = TanhRuntime { if $0 == 10 { release.wait() } }
        let begin = SuspendingClock.now
        let error = try failed(run(bundle(), runtime, options: Options(stallSeconds: 1)))
        XCTAssert((1..<4).contains(seconds(since: begin)))
        XCTAssertEqual(error.kind, .artifact)
        XCTAssertEqual(error.sentence, "there was no progress for 1.0 s in stage time: it was given up")
        release.signal()
        while runtime.calls.last != "close" { usleep(10_000) }
        usleep(100_000)
        try failed(.failed(error, written: true))  // the folder is what it was
    }

    func testARunCanBeCancelledFromWithinAndFromAnotherThread() throws {
        let own = Box<Benchmark?>(nil)
        own.value = Benchmark(runtime: TanhRuntime(), device: FakeDevice()) { stage, _ in
            if stage == "samples" { own.value?.cancel() }
        }
        let error = try failed(own.value!.run(bundle: bundle(), plan: nil, out: out))
        XCTAssertEqual(error, HarnessError(kind: .device, sentence: "the run was cancelled in stage samples"))
        let started = DispatchSemaphore(value: 0)
        let endless = Benchmark(runtime: TanhRuntime { if $0 == 20 { started.signal() } }, device: FakeDevice())
        Thread {
            started.wait()
            endless.cancel()
        }.start()
        let plan = try planFile(plan(runs: 10_000_000))
        XCTAssert(try failed(endless.run(bundle: bundle(), plan: plan, out: out)).sentence.hasSuffix("in stage time"))
    }

    func testABundleThatChangesWhileItIsMeasuredOrIsAnotherIsRefused() throws {
        let folder = try bundle()
        let file = folder.appendingPathComponent("model.mlpackage/Data/weight.bin")
        let meddler = TanhRuntime { if $0 == 12 { try Data("mine".utf8).write(to: file) } }
        XCTAssert(try failed(run(folder, meddler)).sentence.contains("SHA-256 differs"))
        let other = Options(bundleSHA256: String(repeating: "0", count: 64))
        let error = try failed(run(bundle(), options: other))
        XCTAssertEqual(error.kind, .corrupt)
        XCTAssert(error.sentence.contains("another bundle"), error.sentence)
    }

    func testARunTakesThePlaceOfAnEarlierOneAndOfNothingElse() throws {
        XCTAssertEqual(try failed(run(below("nothing"))).kind, .missing)
        let killed = below(".out.0123abcd")  // what a run left that was killed
        try files.createDirectory(at: killed, withIntermediateDirectories: true)
        try finished(run(bundle()))
        try finished(run(bundle()))
        XCTAssertEqual(leftovers(), [])
        for inside in ["photos", ""] {  // a folder, then a file
            try files.removeItem(at: out)
            if inside.isEmpty {
                try Data("x".utf8).write(to: out)
            } else {
                try files.createDirectory(at: out.appendingPathComponent(inside), withIntermediateDirectories: true)
            }
            let before = everything()
            guard case .failed(let error, let written) = try run(bundle()) else { return XCTFail("it was replaced") }
            XCTAssertEqual(error.kind, .usage)
            XCTAssertFalse(written)
            XCTAssertEqual(before, everything())
        }
    }

    func testAFolderThatWasNotFinishedIsRemovedAndAnEarlierRunStays() throws {
        try finished(run(bundle()))
        let before = everything()
        XCTAssertThrowsError(
            try RunFolder(out).publish { folder in
                try folder.write("record.json", .null)
                throw HarnessError(kind: .device, sentence: "no more")
            })
        XCTAssertEqual(everything(), before)
    }

    func testAPlanThatIsWrongIsAnErrorBeforeTheRuntimeIsAsked() throws {
        let runtime = TanhRuntime()
        XCTAssertEqual(try failed(run(bundle(), runtime, plan: ["threads": 0])).kind, .corrupt)
        XCTAssertEqual(runtime.calls, [])
    }

    func testAPlaceThatCannotBeWrittenIsASentence() throws {
        try Data("x".utf8).write(to: below("file"))
        let benchmark = Benchmark(runtime: TanhRuntime(), device: FakeDevice())
        let outcome = benchmark.run(bundle: try bundle(), plan: nil, out: below("file/run"))
        guard case .failed(let error, let written) = outcome else { return XCTFail("\(outcome)") }
        XCTAssertEqual(error.kind, .storage)
        XCTAssertFalse(written)
        XCTAssert(error.sentence.hasPrefix("cannot write \(below("file/run").path): "), error.sentence)
    }

    func testAFullDiskIsASentenceAndItsErrorFitsOnceTheSamplesAreGone() throws {
        let disk = below("disk")
        try files.createDirectory(at: disk, withIntermediateDirectories: true)
        guard shell("mount -t tmpfs -o size=64k tmpfs \(disk.path)") else { throw XCTSkip("mounting takes root") }
        defer { XCTAssert(shell("umount \(disk.path)")) }
        let benchmark = Benchmark(runtime: TanhRuntime(), device: FakeDevice())
        let run = disk.appendingPathComponent("out")
        let outcome = benchmark.run(bundle: try bundle(), plan: try planFile(plan(samples: 2000)), out: run)
        let error = try failed(outcome, at: run)
        XCTAssertEqual(error, HarnessError(kind: .storage, sentence: "the disk is full: \(run.path) was not written"))
        XCTAssertEqual(try files.contentsOfDirectory(atPath: disk.path), ["out"])
    }

    private func shell(_ command: String) -> Bool {
        let process = Process()
        process.executableURL = URL(fileURLWithPath: "/bin/sh")
        process.arguments = ["-c", "\(command) 2>/dev/null"]
        try? process.run()
        process.waitUntilExit()
        return process.terminationStatus == 0
    }

    func testARecordsTextIsPrintableWhateverTheSystemSays() throws {
        let runtime = TanhRuntime()
        runtime.info = RuntimeInfo(name: "evil\u{1b}[2J", version: "\u{202e}7\n", backend: "coreml")
        try finished(run(bundle(), runtime))
        var texts: [String] = []
        func collect(_ value: Any) {
            if let text = value as? String { texts.append(text) }
            (value as? [Any])?.forEach(collect)
            (value as? Object)?.values.forEach(collect)
        }
        collect(try document("record.json"))
        XCTAssert(texts.contains("evil?[2J"))
        for text in texts { XCTAssert(isPrintable(text), text) }
    }
}

/// A value that a closure changes on another thread.
final class Box<Value>: @unchecked Sendable {
    var value: Value

    init(_ value: Value) { self.value = value }
}
