package org.rddedge.core

import kotlinx.serialization.json.Json
import kotlinx.serialization.json.JsonArray
import kotlinx.serialization.json.JsonNull
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.JsonPrimitive
import kotlinx.serialization.json.double
import kotlinx.serialization.json.jsonArray
import kotlinx.serialization.json.jsonObject
import kotlinx.serialization.json.jsonPrimitive
import org.junit.jupiter.api.Assertions.assertArrayEquals
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertFalse
import org.junit.jupiter.api.Assertions.assertInstanceOf
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Assumptions.assumeTrue
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.io.TempDir
import java.io.File
import java.util.concurrent.CountDownLatch
import java.util.concurrent.TimeUnit
import kotlin.concurrent.thread
import kotlin.math.tanh

/** Whole runs with a runtime that computes tanh, and the ways in which they fail. */
class BenchmarkTest {
    @TempDir
    lateinit var temporary: File

    private val out get() = File(temporary, "out")

    private fun bundle(batch: Int = 1, classes: Int? = null, change: (JsonObject) -> JsonObject = { it }) =
        writeBundle(File(temporary, "bundle"), batch, classes, change)

    private fun planFile(plan: JsonObject) = File(temporary, "plan.json").apply { writeText(plan.toString()) }

    private fun document(name: String) = Json.parseToJsonElement(File(out, name).readText()).jsonObject

    private fun JsonObject.text(key: String) = getValue(key).jsonPrimitive.content

    private fun finished(outcome: Outcome) = assertInstanceOf(Outcome.Finished::class.java, outcome, "$outcome")

    /** The error of a failed run, which is all that its out folder holds. */
    private fun failed(outcome: Outcome): HarnessException {
        val failed = assertInstanceOf(Outcome.Failed::class.java, outcome)
        assertTrue(failed.written, failed.error.sentence)
        assertEquals(listOf("error.json"), out.list()?.toList())
        val document = document("error.json")
        assertEquals(setOf("schema_version", "kind", "sentence"), document.keys)
        assertEquals(failed.error.kind.wireName, document.text("kind"))
        assertEquals(failed.error.sentence, document.text("sentence"))
        assertEquals(emptyList<String>(), leftovers())
        return failed.error
    }

    private fun leftovers() = temporary.list()!!.filter { it.startsWith(".out") }

    @Test
    fun `the work is done in order and told of`() {
        val runtime = TanhRuntime()
        val told = mutableListOf<String>()
        val benchmark = Benchmark(runtime, FakeDevice()) { stage, done -> told += "$stage $done" }
        val outcome = finished(benchmark.run(bundle(), null, out))
        val order = listOf("load") + List(5) { "run" } + "close" + listOf("load", "run", "load") +
            List(2 + 6 + 11) { "run" } + "close"
        assertEquals(order, runtime.calls)
        val stages = told.map { it.substringBefore(' ') }.fold(listOf<String>()) { all, it ->
            if (all.lastOrNull() == it) all else all + it
        }
        val expected =
            listOf("check", "verify", "load", "first", "load", "warmup", "time", "samples", "check", "publish")
        assertEquals(expected, stages)
        assertEquals("verify 5", told.last { it.startsWith("verify") })
        assertEquals(200.0, outcome.test.psnrDb)
        assertEquals(
            setOf("plan.json", "record.json", "samples.f32", "samples.u8", "selftest.json"),
            out.list()!!.toSet(),
        )
        assertEquals(emptyList<String>(), leftovers())
    }

