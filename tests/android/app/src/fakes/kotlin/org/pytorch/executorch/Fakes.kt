package org.pytorch.executorch

import java.io.File
import kotlin.math.tanh

/**
 * A module that computes tanh(z), plus the class labels where there are any, behind the signatures that the app uses of
 * ExecuTorch's own classes. Those load a native library, which a JVM on this machine does not have.
 */
class Module private constructor(val threads: Int) {
    private var method: String? = null
    private var destroyed = false

    fun loadMethod(methodName: String) {
        method = methodName
    }

    fun forward(vararg inputs: EValue): Array<EValue> {
        check(!destroyed) { "Module has been destroyed" }
        check(method == "forward") { "the method was not loaded" }
        val (z, shape) = inputs[0].toTensor().let { it.dataAsFloatArray to it.shape }
        val labels = inputs.getOrNull(1)?.toTensor()?.labels
        val size = z.size / shape[0].toInt()
        val x = FloatArray(z.size) { tanh(z[it]) + (labels?.get(it / size)?.toInt() ?: 0) }
        return arrayOf(EValue.from(Tensor(x, shape, null)))
    }

    fun destroy() {
        destroyed = true
        open--
    }

    companion object {
        const val LOAD_MODE_MMAP = 1

        /** Modules that are loaded, and the threads that the last one was given. */
        var open = 0
        var lastThreads = 0

        /** Without a mode the real one loads the method when it is first called. */
        @JvmStatic
        fun load(modelPath: String?) = load(modelPath, LOAD_MODE_MMAP, 0).apply { loadMethod("forward") }

        @JvmStatic
        fun load(modelPath: String?, loadMode: Int, numThreads: Int): Module {
            require(File(modelPath!!).isFile && loadMode == LOAD_MODE_MMAP)
            open++
            lastThreads = numThreads
            return Module(numThreads)
        }
    }
}

/** What the library of the app's own Gradle project registers. */
val BACKENDS = listOf("XnnpackBackend", "VulkanBackend")

object ExecuTorchRuntime {
    var backends = BACKENDS

    @JvmStatic
    fun getRegisteredBackends(): Array<String> = backends.toTypedArray()
}

class Tensor internal constructor(private val data: FloatArray, val shape: LongArray, val labels: List<Number>?) {
    val dataAsFloatArray: FloatArray get() = data.copyOf()

    companion object {
        @JvmStatic
        fun fromBlob(data: FloatArray, shape: LongArray): Tensor {
            require(data.size.toLong() == shape.reduce(Long::times))
            return Tensor(data, shape, null)
        }

        @JvmStatic
        fun fromBlob(data: LongArray, shape: LongArray) = Tensor(FloatArray(0), shape, data.toList())

        @JvmStatic
        fun fromBlob(data: IntArray, shape: LongArray) = Tensor(FloatArray(0), shape, data.toList())
    }
}

class EValue private constructor(private val tensor: Tensor) {
    fun toTensor() = tensor

    companion object {
        @JvmStatic
        fun from(tensor: Tensor) = EValue(tensor)
    }
}
