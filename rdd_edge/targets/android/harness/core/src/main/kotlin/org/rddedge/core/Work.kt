package org.rddedge.core

import kotlinx.serialization.json.JsonArray
import kotlinx.serialization.json.JsonNull
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.jsonObject
import java.io.File
import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.security.DigestOutputStream
import java.security.MessageDigest
import java.util.Locale
import kotlin.math.abs
import kotlin.math.log10
import kotlin.system.measureNanoTime

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
    val latency = mutableListOf<Double>() // of every timed run, in milliseconds and in order

    private var baseline: Long? = null // memory before the artifact was loaded for the first time

    /** Proves the device before it is timed: its noise, labels and rounding, then the artifact's images. */
    fun prove(device: Device, minPsnrDb: Double?): SelfTest {
        report("verify", 0)
        Golden.difference(File(bundle.folder, "contract"))?.let { fail("was not run: this device computes other $it") }
        val (own, labels) = inputs(manifest.paritySeed, IntArray(manifest.paritySamples) { it })
        val golden = bundle.parityFloats("z.f32")
        val difference = own.indices.maxOf { abs(own[it].toDouble() - golden[it]) }
        if (!(difference <= 1e-6)) fail("was not run: the noise made here differs from parity/z.f32")
        if (labels != null && !labels.contentEquals(bundle.parityLabels())) {
            fail("was not run: the class labels made here differ from parity/label.i64")
        }
        baseline = device.condition().memoryBytes
        load()
        val expected = bundle.parityFloats("x.f32")
        val psnr = DoubleArray(manifest.paritySamples)
        images(manifest.paritySeed, psnr.size, "verify") { first, count, x ->
            for (row in 0 until count) psnr[first + row] = psnr(x, row * size, expected, (first + row) * size, size)
        }
        val test = SelfTest(difference, median(psnr.asList()), psnr.min(), psnr.size)
        if (minPsnrDb != null && !(test.psnrDb >= minPsnrDb)) {
            val found = "%.1f dB".format(Locale.ROOT, test.psnrDb)
            fail("is $found from the student on this device, and $minPsnrDb dB are required", ErrorKind.THRESHOLD)
        }
        return test
    }

    /** The timed runs, then the samples, which are written to [folder]. Returns fields of the record. */
    fun measure(device: Device, folder: RunFolder): Map<String, Any?> {
        guarded("close") { runtime.close() } // the first load that is timed finds nothing loaded
        val (z, labels) = inputs(plan.seed, IntArray(manifest.batch) { it })
        val states = linkedMapOf("before" to device.condition())
        val fields = mutableMapOf<String, Any?>(
            "latency_ms" to latency,
            "load_ms" to timed("load") { load() },
            "first_inference_ms" to timed("first") { execute(z, labels) },
            "second_load_ms" to timed("load", 1) { load() },
        )
        report("warmup", 0)
        for (run in 1..plan.warmup) {
            execute(z, labels)
            report("warmup", run)
        }
        report("time", 0)
        val heat = Heat(device).apply { watch(0) }
        val end = System.nanoTime() + (plan.seconds * 1e9).toLong()
        while (latency.size < plan.runs || (System.nanoTime() < end && latency.size < MOST_TIMED)) {
            latency += milliseconds { execute(z, labels) }
            heat.watch(latency.size)
            report("time", latency.size)
        }
        fields["thermal_changes"] = JsonArray(heat.changes)
        states["during"] = device.condition().also { fields["peak_memory_bytes"] = it.peakMemoryBytes }
        fields["baseline_memory_bytes"] = baseline
        fields["samples"] = if (plan.samples == 0) null else sample(folder)
        states["after"] = device.condition()
        fields["conditions"] = conditions(states)
        fields["starts"] = 1
        return fields
    }

    /** One benchmark run as record.json holds it: [measured] by field, and in `missing` the reason of each null. */
    fun record(device: Device, measured: Map<String, Any?>): JsonObject {
        val (name, version) = runtime.describe()
        val info = device.info()
        val reasons = mapOf(
            "build_ms" to "$name loads the artifact without a build",
            "transfers" to "$name does not time copies separately: a latency includes them",
            "operators" to "$name is not asked for the time of each operator",
            "clocks_locked" to "an app cannot lock the clocks",
            "peak_memory_bytes" to UNREPORTED,
            "baseline_memory_bytes" to UNREPORTED,
            "compiled_before" to "$name keeps nothing that it compiles",
            "conditions" to "the system reports no temperature, clock or power",
            "power_mode" to "the run asked for no power mode",
            "samples" to "the plan has no samples",
        )
        val fields = reasons.mapValues { null } + measured + mapOf(
            "schema_version" to 1,
            "target" to bundle.manifest.target,
            "precision" to bundle.manifest.precision,
            "bundle_sha256" to bundle.sha256,
            "checkpoint_sha256" to bundle.manifest.checkpointSha256,
            "checkpoint" to null,
            "device" to obj(
                "name" to info.name,
                "system" to info.system,
                "machine" to info.machine,
                "processor" to info.processor,
                "cores" to info.cores,
                "memory_bytes" to info.memoryBytes,
            ),
            "runtime" to obj("name" to name, "version" to version, "backend" to manifest.needs.backend),
            "power_mode" to info.powerMode,
            "threads" to plan.threads,
            "batch" to bundle.manifest.batch,
            "artifact_bytes" to bundle.artifactBytes,
        )
        val missing = reasons.filterKeys { fields[it] == null } + unreported(fields["conditions"] as JsonArray?)
        return obj(fields + ("missing" to obj(missing)))
    }

    /** samples.u8 of every image and samples.f32 of the first ones, N H W C. */
    private fun sample(folder: RunFolder): JsonObject {
        report("samples", 0)
        val kept = minOf(plan.floats, plan.samples)
        val (u8, f32) = List(2) { MessageDigest.getInstance("SHA-256") }
        folder.write("samples.u8") { pixels ->
            folder.write("samples.f32") { floats ->
                images(plan.seed, plan.samples, "samples") { first, count, x ->
                    val values = interleaved(x, count)
                    DigestOutputStream(pixels, u8).write(ByteArray(values.size) { Noise.toUint8(values[it]) })
                    val rows = minOf(count, kept - first).coerceAtLeast(0)
                    val bytes = ByteBuffer.allocate(4 * rows * size).order(ByteOrder.LITTLE_ENDIAN)
                    bytes.asFloatBuffer().put(values, 0, rows * size)
                    DigestOutputStream(floats, f32).write(bytes.array())
                }
            }
        }
        if (kept == 0) folder.delete("samples.f32")
        return obj(
            "count" to plan.samples,
            "height" to manifest.shape[2],
            "width" to manifest.shape[3],
            "channels" to manifest.shape[1],
            "seed" to plan.seed.toString().toBigInteger(),
            "u8_sha256" to u8.digest().toHexString(),
            "floats" to kept,
            "f32_sha256" to if (kept == 0) null else f32.digest().toHexString(),
        )
    }

    /** Images of the first [total] samples, batch by batch; the last batch is filled up with its last sample. */
    private fun images(seed: ULong, total: Int, stage: String, use: (first: Int, count: Int, x: FloatArray) -> Unit) {
        for (first in 0 until total step manifest.batch) {
            val (z, labels) = inputs(seed, IntArray(manifest.batch) { minOf(first + it, total - 1) })
            val x = execute(z, labels)
            if (x.size != z.size) fail("gave ${x.size} values, not ${z.size}")
            val bad = x.indexOfFirst { !it.isFinite() }
            if (bad >= 0) fail("gave values that are not finite, first in image ${first + bad / size}")
            val count = minOf(manifest.batch, total - first)
            use(first, count, x)
            report(stage, first + count)
        }
    }

    /** Noise of the samples with these indices, and the labels of a conditional model. */
    private fun inputs(seed: ULong, indices: IntArray): Pair<FloatArray, LongArray?> {
        val z = FloatArray(indices.size * size)
        indices.forEachIndexed { row, index -> Noise.normals(seed, index.toULong(), z, row * size, size) }
        return z to manifest.classes?.let { n -> LongArray(indices.size) { Noise.label(indices[it].toULong(), n) } }
    }

    private inline fun timed(stage: String, done: Int = 0, action: () -> Unit): Double {
        report(stage, done)
        return milliseconds(action)
    }

    private fun load() = guarded("load") { runtime.load(bundle, plan.threads) }

    private fun execute(z: FloatArray, labels: LongArray?) = guarded("run") { runtime.run(z, labels) }

    /** Turns whatever a runtime throws, a failing native library included, into a sentence. */
    private inline fun <T> guarded(action: String, block: () -> T): T = try {
        block()
    } catch (error: Throwable) {
        throw HarnessException(ErrorKind.ARTIFACT, "$name cannot $action ${bundle.artifact}: ${reason(error)}", error)
    }

    private fun fail(what: String, kind: ErrorKind = ErrorKind.ARTIFACT): Nothing =
        throw HarnessException(kind, "$name $what")

    /** The first [count] images in N H W C order. */
    private fun interleaved(x: FloatArray, count: Int): FloatArray {
        val (_, channels, height, width) = manifest.shape
        return FloatArray(count * size) { x[it / size * size + it % channels * height * width + it % size / channels] }
    }
}

