package org.rddedge.harness

import org.junit.jupiter.api.Assertions.assertEquals
import org.junit.jupiter.api.Assertions.assertInstanceOf
import org.junit.jupiter.api.Assertions.assertThrows
import org.junit.jupiter.api.Assertions.assertTrue
import org.junit.jupiter.api.Test
import org.junit.jupiter.api.io.TempDir
import org.pytorch.executorch.BACKENDS
import org.pytorch.executorch.Module
import org.rddedge.core.Benchmark
import org.rddedge.core.Bundle
import org.rddedge.core.FakeDevice
import org.rddedge.core.Options
import org.rddedge.core.Outcome
import org.rddedge.core.writeBundle
import java.io.File
import org.pytorch.executorch.ExecuTorchRuntime as Library

/** ExecuTorch's classes as the app calls them: shapes, label types, threads, and nothing left loaded. */
class ExecuTorchRuntimeTest {
    @TempDir
    lateinit var temporary: File

    @Test
    fun `a whole run agrees with the student and leaves nothing loaded`() {
        val folder = writeBundle(File(temporary, "bundle"), batch = 2)
        val benchmark = Benchmark(ExecuTorchRuntime(true), FakeDevice(), Options(minPsnrDb = 80.0))
        val outcome = benchmark.run(folder, null, File(temporary, "out"))
        assertInstanceOf(Outcome.Finished::class.java, outcome, "$outcome")
        assertEquals(Pair(0, 2), Pair(Module.open, Module.lastThreads))
        val record = File(temporary, "out/record.json").readText()
        assertTrue("\"version\":\"0-fake\"" in record && "\"backend\":\"xnnpack\"" in record)
    }

    @Test
    fun `a bundle for a newer executorch is refused, one for an older is not`() {
        for ((made, words) in mapOf("99.1.0" to "needs executorch 99.1.0: build a newer app", "0.0.9" to "")) {
            val folder = writeBundle(File(temporary, made)) {
                kotlinx.serialization.json.Json.parseToJsonElement(
                    "$it".replace("\"least\":\"0.0.1\"", "\"least\":\"$made\""),
                )
            }
            val outcome = Benchmark(ExecuTorchRuntime(true), FakeDevice()).run(folder, null, File(temporary, "out"))
            assertTrue(words.isEmpty() == (outcome is Outcome.Finished) && words in "$outcome", "$outcome")
        }
    }

    @Test
    fun `a bundle for Vulkan runs where the library and the device have it, and the record says so`() {
        val folder = writeBundle(File(temporary, "bundle")) {
            kotlinx.serialization.json.Json.parseToJsonElement("$it".replace("\"xnnpack\"", "\"vulkan\""))
        }
        val out = File(temporary, "out")
        for ((library, hasVulkan) in listOf(listOf("XnnpackBackend") to true, BACKENDS to false)) {
            Library.backends = library
            val outcome = Benchmark(ExecuTorchRuntime(hasVulkan), FakeDevice()).run(folder, null, out)
            assertTrue("needs vulkan, which this app or this device does not have" in "$outcome", "$outcome")
            assertEquals(0, Module.open)
        }
        Library.backends = BACKENDS
        val outcome = Benchmark(ExecuTorchRuntime(true), FakeDevice()).run(folder, null, out)
        assertInstanceOf(Outcome.Finished::class.java, outcome, "$outcome")
        assertTrue("\"backend\":\"vulkan\"" in File(out, "record.json").readText())
    }

    @Test
    fun `labels go in as a second tensor of the type of the manifest`() {
        for (type in listOf("int32", "int64")) {
            val folder = writeBundle(File(temporary, type), batch = 2, classes = 10) {
                kotlinx.serialization.json.Json.parseToJsonElement("$it".replace("int64", type))
            }
            val runtime = ExecuTorchRuntime(true)
            runtime.load(Bundle.read(folder), 1)
            val x = runtime.run(FloatArray(2 * 72), longArrayOf(3, 7))
            assertEquals(listOf(3f, 7f), listOf(x.first(), x.last()))
            runtime.close()
            runtime.close()
            assertThrows(IllegalStateException::class.java) { runtime.run(FloatArray(2 * 72), null) }
        }
    }
}
