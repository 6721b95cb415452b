package org.rddedge.core

import kotlin.math.PI
import kotlin.math.cos
import kotlin.math.floor
import kotlin.math.ln
import kotlin.math.sin
import kotlin.math.sqrt

private const val MASK = 0xFFFFFFFFL

/** Portable Gaussian noise: the same z for the same seed and sample index on every machine. */
object Noise {
    /** Philox4x32-10 (Salmon et al., SC'11) of a counter of four 32-bit words, held in Longs, under a key of two. */
    fun philox4x32(counter: LongArray, key: LongArray): LongArray {
        var (c0, c1, c2, c3) = counter
        var (k0, k1) = key
        repeat(10) {
            val p0 = 0xD2511F53L * c0
            val p1 = 0xCD9E8D57L * c2
            c0 = (p1 ushr 32) xor c1 xor k0
            c1 = p1 and MASK
            c2 = (p0 ushr 32) xor c3 xor k1
            c3 = p0 and MASK
            k0 = (k0 + 0x9E3779B9L) and MASK
            k1 = (k1 + 0xBB67AE85L) and MASK
        }
        return longArrayOf(c0, c1, c2, c3)
    }

    /** The four words of one block of the noise of the sample with this index. */
    fun words(seed: ULong, index: ULong, block: Int): LongArray {
        val counter = longArrayOf(block.toLong(), index.toLong() and MASK, (index shr 32).toLong(), 0L)
        return philox4x32(counter, longArrayOf(seed.toLong() and MASK, (seed shr 32).toLong()))
    }

    /** Fills [z] from [offset] with the [size] standard normal values of one sample, in C, H, W order. */
    fun normals(seed: ULong, index: ULong, z: FloatArray, offset: Int, size: Int) {
        for (block in 0 until (size + 3) / 4) {
            val words = words(seed, index, block)
            for (pair in 0..1) { // Box-Muller
                val radius = sqrt(-2.0 * ln(uniform(words[2 * pair])))
                val angle = 2.0 * PI * uniform(words[2 * pair + 1])
                val at = 4 * block + 2 * pair
                if (at < size) z[offset + at] = (radius * cos(angle)).toFloat()
                if (at + 1 < size) z[offset + at + 1] = (radius * sin(angle)).toFloat()
            }
        }
    }

    /** Class label of a sample of a conditional model: its index modulo the number of classes. */
    fun label(index: ULong, classes: Int): Long = (index % classes.toULong()).toLong()

    /** A value in [-1, 1] as a pixel: floor(127.5 x + 128) in float32, clamped to 0 … 255. */
    fun toUint8(x: Float): Byte = floor(127.5f * x + 128f).coerceIn(0f, 255f).toInt().toByte()

    /** In (0, 1), so that its logarithm is finite. */
    private fun uniform(word: Long): Double = (word.toDouble() + 0.5) / 4294967296.0
}
