package org.rddedge.core

import kotlinx.serialization.json.JsonObject
import java.io.File
import java.io.IOException
import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.security.MessageDigest

private const val MANIFEST = "manifest.json"
private const val MAX_MANIFEST_BYTES = 1 shl 22
private const val MAX_PLAN_BYTES = 1 shl 16
private const val MAX_FILES = 100_000
private const val MAX_VALUES = 1L shl 26 // of one array: 256 MiB of float32
private const val MAX_COUNT = 10_000_000

/** What the harness is asked to do: [runs] and [seconds] are both the least; [floats] images are kept unrounded. */
data class Plan(
    val warmup: Int,
    val runs: Int,
    val seconds: Double,
    val samples: Int,
    val seed: ULong,
    val floats: Int,
    val threads: Int,
    internal val document: JsonObject, // as it was read
) {
    companion object {
        /** Reads plan.json. Throws [HarnessException] with the first thing that is wrong. */
        fun read(file: File): Plan = of(parse(file, readBounded(file, MAX_PLAN_BYTES)))

        internal fun of(fields: Fields): Plan {
            fields.checkVersion()
            val performance = fields.section("performance")
            val accuracy = fields.section("accuracy")
            val plan = Plan(
                warmup = performance.int("warmup", 0..1_000_000, 10),
                runs = performance.int("runs", 1..MAX_COUNT, 1024),
                seconds = performance.double("seconds", 0.0..86_400.0, 60.0),
                samples = accuracy.int("samples", 0..MAX_COUNT, 2000),
                seed = accuracy.seed("seed", 0u),
                floats = accuracy.int("floats", 0..MAX_COUNT, 256),
                threads = fields.int("threads", 1..1024, 2),
                document = fields.content,
            )
            listOf(performance, accuracy, fields).forEach { it.finish() }
            return plan
        }
    }
}

/** What a manifest says of the artifact, as far as a device needs it. */
data class Manifest(
    val target: String,
    val precision: String,
    val artifact: String, // relative path of a file or a folder
    val shape: List<Int>, // N, C, H, W of input and output alike; N is the artifact's batch
    val classes: Int?, // of a conditional model
    val labelType: String?, // "int32" or "int64"
    val checkpointSha256: String,
    val paritySamples: Int,
    val paritySeed: ULong,
    val defaultPlan: Plan,
    val files: Map<String, String>, // SHA-256 of every file but the manifest, by relative path
) {
    val batch: Int get() = shape[0]
    val imageSize: Int get() = shape[1] * shape[2] * shape[3]

    companion object {
        internal fun of(fields: Fields): Manifest {
            fields.checkVersion()
            val (shape, _) = tensor(fields.section("input"), "float32")
            val (output, _) = tensor(fields.section("output"), "float32")
            if (shape.size != 4 || output != shape) fields.fail("output", "and input have no common shape (N, C, H, W)")
            val label = fields.sectionOrNull("label")
            val classes = label?.double("high", 0.0..Int.MAX_VALUE - 1.0)
            if (classes != null && classes % 1.0 != 0.0) fields.fail("label", "ends at a number that is not whole")
            label?.double("low", 0.0..0.0)
            val (labels, labelType) = label?.let { tensor(it, "int32", "int64") } ?: (null to null)
            if (labels != null && labels != shape.take(1)) fields.fail("label", "has not the shape (N,)")
            val parity = fields.section("parity")
            val samples = parity.int("samples", 1..MAX_COUNT)
            val limit = MAX_VALUES / maxOf(samples, shape[0])
            if (shape.drop(1).fold(1L) { a, b -> minOf(a * b, MAX_VALUES + 1) } > limit) {
                fields.fail("input", "is larger than this harness takes")
            }
            fields.double("t", 1.0..1.0, 1.0)
            fields.skip("schedule", "quantization", "rewrites", "tool_versions")
            val manifest = Manifest(
                fields.name("target"), fields.name("precision"), fields.text("artifact"), shape,
                classes?.let { it.toInt() + 1 }, labelType, fields.sha256("checkpoint_sha256"),
                samples, parity.seed("seed"), Plan.of(fields.section("default_plan")), fields.hashes("files"),
            )
            parity.skip("psnr_db", "worst_psnr_db", "reason")
            listOf(parity, fields).forEach { it.finish() }
            return manifest.also { checkPaths(fields, it) }
        }

        /** Shape and type of a tensor. */
        private fun tensor(fields: Fields, vararg types: String): Pair<List<Int>, String> {
            fields.name("name")
            fields.skip("low", "high")
            val type = fields.text("dtype")
            if (type !in types) fields.fail("dtype", "is not ${types.joinToString(" or ")}")
            return (fields.ints("shape", 1L..65_536L) to type).also { fields.finish() }
        }

        private fun checkPaths(fields: Fields, manifest: Manifest) {
            val artifact = manifest.artifact
            for (path in manifest.files.keys + artifact) {
                val outside = path.split('/').any { it in listOf("", ".", "..") }
                if (outside || path == MANIFEST || !path.all(::isPrintable)) {
                    fields.fail("files", "names $path, which is no path inside the bundle")
                }
            }
            if (artifact.substringBefore('/') in listOf("parity", "harness")) {
                fields.fail("artifact", "is where a bundle keeps something else")
            }
            if (manifest.files.keys.none { "$it/".startsWith("$artifact/") }) {
                fields.fail("artifact", "is not among the files")
            }
        }
    }
}

