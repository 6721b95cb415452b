package org.rddedge.core

import kotlinx.serialization.json.JsonObject
import java.io.OutputStream
import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.security.MessageDigest
import java.util.Locale
import kotlin.math.abs
import kotlin.math.log10

private const val NOISE_TOLERANCE = 1e-6

/** This device's images for the parity inputs against the student's: PSNR in dB, peak 2.0, 200 where identical. */
data class SelfTest(val noiseMaxDifference: Double, val psnrDb: Double, val worstPsnrDb: Double, val samples: Int) {
    internal fun toJson(thresholdDb: Double?): JsonObject = obj(
        "schema_version" to 1,
        "noise_max_difference" to noiseMaxDifference,
        "psnr_db" to psnrDb,
        "worst_psnr_db" to worstPsnrDb,
        "threshold_db" to thresholdDb,
        "samples" to samples,
    )
}

/** What is done with one bundle by one plan; [report] is told of each step and may throw to end it. */
internal class Work(
    private val runtime: Runtime,
    private val bundle: Bundle,
    private val plan: Plan,
    private val report: (stage: String, done: Int) -> Unit,
) {
    private val manifest = bundle.manifest
    private val size = manifest.imageSize
    private val name = runtime.describe().let { "${it.name} ${it.version}" }

    /** Proves the device before it is timed: its noise and labels, then the artifact's images. */
    fun prove(minPsnrDb: Double?): SelfTest {
        report("verify", 0)
        val indices = IntArray(manifest.paritySamples) { it }
        val (own, golden) = noise(manifest.paritySeed, indices) to bundle.parityFloats("z.f32")
        val difference = own.indices.maxOf { abs(own[it].toDouble() - golden[it]) }
        if (!(difference <= NOISE_TOLERANCE)) fail("was not run: the noise made here differs from parity/z.f32")
        val labels = labels(indices)
        if (labels != null && !labels.contentEquals(bundle.parityLabels())) {
            fail("was not run: the class labels made here differ from parity/label.i64")
        }
        load()
        val expected = bundle.parityFloats("x.f32")
        val psnr = DoubleArray(indices.size)
        images(manifest.paritySeed, psnr.size, "verify") { first, count, x ->
            for (row in 0 until count) psnr[first + row] = psnr(x, row * size, expected, (first + row) * size, size)
        }
        val test = SelfTest(difference, median(psnr), psnr.min(), psnr.size)
        if (minPsnrDb != null && !(test.psnrDb >= minPsnrDb)) {
            val found = "%.1f dB".format(Locale.ROOT, test.psnrDb)
            val sentence = "$name is $found from the student on this device, and $minPsnrDb dB are required"
            throw HarnessException(ErrorKind.THRESHOLD, sentence)
        }
        return test
    }

    /** The timed part, after which only the samples and the state after them are missing. */
    fun time(device: Device): Facts {
        guarded("close") { runtime.close() } // the first load that is timed finds nothing loaded
        val first = IntArray(manifest.batch) { it }
        val (z, labels) = noise(plan.seed, first) to labels(first)
        val before = device.condition()
        report("load", 0)
        val loadMs = milliseconds { load() }
        report("first", 0)
        val firstMs = milliseconds { execute(z, labels) }
        report("load", 1)
        val secondMs = milliseconds { load() }
        report("warmup", 0)
        for (run in 1..plan.warmup) {
            execute(z, labels)
            report("warmup", run)
        }
        report("time", 0)
        var latency = DoubleArray(1024)
        var count = 0
        val begin = System.nanoTime()
        while (count < plan.runs || System.nanoTime() - begin < plan.seconds * 1e9) {
            if (count == latency.size) latency = latency.copyOf(2 * count)
            latency[count++] = milliseconds { execute(z, labels) }
            report("time", count)
        }
        val conditions = linkedMapOf("before" to before, "during" to device.condition())
        return Facts(loadMs, firstMs, secondMs, latency.copyOf(count), device.peakMemoryBytes(), conditions)
    }

    /** The accuracy run: samples.u8 of every image and samples.f32 of the first ones, N H W C; null where none. */
    fun sample(folder: RunFolder): JsonObject? {
        if (plan.samples == 0) return null
        report("samples", 0)
        val kept = minOf(plan.floats, plan.samples)
        val (u8, f32) = List(2) { MessageDigest.getInstance("SHA-256") }
        folder.write("samples.u8") { pixels ->
            folder.write("samples.f32") { floats ->
                images(plan.seed, plan.samples, "samples") { first, count, x ->
                    val bytes = ByteBuffer.allocate(count * size)
                    interleaved(x, count) { bytes.put(Noise.toUint8(it)) }
                    emit(bytes, pixels, u8)
                    val rows = minOf(count, kept - first).coerceAtLeast(0)
                    val values = ByteBuffer.allocate(4 * rows * size).order(ByteOrder.LITTLE_ENDIAN)
                    interleaved(x, rows) { values.putFloat(it) }
                    emit(values, floats, f32)
                }
            }
        }
        if (kept == 0) folder.delete("samples.f32")
        return obj(
            "count" to plan.samples,
            "height" to manifest.shape[2],
            "width" to manifest.shape[3],
            "channels" to manifest.shape[1],
            "seed" to plan.seed,
            "u8_sha256" to hex(u8.digest()),
            "floats" to kept,
            "f32_sha256" to if (kept == 0) null else hex(f32.digest()),
        )
    }

    /** Images of the first [total] samples, batch by batch; the last batch is filled up with its last sample. */
    private fun images(seed: ULong, total: Int, stage: String, use: (first: Int, count: Int, x: FloatArray) -> Unit) {
        for (first in 0 until total step manifest.batch) {
            val indices = IntArray(manifest.batch) { minOf(first + it, total - 1) }
            val x = execute(noise(seed, indices), labels(indices))
            if (x.size != indices.size * size) fail("gave ${x.size} values, not ${indices.size * size}")
            val bad = x.indexOfFirst { !it.isFinite() }
            if (bad >= 0) fail("gave values that are not finite, first in image ${first + bad / size}")
            val count = minOf(manifest.batch, total - first)
            use(first, count, x)
            report(stage, first + count)
        }
    }

    private fun noise(seed: ULong, indices: IntArray): FloatArray {
        val z = FloatArray(indices.size * size)
        indices.forEachIndexed { row, index -> Noise.normals(seed, index.toULong(), z, row * size, size) }
        return z
    }

    private fun labels(indices: IntArray): LongArray? =
        manifest.classes?.let { classes -> LongArray(indices.size) { Noise.label(indices[it].toULong(), classes) } }

    private fun load() = guarded("load") { runtime.load(bundle, plan.threads) }

    private fun execute(z: FloatArray, labels: LongArray?) = guarded("run") { runtime.run(z, labels) }

    /** Turns whatever a runtime throws, a failing native library included, into a sentence. */
    private inline fun <T> guarded(action: String, block: () -> T): T = try {
        block()
    } catch (error: Throwable) {
        throw HarnessException(ErrorKind.ARTIFACT, "$name cannot $action ${bundle.artifact}: ${reason(error)}", error)
    }

    private fun fail(what: String): Nothing = throw HarnessException(ErrorKind.ARTIFACT, "$name $what")

    /** Gives [put] the values of the first [count] images in N H W C order. */
    private inline fun interleaved(x: FloatArray, count: Int, put: (Float) -> Unit) {
        val area = manifest.shape[2] * manifest.shape[3]
        for (image in 0 until count) {
            for (pixel in 0 until area) {
                for (at in pixel until size step area) put(x[image * size + at])
            }
        }
    }
}

private fun emit(bytes: ByteBuffer, stream: OutputStream, digest: MessageDigest) {
    stream.write(bytes.array())
    digest.update(bytes.array())
}

private inline fun milliseconds(action: () -> Unit): Double {
    val start = System.nanoTime()
    action()
    return (System.nanoTime() - start) / 1e6
}

/** PSNR in dB of the image of [size] values in [a] against that in [b]. */
private fun psnr(a: FloatArray, atA: Int, b: FloatArray, atB: Int, size: Int): Double {
    val sum = (0 until size).sumOf { i -> (a[atA + i].toDouble() - b[atB + i]).let { it * it } }
    return minOf(10.0 * log10(4.0 * size / sum), 200.0)
}

internal fun median(values: DoubleArray): Double {
    val sorted = values.sortedArray()
    return (sorted[(sorted.size - 1) / 2] + sorted[sorted.size / 2]) / 2
}
