import Foundation

/// The golden vectors that a bundle carries, computed again on this device. Numbers of 64 bits are texts in them.
enum Golden {
    /// Which kind of the vectors in `folder` this device computes otherwise, with the case, or nil.
    static func difference(_ folder: URL) throws -> String? {
        try first(folder, "words", \Words.agrees) ?? first(folder, "normals", \Normals.agrees)
            ?? first(folder, "labels", \Label.agrees) ?? first(folder, "rounding", \Pixel.agrees)
    }

    private struct Cases<C: Decodable>: Decodable { let cases: [C] }

    private static func first<C: Decodable>(_ folder: URL, _ kind: String, _ agrees: (C) -> Bool) throws -> String? {
        let file = folder.appendingPathComponent("\(kind).json")
        let rows = try decode(Cases<C>.self, readFile(file, limit: 1 << 20), file).cases
        return rows.firstIndex { !agrees($0) }.map { "\(kind) than contract/\(kind).json, case \($0)" }
    }

    private struct Words: Decodable {
        let seed, index: String
        let block: UInt32
        let words: [UInt32]

        var agrees: Bool {
            guard let seed = UInt64(seed), let index = UInt64(index), words.count == 4 else { return false }
            return PortableNoise.words(seed: seed, index: index, block: block) == SIMD4(words)
        }
    }

    private struct Normals: Decodable {
        let seed, index: String
        let z: [Double]

        var agrees: Bool {
            guard let seed = UInt64(seed), let index = UInt64(index) else { return false }
            let own = PortableNoise.normals(seed: seed, index: index, size: z.count)
            return zip(z, own).allSatisfy { abs($0 - Double($1)) <= 1e-6 }
        }
    }

    private struct Label: Decodable {
        let index: String
        let classes: UInt32
        let label: Int64

        var agrees: Bool {
            guard let index = UInt64(index), classes > 0 else { return false }
            return PortableNoise.label(index: index, classes: Int(classes)) == label
        }
    }

    private struct Pixel: Decodable {
        let bits: Int32  // the pattern of a float32
        let pixel: UInt8

        var agrees: Bool { PortableNoise.toUInt8(Float(bitPattern: UInt32(bitPattern: bits))) == pixel }
    }
}
