import XCTest

@testable import HarnessCore

/// Launch arguments and the lines of progress.
final class RequestTests: FolderCase {
    private func request(_ arguments: String...) throws -> Request? {
        try Request(arguments: ["/private/app/Harness"] + arguments, root: temporary, place: .device)
    }

    private func refused(_ arguments: String...) -> String {
        do {
            _ = try Request(arguments: arguments, root: temporary, place: .device)
        } catch let error as HarnessError {
            XCTAssertEqual(error.kind, .usage)
            return error.sentence
        } catch {}
        XCTFail("\(arguments) were taken")
        return ""
    }

    func testARunIsWhatItsArgumentsSay() throws {
        let hash = String(repeating: "a", count: 64)
        let full = try request(
            "--bundle", "driver/bundle", "--bundle-sha256", hash, "--plan", "driver/plan.json", "--out",
            "driver/run-0123456789abcdef", "--min-psnr-db", "44.5", "--stall-seconds", "90")
        let options = Options(bundleSHA256: hash, minPSNR: 44.5, stallSeconds: 90, place: .device)
        XCTAssertEqual(full?.bundle.path, below("driver/bundle").path)
        XCTAssertEqual(full?.plan?.path, below("driver/plan.json").path)
        XCTAssertEqual(full?.out.path, below("driver/run-0123456789abcdef").path)
        XCTAssertEqual(full?.options, options)
        let least = try request("-NSDocumentRevisionsDebugMode", "YES", "--bundle", "b", "--out", "o")
        XCTAssertNil(least?.plan)
        XCTAssertEqual(least?.options, Options())
        XCTAssertNil(try request())
        XCTAssertNil(try request("-NSDocumentRevisionsDebugMode", "YES"))
    }

    func testAPathThatLeadsOutIsRefused() throws {
        for path in ["../b", "/etc", "a/../../b", "", ".", "a//b", "driver/"] {
            XCTAssert(refused("--bundle", path, "--out", "o").hasPrefix("--bundle is not a path below "), path)
            XCTAssert(refused("--bundle", "b", "--out", path).hasPrefix("--out is not a path below "), path)
            XCTAssert(refused("--bundle", "b", "--out", "o", "--plan", path).hasPrefix("--plan is not a path"), path)
        }
        for target in ["/etc", "nowhere"] {
            try files.createSymbolicLink(atPath: below("link").path, withDestinationPath: target)
            XCTAssertEqual(refused("--bundle", "link/b", "--out", "o"), "--bundle leads through a symbolic link")
            XCTAssertEqual(refused("--bundle", "b", "--out", "link"), "--out leads through a symbolic link")
            try files.removeItem(at: below("link"))
        }
    }

    func testArgumentsThatAreNoneAreRefused() {
        XCTAssertEqual(refused("--bundle", "b"), "there is no argument --out")
        XCTAssertEqual(refused("--bundle"), "--bundle has no value")
        XCTAssertEqual(refused("--bundle", "--out", "o"), "--bundle has no value")
        XCTAssertEqual(refused("--bundle", "b", "--out", "o", "--out", "p"), "--out is given twice")
        XCTAssertEqual(refused("--bundle", "b", "--out", "o", "--fast", "1"), "there is no argument --fast")
        for name in ["--min-psnr-db", "--stall-seconds"] {
            for text in ["x", "0", "-1", "nan", "inf", "1e999", ""] {
                XCTAssertEqual(refused("--bundle", "b", "--out", "o", name, text), "\(name) is not a positive number")
            }
        }
    }

    func testWhatEarlierCallsOfADriverLeftIsRemovedAndNothingElse() throws {
        let own = ["driver/bundle-1", "driver/plan-1.json", "driver/run-1"]
        let others = ["driver/bundle-0", "driver/plan-0.json", "driver/run-0"]
        for name in own + others + ["bundles/b", "runs/r"] {
            try files.createDirectory(at: below(name), withIntermediateDirectories: true)
        }
        try request("--bundle", own[0], "--plan", own[1], "--out", own[2])?.removeLeftovers(root: temporary)
        for name in others { XCTAssertFalse(files.fileExists(atPath: below(name).path), name) }
        for name in own + ["bundles/b", "runs/r"] { XCTAssert(files.fileExists(atPath: below(name).path), name) }
    }

    func testLinesAreOneAtEachStageAndFewBetween() throws {
        let written = Box<[String]>([])
        let lines = ProgressLines { written.value.append($0) }
        for done in 0..<1000 { lines.progress("check", done) }
        lines.progress("verify", 0)
        lines.progress("load", 1)
        lines.progress("load", 2)
        usleep(510_000)
        lines.progress("load", 3)
        lines.progress("load", 0)
        let expected = ["check 0", "verify 0", "load 1", "load 3", "load 0"]
        XCTAssertEqual(written.value, expected.map { "rdd-edge: \($0)" })
    }

    func testTheLastLineSaysHowARunEnded() throws {
        let written = Box<[String]>([])
        let lines = ProgressLines { written.value.append($0) }
        let test = SelfTest(noiseMaxDifference: 0, psnrDb: 61.25, worstPsnrDb: 50, samples: 5)
        let bundle = try ModelBundle.read(bundle())
        lines.ended(.finished(folder: temporary, bundle: bundle, test: test, medianMs: 12.3456))
        lines.ended(.failed(HarnessError(kind: .corrupt, sentence: "two\nlines"), written: true))
        lines.failed(HarnessError(kind: .usage, sentence: "no"))
        XCTAssertEqual(
            written.value,
            [
                "rdd-edge: done 12.346 ms median, 61.2 dB from the student", "rdd-edge: error CorruptError two lines",
                "rdd-edge: error UsageError no",
            ])
    }
}
