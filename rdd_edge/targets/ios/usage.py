"""How an app on Apple's systems, or Python on a Mac, runs an `.mlpackage`."""

from __future__ import annotations

from ...bundle import Manifest
from ..usage import python_check


def snippets(manifest: Manifest) -> dict[str, str]:
    """Swift for an app, and Python with coremltools on a Mac."""
    feeds = '{"z": z, "label": label}' if manifest.label else '{"z": z}'
    python = python_check(
        manifest,
        "import coremltools as ct  # predicts on macOS only\n",
        f'model = ct.models.MLModel("{manifest.artifact}")\nx = model.predict({feeds})["x"]',
    )
    return {"Swift": _swift(manifest), "Python": python}


def _swift(manifest: Manifest) -> str:
    n, c, h, w = manifest.input.shape
    argument, feature, name = "", "", manifest.artifact.removesuffix(".mlpackage")
    if manifest.label:
        argument = ", label: Int32 = 0"
        feature = f"""
        let label_ = try MLMultiArray(shape: [{n}], dataType: .int32)
        for i in 0..<{n} {{ label_[i] = NSNumber(value: label) }}
        inputs["label"] = MLFeatureValue(multiArray: label_)"""
    return f"""
// Add {manifest.artifact} to the target in Xcode, which compiles it to {name}.mlmodelc.
import CoreML

final class Generator {{
    private let model: MLModel

    init() throws {{
        let configuration = MLModelConfiguration()
        configuration.computeUnits = .{manifest.needs.compute_units or "all"}
        let url = Bundle.main.url(forResource: "{name}", withExtension: "mlmodelc")!
        model = try MLModel(contentsOf: url, configuration: configuration)
    }}

    func noise() -> [Float] {{
        (0..<{n * c * h * w}).map {{ _ in
            let radius = sqrt(-2 * log(Double.random(in: Double.leastNormalMagnitude..<1)))
            return Float(radius * cos(2 * .pi * Double.random(in: 0..<1)))
        }}
    }}

    /// Bytes of the images in the order ({n}, {c}, {h}, {w}).
    func run(_ z: [Float]{argument}) throws -> [UInt8] {{
        let noise = try MLMultiArray(shape: [{n}, {c}, {h}, {w}], dataType: .float32)
        for (i, value) in z.enumerated() {{ noise[i] = NSNumber(value: value) }}
        var inputs = ["z": MLFeatureValue(multiArray: noise)]{feature}
        let output = try model.prediction(from: MLDictionaryFeatureProvider(dictionary: inputs))
        let x = output.featureValue(for: "x")!.multiArrayValue!
        return (0..<x.count).map {{ UInt8(max(0, min(255, (127.5 * x[$0].floatValue + 128).rounded(.down)))) }}
    }}
}}"""
