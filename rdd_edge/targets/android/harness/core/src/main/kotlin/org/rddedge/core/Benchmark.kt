package org.rddedge.core

import java.io.File
import java.util.Calendar
import java.util.Locale
import java.util.TimeZone
import java.util.concurrent.ExecutionException
import java.util.concurrent.FutureTask
import java.util.concurrent.TimeUnit
import java.util.concurrent.TimeoutException
import java.util.concurrent.atomic.AtomicReference
import kotlin.concurrent.thread

/** How to run, apart from the plan. */
data class Options(
    val bundleSha256: String? = null, // that manifest.json must have
    val minPsnrDb: Double? = null, // least median of the self-test; null: it is reported only
    val stallSeconds: Double = 600.0, // after which a stage without progress is given up
    val where: String = "device", // or "simulator" or "host", which make no claim about a device's speed
)

/** A run that a driver asks for: [bundle], [plan] (null: the bundle's own) and [out] are paths. */
class Request(val bundle: File, val plan: File?, val out: File, val options: Options) {
    companion object {
        /**
         * Reads the extras of the README, whose paths are below [root]. Throws [HarnessException] for a path that
         * leads out of it and for a number that is none.
         */
        fun of(root: File, where: String, extra: (String) -> String?): Request {
            fun path(name: String) = extra(name)?.let { path ->
                val file = File(root, path).canonicalFile
                file.takeIf { it.path.startsWith("${root.canonicalPath}/") } ?: usage("$name is not a path below $root")
            }

            fun number(name: String) = extra(name)?.let { text ->
                text.toDoubleOrNull()?.takeIf { it.isFinite() && it > 0 } ?: usage("$name is not a positive number")
            }
            val bundle = path("bundle") ?: usage("there is no extra named bundle")
            val out = path("out") ?: usage("there is no extra named out")
            val options =
                Options(extra("bundle_sha256"), number("min_psnr_db"), number("stall_seconds") ?: 600.0, where)
            return Request(bundle, path("plan"), out, options)
        }

        private fun usage(sentence: String): Nothing = throw HarnessException(ErrorKind.USAGE, sentence)
    }
}

/** How a run ended. */
sealed interface Outcome {
    /** [folder] holds the whole run. */
    data class Finished(val folder: File, val bundle: Bundle, val test: SelfTest, val medianMs: Double) : Outcome

    /** [written]: whether the out folder holds the error.json of it. */
    data class Failed(val error: HarnessException, val written: Boolean) : Outcome
}

/**
 * One bench run of a bundle, from checking its files to the folder of the run.
 *
 * In order: hashes, self-tests, load, first inference, second load, warm-up, timed runs, samples. [run] blocks: call it
 * once, off the main thread. [cancel] may be called from any thread, [progress] is called from the one that runs.
 */
class Benchmark(
    private val runtime: Runtime,
    private val device: Device,
    private val options: Options = Options(),
    private val progress: (stage: String, done: Int) -> Unit = { _, _ -> },
) {
    /** Why the run ends early, or [PUBLISHING] once nothing can end it any more. */
    private val end = AtomicReference<HarnessException?>()

    @Volatile
    private var stage = "check"

    @Volatile
    private var lastProgress = System.nanoTime()

    fun cancel() {
        end.compareAndSet(null, HarnessException(ErrorKind.DEVICE, "the run was cancelled in stage $stage"))
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
                if ((System.nanoTime() - lastProgress) / 1e9 > options.stallSeconds) giveUp()
            } catch (_: InterruptedException) {
                cancel()
            } catch (error: ExecutionException) {
                val cause = error.cause ?: error
                if (cause is HarnessException) throw cause
                throw HarnessException(ErrorKind.DEVICE, "the harness failed in stage $stage: ${reason(cause)}", cause)
            }
        }
    }

    private fun giveUp() {
        val sentence = "there was no progress for ${options.stallSeconds} s in stage $stage: the run was given up"
        end.compareAndSet(null, HarnessException(ErrorKind.ARTIFACT, sentence))
        end.get()?.takeIf { it !== PUBLISHING }?.let { throw it }
    }

    private fun report(stage: String, done: Int) {
        this.stage = stage
        lastProgress = System.nanoTime()
        end.get()?.let { throw it }
        progress(stage, done)
    }

    private fun measure(bundleFolder: File, planFile: File?, out: File): Outcome.Finished {
        val started = "%1\$tFT%1\$tTZ".format(Locale.ROOT, Calendar.getInstance(TimeZone.getTimeZone("UTC")))
        val bundle = readBundle(bundleFolder, options.bundleSha256)
        val plan = planFile?.let(Plan::read) ?: bundle.manifest.defaultPlan
        val work = Work(runtime, bundle, plan, ::report)
        try {
            return RunFolder(out).publish {
                val test = work.prove(options.minPsnrDb)
                val facts = work.time(device).apply { samples = work.sample(this@publish) }
                facts.conditions["after"] = device.condition()
                readBundle(bundleFolder, bundle.sha256) // what was measured is what was named
                write("plan.json", plan.document)
                write("selftest.json", test.toJson(options.minPsnrDb))
                write("record.json", record(bundle, plan, facts, runtime.describe(), device, options.where, started))
                report("publish", 0)
                if (!end.compareAndSet(null, PUBLISHING)) report("publish", 0)
                Outcome.Finished(out, bundle, test, median(facts.latencyMs))
            }
        } finally {
            runCatching { runtime.close() }
        }
    }

    private fun readBundle(folder: File, expected: String?): Bundle {
        report("check", 0)
        val bundle = Bundle.read(folder) { report("check", it) }
        if (expected == null || bundle.sha256 == expected) return bundle
        corrupt("$folder is another bundle than the one asked for: its manifest's SHA-256 is ${bundle.sha256}")
    }
}

private val PUBLISHING = HarnessException(ErrorKind.DEVICE, "the run is being put in place")