/** A bundle whose files are those that its manifest names; [sha256], of manifest.json, is its identity. */
class Bundle private constructor(val folder: File, val manifest: Manifest, val sha256: String) {
    val artifact: File get() = File(folder, manifest.artifact)

    /** Size of the artifact, all its files together. */
    val artifactBytes: Long get() = artifact.walk().filter { it.isFile }.sumOf { it.length() }

    /** Inputs ("z.f32") or the student's images ("x.f32") of the parity check, N C H W. */
    internal fun parityFloats(name: String): FloatArray {
        val values = FloatArray(manifest.paritySamples * manifest.imageSize)
        vector(name, 4L * values.size).asFloatBuffer().get(values)
        return values
    }

    internal fun parityLabels(): LongArray {
        val values = LongArray(manifest.paritySamples)
        vector("label.i64", 8L * values.size).asLongBuffer().get(values)
        return values
    }

    private fun vector(name: String, size: Long): ByteBuffer {
        val file = File(folder, "parity/$name")
        if (file.length() != size) corrupt("$file does not hold the ${manifest.paritySamples} samples of the manifest")
        return ByteBuffer.wrap(file.readBytes()).order(ByteOrder.LITTLE_ENDIAN)
    }

    companion object {
        /**
         * Reads the bundle in [folder] and checks the hash of every file; [onFile] is called for each.
         *
         * Throws [HarnessException] where there is no bundle, or where a file is truncated, changed, a link, or foreign.
         */
        fun read(folder: File, onFile: (Int) -> Unit = {}): Bundle {
            val path = File(folder, MANIFEST)
            if (!path.isFile) throw HarnessException(ErrorKind.MISSING, "$folder is not a bundle: it has no $MANIFEST")
            try {
                val found = filesBelow(folder.canonicalFile) - MANIFEST
                val bytes = readBounded(path, MAX_MANIFEST_BYTES)
                val manifest = Manifest.of(parse(path, bytes))
                manifest.files.entries.forEachIndexed { i, (name, expected) ->
                    val file = found[name] ?: corrupt("${File(folder, name)} is missing from the bundle")
                    if (sha256Of(file) != expected) corrupt("$file is not what its manifest names: its SHA-256 differs")
                    onFile(i + 1)
                }
                found.keys.find { it !in manifest.files }?.let { corrupt("$folder/$it is not in its manifest") }
                return Bundle(folder, manifest, hex(MessageDigest.getInstance("SHA-256").digest(bytes)))
            } catch (error: IOException) {
                throw HarnessException(ErrorKind.MISSING, "cannot read $folder: ${reason(error)}", error)
            }
        }

        /** All files by relative path; refuses links and what is neither a file nor a folder. */
        private fun filesBelow(root: File): Map<String, File> {
            val found = sortedMapOf<String, File>()
            val folders = ArrayDeque(listOf(root))
            while (folders.isNotEmpty()) {
                for (file in folders.removeFirst().listFiles().orEmpty()) {
                    if (file.canonicalPath != file.path) corrupt("$file is a symbolic link, and a bundle has none")
                    if (file.isDirectory) folders += file else found[file.toRelativeString(root)] = file
                    if (!file.isDirectory && !file.isFile) corrupt("$file is neither a file nor a folder")
                    if (found.size + folders.size > MAX_FILES) corrupt("$root holds more than $MAX_FILES files")
                }
            }
            return found
        }
    }
}

private fun sha256Of(file: File): String {
    val digest = MessageDigest.getInstance("SHA-256")
    file.forEachBlock(1 shl 16) { buffer, count -> digest.update(buffer, 0, count) }
    return hex(digest.digest())
}

internal fun hex(bytes: ByteArray): String = bytes.joinToString("") { "%02x".format(it) }
