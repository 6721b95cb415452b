import CoreML
import Foundation
import HarnessCore
import XCTest

@testable import HarnessApp

/// Core ML's classes as the app calls them: shapes, types, units, and nothing left behind.
final class CoreMLRuntimeTests: XCTestCase {
    private func makeRuntime(_ major: Int = 18, _ minor: Int = 1) throws -> (CoreMLRuntime, folder: URL) {
        let folder = try temporaryFolder(self).appendingPathComponent("compiled")
        let system = OperatingSystemVersion(majorVersion: major, minorVersion: minor, patchVersion: 0)
        return (CoreMLRuntime(system: system, folder: folder), folder)
    }

    private func loaded(_ name: String) throws -> (CoreMLRuntime, ModelBundle) {
        let (runtime, bundle) = (try makeRuntime().0, try readBundle(name))
        try runtime.build(bundle)
        try runtime.load(bundle)
        return (runtime, bundle)
    }

    /// `words` occur in what `body` throws.
    private func refusal(_ words: String, of body: () throws -> Void) {
        XCTAssertThrowsError(try body()) { error in
            let sentence = (error as? HarnessError)?.sentence ?? "\(error)"
            XCTAssertTrue(sentence.contains(words), sentence)
        }
    }

    func testImagesAreRightWhateverTheirTypeAndPadding() throws {
        defer { MLMultiArray.padsNewArrays = false }
        let cases = [("plain", 1e-6, false), ("plain", 1e-6, true), ("padded", 1e-6, false), ("float16", 1e-3, false)]
        for (name, tolerance, padsInputs) in cases {
            MLMultiArray.padsNewArrays = padsInputs
            let (runtime, bundle) = try loaded(name)
            let z = (0..<bundle.manifest.batch * bundle.manifest.imageSize).map { Float($0) / 100 - 1 }
            let x = try runtime.run(z, labels: nil)
            XCTAssertEqual(x.count, z.count)
            for (value, noise) in zip(x, z) { XCTAssertEqual(Double(value), tanh(Double(noise)), accuracy: tolerance) }
            runtime.close()
        }
    }

    func testEachLabelGoesToItsImage() throws {
        let (runtime, bundle) = try loaded("labels")
        XCTAssertEqual(bundle.manifest.batch, 2)
        let x = try runtime.run([Float](repeating: 1, count: 2 * bundle.manifest.imageSize), labels: [3, 7])
        XCTAssertEqual(try XCTUnwrap(x.first), tanh(1) * 0.3, accuracy: 1e-6)
        XCTAssertEqual(try XCTUnwrap(x.last), tanh(1) * 0.7, accuracy: 1e-6)
        runtime.close()
    }

    func testNothingIsLeftLoadedOrOnTheDisk() throws {
        let (runtime, folder) = try makeRuntime()
        let bundle = try readBundle("plain")
        let before = MLModel.open
        MLModel.mostOpen = before
        try runtime.build(bundle)
        try runtime.load(bundle)
        try runtime.load(bundle)
        XCTAssertEqual([MLModel.open, MLModel.mostOpen], [before + 1, before + 1])  // never two at one time
        try runtime.build(bundle)
        XCTAssertEqual(try FileManager.default.contentsOfDirectory(atPath: folder.path).count, 1)
        runtime.close()
        runtime.close()
        XCTAssertEqual(MLModel.open, before)
        XCTAssertFalse(exists(folder))
    }

    func testUnitsAreThoseOfTheManifest() throws {
        XCTAssertEqual(try computeUnits(named: nil), .all)
        for (name, units) in [
            ("all", MLComputeUnits.all), ("cpuOnly", .cpuOnly), ("cpuAndGPU", .cpuAndGPU),
            ("cpuAndNeuralEngine", .cpuAndNeuralEngine),
        ] {
            XCTAssertEqual(try computeUnits(named: name), units)
        }
        refusal("the compute units abacus") { _ = try computeUnits(named: "abacus") }
        let (runtime, _) = try loaded("padded")  // whose manifest asks for them
        XCTAssertEqual(MLModel.lastUnits, .cpuAndNeuralEngine)
        XCTAssertEqual(
            runtime.info, RuntimeInfo(name: "coreml", version: "iOS 18.1", backend: "cpuAndNeuralEngine compute units"))
        runtime.close()
    }

    func testABundleForANewerSystemIsRefused() throws {
        let bundle = try readBundle("newer")  // from iOS 17.4 on
        refusal("the bundle needs iOS 17.4, and this is iOS 17.3") { try makeRuntime(17, 3).0.build(bundle) }
        refusal("the bundle needs iOS 17.4, and this is iOS 16.7") { try makeRuntime(16, 7).0.build(bundle) }
        for (major, minor) in [(17, 4), (17, 10), (18, 0)] {
            let (runtime, _) = try makeRuntime(major, minor)
            try runtime.build(bundle)
            runtime.close()
        }
    }

    func testWhatCannotRunIsASentence() throws {
        let (runtime, folder) = try makeRuntime()
        let bundle = try readBundle("plain")
        refusal("was not built") { try runtime.load(bundle) }
        try runtime.build(bundle)
        refusal("was not loaded") { _ = try runtime.run([], labels: nil) }
        try runtime.load(bundle)
        refusal("do not fill the shape") { _ = try runtime.run([1], labels: nil) }
        XCTAssertThrowsError(try runtime.build(readBundle("broken")))
        XCTAssertFalse(exists(folder))
        refusal("was not built") { try runtime.load(bundle) }

        let (narrow, _) = try loaded("narrow")
        let z = [Float](repeating: 0, count: bundle.manifest.imageSize)
        refusal("has no output x of the shape") { _ = try narrow.run(z, labels: nil) }
        narrow.close()
    }
}
