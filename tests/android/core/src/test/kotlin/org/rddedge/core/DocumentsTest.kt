package org.rddedge.core

import kotlinx.serialization.json.Json
import kotlinx.serialization.json.JsonArray
import kotlinx.serialization.json.JsonElement
import kotlinx.serialization.json.JsonNull
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.JsonPrimitive
import kotlinx.serialization.json.boolean
import kotlinx.serialization.json.jsonArray
import kotlinx.serialization.json.jsonObject
import kotlinx.serialization.json.jsonPrimitive
import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertFalse
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.io.TempDir
import java.io.File
import java.nio.file.Files

/** Manifests, plans and bundles that were damaged or made up: each ends in a sentence, and nothing is written. */
class DocumentsTest {
    @TempDir
    lateinit var temporary: File

    /** Fields that tell people something; the harness does not look into them. */
    private val unread = listOf("quantization", "rewrites", "tool_versions", "schedule", "input.low", "input.high")
        .plus(listOf("needs.architectures", "needs.compute_units"))
        .plus(
            listOf(
                "output.low",
                "output.high",
                "parity.psnr_db",
                "parity.worst_psnr_db",
                "parity.reason",
                "parity.low_allowed",
            ),
        )

    private fun leaves(value: JsonElement, path: List<String> = emptyList()): List<List<String>> = when (value) {
        is JsonObject -> value.flatMap { (key, part) -> leaves(part, path + key) }
        else -> listOf(path)
    }

    private fun at(value: JsonElement, path: List<String>): JsonElement =
        path.fold(value) { part, key -> part.jsonObject.getValue(key) }

    private fun replaced(value: JsonElement, path: List<String>, by: JsonElement): JsonElement {
        if (path.isEmpty()) return by
        val part = value.jsonObject
        return JsonObject(part + (path[0] to replaced(part[path[0]] ?: JsonNull, path.drop(1), by)))
    }

    /** What was done, with the document, each of which has to be refused. */
    private fun mutations(document: JsonObject): List<Pair<String, ByteArray>> {
        val result = mutableListOf<Pair<String, ByteArray>>()

        fun add(what: String, text: String) {
            result += what to text.toByteArray()
        }
        for (path in leaves(document)) {
            val where = path.joinToString(".")
            if (unread.any { where == it || where.startsWith("$it.") }) continue
            val literals = mutableListOf("{\"x\": 1}", "true")
            val leaf = at(document, path)
            if (leaf is JsonPrimitive && leaf !is JsonNull) {
                literals += "null"
                literals += if (leaf.isString) {
                    listOf("7", "\"\\u001b[2Jgone\"", "\"two\\nlines\"", "\"${"x".repeat(5000)}\"", "\"\"", "bare")
                } else {
                    listOf("NaN", "-Infinity", "1e400", "\"1\"", "-1e30", "1${"0".repeat(40)}", "007", "+5", "0x1")
                }
            }
            if (leaf is JsonArray) literals += listOf("[]", "[0, 1]", "[1.5]", "[\"1\", 2, 3, 4]", "7", "[1,2,3,4,5]")
            for (literal in literals) {
                val mark = replaced(document, path, JsonPrimitive("MARK")).toString()
                add("$where $literal", mark.replace("\"MARK\"", literal))
            }
        }
        val text = document.toString()
        add("an unknown key", text.replaceFirst("{", "{\"<script>\\u001b[2J\": 1, "))
        add("another version", text.replaceFirst("\"schema_version\":1", "\"schema_version\":2"))
        for (share in listOf(0.0, 0.3, 0.9, 0.999)) add("cut at $share", text.take((share * text.length).toInt()))
        add("a list", "[]")
        add("deep", "[".repeat(100_000))
        add("deep and closed", "{\"files\":" + "[".repeat(5000) + "]".repeat(5000) + "}")
        add("two documents", text + text)
        add("a comment", "/* */$text")
        add("a trailing comma", text.dropLast(1) + ",}")
        add("too long", text.dropLast(1) + " ".repeat(5_000_000) + "}")
        result += "not UTF-8" to byteArrayOf(-1, -2) + text.toByteArray()
        return result
    }

