package org.rddedge.harness

import org.pytorch.executorch.EValue
import org.pytorch.executorch.Module
import org.pytorch.executorch.Tensor
import org.rddedge.core.Bundle
import org.rddedge.core.Manifest
import org.rddedge.core.Runtime
import org.rddedge.core.RuntimeInfo
import org.pytorch.executorch.ExecuTorchRuntime as Library

/** A `.pte` file in ExecuTorch, on the CPU or, where [hasVulkan], on the GPU: as its bundle says. */
class ExecuTorchRuntime(private val hasVulkan: Boolean) : Runtime {
    private var module: Module? = null
    private lateinit var manifest: Manifest

    override fun describe() = RuntimeInfo("executorch", BuildConfig.EXECUTORCH_VERSION)

    /** Loads the program and its method, which the library would otherwise put off until the first run. */
    override fun load(bundle: Bundle, threads: Int) {
        close() // a second load must not find the first in memory
        manifest = bundle.manifest
        val (least, backend) = manifest.needs.let { it.runtime.least to it.backend }
        check(release(least) <= release(BuildConfig.EXECUTORCH_VERSION)) {
            "the bundle needs executorch $least: build a newer app"
        }
        check(backend in backends()) { "the bundle needs $backend, which this app or this device does not have" }
        module = Module.load(bundle.artifact.path, Module.LOAD_MODE_MMAP, threads).apply { loadMethod("forward") }
    }

    /** Those of the library that this device can use, by the names that bundles give them. */
    private fun backends(): List<String> {
        val names = Library.getRegisteredBackends().map { it.removeSuffix("Backend").lowercase() }
        return if (hasVulkan) names else names - "vulkan"
    }

    /** Major and minor version as one number: a program runs on the release that made it and on later ones. */
    private fun release(version: String): Int {
        val (major, minor) = version.split('.', limit = 3).map { it.toIntOrNull() ?: 0 } + listOf(0, 0)
        return 1000 * major + minor
    }

    override fun run(z: FloatArray, labels: LongArray?): FloatArray {
        val shape = manifest.shape.map { it.toLong() }.toLongArray()
        val inputs = listOfNotNull(Tensor.fromBlob(z, shape), labels?.let(::tensor)).map { EValue.from(it) }
        return checkNotNull(module).forward(*inputs.toTypedArray()).single().toTensor().dataAsFloatArray
    }

    override fun close() {
        module?.destroy()
        module = null
    }

    private fun tensor(labels: LongArray): Tensor {
        val shape = longArrayOf(labels.size.toLong())
        if (manifest.labelType == "int64") return Tensor.fromBlob(labels, shape)
        return Tensor.fromBlob(IntArray(labels.size) { labels[it].toInt() }, shape)
    }
}
