package org.rddedge.core

import kotlinx.serialization.json.JsonArray
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.int
import kotlinx.serialization.json.jsonArray
import kotlinx.serialization.json.jsonObject
import kotlinx.serialization.json.jsonPrimitive
import kotlinx.serialization.json.long
import java.io.File
import kotlin.math.abs

/** The golden vectors that a bundle carries, computed again on this device. */
internal object Golden {
    private val checks = mapOf("words" to ::words, "normals" to ::normals, "labels" to ::label, "rounding" to ::pixel)

    /** Which kind of the vectors in [folder] this device computes otherwise, with the case, or null. */
    fun difference(folder: File): String? {
        for ((kind, agrees) in checks) {
            val cases = readDocument(File(folder, "$kind.json"), 1 shl 20) { _, fields -> fields.content["cases"] }
            val wrong = (cases as? JsonArray ?: corrupt("$folder/$kind.json has no cases")).indexOfFirst {
                runCatching { !agrees(it.jsonObject) }.getOrElse { corrupt("$folder/$kind.json is not what it was") }
            }
            if (wrong >= 0) return "$kind than contract/$kind.json, case $wrong"
        }
        return null
    }

    private fun words(case: JsonObject): Boolean {
        val words = Noise.words(case.unsigned("seed"), case.unsigned("index"), case.number("block"))
        return words.toList() == case.getValue("words").jsonArray.map { it.jsonPrimitive.long }
    }

    private fun normals(case: JsonObject): Boolean {
        val expected = case.getValue("z").jsonArray.map { it.jsonPrimitive.content.toDouble() }
        val z = FloatArray(expected.size)
        Noise.normals(case.unsigned("seed"), case.unsigned("index"), z, 0, z.size)
        return expected.indices.all { abs(expected[it] - z[it]) <= 1e-6 }
    }

    private fun label(case: JsonObject): Boolean =
        Noise.label(case.unsigned("index"), case.number("classes")) == case.number("label").toLong()

    private fun pixel(case: JsonObject): Boolean =
        Noise.toUint8(Float.fromBits(case.number("bits"))).toInt() and 0xFF == case.number("pixel")

    private fun JsonObject.unsigned(key: String) = getValue(key).jsonPrimitive.content.toULong()

    private fun JsonObject.number(key: String) = getValue(key).jsonPrimitive.int
}
