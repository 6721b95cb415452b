import CoreGraphics
import Foundation
import XCTest

@testable import HarnessApp

final class GridTests: XCTestCase {
    private func grid(_ bytes: [UInt8], channels: Int, height: Int, width: Int) throws -> Grid? {
        let file = FileManager.default.temporaryDirectory.appendingPathComponent("\(UUID().uuidString).u8")
        try Data(bytes).write(to: file)
        defer { try? FileManager.default.removeItem(at: file) }
        return Grid(samples: file, channels: channels, height: height, width: width)
    }

    /// The pixel of column `x` and row `y`, without its unused byte.
    private func pixel(_ grid: Grid, _ x: Int, _ y: Int) -> [UInt8] {
        Array(grid.pixels[4 * (y * grid.width + x)..<4 * (y * grid.width + x) + 3])
    }

    func testColouredImagesFollowEachOtherInRowsOfEight() throws {
        // Nine images of 2 rows and 3 columns, whose bytes say where they are: image, row, column.
        let bytes = (0..<9).flatMap { n in (0..<2).flatMap { y in (0..<3).flatMap { x in [n, y, x].map(UInt8.init) } } }
        let grid = try XCTUnwrap(grid(bytes, channels: 3, height: 2, width: 3))
        XCTAssertEqual([grid.width, grid.height], [31, 5])
        XCTAssertEqual(pixel(grid, 0, 0), [0, 0, 0])
        XCTAssertEqual(pixel(grid, 4 * 7 + 2, 1), [7, 1, 2])
        XCTAssertEqual(pixel(grid, 3, 0), [128, 128, 128])  // between the first two
        XCTAssertEqual(pixel(grid, 1, 3), [8, 0, 1])  // the ninth begins the second row
        XCTAssertEqual(pixel(grid, 4, 3), [128, 128, 128])  // beside it there is nothing
        let image = try XCTUnwrap(grid.image())
        XCTAssertEqual(image.bytes, grid.pixels)
    }

    func testGreyImagesHaveTheirByteThreeTimes() throws {
        let grid = try XCTUnwrap(grid([0, 255, 7, 8], channels: 1, height: 2, width: 1))
        XCTAssertEqual([pixel(grid, 0, 0), pixel(grid, 2, 0)], [[0, 0, 0], [7, 7, 7]])
        XCTAssertEqual([pixel(grid, 0, 1), pixel(grid, 2, 1)], [[255, 255, 255], [8, 8, 8]])
    }

    func testOnlySixtyFourImagesAreShown() throws {
        let grid = try XCTUnwrap(grid(Array(repeating: 1, count: 65), channels: 1, height: 1, width: 1))
        XCTAssertEqual([grid.width, grid.height], [15, 15])
    }

    func testWhatIsNoImageIsNotShown() throws {
        XCTAssertNil(try grid([], channels: 1, height: 2, width: 2))
        XCTAssertNil(try grid([1, 2, 3], channels: 1, height: 2, width: 2))
        XCTAssertNil(try grid(Array(repeating: 1, count: 64), channels: 2, height: 2, width: 2))
        XCTAssertNil(Grid(samples: URL(fileURLWithPath: "/nowhere"), channels: 1, height: 1, width: 1))
    }
}
