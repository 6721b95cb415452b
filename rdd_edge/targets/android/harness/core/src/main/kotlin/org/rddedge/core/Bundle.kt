package org.rddedge.core

import java.io.File
import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.security.MessageDigest

private const val MANIFEST = "manifest.json"
private const val MAX_FILES = 100_000
private const val MAX_COUNT = 10_000_000
private const val MAX_VALUES = 1 shl 26 // of one array: 256 MiB of float32

/** What the harness is asked to do: [runs] and [seconds] are both the least; [floats] images are kept unrounded. */
class Plan internal constructor(fields: Fields) {
    private val performance = fields.apply { checkVersion() }.section("performance")
    private val accuracy = fields.section("accuracy")
    val warmup = performance.int("warmup", 0..1_000_000, 10)
    val runs = performance.int("runs", 1..MAX_COUNT, 1024)
    val seconds = performance.double("seconds", 0.0..86_400.0, 60.0)
    val starts = performance.int("starts", 1..100, 3) // of the process, where the driver starts it; here there is one
    val samples = accuracy.int("samples", 0..MAX_COUNT, 2000)
    val seed = accuracy.seed("seed", 0u)
    val floats = accuracy.int("floats", 0..MAX_COUNT, 256)
    val threads = fields.int("threads", 1..1024, 2)
    internal val document = fields.content

    init {
        listOf(performance, accuracy, fields).forEach { it.finish() }
    }

    companion object {
        /** Reads plan.json. Throws [HarnessException] with the first thing that is wrong. */
        fun read(file: File): Plan = readDocument(file, 1 shl 16) { _, fields -> Plan(fields) }
    }
}

/** What the artifact needs: a [backend] of the [runtime], and the [system], each from its least version on. */
class Needs internal constructor(fields: Fields) {
    val backend = fields.name("backend")
    val runtime = Requirement(fields.section("runtime"))
    val system = Requirement(fields.section("system"))

    init {
        fields.finish("architectures", "compute_units")
    }

    class Requirement internal constructor(fields: Fields) {
        val name = fields.text("name", Regex(".+"))
        val least = fields.text("least", Regex(".+"))
        val below = if (fields.isNull("below")) null else fields.text("below") // the first version that does not do

        init {
            fields.finish()
        }
    }
}

/** What a manifest says of the artifact, as far as a device needs it. */
class Manifest internal constructor(fields: Fields) {
    private val parity = fields.apply { checkVersion() }.section("parity")
    private val label = if (fields.isNull("label")) null else Tensor(fields.section("label"), "int32", "int64")
    val shape = Tensor(fields.section("input"), "float32").shape // N, C, H, W of input and output; N is the batch
    val classes = label?.classes() // of a conditional model
    val labelType = label?.type // "int32" or "int64"
    val target = fields.name("target")
    val precision = fields.name("precision")
    val artifact = fields.text("artifact") // relative path of a file or a folder
    val checkpointSha256 = fields.sha256("checkpoint_sha256")
    val paritySamples = parity.int("samples", 1..MAX_COUNT)
    val paritySeed = parity.seed("seed")
    val defaultPlan = Plan(fields.section("default_plan"))
    val needs = Needs(fields.section("needs"))
    val files = fields.hashes("files") // SHA-256 of every file but the manifest, by relative path

    val batch get() = shape[0]
    val imageSize get() = shape[1] * shape[2] * shape[3]

    init {
        val output = Tensor(fields.section("output"), "float32").shape
        if (shape.size != 4 || output != shape) fields.fail("output", "and input have no common shape (N, C, H, W)")
        if (label != null && label.shape != shape.take(1)) fields.fail("label", "has not the shape (N,)")
        val values = shape.drop(1).fold(maxOf(paritySamples, batch).toDouble(), Double::times)
        if (values > MAX_VALUES) fields.fail("input", "is larger than this harness takes")
        fields.double("t", 1.0..1.0, 1.0)
        parity.finish("psnr_db", "worst_psnr_db", "reason", "low_allowed")
        fields.finish("schedule", "conversion", "class_names", "quantization", "rewrites", "tool_versions")
        for (path in files.keys + artifact) {
            val outside = path.split('/').any { it in listOf("", ".", "..") }
            if (outside || path == MANIFEST || !isPrintable(path)) {
                fields.fail("files", "names $path, which is no path inside the bundle")
            }
        }
        val reserved = artifact.substringBefore('/') in listOf("parity", "contract", "harness")
        if (reserved || files.keys.none { "$it/".startsWith("$artifact/") }) {
            fields.fail("artifact", "is not among the files, or is where a bundle keeps something else")
        }
    }

