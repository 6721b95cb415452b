import CoreGraphics
import Foundation
import HarnessCore
import SwiftUI
import UIKit
import XCTest

@testable import HarnessApp

/// The app as a finger and as a driver start it.
@MainActor
final class SessionTests: XCTestCase {
    private func makeSession(_ root: URL) -> Session {
        Session(root: root) {
            CoreMLRuntime(
                system: OperatingSystemVersion(majorVersion: 18, minorVersion: 1, patchVersion: 0),
                folder: root.appendingPathComponent("compiled"))
        }
    }

    /// A Documents folder with bundles at the given paths.
    private func makeRoot(_ bundles: [String: String] = [:]) throws -> URL {
        let root = try temporaryFolder(self)
        for (path, name) in bundles {
            let place = root.appendingPathComponent(path)
            let parent = place.deletingLastPathComponent()
            try FileManager.default.createDirectory(at: parent, withIntermediateDirectories: true)
            try FileManager.default.copyItem(at: bundleFolder(name), to: place)
        }
        return root
    }

    private func texts(_ session: Session) -> [String] {
        elements(of: SessionView(session: session)).compactMap { if case .text(let text) = $0 { text } else { nil } }
    }

    private func buttons(_ session: Session) -> [String: @MainActor () -> Void] {
        let found = elements(of: SessionView(session: session))
        let pairs = found.compactMap { if case .button(let title, let press) = $0 { (title, press) } else { nil } }
        return Dictionary(uniqueKeysWithValues: pairs)
    }

    private func images(_ session: Session) -> [CGImage] {
        elements(of: SessionView(session: session)).compactMap {
            if case .image(let image, pixels: true) = $0 { image } else { nil }
        }
    }

    private func end(of session: Session) async throws {
        for _ in 0..<1000 where session.isRunning { try await Task.sleep(for: .milliseconds(20)) }
        XCTAssertFalse(session.isRunning, "the run did not end: \(session.text)")
    }

    func testATapRunsABundleAndShowsItsImagesAndMedian() async throws {
        let root = try makeRoot(["bundles/tanh": "plain", "bundles/.hidden": "plain"])
        let session = makeSession(root)
        session.start(arguments: ["Harness", "-NSDocumentRevisionsDebugMode", "YES"])
        XCTAssertTrue(UIApplication.shared.isIdleTimerDisabled)
        XCTAssertEqual(texts(session), ["Tap a bundle to run it."])
        XCTAssertEqual(buttons(session).keys.sorted(), ["tanh"])
        try XCTUnwrap(buttons(session)["tanh"])()
        XCTAssertTrue(session.isRunning)
        XCTAssertTrue(buttons(session).isEmpty)
        session.tap(root.appendingPathComponent("bundles/tanh"))  // is ignored
        try await end(of: session)

        let pattern = "^done [0-9]+\\.[0-9]{3} ms median, [0-9]+\\.[0-9] dB from the student$"
        XCTAssertNotNil(session.text.range(of: pattern, options: .regularExpression), session.text)
        XCTAssertEqual(texts(session), [session.text])
        XCTAssertEqual(buttons(session).keys.sorted(), ["tanh"])
        let samples = [UInt8](try Data(contentsOf: root.appendingPathComponent("runs/tanh/samples.u8")))
        let image = try XCTUnwrap(images(session).first)
        XCTAssertEqual([image.width, image.height], [71, 71])  // 8 × 8 images, 7 lines
        XCTAssertEqual(image.bytes[0], samples[0])
        XCTAssertEqual(image.bytes[4 * 9], samples[64])
        let record = try String(
            decoding: Data(contentsOf: root.appendingPathComponent("runs/tanh/record.json")), as: UTF8.self)
        for fact in ["iOS 18.1", "all compute units", "Apple ", "nominal"] {
            XCTAssertTrue(record.contains(fact), record)
        }
        XCTAssertFalse(exists(root.appendingPathComponent("compiled")))
    }

    func testBundlesThatComeLaterAreOfferedToo() async throws {
        let root = try makeRoot()
        let session = makeSession(root)
        session.offerBundles()  // before the view appears
        XCTAssertEqual(session.text, "")
        session.start(arguments: ["Harness"])
        XCTAssertTrue(session.text.hasPrefix("Put a bundle into this app's folder “bundles”"), session.text)
        let place = root.appendingPathComponent("bundles/late", isDirectory: true)  // whose parent is there by now
        try FileManager.default.createDirectory(at: place, withIntermediateDirectories: false)
        try Data().write(to: root.appendingPathComponent("bundles/a file"))
        for case .refresh(let action) in elements(of: SessionView(session: session)) { await action() }
        XCTAssertEqual(buttons(session).keys.sorted(), ["late"])
        try FileManager.default.removeItem(at: place)
        for case .refresh(let action) in elements(of: SessionView(session: session)) { await action() }
        XCTAssertTrue(buttons(session).isEmpty)
    }

    func testADriversRunReplacesWhatEarlierOnesLeft() async throws {
        let root = try makeRoot([
            "driver/bundle-2": "plain", "driver/bundle-1": "plain", "bundles/mine": "plain", "runs/mine": "plain",
        ])
        let left = ["driver/run-0000000000000001/record.json", "driver/.run-0000000000000001.0123abcd/samples.u8"]
        for path in left.map(root.appendingPathComponent) {
            try FileManager.default.createDirectory(
                at: path.deletingLastPathComponent(), withIntermediateDirectories: true)
            try Data().write(to: path)
        }
        let session = makeSession(root)
        let arguments = ["Harness", "--bundle", "driver/bundle-2", "--out", "driver/run-0000000000000002"]
        session.start(arguments: arguments)
        try await end(of: session)
        XCTAssertTrue(session.text.hasPrefix("done "), session.text)
        let driver = root.appendingPathComponent("driver")
        let names = try FileManager.default.contentsOfDirectory(atPath: driver.path).sorted()
        XCTAssertEqual(names, ["bundle-2", "run-0000000000000002"])
        XCTAssertTrue(exists(root.appendingPathComponent("bundles/mine")))
        XCTAssertTrue(exists(root.appendingPathComponent("runs/mine")))
        XCTAssertTrue(buttons(session).isEmpty)  // a driver goes on to end the app
        session.start(arguments: arguments)  // a view that appears again
        XCTAssertFalse(session.isRunning)
    }

    func testARunThatFailsIsOnTheScreenAndInErrorJson() async throws {
        let root = try makeRoot(["bundles/broken": "broken"])
        let session = makeSession(root)
        session.start(arguments: ["Harness"])
        session.tap(root.appendingPathComponent("bundles/broken"))
        try await end(of: session)
        XCTAssertTrue(session.text.hasPrefix("error ArtifactError "), session.text)
        XCTAssertTrue(images(session).isEmpty)
        let left = try FileManager.default.contentsOfDirectory(atPath: root.appendingPathComponent("runs/broken").path)
        XCTAssertEqual(left, ["error.json"])
        session.offerBundles()
        XCTAssertTrue(session.text.hasPrefix("error "))  // until the next run
    }

    func testWrongArgumentsAreRefusedAndNothingIsWritten() async throws {
        let root = try makeRoot()
        let session = makeSession(root)
        session.start(arguments: ["Harness", "--bundle", "../secret", "--out", "driver/run-1"])
        XCTAssertTrue(session.text.hasPrefix("error UsageError --bundle is not a path below "), session.text)
        XCTAssertFalse(session.isRunning)
        XCTAssertEqual(try FileManager.default.contentsOfDirectory(atPath: root.path).sorted(), ["bundles", "driver"])
    }
}
