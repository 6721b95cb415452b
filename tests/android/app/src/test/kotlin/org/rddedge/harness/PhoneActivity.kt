package org.rddedge.harness

import android.content.Intent
import android.graphics.Bitmap
import android.graphics.Canvas
import android.os.Looper
import android.view.View
import org.junit.Test
import org.junit.runner.JUnitCore
import org.junit.runner.RunWith
import org.robolectric.Robolectric
import org.robolectric.RobolectricTestRunner
import org.robolectric.Shadows.shadowOf
import org.robolectric.annotation.Config
import org.robolectric.annotation.GraphicsMode
import org.robolectric.shadows.ShadowLog
import java.io.File
import kotlin.system.exitProcess

/** The app's own activity with the simulated phone's storage and runtime. */
class PhoneActivity : BenchmarkActivity() {
    private val phone = Phone(System.getProperty("phone").split('\n'))

    override val root get() = phone.root

    override val inbox get() = phone.inbox

    override fun runtime() = phone.runtime()
}

/** Not a test: the way to run an activity on a JVM. */
@RunWith(RobolectricTestRunner::class)
@GraphicsMode(GraphicsMode.Mode.NATIVE)
@Config(sdk = [35], qualifiers = "w411dp-h731dp-420dpi")
class PhoneRun {
    @Test
    fun run() {
        val phone = Phone(System.getProperty("phone").split('\n'))
        val intent = Intent(Intent.ACTION_MAIN)
        phone.extras.forEach { (key, value) -> intent.putExtra(key, value) }
        val activity = Robolectric.buildActivity(PhoneActivity::class.java, intent).setup().get()
        var seen = 0
        while (true) {
            shadowOf(Looper.getMainLooper()).idle()
            val lines = ShadowLog.getLogsForTag("rdd-edge").drop(seen).map { it.msg }
            lines.forEach(phone::log)
            seen += lines.size
            if (lines.any { it.startsWith("done ") || it.startsWith("error ") }) break
            Thread.sleep(20)
        }
        val picture = Bitmap.createBitmap(1080, 1920, Bitmap.Config.ARGB_8888)
        activity.window.decorView.run {
            measure(exactly(picture.width), exactly(picture.height))
            layout(0, 0, picture.width, picture.height)
            draw(Canvas(picture))
        }
        val file = File(phone.folder, "screen.new")
        file.outputStream().use { picture.compress(Bitmap.CompressFormat.PNG, 100, it) }
        file.renameTo(File(phone.folder, "screen.png"))
    }

    private fun exactly(size: Int) = View.MeasureSpec.makeMeasureSpec(size, View.MeasureSpec.EXACTLY)
}

/** What `am start` runs: FOLDER, then am's own arguments. */
fun main(arguments: Array<String>) {
    System.setProperty("phone", arguments.joinToString("\n"))
    val result = JUnitCore.runClasses(PhoneRun::class.java)
    result.failures.forEach { System.err.println(it.trace) }
    exitProcess(if (result.wasSuccessful()) 0 else 1)
}