/** The thermal states between the timed runs: the first one, and each change with the number of runs before it. */
private class Heat(private val device: Device) {
    val changes = mutableListOf<JsonObject>()
    private var state: String? = null
    private var asked = System.nanoTime() - SECOND

    /** Asks the device, at most once a second. */
    fun watch(runs: Int) {
        if (System.nanoTime() - asked < SECOND) return
        val now = device.thermalState()
        if (now != null && now != state) changes += obj("run" to runs, "state" to now)
        state = now
        asked = System.nanoTime()
    }
}

private const val SECOND = 1_000_000_000L
private const val MOST_TIMED = 1_000_000 // runs for the plan's seconds: many more make a record that no reader takes

private inline fun milliseconds(action: () -> Unit): Double = measureNanoTime(action) / 1e6

/** PSNR in dB of the image of [size] values in [a] against that in [b]. */
private fun psnr(a: FloatArray, atA: Int, b: FloatArray, atB: Int, size: Int): Double {
    val sum = (0 until size).sumOf { i -> (a[atA + i].toDouble() - b[atB + i]).let { it * it } }
    return minOf(10.0 * log10(4.0 * size / sum), 200.0)
}

internal fun median(values: List<Double>): Double =
    values.sorted().let { (it[(it.size - 1) / 2] + it[it.size / 2]) / 2 }

