package org.rddedge.core

import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.int
import kotlinx.serialization.json.jsonArray
import kotlinx.serialization.json.jsonObject
import kotlinx.serialization.json.jsonPrimitive
import kotlinx.serialization.json.long
import org.junit.jupiter.api.Assertions.assertArrayEquals
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test

/** Portable noise, labels and rounding against the golden documents of rdd_edge/schemas/golden. */
class NoiseTest {
    private fun rows(name: String) = golden(name).getValue("cases").jsonArray.map { it.jsonObject }

    private fun JsonObject.text(key: String) = getValue(key).jsonPrimitive.content

    private fun JsonObject.unsigned(key: String) = text(key).toULong()

    @Test
    fun `words equal Python's, above 32-bit indices and 63-bit seeds as well`() {
        val rows = rows("words")
        assertTrue(rows.any { it.unsigned("index") > 1uL.shl(32) } && rows.any { it.unsigned("seed") > 1uL.shl(63) })
        for (row in rows) {
            val expected = row.getValue("words").jsonArray.map { it.jsonPrimitive.long }
            val words = Noise.words(row.unsigned("seed"), row.unsigned("index"), row.text("block").toInt())
            assertEquals(expected, words.toList(), row.toString())
        }
    }

    @Test
    fun `normals are within 1e-6 of Python's`() {
        for (row in rows("normals")) {
            val expected = row.getValue("z").jsonArray.map { it.jsonPrimitive.content.toFloat() }.toFloatArray()
            val z = FloatArray(expected.size + 2) { 99f }
            Noise.normals(row.unsigned("seed"), row.unsigned("index"), z, 1, expected.size)
            assertEquals(listOf(99f, 99f), listOf(z.first(), z.last()), "values beside those asked for")
            assertArrayEquals(expected, z.copyOfRange(1, z.size - 1), 1e-6f, row.text("seed"))
        }
    }

    @Test
    fun `labels are the index modulo the classes`() {
        for (row in rows("labels")) {
            assertEquals(row.text("label").toLong(), Noise.label(row.unsigned("index"), row.text("classes").toInt()))
        }
    }

    @Test
    fun `rounding equals Python's at exact halves, beside them and beyond the range`() {
        val rows = rows("rounding")
        assertTrue(rows.size > 1000)
        for (row in rows) {
            val x = Float.fromBits(row.getValue("bits").jsonPrimitive.int)
            assertEquals(row.text("pixel").toInt(), Noise.toUint8(x).toInt() and 0xFF, "$x")
        }
    }

    @Test
    fun `philox gives Random123's known answer`() {
        val ones = LongArray(4) { 0xFFFFFFFFL }
        val expected = longArrayOf(0x408f276dL, 0x41c83b0eL, 0xa20bc7c6L, 0x6d5451fdL)
        assertArrayEquals(expected, Noise.philox4x32(ones, ones.copyOf(2)))
    }
}
