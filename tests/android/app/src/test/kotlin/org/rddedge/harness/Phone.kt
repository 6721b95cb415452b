package org.rddedge.harness

import org.rddedge.core.Benchmark
import org.rddedge.core.Bundle
import org.rddedge.core.FakeDevice
import org.rddedge.core.Outcome
import org.rddedge.core.Runtime
import org.rddedge.core.RuntimeInfo
import org.rddedge.core.TanhRuntime
import java.io.DataInputStream
import java.io.File
import java.nio.ByteBuffer
import java.nio.ByteOrder
import kotlin.system.exitProcess

/** ExecuTorch on this machine, in a child process with the protocol of child.py, whose command line is [command]. */
class ChildRuntime(private val command: List<String>) : Runtime {
    private var child: Process? = null

    override fun describe() = RuntimeInfo("executorch", "host")

    override fun load(bundle: Bundle, threads: Int) {
        val (shape, classes) = bundle.manifest.shape to bundle.manifest.classes
        val arguments =
            listOf(bundle.artifact.path, "$threads", shape.joinToString(","), "${classes?.let { shape[0] } ?: 0}")
        val child = child ?: ProcessBuilder(command + arguments).start().also { child = it }
        child.outputStream.apply { write('l'.code) }.flush()
        check(child.inputStream.read() == 'r'.code) { child.errorReader().readLines().lastOrNull() ?: "it died" }
    }

    override fun run(z: FloatArray, labels: LongArray?): FloatArray {
        val bytes = ByteBuffer.allocate(1 + 4 * z.size + 8 * (labels?.size ?: 0)).order(ByteOrder.LITTLE_ENDIAN)
        bytes.put('x'.code.toByte())
        z.forEach { bytes.putFloat(it) }
        labels?.forEach { bytes.putLong(it) }
        val child = checkNotNull(child)
        child.outputStream.apply { write(bytes.array()) }.flush()
        val x = ByteArray(4 * z.size).also { DataInputStream(child.inputStream).readFully(it) }
        return FloatArray(z.size).also { ByteBuffer.wrap(x).order(ByteOrder.LITTLE_ENDIAN).asFloatBuffer().get(it) }
    }

    /** The child stays for the next load: it takes seconds to start. It ends with this process. */
    override fun close() = Unit
}

/** A runtime with a planted fault: in the run of number [at], or in the artifact as a whole. */
class FaultyRuntime(private val inner: Runtime, private val fault: String, private val at: Int) : Runtime by inner {
    private lateinit var bundle: Bundle
    private var runs = 0

    override fun load(bundle: Bundle, threads: Int) {
        this.bundle = bundle
        if (fault == "load") error("the program needs a newer runtime")
        inner.load(bundle, threads)
    }

    override fun run(z: FloatArray, labels: LongArray?): FloatArray {
        val x = inner.run(z, labels)
        runs++
        when {
            fault == "channels" -> return reversedChannels(x)
            runs < at -> return x
            fault == "stuck" -> Thread.sleep(Long.MAX_VALUE)
            fault == "throws" -> throw IllegalStateException("out of arena")
            fault == "dies" -> java.lang.Runtime.getRuntime().halt(139)
        }
        return x
    }

    /** N H W C order where N C H W is asked for, which for one channel is upside down. */
    private fun reversedChannels(x: FloatArray): FloatArray {
        val (_, channels, height, width) = bundle.manifest.shape
        if (channels == 1) return x.reversedArray()
        val area = height * width
        return FloatArray(x.size) { i ->
            val image = i - i % (channels * area)
            val (pixel, channel) = (i - image) / channels to (i - image) % channels
            x[image + channel * area + pixel]
        }
    }
}

/** A simulated phone as tests/adb_device.py lays it out, seen from the app: [arguments] are FOLDER and those of `am`. */
class Phone(arguments: List<String>) {
    val folder = File(arguments[0])
    val root = File(folder, "sdcard/Android/media/org.rddedge.harness")
    val inbox = File(folder, "data/local/tmp/rdd-edge")
    val extras = arguments.windowed(3).filter { it[0] == "--es" }.associate { it[1] to it[2] }

    fun log(line: String) = File(folder, "log/main").appendText("$line\n")

    /** ExecuTorch where CHILD has its command line, else tanh; with the fault that a test has planted. */
    fun runtime(): Runtime {
        val runtime = System.getenv("CHILD")?.split(' ')?.let(::ChildRuntime) ?: TanhRuntime()
        val fault = File(folder, "state/fault").takeIf { it.isFile } ?: return runtime
        val (name, at) = fault.readText().split(' ')
        return FaultyRuntime(runtime, name, at.toInt())
    }
}

/** What `am start` runs without Android: FOLDER, then am's own arguments. */
fun main(arguments: Array<String>) {
    val phone = Phone(arguments.toList())
    val request = Request.of(phone.root, phone.inbox, "device") { phone.extras[it] }
    var last = 0L
    val benchmark = Benchmark(phone.runtime(), FakeDevice(), request.options) { stage, done ->
        if (done == 0 || System.nanoTime() - last > 50_000_000) {
            last = System.nanoTime()
            phone.log("$stage $done")
        }
    }
    when (val outcome = benchmark.run(request.bundle, request.plan, request.out)) {
        is Outcome.Finished -> phone.log("done ${outcome.medianMs} ms median")
        is Outcome.Failed -> phone.log("error ${outcome.error.kind.wireName} ${outcome.error.sentence}")
    }
    exitProcess(0)
}
