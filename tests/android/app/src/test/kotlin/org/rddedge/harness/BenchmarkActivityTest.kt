package org.rddedge.harness

import android.content.Intent
import android.graphics.drawable.BitmapDrawable
import android.os.Looper
import android.view.View
import android.view.ViewGroup
import android.view.WindowManager
import android.widget.Button
import android.widget.ImageView
import android.widget.TextView
import org.junit.Assert.assertEquals
import org.junit.Assert.assertFalse
import org.junit.Assert.assertTrue
import org.junit.Test
import org.junit.runner.RunWith
import org.rddedge.core.TanhRuntime
import org.rddedge.core.writeBundle
import org.robolectric.Robolectric
import org.robolectric.RobolectricTestRunner
import org.robolectric.RuntimeEnvironment
import org.robolectric.Shadows.shadowOf
import org.robolectric.annotation.Config
import java.io.File

/** The activity with a runtime that computes tanh. */
class TanhActivity : BenchmarkActivity() {
    override fun runtime() = TanhRuntime()
}

/** From an intent to the run's folder and what is on the screen, in Robolectric's Android. */
@RunWith(RobolectricTestRunner::class)
@Config(sdk = [35], manifest = Config.NONE)
class BenchmarkActivityTest {
    private val root = RuntimeEnvironment.getApplication().getExternalFilesDir(null)!!

    private fun start(vararg extras: Pair<String, String>): TanhActivity {
        val intent = Intent()
        for ((key, value) in extras) intent.putExtra(key, value)
        return Robolectric.buildActivity(TanhActivity::class.java, intent.putExtra("min_psnr_db", 80f)).setup().get()
    }

    private fun views(view: View): List<View> =
        listOf(view) + if (view is ViewGroup) (0 until view.childCount).flatMap { views(view.getChildAt(it)) } else listOf()

    private fun BenchmarkActivity.views() = views(window.decorView)

    private fun BenchmarkActivity.line() = views().first { it is TextView && it !is Button }.let { it as TextView }.text.toString()

    /** Lets the main thread work until the last line is there. */
    private fun finish(activity: BenchmarkActivity): String {
        for (attempt in 1..200) {
            shadowOf(Looper.getMainLooper()).idle()
            if (activity.line().let { it.startsWith("done") || it.startsWith("error") }) break
            Thread.sleep(50)
        }
        return activity.line()
    }

    @Test
    fun `an intent runs a bundle, and its images are shown`() {
        writeBundle(File(root, "bundles/b"))
        val activity = start("bundle" to "bundles/b", "out" to "runs/b")
        assertTrue(finish(activity), Regex("done [0-9.]+ ms median, 200.0 dB from the student").matches(activity.line()))
        val record = File(root, "runs/b/record.json").readText()
        assertTrue(record, "\"system\": \"Android 15 (API 35)\"" in record && "\"where\": \"device\"" in record)
        val image = activity.views().filterIsInstance<ImageView>().single().drawable as BitmapDrawable
        assertEquals(Pair(8 * 6, 2 * 4), Pair(image.bitmap.width, image.bitmap.height))
        val flags = activity.window.attributes.flags
        assertEquals(WindowManager.LayoutParams.FLAG_KEEP_SCREEN_ON, flags and WindowManager.LayoutParams.FLAG_KEEP_SCREEN_ON)
    }

    @Test
    fun `without extras a tap runs a bundle`() {
        writeBundle(File(root, "bundles/tapped"))
        val activity = start()
        activity.views().filterIsInstance<Button>().single { it.text == "tapped" }.performClick()
        assertTrue(finish(activity), activity.line().startsWith("done"))
        assertTrue(File(root, "runs/tapped/record.json").isFile)
    }

    @Test
    fun `a bundle that is not there is an error on the screen and in the out folder`() {
        val line = finish(start("bundle" to "bundles/none", "out" to "runs/none"))
        assertTrue(line, line.startsWith("error MissingError ") && "is not a bundle" in line)
        assertEquals(listOf("error.json"), File(root, "runs/none").list()?.toList())
    }

    @Test
    fun `paths outside the app's folder are refused`() {
        writeBundle(File(root, "bundles/b"))
        for (path in listOf("../out", "/../../../../../../tmp/rdd-edge-out", "runs/../../out", "", ".")) {
            val line = finish(start("bundle" to "bundles/b", "out" to path))
            assertTrue(line, line.startsWith("error UsageError "))
            assertTrue(finish(start("bundle" to path, "out" to "runs/x")).startsWith("error UsageError"))
            assertTrue(finish(start("bundle" to "bundles/b", "plan" to path, "out" to "runs/x")).startsWith("error UsageError"))
        }
        assertFalse(File(root, "runs/x").exists())
    }
}