    @Test
    fun `the record holds raw facts and a reason for each null`() {
        val folder = bundle(batch = 2, classes = 10)
        val outcome = finished(Benchmark(TanhRuntime(), FakeDevice()).run(folder, null, out))
        val record = document("record.json")
        assertEquals(sha256(File(folder, "manifest.json").readBytes()), record.text("bundle_sha256"))
        assertEquals(
            listOf("2", "2", "device", "4"),
            listOf("threads", "batch", "where", "artifact_bytes").map {
                record.text(it)
            },
        )
        val latency = record.getValue("latency_ms").jsonArray.map { it.jsonPrimitive.double }
        assertEquals(6, latency.size)
        assertEquals(latency.sorted().let { (it[2] + it[3]) / 2 }, outcome.medianMs)
        assertTrue(Regex("\\d{4}-\\d\\d-\\d\\dT\\d\\d:\\d\\d:\\d\\dZ").matches(record.text("started_at")))
        val missing = record.getValue("missing").jsonObject
        val nulls = record.filterValues { it is JsonNull }.keys - "checkpoint"
        assertEquals(nulls + setOf("conditions.gpu_clock_mhz", "conditions.gpu_load"), missing.keys)
        assertEquals(
            listOf("50000000", "123456789", "1"),
            listOf("baseline_memory_bytes", "peak_memory_bytes", "starts").map { record.text(it) },
        )
        val before = record.getValue("conditions").jsonArray.first().jsonObject
        val told = listOf("thermal_state", "thermal_headroom", "battery_level", "charging", "foreground")
        assertEquals(listOf("none", "0.35", "0.8", "false", "true"), told.map { before.text(it) })
        assertEquals(
            setOf("build_ms", "transfers", "operators", "clocks_locked", "power_mode", "compiled_before"),
            nulls,
        )
        val moments = record.getValue("conditions").jsonArray.map { it.jsonObject.text("when") }
        assertEquals(listOf("before", "during", "after"), moments)
        assertEquals(document("plan.json"), plan())
    }

    @Test
    fun `a change of the thermal state is recorded with the runs before it`() {
        val begin = System.nanoTime()
        val device = FakeDevice { if (System.nanoTime() - begin < 500_000_000) "none" else "severe" }
        val bundle = bundle(change = { obj(it + ("default_plan" to plan(seconds = 1.3))) })
        finished(Benchmark(TanhRuntime { Thread.sleep(10) }, device).run(bundle, null, out))
        val changes = document("record.json").getValue("thermal_changes").jsonArray.map { it.jsonObject }
        assertEquals(listOf("none", "severe"), changes.map { it.text("state") })
        val runs = changes.map { it.text("run").toInt() }
        assertEquals(0, runs.first())
        assertTrue(runs.last() in 1..document("record.json").getValue("latency_ms").jsonArray.size)
    }

    @Test
    fun `the samples are those of the plan's noise, in N H W C order`() {
        finished(Benchmark(TanhRuntime(), FakeDevice()).run(bundle(batch = 4, classes = 3), null, out))
        val z = FloatArray(72)
        val seed = 1uL.shl(63) + 3u
        val expected = (0 until 11).flatMap { sample ->
            Noise.normals(seed, sample.toULong(), z, 0, 72)
            (0 until 72).map { i ->
                val (pixel, channel) = i / 3 to i % 3
                tanh(z[channel * 24 + pixel].toDouble()).toFloat() * (sample % 3 / 10.0).toFloat()
            }
        }
        assertArrayEquals(expected.map { Noise.toUint8(it) }.toByteArray(), File(out, "samples.u8").readBytes())
        val samples = document("record.json").getValue("samples").jsonObject
        assertEquals(sha256(File(out, "samples.u8").readBytes()), samples.text("u8_sha256"))
        assertEquals(sha256(File(out, "samples.f32").readBytes()), samples.text("f32_sha256"))
        assertEquals(4L * 4 * 72, File(out, "samples.f32").length())
    }

