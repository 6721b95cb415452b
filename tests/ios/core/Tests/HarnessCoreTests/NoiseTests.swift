import XCTest

@testable import HarnessCore

/// Portable noise, labels and rounding against the golden documents of rdd_edge/schemas/golden.
final class NoiseTests: XCTestCase {
    private func rows(_ name: String) -> [Object] { golden(name)["cases"] as! [Object] }

    private func wide(_ row: Object, _ key: String) -> UInt64 { UInt64(row[key] as! String)! }

    func testWordsEqualPythonsAbove32BitIndicesAnd63BitSeedsAsWell() {
        let rows = rows("words")
        XCTAssert(rows.contains { wide($0, "index") > 1 << 32 } && rows.contains { wide($0, "seed") > 1 << 63 })
        for row in rows {
            let block = UInt32(row["block"] as! Int)
            let words = PortableNoise.words(seed: wide(row, "seed"), index: wide(row, "index"), block: block)
            XCTAssertEqual((0..<4).map { Int(words[$0]) }, row["words"] as! [Int], "\(row)")
        }
    }

    func testNormalsAreWithin1e6OfPythons() {
        for row in rows("normals") {
            let expected = row["z"] as! [Double]
            let z = PortableNoise.normals(seed: wide(row, "seed"), index: wide(row, "index"), size: expected.count)
            XCTAssertEqual(z.count, expected.count)
            for (z, expected) in zip(z, expected) { XCTAssertEqual(Double(z), expected, accuracy: 1e-6) }
        }
    }

    func testANumberOfNormalsThatIsNoMultipleOfFourIsTheBeginningOfMore() {
        let more = PortableNoise.normals(seed: 5, index: 7, size: 12)
        for size in 1...12 {
            XCTAssertEqual(PortableNoise.normals(seed: 5, index: 7, size: size), Array(more.prefix(size)))
        }
    }

    func testLabelsAreTheIndexModuloTheClasses() {
        for row in rows("labels") {
            let label = PortableNoise.label(index: wide(row, "index"), classes: row["classes"] as! Int)
            XCTAssertEqual(Int(label), row["label"] as! Int)
        }
    }

    func testRoundingEqualsPythonsAtExactHalvesBesideThemAndBeyondTheRange() {
        let rows = rows("rounding")
        XCTAssertGreaterThan(rows.count, 1000)
        for row in rows {
            let x = Float(bitPattern: UInt32(bitPattern: Int32(row["bits"] as! Int)))
            XCTAssertEqual(Int(PortableNoise.toUInt8(x)), row["pixel"] as! Int, "\(x)")
        }
        XCTAssertEqual([-Float.infinity, .infinity, .nan].map(PortableNoise.toUInt8), [0, 255, 0])
    }

    func testPhiloxGivesRandom123sKnownAnswer() {
        let expected = SIMD4<UInt32>(0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd)
        XCTAssertEqual(PortableNoise.philox4x32(SIMD4(repeating: .max), key: SIMD2(repeating: .max)), expected)
    }
}
