import Foundation

/// Portable Gaussian noise: the same z for the same seed and sample index on every machine.
public enum PortableNoise {
    /// Philox4x32-10 (Salmon et al., SC'11) of a counter of four words under a key of two.
    static func philox4x32(_ counter: SIMD4<UInt32>, key: SIMD2<UInt32>) -> SIMD4<UInt32> {
        var (c, k) = (counter, key)
        for _ in 0..<10 {
            let p0 = UInt32(0xD251_1F53).multipliedFullWidth(by: c[0])
            let p1 = UInt32(0xCD9E_8D57).multipliedFullWidth(by: c[2])
            c = SIMD4(p1.high ^ c[1] ^ k[0], p1.low, p0.high ^ c[3] ^ k[1], p0.low)
            k = k &+ SIMD2(0x9E37_79B9, 0xBB67_AE85)
        }
        return c
    }

    /// The four words of one block of the noise of the sample with this index.
    static func words(seed: UInt64, index: UInt64, block: UInt32) -> SIMD4<UInt32> {
        let (key, sample) = (halves(seed), halves(index))
        return philox4x32(SIMD4(block, sample.low, sample.high, 0), key: SIMD2(key.low, key.high))
    }

    /// The `size` standard normal values of one sample, in C, H, W order.
    public static func normals(seed: UInt64, index: UInt64, size: Int) -> [Float] {
        var z: [Float] = []
        z.reserveCapacity(size + 3)
        for block in 0..<UInt32((size + 3) / 4) {
            let words = words(seed: seed, index: index, block: block)
            for pair in 0...1 {  // Box-Muller
                let radius = sqrt(-2 * log(uniform(words[2 * pair])))
                let angle = 2 * Double.pi * uniform(words[2 * pair + 1])
                z.append(Float(radius * cos(angle)))
                z.append(Float(radius * sin(angle)))
            }
        }
        return Array(z.prefix(size))
    }

    /// Class label of a sample of a conditional model: its index modulo the number of classes, which is at least 1.
    public static func label(index: UInt64, classes: Int) -> Int64 {
        Int64(index % UInt64(classes))
    }

    /// A value in [-1, 1] as a pixel: floor(127.5 x + 128) in float32, clamped to 0 … 255.
    public static func toUInt8(_ x: Float) -> UInt8 {
        let level = (127.5 * x + 128).rounded(.down)
        return level > 0 ? UInt8(min(level, 255)) : 0
    }

    /// In (0, 1), so that its logarithm is finite.
    private static func uniform(_ word: UInt32) -> Double {
        (Double(word) + 0.5) / 4_294_967_296
    }

    private static func halves(_ value: UInt64) -> (low: UInt32, high: UInt32) {
        (UInt32(truncatingIfNeeded: value), UInt32(value >> 32))
    }
}
