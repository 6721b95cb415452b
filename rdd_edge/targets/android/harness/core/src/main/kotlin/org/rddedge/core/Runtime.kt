package org.rddedge.core

/** Name and version of what executes an artifact. */
data class RuntimeInfo(val name: String, val version: String)

/** Loads and runs an artifact, from one thread. Whatever it throws is reported as a sentence that names the artifact. */
interface Runtime {
    fun describe(): RuntimeInfo

    /** Loads the artifact, in place of the one loaded before. Throws where it has not what the manifest's `needs` name. */
    fun load(bundle: Bundle, threads: Int)

    /** One batch: x (N, C, H, W) for z (N, C, H, W) and, for a conditional model, its N class labels. */
    fun run(z: FloatArray, labels: LongArray?): FloatArray

    /** Frees what is loaded. */
    fun close()
}

/** The machine; null where the system does not report something. */
data class DeviceInfo(
    val name: String,
    val system: String,
    val machine: String, // instruction set, as `uname -m` names it
    val processor: String?,
    val cores: Int?,
    val memoryBytes: Long?,
    val powerMode: String?, // that the run asked for
)

/** The machine's state at one moment; null where the system does not report something. */
data class Condition(
    val temperatureC: Double?, // of the hottest sensor
    val clockMhz: Double?, // of the fastest core
    val powerW: Double?,
    val throttled: Boolean?, // whether the system slows the processor because of heat
    val thermalState: String?, // in the system's own words
    val thermalHeadroom: Double?, // that is used up: 1 where the system's state becomes severe
    val batteryLevel: Double?, // 0 … 1
    val charging: Boolean?, // whether external power is connected
    val foreground: Boolean?, // whether this app is the one on the screen
    val memoryBytes: Long?, // the physical memory that this process holds
    val peakMemoryBytes: Long?, // the most that it has held
)

interface Device {
    fun info(): DeviceInfo

    fun condition(): Condition

    /** As in a condition, without the cost of the rest: it is asked once a second between the timed runs. */
    fun thermalState(): String? = null
}
