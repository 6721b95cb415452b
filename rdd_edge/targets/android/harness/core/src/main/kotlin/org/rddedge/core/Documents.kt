package org.rddedge.core

import kotlinx.serialization.SerializationException
import kotlinx.serialization.json.Json
import kotlinx.serialization.json.JsonArray
import kotlinx.serialization.json.JsonElement
import kotlinx.serialization.json.JsonNull
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.JsonPrimitive
import java.io.File
import java.io.IOException
import java.nio.ByteBuffer
import java.nio.charset.CharacterCodingException

private const val MAX_DEPTH = 16
private val number = Regex("-?(0|[1-9][0-9]*)(\\.[0-9]+)?([eE][+-]?[0-9]+)?")
private val name = Regex("[a-z0-9][a-z0-9_-]{0,63}")
private val sha256 = Regex("[0-9a-f]{64}")

/** The bytes of a document, which must be no more than [limit]. */
internal fun readBounded(file: File, limit: Int): ByteArray {
    if (!file.isFile) throw HarnessException(ErrorKind.MISSING, "there is no $file")
    if (file.length() > limit) corrupt("$file has more than $limit bytes")
    try {
        return file.readBytes()
    } catch (error: IOException) {
        throw HarnessException(ErrorKind.MISSING, "cannot read $file: ${reason(error)}", error)
    }
}

/** Parses a JSON object from UTF-8; [document] names it in sentences. */
internal fun parse(document: File, bytes: ByteArray): Fields {
    try {
        val text = Charsets.UTF_8.newDecoder().decode(ByteBuffer.wrap(bytes)).toString()
        if (depth(text) > MAX_DEPTH) corrupt("$document is nested more than $MAX_DEPTH levels deep")
        val content = Json.parseToJsonElement(text) as? JsonObject ?: corrupt("$document is not a JSON object")
        return Fields(document, "", content)
    } catch (_: CharacterCodingException) {
        corrupt("$document is not UTF-8 text")
    } catch (_: SerializationException) {
        corrupt("$document is not JSON: truncated?")
    }
}

/** How deep brackets nest outside of strings. */
private fun depth(text: String): Int {
    var depth = 0
    var deepest = 0
    var quoted = false
    var escaped = false
    for (c in text) {
        when {
            escaped -> escaped = false
            quoted && c == '\\' -> escaped = true
            c == '"' -> quoted = !quoted
            !quoted && c in "{[" -> deepest = maxOf(deepest, ++depth)
            !quoted && c in "}]" -> depth--
        }
    }
    return deepest
}

/**
 * The fields of one JSON object, each read with its type and range; [finish] refuses the keys that nobody asked for.
 *
 * A number is never taken for a text nor a text for a number. A field that is missing has its default or is refused.
 */
internal class Fields(private val document: File, private val path: String, val content: JsonObject) {
    private val known = mutableSetOf<String>()

    fun fail(key: String, why: String): Nothing = corrupt("$document: ${"$path$key".take(200)} $why")

    fun text(key: String): String = textOf(key, element(key))

    fun name(key: String): String = text(key).also { if (!name.matches(it)) fail(key, "is not a name") }

    fun sha256(key: String): String = text(key).also { if (!sha256.matches(it)) fail(key, "is not a SHA-256") }

    fun int(key: String, range: IntRange, default: Int? = null): Int =
        intOf(key, element(key, default), range.first.toLong()..range.last)

    fun seed(key: String, default: ULong? = null): ULong =
        element(key, default).let { numberOf(key, it).toULongOrNull() ?: fail(key, "is not a seed") }

    fun double(key: String, range: ClosedFloatingPointRange<Double>, default: Double? = null): Double =
        numberOf(key, element(key, default)).toDouble().also { if (it !in range) fail(key, "is outside $range") }

    fun ints(key: String, range: LongRange): List<Int> =
        (element(key) as? JsonArray ?: fail(key, "is not a list")).map { intOf(key, it, range) }

    /** A map from paths to hashes. */
    fun hashes(key: String): Map<String, String> = section(key).run { content.keys.associateWith { sha256(it) } }

    /** The object [key]; an empty one where there is none. */
    fun section(key: String): Fields {
        val value = if (key in content) element(key) else JsonObject(emptyMap())
        return Fields(document, "$path$key.", value as? JsonObject ?: fail(key, "is not an object"))
    }

    /** The object [key], or null where it is null. */
    fun sectionOrNull(key: String): Fields? = if (element(key) is JsonNull) null else section(key)

    /** Fields that tell people something and the harness nothing. */
    fun skip(vararg keys: String) {
        known += keys
    }

    /** Refuses another version of the schema, before anything else is looked at. */
    fun checkVersion() {
        if (int("schema_version", Int.MIN_VALUE..Int.MAX_VALUE, 1) != 1) {
            fail("schema_version", "is not 1, the version that this harness reads")
        }
    }

    fun finish() {
        (content.keys - known).firstOrNull()?.let { fail(it, "is not a field of its schema") }
    }

    private fun element(key: String, default: Any? = null): JsonElement {
        known += key
        return content[key] ?: Json.parseToJsonElement("${default ?: fail(key, "is missing")}")
    }

    private fun textOf(key: String, value: JsonElement): String {
        val text = (value as? JsonPrimitive)?.takeIf { it.isString }?.content ?: fail(key, "is not a text")
        return text.also { if (it.length > 2000 || !it.all(::isPrintable)) fail(key, "is not one printable line") }
    }

    private fun numberOf(key: String, value: JsonElement): String =
        (value as? JsonPrimitive)?.takeIf { !it.isString && number.matches(it.content) }?.content
            ?: fail(key, "is not a number")

    private fun intOf(key: String, value: JsonElement, range: LongRange): Int =
        numberOf(key, value).toLongOrNull()?.takeIf { it in range }?.toInt() ?: fail(key, "is outside $range")
}