    private class Tensor(private val fields: Fields, vararg types: String) {
        val shape = fields.ints("shape", 1..65_536)
        val type = fields.text("dtype").also { if (it !in types) fields.fail("dtype", "is not ${types.toList()}") }

        init {
            fields.name("name")
            fields.finish("low", "high")
        }

        /** Of labels from 0 to a whole number. */
        fun classes(): Int {
            fields.double("low", 0.0..0.0)
            val high = fields.double("high", 0.0..Int.MAX_VALUE - 1.0)
            return if (high % 1.0 == 0.0) high.toInt() + 1 else fields.fail("high", "is not a whole number")
        }
    }
}

/** A bundle whose files are those that its manifest names; [sha256], of manifest.json, is its identity. */
class Bundle private constructor(val folder: File, val manifest: Manifest, val sha256: String) {
    val artifact: File get() = File(folder, manifest.artifact)

    /** Size of the artifact, all its files together. */
    val artifactBytes: Long
        get() {
            val names = manifest.files.keys.filter { "$it/".startsWith("${manifest.artifact}/") }
            return names.sumOf { File(folder, it).length() }
        }

    /** Inputs ("z.f32") or the student's images ("x.f32") of the parity check, N C H W. */
    internal fun parityFloats(name: String): FloatArray = FloatArray(manifest.paritySamples * manifest.imageSize).also {
        vector(name, 4L * it.size).asFloatBuffer().get(it)
    }

    internal fun parityLabels(): LongArray =
        LongArray(manifest.paritySamples).also { vector("label.i64", 8L * it.size).asLongBuffer().get(it) }

    private fun vector(name: String, size: Long): ByteBuffer {
        val file = File(folder, "parity/$name")
        if (file.length() != size) corrupt("$file does not hold the ${manifest.paritySamples} samples of the manifest")
        return ByteBuffer.wrap(file.readBytes()).order(ByteOrder.LITTLE_ENDIAN)
    }

    companion object {
        /**
         * Reads a bundle and checks the hash of every file; [expected] is that of its manifest. Throws [HarnessException]
         * where there is no bundle, or where a file is truncated, changed, a link, or foreign.
         */
        fun read(folder: File, expected: String? = null, report: (String, Int) -> Unit = { _, _ -> }): Bundle {
            val path = File(folder, MANIFEST)
            if (!path.isFile) throw HarnessException(ErrorKind.MISSING, "$folder is not a bundle: it has no $MANIFEST")
            return readDocument(path, 1 shl 22) { bytes, fields ->
                val found = filesBelow(folder.canonicalFile) - MANIFEST
                val manifest = Manifest(fields)
                manifest.files.entries.forEachIndexed { i, (name, hash) ->
                    report("check", i)
                    val file = found[name] ?: corrupt("${File(folder, name)} is missing from the bundle")
                    if (sha256Of(file) != hash) corrupt("$file is not what its manifest names: its SHA-256 differs")
                }
                val foreign = found.keys.find { it !in manifest.files && !isSystemFile(it) }
                foreign?.let { corrupt("$folder/$it is foreign: the manifest does not list it; remove the file") }
                val sha256 = MessageDigest.getInstance("SHA-256").digest(bytes).toHexString()
                if (sha256 != (expected ?: sha256)) corrupt("$folder is another bundle than the one asked for: $sha256")
                Bundle(folder, manifest, sha256)
            }
        }

        /** All files by relative path; refuses links and what is neither a file nor a folder. */
        private fun filesBelow(root: File): Map<String, File> {
            fun check(file: File): Boolean {
                if (file.canonicalPath != file.path) corrupt("$file is a symbolic link, and a bundle has none")
                return file.isDirectory || file.isFile || corrupt("$file is neither a file nor a folder")
            }
            val all = root.walk().onEnter(::check).take(MAX_FILES + 1).toList()
            if (all.size > MAX_FILES) corrupt("$root holds more than $MAX_FILES files")
            return all.filter { check(it) && !it.isDirectory }.associateBy { it.toRelativeString(root) }
        }
    }
}

/** Whether a relative path is a file that a system or Python leaves behind, which is no part of a bundle. */
private fun isSystemFile(path: String): Boolean {
    val parts = path.split('/')
    return parts.last() in listOf(".DS_Store", "Thumbs.db", "desktop.ini") || parts.last().startsWith("._") ||
        "__pycache__" in parts
}

private fun sha256Of(file: File): String {
    val digest = MessageDigest.getInstance("SHA-256")
    file.forEachBlock(1 shl 16) { buffer, count -> digest.update(buffer, 0, count) }
    return digest.digest().toHexString()
}
