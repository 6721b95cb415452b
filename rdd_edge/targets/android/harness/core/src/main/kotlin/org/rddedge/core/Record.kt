package org.rddedge.core

import kotlinx.serialization.ExperimentalSerializationApi
import kotlinx.serialization.json.JsonArray
import kotlinx.serialization.json.JsonElement
import kotlinx.serialization.json.JsonNull
import kotlinx.serialization.json.JsonObject
import kotlinx.serialization.json.JsonPrimitive

/** What only the run itself knows: times in milliseconds of a monotonic clock, the machine's state, the images. */
internal class Facts(
    val loadMs: Double,
    val firstInferenceMs: Double,
    val secondLoadMs: Double,
    val latencyMs: DoubleArray,
    val peakMemoryBytes: Long?,
    val conditions: MutableMap<String, Condition>, // by moment: before, during, after
    var samples: JsonObject? = null,
)

/** One bench run as record.json holds it: raw facts; a null has its reason in `missing`. */
internal fun record(
    bundle: Bundle,
    plan: Plan,
    facts: Facts,
    runtime: RuntimeInfo,
    device: Device,
    where: String,
    startedAt: String,
): JsonObject {
    val (name, version, backend) = runtime
    val reasons = mapOf(
        "build_ms" to "$name loads the artifact as it is",
        "transfers" to "$name does not tell copies from computing: a latency holds both",
        "operators" to "$name is not asked for the time of each operator",
        "clocks_locked" to "an app cannot lock the clocks",
        "peak_memory_bytes" to "the system does not tell it",
        "conditions" to "the system tells no temperature, clock or power",
        "power_mode" to "the run asked for no power mode",
        "samples" to "the plan asks for none",
    )
    val measured = obj(
        "peak_memory_bytes" to facts.peakMemoryBytes,
        "conditions" to conditions(facts),
        "power_mode" to device.powerMode(),
        "samples" to facts.samples,
    )
    val named = obj(
        "schema_version" to 1,
        "target" to bundle.manifest.target,
        "precision" to bundle.manifest.precision,
        "bundle_sha256" to bundle.sha256,
        "checkpoint_sha256" to bundle.manifest.checkpointSha256,
        "checkpoint" to null,
        "where" to where,
        "device" to device(device.info()),
        "runtime" to obj("name" to name, "version" to version, "backend" to backend),
        "threads" to plan.threads,
        "batch" to bundle.manifest.batch,
        "started_at" to startedAt,
        "artifact_bytes" to bundle.artifactBytes,
        "load_ms" to facts.loadMs,
        "second_load_ms" to facts.secondLoadMs,
        "first_inference_ms" to facts.firstInferenceMs,
        "latency_ms" to JsonArray(facts.latencyMs.map { JsonPrimitive(it) }),
    )
    val values = obj(*reasons.keys.map { it to null }.toTypedArray()) + measured + named
    val missing = reasons.filterKeys { values[it] is JsonNull }
    return JsonObject(values + ("missing" to obj(*missing.toList().toTypedArray())))
}

private fun device(info: DeviceInfo): JsonObject = obj(
    "name" to info.name,
    "system" to info.system,
    "machine" to info.machine,
    "processor" to info.processor,
    "cores" to info.cores,
    "memory_bytes" to info.memoryBytes,
)

/** The machine's states; what is no plausible value is dropped, and null stands for nothing but nulls. */
private fun conditions(facts: Facts): JsonArray? {
    val told = facts.conditions.mapValues { (_, it) ->
        obj(
            "temperature_c" to it.temperatureC?.takeIf { it in -100.0..300.0 },
            "clock_mhz" to it.clockMhz?.takeIf { it in 0.0..1e6 },
            "gpu_clock_mhz" to null,
            "gpu_load" to null,
            "power_w" to it.powerW?.takeIf { it in 0.0..1e6 },
            "throttled" to it.throttled,
        )
    }
    if (told.values.all { row -> row.values.all { it is JsonNull } }) return null
    return JsonArray(told.map { (moment, row) -> JsonObject(obj("when" to moment) + row) })
}

/** A JSON object of texts, which are made printable, numbers, booleans, nulls and JSON. */
@OptIn(ExperimentalSerializationApi::class)
internal fun obj(vararg fields: Pair<String, Any?>): JsonObject = JsonObject(
    fields.associate { (key, value) ->
        key to when (value) {
            null -> JsonNull
            is JsonElement -> value
            is Boolean -> JsonPrimitive(value)
            is ULong -> JsonPrimitive(value)
            is Number -> JsonPrimitive(value)
            else -> JsonPrimitive(printable("$value"))
        }
    },
)
