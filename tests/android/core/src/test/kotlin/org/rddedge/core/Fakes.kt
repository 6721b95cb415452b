package org.rddedge.core

import kotlinx.serialization.json.Json
import kotlinx.serialization.json.JsonArray
import kotlinx.serialization.json.JsonElement
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.JsonPrimitive
import kotlinx.serialization.json.jsonObject
import java.io.File
import java.nio.ByteBuffer
import java.nio.ByteOrder
import java.security.MessageDigest
import kotlin.math.tanh

/** x = tanh(z), times a tenth of the class label; [before] is called with the number of each run and may throw. */
open class TanhRuntime(private val before: (Int) -> Unit = {}) : Runtime {
    val calls = mutableListOf<String>()
    private var runs = 0

    override fun describe() = RuntimeInfo("fakert", "7.0")

    override fun load(bundle: Bundle, threads: Int) {
        calls += "load"
    }

    override fun run(z: FloatArray, labels: LongArray?): FloatArray {
        calls += "run"
        before(++runs)
        val size = if (labels == null) z.size else z.size / labels.size
        return FloatArray(z.size) { i ->
            val x = tanh(z[i].toDouble()).toFloat()
            if (labels == null) x else x * (labels[i / size] / 10.0).toFloat()
        }
    }

    override fun close() {
        calls += "close"
    }
}

val CONDITION = Condition(31.5, 2800.0, 3.2, false, "none", 0.35, 0.8, false, true, 50_000_000, 123_456_789)

/** A device that tells [told], and [heat] when it is asked for its thermal state alone. */
class FakeDevice(private val told: Condition = CONDITION, private val heat: () -> String? = { "none" }) : Device {
    override fun info() = DeviceInfo("a phone", "Android 16", "aarch64", "a core", 8, 8_000_000_000, null)

    override fun condition() = told

    override fun thermalState() = heat()
}

/** A document of rdd_edge/schemas/golden. */
fun golden(name: String): JsonObject =
    Json.parseToJsonElement(TanhRuntime::class.java.getResource("/$name.json")!!.readText()).jsonObject

fun sha256(bytes: ByteArray) = MessageDigest.getInstance("SHA-256").digest(bytes).toHexString()

/** Writes a bundle of tanh, whose manifest [change] may alter, and returns its folder. */
fun writeBundle(
    folder: File,
    batch: Int = 1,
    classes: Int? = null,
    change: (JsonObject) -> JsonElement = { it },
): File {
    val (samples, size) = 5 to 3 * 4 * 6
    val z = FloatArray(samples * size)
    for (i in 0 until samples) Noise.normals(9u, i.toULong(), z, i * size, size)
    val x = FloatArray(z.size) { i ->
        tanh(z[i].toDouble()).toFloat() * (classes?.let { ((i / size) % it / 10.0).toFloat() } ?: 1f)
    }
    val files = mutableMapOf(
        "model.fake" to "fine".toByteArray(),
        "parity/z.f32" to bytes(z),
        "parity/x.f32" to bytes(x),
    )
    if (classes != null) {
        val labels = ByteBuffer.allocate(8 * samples).order(ByteOrder.LITTLE_ENDIAN)
        for (i in 0 until samples) labels.putLong((i % classes).toLong())
        files["parity/label.i64"] = labels.array()
    }
    for (name in listOf("words", "normals", "labels", "rounding")) {
        files["contract/$name.json"] = TanhRuntime::class.java.getResource("/$name.json")!!.readBytes()
    }
    for ((name, content) in files) File(folder, name).apply { parentFile.mkdirs() }.writeBytes(content)
    val manifest = manifest(batch, classes, files.mapValues { sha256(it.value) })
    File(folder, "manifest.json").writeText(change(manifest).toString())
    return folder
}

private fun bytes(values: FloatArray): ByteArray {
    val buffer = ByteBuffer.allocate(4 * values.size).order(ByteOrder.LITTLE_ENDIAN)
    for (value in values) buffer.putFloat(value)
    return buffer.array()
}

private fun manifest(batch: Int, classes: Int?, files: Map<String, String>) = obj(
    "schema_version" to 1,
    "target" to "fake",
    "precision" to "fp32",
    "artifact" to "model.fake",
    "input" to tensor("z", "float32", null, null, batch, 3, 4, 6),
    "label" to classes?.let { tensor("label", "int64", 0.0, it - 1.0, batch) },
    "output" to tensor("x", "float32", -1.0, 1.0, batch, 3, 4, 6),
    "schedule" to "cosine",
    "t" to 1.0,
    "checkpoint_sha256" to "c".repeat(64),
    "quantization" to null,
    "parity" to obj(
        "samples" to 5,
        "seed" to 9,
        "psnr_db" to 99.0,
        "worst_psnr_db" to 98.5,
        "reason" to null,
        "low_allowed" to false,
    ),
    "rewrites" to JsonArray(listOf(JsonPrimitive("fold_time"))),
    "tool_versions" to obj("fake" to "7.0"),
    "needs" to obj(
        "backend" to "xnnpack",
        "runtime" to obj("name" to "fakert", "least" to "0.0.1", "below" to null),
        "system" to obj("name" to "Android API", "least" to "23", "below" to null),
        "architectures" to JsonArray(listOf(JsonPrimitive("arm64-v8a"))),
        "compute_units" to null,
    ),
    "default_plan" to plan(),
    "files" to JsonObject(files.mapValues { JsonPrimitive(it.value) }),
)

private fun tensor(name: String, dtype: String, low: Double?, high: Double?, vararg shape: Int) = obj(
    "name" to name,
    "shape" to JsonArray(shape.map { JsonPrimitive(it) }),
    "dtype" to dtype,
    "low" to low,
    "high" to high,
)

fun plan(runs: Int = 6, samples: Int = 11, floats: Int = 4, seconds: Double = 0.0): JsonObject = obj(
    "schema_version" to 1,
    "performance" to obj("warmup" to 2, "runs" to runs, "seconds" to seconds, "starts" to 2),
    "accuracy" to obj("samples" to samples, "seed" to (1uL.shl(63) + 3u).toString().toBigInteger(), "floats" to floats),
    "threads" to 2,
)
