package org.rddedge.harness

import android.content.Intent
import android.os.Bundle
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
import org.junit.Rule
import org.junit.Test
import org.junit.rules.TemporaryFolder
import org.junit.runner.RunWith
import org.rddedge.core.writeBundle
import org.robolectric.Robolectric
import org.robolectric.RobolectricTestRunner
import org.robolectric.Shadows.shadowOf
import org.robolectric.android.controller.ActivityController
import org.robolectric.annotation.Config
import org.robolectric.shadows.ShadowEnvironment
import org.robolectric.shadows.ShadowLog
import java.io.File

/** The activity as a finger and as adb start it, in Robolectric. */
@RunWith(RobolectricTestRunner::class)
@Config(sdk = [35])
class BenchmarkActivityTest {
    @get:Rule
    val temporary = TemporaryFolder()

    private val phone get() = Phone(listOf(temporary.root.path))

    private fun start(vararg extras: Pair<String, String>): PhoneActivity = controller(*extras).setup().get()

    private fun controller(vararg extras: Pair<String, String>): ActivityController<PhoneActivity> {
        System.setProperty("phone", temporary.root.path)
        File(temporary.root, "log").mkdirs()
        phone.root.mkdirs()
        val intent = Intent(Intent.ACTION_MAIN)
        extras.forEach { (key, value) -> intent.putExtra(key, value) }
        return Robolectric.buildActivity(PhoneActivity::class.java, intent)
    }

    private inline fun <reified T : View> views(view: View): List<T> {
        val all = ArrayDeque(listOf(view))
        val found = mutableListOf<T>()
        while (all.isNotEmpty()) {
            val next = all.removeFirst()
            if (next is T) found += next
            if (next is ViewGroup) for (i in 0 until next.childCount) all += next.getChildAt(i)
        }
        return found
    }

    private fun content(activity: PhoneActivity): View = activity.findViewById(android.R.id.content)!!

    private fun text(activity: PhoneActivity) = views<TextView>(content(activity)).first().text.toString()

    private fun lastLine(): String {
        repeat(1000) {
            shadowOf(Looper.getMainLooper()).idle()
            val line = ShadowLog.getLogsForTag("rdd-edge").lastOrNull()?.msg.orEmpty()
            if (line.startsWith("done ") || line.startsWith("error ")) return line
            Thread.sleep(20)
        }
        error("the run did not end")
    }

    @Test
    fun `a tap runs a bundle and shows its images and median`() {
        writeBundle(File(phone.root, "bundles/tanh"))
        val activity = start()
        assertEquals("Tap a bundle to run it.", text(activity))
        views<Button>(content(activity)).single { it.text == "tanh" }.performClick()
        val line = lastLine()
        assertTrue(line, Regex("done \\d+\\.\\d{3} ms median, 200\\.0 dB from the student").matches(line))
        assertEquals(line, text(activity))
        assertEquals(1, views<ImageView>(content(activity)).size)
        val record = File(phone.root, "runs/tanh/record.json").readText()
        for (fact in listOf("\"where\":\"device\"", "\"thermal_state\":\"none\"", "\"foreground\":(true|false)")) {
            assertTrue("$fact: $record", Regex(fact) in record)
        }
        val flags = activity.window.attributes.flags
        assertTrue(flags and WindowManager.LayoutParams.FLAG_KEEP_SCREEN_ON != 0)
    }

    @Test
    fun `a second start and a second run leave one button and one picture`() {
        writeBundle(File(phone.root, "bundles/tanh"))
        val controller = controller().setup()
        repeat(2) {
            ShadowLog.clear()
            controller.newIntent(Intent(Intent.ACTION_MAIN))
            views<Button>(content(controller.get())).single().performClick()
            assertTrue(lastLine().startsWith("done "))
        }
        assertEquals(1, views<ImageView>(content(controller.get())).size)
    }

    @Test
    fun `an activity that the system restores does not run its bundle again`() {
        writeBundle(File(phone.root, "bundles/tanh"))
        val activity = controller("bundle" to "bundles/tanh", "out" to "runs/one").setup(Bundle()).get()
        shadowOf(Looper.getMainLooper()).idle()
        assertEquals("Tap a bundle to run it.", text(activity))
        assertEquals(emptyList<String>(), ShadowLog.getLogsForTag("rdd-edge").map { it.msg })
        assertFalse(File(phone.root, "runs").exists())
    }

    @Test
    fun `without bundles it says where to push one`() {
        assertTrue(text(start()).startsWith("Push a bundle to ${phone.root}"))
    }

    @Test
    fun `extras that lead out of the folder or are no numbers are refused, and nothing is written`() {
        writeBundle(File(phone.root, "bundles/tanh"))
        val good = mapOf("bundle" to "bundles/tanh", "out" to "runs/one")
        val before = temporary.root.walk().filter { it.isFile }.toSet()
        for ((key, value) in listOf(
            "bundle" to "../../secret",
            "bundle" to "/sdcard",
            "bundle" to phone.inbox.path,
            "plan" to "${phone.inbox}/../x",
            "out" to "${phone.inbox}/runs",
            "out" to "runs/../../../x",
            "out" to "",
            "plan" to "..",
            "min_psnr_db" to "NaN",
            "stall_seconds" to "-1",
            "stall_seconds" to "soon",
        )) {
            ShadowLog.clear()
            start(*(good + (key to value)).toList().toTypedArray())
            val line = lastLine()
            assertTrue("$key $value: $line", line.startsWith("error UsageError $key is not "))
        }
        assertEquals(before, temporary.root.walk().filter { it.isFile }.toSet())
    }

    @Test
    fun `its folders on a phone are those of the media and of adb`() {
        val intent = Intent(Intent.ACTION_MAIN).putExtra("bundle", "/data/local/tmp/rdd-edge-not")
        Robolectric.buildActivity(BenchmarkActivity::class.java, intent).setup() // no storage is mounted yet
        assertEquals("error StorageError there is no external storage: unlock the phone", lastLine())
        ShadowEnvironment.addExternalDir("storage")
        Robolectric.buildActivity(BenchmarkActivity::class.java, intent).setup()
        val line = lastLine()
        val pattern = Regex(
            "error UsageError bundle is not a path below /\\S+/Android/media/[\\w.]+ or /data/local/tmp/rdd-edge",
        )
        assertTrue(line, pattern.matches(line))
    }

    @Test
    fun `a run that fails is on the screen, in the log and in error json`() {
        val activity = start("bundle" to "bundles/nothing", "out" to "runs/one")
        val line = lastLine()
        assertTrue(
            line,
            line.startsWith("error MissingError ") && line.endsWith("is not a bundle: it has no manifest.json"),
        )
        assertEquals(line, text(activity))
        assertEquals(listOf("error.json"), File(phone.root, "runs/one").list()?.toList())
    }
}