    private fun refused(what: String, read: () -> Unit): HarnessException {
        val before = temporary.walk().toSet()
        val error = assertThrows(HarnessException::class.java, { read() }, what)
        assertTrue(error.sentence.length >= 10 && isPrintable(error.sentence), error.sentence)
        assertEquals(before, temporary.walk().toSet(), what)
        return error
    }

    @Test
    fun `every mutated manifest is refused with a sentence`() {
        for (classes in listOf(null, 10)) {
            val bundle = writeBundle(File(temporary, "bundle$classes"), classes = classes)
            val file = File(bundle, "manifest.json")
            val good = file.readBytes()
            val mutations = mutations(Json.parseToJsonElement(String(good)).jsonObject)
            assertTrue(mutations.size > 200, "${mutations.size}")
            for ((what, bytes) in mutations) {
                file.writeBytes(bytes)
                refused(what) { Bundle.read(bundle) }
            }
            file.writeBytes(good)
            assertEquals(sha256(good), Bundle.read(bundle).sha256)
        }
    }

    @Test
    fun `every mutated plan is refused with a sentence`() {
        val file = File(temporary, "plan.json")
        val mutations = mutations(plan())
        assertTrue(mutations.size > 60, "${mutations.size}")
        for ((what, bytes) in mutations) {
            file.writeBytes(bytes)
            refused(what) { Plan.read(file) }
        }
        file.writeText("{}")
        assertEquals(listOf(1024, 2000, 2), Plan.read(file).run { listOf(runs, samples, threads) })
        file.writeText(plan().toString())
        assertEquals(1uL.shl(63) + 3u, Plan.read(file).seed)
    }

    @Test
    fun `what is well formed and untrue is refused`() {
        val elsewhere = File(temporary, "secret").apply { writeText("elsewhere") }
        val hash = JsonPrimitive(sha256("elsewhere".toByteArray()))
        val hostile = listOf("../secret", elsewhere.path, "a/../../secret", "./model.fake", "manifest.json", "a//b", "")
        for (path in hostile) {
            val bundle = writeBundle(File(temporary, "bundle").apply { deleteRecursively() }) {
                JsonObject(it + ("files" to JsonObject(it.getValue("files").jsonObject + (path to hash))))
            }
            assertTrue("no path inside the bundle" in refused(path) { Bundle.read(bundle) }.sentence, path)
        }
        for (path in hostile + listOf("parity", "parity/z.f32", "nothing")) {
            val bundle = writeBundle(File(temporary, "bundle").apply { deleteRecursively() }) {
                JsonObject(it + ("artifact" to JsonPrimitive(path)))
            }
            refused(path) { Bundle.read(bundle) }
        }
    }

    @Test
    fun `every damaged file is refused`() {
        val harms = mapOf<String, (File) -> Unit>(
            "differs" to { it.appendBytes(byteArrayOf(0)) },
            "SHA-256 differs" to { it.writeBytes(it.readBytes().also { bytes -> bytes[bytes.size / 2]++ }) },
            "missing" to { it.delete() },
            "symbolic link" to {
                it.renameTo(File(temporary, "aside"))
                Files.createSymbolicLink(it.toPath(), File(temporary, "aside").toPath())
            },
            "missing from" to {
                it.delete()
                it.mkdir()
            },
        )
        for (name in listOf("model.fake", "parity/z.f32", "parity/x.f32", "parity/label.i64")) {
            for ((word, harm) in harms) {
                val bundle = writeBundle(File(temporary, "bundle").apply { deleteRecursively() }, classes = 10)
                harm(File(bundle, name))
                assertTrue(word in refused("$name $word") { Bundle.read(bundle) }.sentence, "$name $word")
            }
        }
    }