    @Test
    fun `the last batch is filled up with its last sample`() {
        val seen = mutableListOf<List<Long>>()
        val runtime = object : TanhRuntime() {
            override fun run(z: FloatArray, labels: LongArray?): FloatArray {
                seen += labels!!.toList()
                return super.run(z, labels)
            }
        }
        finished(Benchmark(runtime, FakeDevice()).run(bundle(batch = 4, classes = 3), null, out))
        assertEquals(listOf(listOf(0L, 1L, 2L, 0L), listOf(1L, 1L, 1L, 1L)), seen.take(2)) // 5 parity images
        assertEquals(listOf(2L, 0L, 1L, 1L), seen.last()) // 11 samples
    }

    @Test
    fun `it runs at least as many times and as long as the plan says`() {
        val slow = TanhRuntime { Thread.sleep(10) }
        val plan = planFile(plan(runs = 3, samples = 0, seconds = 0.3))
        finished(Benchmark(slow, FakeDevice()).run(bundle(), plan, out))
        val record = document("record.json")
        assertTrue(record.getValue("latency_ms").jsonArray.size in 10..30)
        assertTrue(record.getValue("latency_ms").jsonArray.all { it.jsonPrimitive.double >= 10.0 })
        assertEquals("the plan has no samples", record.getValue("missing").jsonObject.text("samples"))
        assertFalse(File(out, "samples.u8").exists())
    }

    @Test
    fun `a very fast runtime does not make a record that no reader takes`() {
        val instant = object : TanhRuntime() {
            private val x = FloatArray(72)

            override fun run(z: FloatArray, labels: LongArray?): FloatArray = x
        }
        finished(Benchmark(instant, FakeDevice()).run(bundle(), planFile(plan(samples = 0, seconds = 3600.0)), out))
        assertEquals(1_000_000, document("record.json").getValue("latency_ms").jsonArray.size)
    }

    @Test
    fun `what the system does not tell is null, and what is implausible is dropped`() {
        val silent = FakeDevice(Condition(Double.NaN, -5.0, null, null, null, -0.1, 1.5, null, null, null, 1))
        finished(Benchmark(TanhRuntime(), silent).run(bundle(), planFile(plan(floats = 0)), out))
        val record = document("record.json")
        assertEquals(JsonNull, record["conditions"])
        assertTrue("temperature" in record.getValue("missing").jsonObject.text("conditions"))
        assertFalse(File(out, "samples.f32").exists())
    }

    @Test
    fun `a device that computes something else is refused below the threshold and reported above`() {
        val wrong = object : TanhRuntime() {
            override fun run(z: FloatArray, labels: LongArray?) = super.run(z, labels).apply { reverse() }
        }
        val error = failed(Benchmark(wrong, FakeDevice(), Options(minPsnrDb = 80.0)).run(bundle(), null, out))
        assertEquals(ErrorKind.THRESHOLD, error.kind)
        assertTrue("dB from the student on this device, and 80.0 dB are required" in error.sentence, error.sentence)
        val outcome = finished(Benchmark(wrong, FakeDevice()).run(bundle(), null, out))
        assertTrue(outcome.test.psnrDb in 0.0..20.0)
        assertEquals(outcome.test.psnrDb, document("selftest.json").getValue("psnr_db").jsonPrimitive.double)
    }

    @Test
    fun `other noise or labels than the bundle's are an error`() {
        val folder = bundle(classes = 4)
        for ((name, at) in listOf("parity/z.f32" to 42, "parity/label.i64" to 8)) {
            val file = File(folder, name)
            val good = file.readBytes()
            file.writeBytes(good.copyOf().also { it[at] = (it[at] + 64).toByte() })
            rehash(folder, name)
            val error = failed(Benchmark(TanhRuntime(), FakeDevice()).run(folder, null, out))
            assertEquals(ErrorKind.ARTIFACT, error.kind)
            assertTrue(name in error.sentence, error.sentence)
            file.writeBytes(good)
            rehash(folder, name)
        }
        finished(Benchmark(TanhRuntime(), FakeDevice()).run(folder, null, out))
    }

