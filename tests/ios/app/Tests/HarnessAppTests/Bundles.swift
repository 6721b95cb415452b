import Foundation
import HarnessCore
import XCTest

/// The folder of a bundle that tests/targets/test_ios_app.py has written: only Python writes bundles.
func bundleFolder(_ name: String) throws -> URL {
    guard let folder = ProcessInfo.processInfo.environment["RDD_EDGE_IOS_BUNDLES"] else {
        throw XCTSkip("pytest tests/targets/test_ios_app.py writes the bundles and runs this test")
    }
    return URL(fileURLWithPath: folder).appendingPathComponent(name, isDirectory: true)
}

func readBundle(_ name: String) throws -> ModelBundle {
    try ModelBundle.read(bundleFolder(name))
}

func temporaryFolder(_ test: XCTestCase) throws -> URL {
    let folder = FileManager.default.temporaryDirectory.appendingPathComponent(UUID().uuidString, isDirectory: true)
    try FileManager.default.createDirectory(at: folder, withIntermediateDirectories: true)
    test.addTeardownBlock { try? FileManager.default.removeItem(at: folder) }
    return folder
}

func exists(_ file: URL) -> Bool {
    FileManager.default.fileExists(atPath: file.path)
}
