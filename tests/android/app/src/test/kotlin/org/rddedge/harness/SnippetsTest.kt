package org.rddedge.harness

import android.graphics.Color
import org.junit.Assert.assertEquals
import org.junit.Rule
import org.junit.Test
import org.junit.rules.TemporaryFolder
import org.junit.runner.RunWith
import org.robolectric.RobolectricTestRunner
import org.robolectric.annotation.Config
import kotlin.math.tanh

/** The Kotlin of a bundle's README.md, which tests/android/snippets.py writes for two bundles of 8 × 8 pixels. */
@RunWith(RobolectricTestRunner::class)
@Config(sdk = [35])
class SnippetsTest {
    @get:Rule
    val temporary = TemporaryFolder()

    private val model get() = temporary.newFile("model.pte").path

    @Test
    fun `a gray image is drawn from noise`() {
        val generator = snippets.gray.Generator(model)
        val z = generator.noise()
        assertEquals(2 * 64, z.size)
        z[9] = 0.5f
        val bitmap = generator.bitmap(generator.run(z))
        assertEquals(Pair(8, 8), Pair(bitmap.width, bitmap.height))
        val gray = (127.5f * tanh(0.5f) + 128f).toInt()
        assertEquals(Color.rgb(gray, gray, gray), bitmap.getPixel(1, 1))
    }

    @Test
    fun `an image of a class has its three channels in order`() {
        val generator = snippets.labelled.Generator(model)
        val z = FloatArray(2 * 3 * 64) { if (it < 3 * 64) it / 64 - 1f else 0f }
        val color = listOf(tanh(-1f), 0f, tanh(1f)).map { (127.5f * it + 128f).toInt() }
        val (red, green, blue) = color
        assertEquals(Color.rgb(red, green, blue), generator.bitmap(generator.run(z)).getPixel(7, 7))
        assertEquals(3f, generator.run(z, longArrayOf(0, 3)).last())
    }
}
