package org.rddedge.harness

import android.app.ActivityManager
import android.content.Context
import android.content.Intent
import android.content.IntentFilter
import android.content.pm.PackageManager
import android.os.BatteryManager
import android.os.Build
import android.os.PowerManager
import org.rddedge.core.Condition
import org.rddedge.core.Device
import org.rddedge.core.DeviceInfo
import java.io.File
import kotlin.math.abs

/** PowerManager.THERMAL_STATUS_NONE, … in their order. */
private val STATES = listOf("none", "light", "moderate", "severe", "critical", "emergency", "shutdown")

private const val VULKAN = PackageManager.FEATURE_VULKAN_HARDWARE_VERSION
private const val VULKAN_1_1 = 0x401000 // major version in the bits from 22 on, minor in those from 12 on

private val CPUS = File("/sys/devices/system/cpu")

/** A clock of each core in [cpus], as far as the vendor lets apps read it. */
private fun clocksMhz(cpus: File, name: String): List<Int> {
    val cores = cpus.listFiles { file -> file.name.matches(Regex("cpu[0-9]+")) }.orEmpty()
    return cores.mapNotNull { runCatching { File(it, "cpufreq/$name").readText().trim().toInt() / 1000 }.getOrNull() }
}

/** Little and big cores by their highest clocks, as "4 cores of 1800 MHz, 4 of 2800 MHz"; null where none is known. */
internal fun clusters(cpus: File): String? {
    val sizes = clocksMhz(cpus, "cpuinfo_max_freq").groupingBy { it }.eachCount().toSortedMap()
    return sizes.map { (clock, count) -> "$count of $clock MHz" }.joinToString(", ")
        .replaceFirst(" of ", " cores of ").ifEmpty { null }
}

/** What Android tells of this device; null for what this version or this model does not. */
class AndroidDevice(private val context: Context) : Device {
    private val power get() = context.getSystemService(Context.POWER_SERVICE) as PowerManager
    private val battery get() = context.getSystemService(Context.BATTERY_SERVICE) as BatteryManager

    /** Whether this is an emulator, whose times say nothing about a phone. */
    val isEmulator: Boolean get() = Build.HARDWARE in listOf("ranchu", "goldfish", "cutf_cvm")

    /** Whether the system can hold a clock that it does not have to lower again after minutes. */
    val hasSustainedMode: Boolean
        get() = Build.VERSION.SDK_INT >= Build.VERSION_CODES.N && power.isSustainedPerformanceModeSupported

    /** Whether there is a GPU with Vulkan 1.1, the least that ExecuTorch takes. */
    val hasVulkan: Boolean
        get() = Build.VERSION.SDK_INT >= Build.VERSION_CODES.N &&
            context.packageManager.systemAvailableFeatures.any { it.name == VULKAN && it.version >= VULKAN_1_1 }

    override fun info() = DeviceInfo(
        name = "${Build.MANUFACTURER} ${Build.MODEL}",
        system = "Android ${Build.VERSION.RELEASE} (API ${Build.VERSION.SDK_INT})",
        machine = Build.SUPPORTED_ABIS.first().replace("arm64-v8a", "aarch64"),
        processor = processor(),
        cores = Runtime.getRuntime().availableProcessors(),
        memoryBytes = memoryBytes(),
        powerMode = if (hasSustainedMode) "sustained performance" else null,
    )

    override fun condition(): Condition {
        val state = context.registerReceiver(null, IntentFilter(Intent.ACTION_BATTERY_CHANGED))
        return Condition(
            temperatureC = state?.tenths(BatteryManager.EXTRA_TEMPERATURE), // of the battery: apps see no other
            clockMhz = clockMhz(),
            powerW = state?.let(::watts),
            throttled = thermalState()?.let { it != STATES.first() },
            thermalState = thermalState(),
            thermalHeadroom = thermalHeadroom(),
            batteryLevel = state?.let(::level),
            charging = state?.getIntExtra(BatteryManager.EXTRA_PLUGGED, -1)?.takeIf { it >= 0 }?.let { it != 0 },
            foreground = foreground(),
            memoryBytes = status("VmRSS"),
            peakMemoryBytes = status("VmHWM"),
        )
    }

    /** Of this process: Java's heap, the native library, artifact and buffers. */
    private fun status(name: String): Long? {
        val line = File("/proc/self/status").readLines().firstOrNull { it.startsWith("$name:") }
        return line?.filter { it.isDigit() }?.toLongOrNull()?.times(1024)
    }

    private fun level(state: Intent): Double? {
        val scale = state.getIntExtra(BatteryManager.EXTRA_SCALE, 0)
        val level = state.getIntExtra(BatteryManager.EXTRA_LEVEL, -1)
        return if (scale > 0 && level >= 0) level.toDouble() / scale else null
    }

    private fun foreground(): Boolean {
        val state = ActivityManager.RunningAppProcessInfo().also(ActivityManager::getMyMemoryState)
        return state.importance == ActivityManager.RunningAppProcessInfo.IMPORTANCE_FOREGROUND
    }

    private fun processor(): String? {
        val model = if (Build.VERSION.SDK_INT >= 31) "${Build.SOC_MANUFACTURER} ${Build.SOC_MODEL}" else Build.HARDWARE
        val known = model.takeIf { it.isNotBlank() && Build.UNKNOWN !in it }
        return listOfNotNull(known, clusters(CPUS)).joinToString(", ").ifEmpty { null }
    }

    private fun memoryBytes(): Long {
        val manager = context.getSystemService(Context.ACTIVITY_SERVICE) as ActivityManager
        return ActivityManager.MemoryInfo().also(manager::getMemoryInfo).totalMem
    }

    /** Of the fastest core, where the vendor lets apps read it. */
    private fun clockMhz(): Double? = clocksMhz(CPUS, "scaling_cur_freq").maxOrNull()?.toDouble()

    /** What is drawn from the battery, which is the whole device's; null while a charger feeds it. */
    private fun watts(state: Intent): Double? {
        val microamperes = battery.getLongProperty(BatteryManager.BATTERY_PROPERTY_CURRENT_NOW)
        val millivolts = state.getIntExtra(BatteryManager.EXTRA_VOLTAGE, 0)
        val unknown = microamperes == 0L || microamperes == Long.MIN_VALUE || millivolts <= 0
        if (unknown || state.getIntExtra(BatteryManager.EXTRA_PLUGGED, 0) != 0) return null
        return abs(microamperes.toDouble()) * millivolts / 1e9
    }

    override fun thermalState(): String? {
        if (Build.VERSION.SDK_INT < Build.VERSION_CODES.Q) return null
        return STATES.getOrNull(power.currentThermalStatus)
    }

    /** How much of the way to the status "severe" is gone; the system computes none when it is asked too often. */
    private fun thermalHeadroom(): Double? {
        if (Build.VERSION.SDK_INT < Build.VERSION_CODES.R) return null
        return power.getThermalHeadroom(0).toDouble().takeIf { it.isFinite() }
    }

    private fun Intent.tenths(key: String): Double? =
        getIntExtra(key, Int.MIN_VALUE).takeIf { it != Int.MIN_VALUE }?.let { it / 10.0 }
}
