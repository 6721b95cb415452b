package org.rddedge.core

import kotlinx.serialization.json.JsonObject
import java.io.File
import java.io.FileOutputStream
import java.io.IOException
import java.util.Calendar
import java.util.Locale
import java.util.TimeZone
import java.util.UUID
import java.util.concurrent.ExecutionException
import java.util.concurrent.FutureTask
import java.util.concurrent.TimeUnit
import java.util.concurrent.TimeoutException
import kotlin.concurrent.thread

/** How to run, apart from the plan. */
data class Options(
    val bundleSha256: String? = null, // that manifest.json must have
    val minPsnrDb: Double? = null, // least median of the self-test; null: it is reported only
    val stallSeconds: Double = 600.0, // after which a stage without progress is given up
    val where: String = "device", // or "simulator" or "host", which make no claim about a device's speed
)

/** How a run ended. */
sealed interface Outcome {
    data class Finished(val folder: File, val bundle: Bundle, val test: SelfTest, val medianMs: Double) : Outcome

    /** [written]: whether the out folder holds its error.json. */
    data class Failed(val error: HarnessException, val written: Boolean) : Outcome
}

/**
 * One benchmark run of a bundle: hashes, self-tests, load, first inference, second load, warm-up, timed runs, samples.
 * [run] blocks: call it once, off the main thread. [cancel] may be called from any thread, [progress] is called from a
 * thread of its own.
 */
class Benchmark(
    private val runtime: Runtime,
    private val device: Device,
    private val options: Options = Options(),
    private val progress: (stage: String, done: Int) -> Unit = { _, _ -> },
) {
    @Volatile private var end: HarnessException? = null // why the run ends early

    @Volatile private var stage = "check"

    @Volatile private var lastProgress = System.nanoTime()

    fun cancel() {
        end = HarnessException(ErrorKind.DEVICE, "the run was cancelled in stage $stage")
    }

    /**
     * Runs the bundle by the plan in [planFile], or by its own where that is null. [out] then holds the run, or
     * error.json alone. A runtime that does not come back leaves its thread behind.
     */
    fun run(bundleFolder: File, planFile: File?, out: File): Outcome {
        val task = FutureTask { measure(bundleFolder, planFile, out) }
        lastProgress = System.nanoTime()
        thread(isDaemon = true, name = "benchmark") { task.run() }
        try {
            return await(task)
        } catch (error: HarnessException) {
            val document = obj("schema_version" to 1, "kind" to error.kind.wireName, "sentence" to error.sentence)
            val written = runCatching { RunFolder(out).publish { write("error.json", document) } }.isSuccess
            return Outcome.Failed(error, written)
        }
    }

    private fun await(task: FutureTask<Outcome.Finished>): Outcome.Finished {
        while (true) {
            try {
                return task.get(50, TimeUnit.MILLISECONDS)
            } catch (_: TimeoutException) {
                if ((System.nanoTime() - lastProgress) / 1e9 < options.stallSeconds) continue
                val sentence = "there was no progress for ${options.stallSeconds} s in stage $stage: it was given up"
                throw HarnessException(ErrorKind.ARTIFACT, sentence).also { end = it }
            } catch (error: ExecutionException) {
                val cause = error.cause ?: error
                if (cause is HarnessException) throw cause
                throw HarnessException(ErrorKind.DEVICE, "the harness failed in stage $stage: ${reason(cause)}", cause)
            }
        }
    }

    private fun report(stage: String, done: Int) {
        this.stage = stage
        lastProgress = System.nanoTime()
        end?.let { throw it }
        progress(stage, done)
    }

    private fun measure(bundleFolder: File, planFile: File?, out: File): Outcome.Finished {
        val started = "%1\$tFT%1\$tTZ".format(Locale.ROOT, Calendar.getInstance(TimeZone.getTimeZone("UTC")))
        val bundle = Bundle.read(bundleFolder, options.bundleSha256, ::report)
        val plan = planFile?.let(Plan::read) ?: bundle.manifest.defaultPlan
        val work = Work(runtime, bundle, plan, ::report)
        try {
            return RunFolder(out).publish {
                val test = work.prove(device, options.minPsnrDb)
                val measured = work.measure(device, this) + mapOf("where" to options.where, "started_at" to started)
                Bundle.read(bundleFolder, bundle.sha256, ::report) // what was measured is what was named
                write("plan.json", plan.document)
                write("selftest.json", test.toJson(options.minPsnrDb))
                write("record.json", work.record(device, measured))
                report("publish", 0)
                Outcome.Finished(out, bundle, test, median(work.latency))
            }
        } finally {
            runCatching { runtime.close() }
        }
    }
}

/** A folder written beside [out] that takes its place in one step, so that [out] is there whole or not at all. */
internal class RunFolder(private val out: File) {
    private val parent: File = out.absoluteFile.parentFile
    private val beside = File(parent, ".${out.name}.${UUID.randomUUID().toString().take(8)}")

    init {
        val ours = listOf("record.json", "error.json").any { File(out, it).isFile }
        if (out.exists() && !ours && !(out.isDirectory && out.list().isNullOrEmpty())) {
            throw HarnessException(ErrorKind.USAGE, "$out exists and is not a benchmark run: choose another folder")
        }
        val leftover = Regex(Regex.escape(".${out.name}.") + "[0-9a-f]{8}")
        parent.listFiles { file -> leftover.matches(file.name) }?.forEach { it.deleteRecursively() }
        if (!beside.mkdirs()) throw HarnessException(ErrorKind.STORAGE, "cannot write $out: $parent is not writable")
    }

    fun write(name: String, document: JsonObject) = write(name) { it.write("$document\n".toByteArray()) }

    /** Writes a file and waits until it is on the disk. Throws [HarnessException] where that fails. */
    fun write(name: String, content: (FileOutputStream) -> Unit) {
        try {
            FileOutputStream(File(beside, name)).use {
                content(it)
                it.fd.sync()
            }
        } catch (error: IOException) {
            val full = listOf("ENOSPC", "No space left").any { it in reason(error) }
            val sentence = if (full) "the disk is full: $out was not written" else "cannot write $out: ${reason(error)}"
            throw HarnessException(ErrorKind.STORAGE, sentence, error)
        }
    }

    fun delete(name: String) = File(beside, name).delete()

    /** Lets [fill] write the folder and puts it in place of an earlier run, or leaves that run where it fails. */
    fun <T> publish(fill: RunFolder.() -> T): T {
        try {
            val result = fill()
            val free = !out.exists() || out.deleteRecursively()
            if (!free || !beside.renameTo(out)) throw HarnessException(ErrorKind.STORAGE, "cannot write $out")
            return result
        } finally {
            beside.deleteRecursively()
        }
    }
}