    @Test
    fun `a device that computes other golden vectors is not run, and the vector is named`() {
        for ((name, from, to) in listOf(
            Triple("words", "1713891541", "1713891542"),
            Triple("labels", "\"label\":5", "\"label\":6"),
            Triple("rounding", "\"pixel\":255", "\"pixel\":254"),
            Triple("normals", "\"z\":[", "\"z\":[9.5,"),
        )) {
            val runtime = TanhRuntime()
            val folder = bundle()
            val file = File(folder, "contract/$name.json")
            file.writeText(file.readText().also { assertTrue(from in it, name) }.replace(from, to))
            rehash(folder, "contract/$name.json")
            val error = failed(Benchmark(runtime, FakeDevice()).run(folder, null, out))
            assertEquals(ErrorKind.ARTIFACT, error.kind)
            assertTrue("this device computes other $name than contract/$name.json, case " in error.sentence)
            assertEquals(listOf("close"), runtime.calls)
        }
    }

    private fun rehash(folder: File, name: String) {
        val file = File(folder, "manifest.json")
        val manifest = Json.parseToJsonElement(file.readText()).jsonObject
        val hash = JsonPrimitive(sha256(File(folder, name).readBytes()))
        val files = JsonObject(manifest.getValue("files").jsonObject + (name to hash))
        file.writeText(JsonObject(manifest + ("files" to files)).toString())
    }

    @Test
    fun `a runtime that throws in the third timed run is named`() {
        val thrown = listOf(
            IllegalStateException("arena\u001b[2J too small\nat frame 1"),
            OutOfMemoryError(),
            UnsatisfiedLinkError("no xnnpack"),
        )
        for (error in thrown) {
            val runtime = TanhRuntime { if (it == 5 + 1 + 2 + 3) throw error }
            val found = failed(Benchmark(runtime, FakeDevice()).run(bundle(), null, out))
            assertEquals(ErrorKind.ARTIFACT, found.kind)
            assertTrue(found.sentence.startsWith("fakert 7.0 cannot run ${temporary.path}/bundle/model.fake: "))
            assertEquals("close", runtime.calls.last())
        }
    }

    @Test
    fun `outputs that are no images are refused`() {
        for ((word, change) in mapOf<String, (FloatArray) -> FloatArray>(
            "not finite, first in image 3" to { x -> x.also { it[7] = Float.NaN } },
            "gave 71 values, not 72" to { it.copyOf(71) },
        )) {
            var runs = 0
            val runtime = object : TanhRuntime() {
                override fun run(z: FloatArray, labels: LongArray?) =
                    super.run(z, labels).let { if (++runs == 4) change(it) else it }
            }
            assertTrue(word in failed(Benchmark(runtime, FakeDevice()).run(bundle(), null, out)).sentence)
        }
    }

    @Test
    fun `a runtime that is stuck is given up and changes nothing later`() {
        val release = CountDownLatch(1)
        val runtime = TanhRuntime { if (it == 10) release.await() }
        val benchmark = Benchmark(runtime, FakeDevice(), Options(stallSeconds = 2.0))
        val error = failed(benchmark.run(bundle(), null, out))
        assertTrue("no progress for 2.0 s in stage time" in error.sentence, error.sentence)
        release.countDown()
        Thread.sleep(300)
        failed(Outcome.Failed(error, written = true)) // the folder is what it was
    }

    @Test
    fun `a run can be cancelled, from within and from another thread`() {
        lateinit var benchmark: Benchmark
        benchmark = Benchmark(TanhRuntime(), FakeDevice()) { stage, _ -> if (stage == "samples") benchmark.cancel() }
        val error = failed(benchmark.run(bundle(), null, out))
        assertEquals(ErrorKind.DEVICE, error.kind)
        assertTrue("cancelled in stage samples" in error.sentence)

        val started = CountDownLatch(1)
        val endless = TanhRuntime { if (it > 20) started.countDown() }
        benchmark = Benchmark(endless, FakeDevice())
        thread {
            started.await(20, TimeUnit.SECONDS)
            benchmark.cancel()
        }
        val plan = planFile(plan(runs = 10_000_000))
        assertTrue("cancelled in stage time" in failed(benchmark.run(bundle(), plan, out)).sentence)
    }

