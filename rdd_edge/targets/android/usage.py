"""How an Android app, or Python, runs a `.pte` file."""

from __future__ import annotations

from ...bundle import Manifest
from ..usage import python_check


def snippets(manifest: Manifest) -> dict[str, str]:
    """Kotlin for an app; Python where executorch's wheel has the backend."""
    found = {"Kotlin": _kotlin(manifest)}
    if manifest.needs.backend == "xnnpack":
        found["Python"] = python_check(
            manifest,
            "import torch\nfrom executorch.runtime import Runtime\n",
            f"""method = Runtime.get().load_program("{manifest.artifact}").load_method("forward")
(output,) = method.execute([torch.from_numpy(a) for a in ({"z, label" if manifest.label else "z,"})])
x = output.numpy().copy()""",
        )
    return found


def _kotlin(manifest: Manifest) -> str:
    n, c, h, w = manifest.input.shape
    runtime = manifest.needs.runtime
    kind = "Int" if manifest.label and manifest.label.dtype == "int32" else "Long"
    label = f", label: {kind}Array = {kind.lower()}ArrayOf({', '.join('0' * n)})" if manifest.label else ""
    second = f", EValue.from(Tensor.fromBlob(label, longArrayOf({n})))" if manifest.label else ""
    gray = "val r = p(0); val g = r; val b = r" if c == 1 else "val r = p(0); val g = p(1); val b = p(2)"
    return f"""
// build.gradle.kts: implementation("{runtime.name}:{runtime.least}")
import android.graphics.Bitmap
import android.graphics.Color
import java.util.Random
import kotlin.math.floor
import org.pytorch.executorch.EValue
import org.pytorch.executorch.Module
import org.pytorch.executorch.Tensor

class Generator(path: String) {{ // of {manifest.artifact}, copied from the app's assets to a file
    private val module = Module.load(path)

    fun noise(random: Random = Random()) = FloatArray({n * c * h * w}) {{ random.nextGaussian().toFloat() }}

    /** Images ({n}, {c}, {h}, {w}) in [-1, 1]. */
    fun run(z: FloatArray{label}): FloatArray {{
        val noise = EValue.from(Tensor.fromBlob(z, longArrayOf({n}, {c}, {h}, {w})))
        return module.forward(noise{second})[0].toTensor().dataAsFloatArray
    }}

    /** The first image of x. */
    fun bitmap(x: FloatArray): Bitmap {{
        val colors = IntArray({h * w}) {{ i ->
            fun p(channel: Int) = floor(127.5f * x[channel * {h * w} + i] + 128f).toInt().coerceIn(0, 255)
            {gray}
            Color.rgb(r, g, b)
        }}
        return Bitmap.createBitmap(colors, {w}, {h}, Bitmap.Config.ARGB_8888)
    }}
}}"""
