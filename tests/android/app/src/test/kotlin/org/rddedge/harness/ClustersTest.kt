package org.rddedge.harness

import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertNull
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.io.TempDir
import java.io.File

class ClustersTest {
    @TempDir
    private lateinit var cpus: File

    private fun core(name: String, khz: String?) {
        val folder = File(cpus, "$name/cpufreq").apply { mkdirs() }
        if (khz != null) File(folder, "cpuinfo_max_freq").writeText("$khz\n")
    }

    @Test
    fun `little and big cores are told apart by their highest clocks`() {
        assertNull(clusters(File(cpus, "nothing")))
        core("cpu0", null) // as where the vendor does not let apps read it
        core("cpufreq", "9000000") // no core
        assertNull(clusters(cpus))
        for (i in 1..4) core("cpu$i", "1803000")
        core("cpu5", "2348000")
        core("cpu10", "2348000")
        core("cpu7", "2850000")
        assertEquals("4 cores of 1803 MHz, 2 of 2348 MHz, 1 of 2850 MHz", clusters(cpus))
    }
}