    @Test
    fun `a bundle that changes while it is measured, or is another, is refused`() {
        val folder = bundle()
        val meddler = TanhRuntime { if (it == 12) File(folder, "model.fake").appendText("!") }
        assertTrue("SHA-256 differs" in failed(Benchmark(meddler, FakeDevice()).run(folder, null, out)).sentence)
        val other = Options(bundleSha256 = "0".repeat(64))
        val error = failed(Benchmark(TanhRuntime(), FakeDevice(), other).run(bundle(), null, out))
        assertEquals(ErrorKind.CORRUPT, error.kind)
        assertTrue("another bundle" in error.sentence)
    }

    @Test
    fun `a run takes the place of an earlier one, and of nothing else`() {
        failed(Benchmark(TanhRuntime(), FakeDevice()).run(File(temporary, "nothing"), null, out))
        File(temporary, ".out.0123abcd").mkdir() // of a run that was killed
        finished(Benchmark(TanhRuntime(), FakeDevice()).run(bundle(), null, out))
        assertEquals(emptyList<String>(), leftovers())
        out.deleteRecursively()
        File(out, "photos").mkdirs()
        val outcome = Benchmark(TanhRuntime(), FakeDevice()).run(bundle(), null, out)
        val failed = assertInstanceOf(Outcome.Failed::class.java, outcome)
        assertEquals(Pair(ErrorKind.USAGE, false), Pair(failed.error.kind, failed.written))
        assertEquals(listOf("photos"), out.list()?.toList())
    }

    @Test
    fun `a place that cannot be written is a sentence`() {
        val file = File(temporary, "file").apply { writeText("x") }
        val outcome = Benchmark(TanhRuntime(), FakeDevice()).run(bundle(), null, File(file, "run"))
        val failed = assertInstanceOf(Outcome.Failed::class.java, outcome)
        assertEquals(Pair(ErrorKind.STORAGE, false), Pair(failed.error.kind, failed.written))
        assertTrue("cannot write" in failed.error.sentence)
        assertEquals("x", file.readText())
    }

    @Test
    fun `a full disk is a sentence, and its error fits once the samples are gone`() {
        val disk = File(temporary, "disk").apply { mkdir() }
        val mount = ProcessBuilder("mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk.path)
        assumeTrue(runCatching { mount.start().waitFor() == 0 }.getOrDefault(false), "mounting takes root")
        try {
            val plan = planFile(plan(samples = 2000))
            val run = File(disk, "out")
            val outcome = Benchmark(TanhRuntime(), FakeDevice()).run(bundle(), plan, run)
            val failed = assertInstanceOf(Outcome.Failed::class.java, outcome)
            assertEquals(Pair(ErrorKind.STORAGE, true), Pair(failed.error.kind, failed.written))
            assertEquals("the disk is full: $run was not written", failed.error.sentence)
            assertEquals(
                listOf("out/error.json"),
                disk.walk().filter {
                    it.isFile
                }.map { it.relativeTo(disk).path }.toList(),
            )
        } finally {
            ProcessBuilder("umount", disk.path).start().waitFor()
        }
    }

    @Test
    fun `a record's text is printable whatever the system says`() {
        val runtime = object : TanhRuntime() {
            override fun describe() = RuntimeInfo("evil\u001b[2J", "\u202e7\n")
        }
        finished(Benchmark(runtime, FakeDevice()).run(bundle(), null, out))
        fun check(value: Any) {
            when (value) {
                is JsonObject -> value.values.forEach(::check)
                is JsonArray -> value.forEach(::check)
                is JsonPrimitive -> assertTrue(isPrintable(value.content), value.content)
            }
        }
        check(document("record.json"))
    }
}
