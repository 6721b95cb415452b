package org.rddedge.core

/** Name and version of what executes an artifact, and its backend where it has several. */
data class RuntimeInfo(val name: String, val version: String, val backend: String?)

/**
 * Loads and runs an artifact, from one thread.
 *
 * Implementations may throw anything: it is reported as one sentence that names the runtime and the artifact.
 */
interface Runtime {
    fun describe(): RuntimeInfo

    /** Loads the artifact, in place of the one loaded before. */
    fun load(bundle: Bundle, threads: Int)

    /** One batch: x (N, C, H, W) for z (N, C, H, W) and, for a conditional model, its N class labels. */
    fun run(z: FloatArray, labels: LongArray?): FloatArray

    /** Frees what is loaded. */
    fun close()
}

/** The machine that runs; null where the system does not tell. */
data class DeviceInfo(
    val name: String,
    val system: String,
    val machine: String, // instruction set, as `uname -m` names it
    val processor: String?,
    val cores: Int?,
    val memoryBytes: Long?,
)

/** The machine's state at one moment; null where the system does not tell. */
data class Condition(
    val temperatureC: Double?, // of the hottest sensor
    val clockMhz: Double?, // of the fastest core
    val powerW: Double?,
    val throttled: Boolean?, // whether the system slows the processor because of heat
)

/** What the system tells of itself. */
interface Device {
    fun info(): DeviceInfo

    fun condition(): Condition

    /** The most physical memory that this process has held. */
    fun peakMemoryBytes(): Long?

    /** The power mode that the run asked for, or null where there is none. */
    fun powerMode(): String?
}