    @Test
    fun `links, pipes and foreign files are refused, wherever they lie`() {
        val bundle = writeBundle(File(temporary, "bundle"))
        val link = File(bundle, "parity/loop").toPath()
        Files.createSymbolicLink(link, bundle.toPath())
        assertTrue("symbolic link" in refused("a loop") { Bundle.read(bundle) }.sentence)
        Files.delete(link)
        Files.createSymbolicLink(link, File(temporary, "nothing").toPath())
        assertTrue("neither" in refused("a dangling link") { Bundle.read(bundle) }.sentence)
        Files.delete(link)
        File(bundle, "deep/er").mkdirs()
        Bundle.read(bundle)
        File(bundle, "deep/er/foreign").writeText("x")
        assertTrue("deep/er/foreign is foreign" in refused("a foreign file") { Bundle.read(bundle) }.sentence)
        File(bundle, "deep/er/foreign").delete()
        assertEquals(0, ProcessBuilder("mkfifo", "$bundle/pipe").start().waitFor())
        assertTrue("neither" in refused("a pipe") { Bundle.read(bundle) }.sentence)
    }

    @Test
    fun `what a system leaves in a folder that it opens is ignored`() {
        val bundle = writeBundle(File(temporary, "bundle"))
        val before = Bundle.read(bundle).artifactBytes
        for (name in listOf(".DS_Store", "parity/._z.f32", "Thumbs.db", "deep/desktop.ini", "a/__pycache__/b.pyc")) {
            File(bundle, name).apply { parentFile.mkdirs() }.writeText("x")
        }
        assertEquals(before, Bundle.read(bundle).artifactBytes)
    }

    @Test
    fun `a bundle may be named through a link`() {
        val bundle = writeBundle(File(temporary, "bundle"))
        val link = Files.createSymbolicLink(File(temporary, "sdcard").toPath(), bundle.toPath()).toFile()
        assertEquals(Bundle.read(bundle).sha256, Bundle.read(link).sha256)
    }

    /** The documents of rdd_edge/schemas/golden, which every reader accepts or refuses alike. */
    private fun judged(name: String, read: (File) -> Unit) {
        val file = File(temporary, "$name.json")
        val accepted = golden(name).getValue("accepted").jsonArray
        for (document in accepted) {
            file.writeText("$document")
            read(file)
        }
        val refused = golden(name).getValue("refused").jsonArray.map { it.jsonObject }
        assertTrue(refused.size > 10)
        for (case in refused) {
            val path = case.getValue("at").jsonArray.map { it.jsonPrimitive.content }
            val mark = replaced(accepted[0], path, JsonPrimitive("MARK")).toString()
            file.writeText(mark.replace("\"MARK\"", case.getValue("json").jsonPrimitive.content))
            refused("$case") { read(file) }
        }
    }

    @Test
    fun `the golden plans and manifests are accepted or refused as they say`() {
        judged("plan") { Plan.read(it) }
        judged("manifest") { file -> readDocument(file, 1 shl 20) { _, fields -> Manifest(fields) } }
    }

    @Test
    fun `the golden texts are allowed or not as they say, and made so`() {
        for (case in golden("text").getValue("cases").jsonArray.map { it.jsonObject }) {
            val text = case.getValue("text").jsonPrimitive.content
            assertEquals(case.getValue("allowed").jsonPrimitive.boolean, isPrintable(text), "$case")
            assertTrue(isPrintable(printable(text)), "$case")
        }
    }

    @Test
    fun `text is made printable`() {
        assertEquals("a?[2Jb c ü?", printable(" a\u001b[2Jb\nc\u00a0ü\u202e\t"))
        assertEquals(1000, printable("x".repeat(5000)).length)
        assertEquals("\uD83D\uDE00".repeat(1000), printable("\uD83D\uDE00".repeat(1001)))
        assertEquals("\uD83D\uDE00?", printable("\uD83D\uDE00\uD83D"))
        assertEquals("", printable("\u2028"))
        assertFalse(isPrintable("\u2028"))
    }
}
