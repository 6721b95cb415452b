package org.rddedge.harness

import android.app.Activity
import android.content.Intent
import android.graphics.Bitmap
import android.graphics.Color
import android.graphics.drawable.BitmapDrawable
import android.os.Bundle
import android.util.Log
import android.view.WindowManager
import android.widget.Button
import android.widget.ImageView
import android.widget.LinearLayout
import android.widget.ScrollView
import android.widget.TextView
import org.rddedge.core.Benchmark
import org.rddedge.core.ErrorKind
import org.rddedge.core.HarnessException
import org.rddedge.core.Options
import org.rddedge.core.Outcome
import org.rddedge.core.Runtime
import java.io.DataInputStream
import java.io.File
import java.util.Locale
import kotlin.concurrent.thread
import org.rddedge.core.Bundle as ModelBundle

private const val TAG = "rdd-edge" // of the lines in the log by which a driver follows a run
private const val COLUMNS = 8

/**
 * Runs one bundle in the foreground and shows its images and median. The extras of the intent are those of [Request].
 * Without extras it lists the bundles in the app's own folder, to be tapped.
 */
open class BenchmarkActivity : Activity() {
    private lateinit var text: TextView
    private lateinit var page: LinearLayout
    private var picture: ImageView? = null // of the last run
    private var benchmark: Benchmark? = null
    private var lastLine = 0L

    private val system = AndroidDevice(this)
    private val where get() = if (system.isEmulator) "simulator" else "device"

    /** This app's own folder, the one that adb can read on every phone: some close Android/data to it. */
    @Suppress("DEPRECATION") // in favour of MediaStore, which is for media
    protected open val root: File
        get() = externalMediaDirs.firstOrNull()
            ?: throw HarnessException(ErrorKind.STORAGE, "there is no external storage: unlock the phone")

    /** Adb's own folder, which apps can read. */
    protected open val inbox = File("/data/local/tmp/rdd-edge")

    /** The runtime that executes the artifact. */
    protected open fun runtime(): Runtime = ExecuTorchRuntime(system.hasVulkan)

    override fun onCreate(savedInstanceState: Bundle?) {
        super.onCreate(savedInstanceState)
        window.addFlags(WindowManager.LayoutParams.FLAG_KEEP_SCREEN_ON)
        text = TextView(this).apply { textSize = 18f }
        page = LinearLayout(this).apply {
            orientation = LinearLayout.VERTICAL
            setPadding(48, 96, 48, 48)
            addView(text)
        }
        setContentView(ScrollView(this).apply { addView(page) })
        start(if (savedInstanceState == null) intent else Intent()) // an activity that the system restores runs nothing
    }

    override fun onNewIntent(intent: Intent) {
        super.onNewIntent(intent)
        if (benchmark == null) start(intent) else Log.e(TAG, "error UsageError a run is under way")
    }

    override fun onDestroy() {
        benchmark?.cancel()
        super.onDestroy()
    }

    private fun start(intent: Intent) {
        try {
            if (!intent.hasExtra("bundle")) return offerBundles()
            run(Request.of(root, inbox, where, intent::getStringExtra))
        } catch (error: HarnessException) {
            finished("error ${error.kind.wireName} ${error.sentence}")
        }
    }

    private fun offerBundles() {
        val bundles = File(root, "bundles").listFiles { file -> file.isDirectory }.orEmpty().sorted()
        text.text = if (bundles.isEmpty()) "Push a bundle to ${File(root, "bundles")}." else "Tap a bundle to run it."
        page.removeViews(1, page.childCount - 1) // those of an earlier start
        for (bundle in bundles) {
            val request = Request(bundle, null, File(root, "runs/${bundle.name}"), Options(where = where))
            val button = Button(this).apply { text = bundle.name }
            button.setOnClickListener { if (benchmark == null) run(request) }
            page.addView(button)
        }
    }

    private fun run(request: Request) {
        if (system.hasSustainedMode) window.setSustainedPerformanceMode(true)
        val benchmark = Benchmark(runtime(), system, request.options, ::progress).also { benchmark = it }
        text.text = request.bundle.name
        thread(name = "harness") {
            val outcome = benchmark.run(request.bundle, request.plan, request.out)
            val grid = (outcome as? Outcome.Finished)?.let { grid(it.bundle, File(it.folder, "samples.u8")) }
            runOnUiThread { show(outcome, grid) }
        }
    }

    /** On the screen and in the log, at most twice a second and at each new stage. */
    private fun progress(stage: String, done: Int) {
        val now = System.nanoTime()
        if (done > 0 && now - lastLine < 500_000_000) return
        lastLine = now
        Log.i(TAG, "$stage $done")
        runOnUiThread { text.text = if (done == 0) "$stage …" else "$stage: $done" }
    }

    private fun show(outcome: Outcome, grid: Bitmap?) {
        benchmark = null
        when (outcome) {
            is Outcome.Failed -> finished("error ${outcome.error.kind.wireName} ${outcome.error.sentence}")

            is Outcome.Finished -> {
                val (median, psnr) = outcome.medianMs to outcome.test.psnrDb
                finished("done %.3f ms median, %.1f dB from the student".format(Locale.ROOT, median, psnr))
            }
        }
        picture?.let(page::removeView)
        if (grid == null) return
        picture = ImageView(this).apply {
            setImageDrawable(BitmapDrawable(resources, grid).apply { isFilterBitmap = false }) // pixels as they are
            adjustViewBounds = true
        }
        page.addView(picture, LinearLayout.LayoutParams(LinearLayout.LayoutParams.MATCH_PARENT, 1000))
    }

    private fun finished(line: String) {
        Log.i(TAG, line)
        text.text = line
    }

    /** The first images of a run, or null where it has none. */
    private fun grid(bundle: ModelBundle, file: File): Bitmap? {
        val (_, channels, height, width) = bundle.manifest.shape
        val size = bundle.manifest.imageSize
        val count = minOf(COLUMNS * COLUMNS, (file.length() / size).toInt())
        if (count == 0 || channels !in listOf(1, 3)) return null
        val bytes = ByteArray(count * size)
        DataInputStream(file.inputStream()).use { it.readFully(bytes) }
        val rows = (count + COLUMNS - 1) / COLUMNS
        val (right, down) = width + 1 to height + 1 // from one image to the next, with a line between them
        val bitmap = Bitmap.createBitmap(COLUMNS * right - 1, rows * down - 1, Bitmap.Config.ARGB_8888)
        bitmap.eraseColor(Color.GRAY)
        for (pixel in 0 until count * height * width) {
            val (image, at) = pixel / (height * width) to pixel % (height * width)
            val (red, green, blue) = List(3) { bytes[pixel * channels + minOf(it, channels - 1)].toInt() and 0xFF }
            val (x, y) = image % COLUMNS * right + at % width to image / COLUMNS * down + at / width
            bitmap.setPixel(x, y, Color.rgb(red, green, blue))
        }
        return bitmap
    }
}