private const val UNREPORTED = "the system does not report it"

/** The reason of each field of a condition that is null at every moment. */
private fun unreported(conditions: JsonArray?): Map<String, String> {
    val rows = conditions.orEmpty().map { it.jsonObject }
    val names = rows.firstOrNull()?.keys.orEmpty().filter { name -> rows.all { it.getValue(name) is JsonNull } }
    return names.associate { "conditions.$it" to UNREPORTED }
}

/** The machine's states by moment; what is no plausible value is dropped, and null stands for nothing but nulls. */
private fun conditions(states: Map<String, Condition>): JsonArray? {
    val rows = states.mapValues { (_, state) ->
        mapOf(
            "temperature_c" to state.temperatureC?.takeIf { it in -100.0..300.0 },
            "clock_mhz" to state.clockMhz?.takeIf { it in 0.0..1e6 },
            "gpu_clock_mhz" to null,
            "gpu_load" to null,
            "power_w" to state.powerW?.takeIf { it in 0.0..1e6 },
            "throttled" to state.throttled,
            "thermal_state" to state.thermalState,
            "thermal_headroom" to state.thermalHeadroom?.takeIf { it in 0.0..100.0 },
            "battery_level" to state.batteryLevel?.takeIf { it in 0.0..1.0 },
            "charging" to state.charging,
            "foreground" to state.foreground,
        )
    }
    if (rows.values.all { row -> row.values.all { it == null } }) return null
    return JsonArray(rows.map { (moment, row) -> obj(row + ("when" to moment)) })
}
