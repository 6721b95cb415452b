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

private val number = Regex("-?(0|[1-9][0-9]*)(\\.[0-9]+)?([eE][+-]?[0-9]+)?")
private val name = Regex("[a-z0-9][a-z0-9_-]{0,63}")
private val sha256 = Regex("[0-9a-f]{64}")

/** Reads a JSON object of at most [limit] bytes and passes its bytes and fields to [use], which has to read every field. */
internal fun <T> readDocument(file: File, limit: Int, use: (ByteArray, Fields) -> T): T {
    if (!file.isFile) throw HarnessException(ErrorKind.MISSING, "there is no $file")
    if (file.length() > limit) corrupt("$file has more than $limit bytes")
    try {
        val bytes = file.readBytes()
        val text = Charsets.UTF_8.newDecoder().decode(ByteBuffer.wrap(bytes)).toString()
        val content = Json.parseToJsonElement(text) as? JsonObject ?: corrupt("$file is not a JSON object")
        return use(bytes, Fields(file, "", content))
    } catch (_: CharacterCodingException) {
        corrupt("$file is not UTF-8 text")
    } catch (_: SerializationException) {
        corrupt("$file is not JSON: truncated?")
    } catch (_: StackOverflowError) {
        corrupt("$file is nested too deeply")
    } catch (error: IOException) {
        throw HarnessException(ErrorKind.MISSING, "cannot read $file: ${reason(error)}", error)
    }
}

/**
 * The fields of one JSON object, each read with its type and range; [finish] refuses keys that were not read.
 *
 * A number is never taken for a text nor a text for a number. A field that is missing has its default or is refused.
 */
internal class Fields(private val document: File, private val path: String, val content: JsonObject) {
    private val known = mutableSetOf<String>()

    fun fail(key: String, why: String): Nothing = corrupt("$document: ${"$path$key".take(200)} $why")

    fun text(key: String, pattern: Regex? = null): String {
        val text = (element(key) as? JsonPrimitive)?.takeIf { it.isString }?.content ?: fail(key, "is not a text")
        if (!isPrintable(text)) fail(key, "is not one printable line")
        return text.also { if (pattern?.matches(it) == false) fail(key, "has not the form $pattern") }
    }

    fun name(key: String): String = text(key, name)

    fun sha256(key: String): String = text(key, sha256)

    fun int(key: String, range: IntRange, default: Int? = null): Int = int(key, range, element(key, default))

    fun seed(key: String, default: ULong? = null): ULong =
        number(key, element(key, default)).toULongOrNull() ?: fail(key, "is not a seed")

    fun double(key: String, range: ClosedFloatingPointRange<Double>, default: Double? = null): Double =
        number(key, element(key, default)).toDouble().also { if (it !in range) fail(key, "is outside $range") }

    fun ints(key: String, range: IntRange): List<Int> =
        (element(key) as? JsonArray ?: fail(key, "is not a list")).map { int(key, range, it) }

    /** A map from paths to hashes. */
    fun hashes(key: String): Map<String, String> = section(key).run { content.keys.associateWith { sha256(it) } }

    /** The object [key]; an empty one where there is none. */
    fun section(key: String): Fields {
        val value = if (key in content) element(key) else JsonObject(emptyMap())
        return Fields(document, "$path$key.", value as? JsonObject ?: fail(key, "is not an object"))
    }

    fun isNull(key: String): Boolean = element(key) is JsonNull

    /** Refuses another version of the schema, before anything else is looked at. */
    fun checkVersion() {
        val version = int("schema_version", Int.MIN_VALUE..Int.MAX_VALUE, 1)
        if (version != 1) fail("schema_version", "is not 1, the version that this harness reads")
    }

    /** [unread]: keys that tell people something and the harness nothing. */
    fun finish(vararg unread: String) {
        (content.keys - known - unread).firstOrNull()?.let { fail(it, "is not a field of its schema") }
    }

    private fun element(key: String, default: Any? = null): JsonElement {
        known += key
        return content[key] ?: Json.parseToJsonElement("${default ?: fail(key, "is missing")}")
    }

    private fun number(key: String, value: JsonElement): String =
        (value as? JsonPrimitive)?.takeIf { !it.isString && number.matches(it.content) }?.content
            ?: fail(key, "is not a number")

    private fun int(key: String, range: IntRange, value: JsonElement): Int =
        number(key, value).toIntOrNull()?.takeIf { it in range } ?: fail(key, "is outside $range")
}

internal fun obj(vararg fields: Pair<String, Any?>): JsonObject = obj(fields.toMap())

/** A JSON object of texts, which are made printable, numbers, booleans, nulls and JSON. */
internal fun obj(fields: Map<String, Any?>): JsonObject = JsonObject(
    fields.mapValues { (_, value) ->
        when (value) {
            null -> JsonNull
            is JsonElement -> value
            is Boolean -> JsonPrimitive(value)
            is Number -> JsonPrimitive(value)
            is List<*> -> JsonArray(value.map { JsonPrimitive(it as Number) })
            else -> JsonPrimitive(printable("$value"))
        }
    },
)
