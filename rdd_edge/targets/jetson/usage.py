"""How a program on a board runs the ONNX file."""

from __future__ import annotations

from ...bundle import Manifest
from ..usage import python_check


def snippets(manifest: Manifest) -> dict[str, str]:
    """TensorRT's command line and C++ for the board, and Python with ONNX Runtime anywhere."""
    feeds = '{"z": z, "label": label}' if manifest.label else '{"z": z}'
    python = python_check(
        manifest,
        "import onnxruntime\n",
        f'session = onnxruntime.InferenceSession("{manifest.artifact}", providers=["CPUExecutionProvider"])\n'
        f'(x,) = session.run(["x"], {feeds})',
    )
    engine = f"trtexec --onnx={manifest.artifact} --stronglyTyped --saveEngine=model.engine"
    return {"Sh": engine, "C++": _cpp(manifest), "Python": python}


def _cpp(manifest: Manifest) -> str:
    n, c, h, w = manifest.input.shape
    count, labelled = n * c * h * w, manifest.label is not None
    kind = "int64_t" if manifest.label and manifest.label.dtype == "int64" else "int32_t"
    label = f"const std::vector<{kind}>& label, " if labelled else ""
    bind = ""
    if labelled:
        bind = f"""
        cudaMemcpyAsync(label_, label.data(), {n} * sizeof({kind}), cudaMemcpyHostToDevice, stream_);"""
    return f"""
// Loads the engine that trtexec built on this board. Link with nvinfer and cudart.
#include <NvInfer.h>
#include <cuda_runtime_api.h>

#include <cstdint>
#include <fstream>
#include <iterator>
#include <memory>
#include <stdexcept>
#include <vector>

class Logger : public nvinfer1::ILogger {{
    void log(Severity, const char*) noexcept override {{}}
}};

class Generator {{
public:
    explicit Generator(const char* path) {{
        std::ifstream file(path, std::ios::binary);
        std::vector<char> bytes{{std::istreambuf_iterator<char>(file), {{}}}};
        runtime_.reset(nvinfer1::createInferRuntime(logger_));
        engine_.reset(runtime_->deserializeCudaEngine(bytes.data(), bytes.size()));
        if (!engine_) throw std::runtime_error("the engine does not load: build it again on this board");
        context_.reset(engine_->createExecutionContext());
        cudaStreamCreate(&stream_);
        cudaMalloc(&z_, {count} * sizeof(float));
        cudaMalloc(&x_, {count} * sizeof(float));
        context_->setTensorAddress("z", z_);
        context_->setTensorAddress("x", x_);{
        '''
        cudaMalloc(&label_, '''
        + f"{n} * sizeof({kind})"
        + ''');
        context_->setTensorAddress("label", label_);'''
        if labelled
        else ""
    }
    }}

    ~Generator() {{
        cudaFree(z_);
        cudaFree(x_);{
        '''
        cudaFree(label_);'''
        if labelled
        else ""
    }
        cudaStreamDestroy(stream_);
    }}

    // z: standard normal values, from std::normal_distribution. Returns x ({n}, {c}, {h}, {w}) in [-1, 1].
    std::vector<float> run({label}const std::vector<float>& z) {{
        std::vector<float> x({count});
        cudaMemcpyAsync(z_, z.data(), {count} * sizeof(float), cudaMemcpyHostToDevice, stream_);{bind}
        if (!context_->enqueueV3(stream_)) throw std::runtime_error("TensorRT does not run the engine");
        cudaMemcpyAsync(x.data(), x_, {count} * sizeof(float), cudaMemcpyDeviceToHost, stream_);
        cudaStreamSynchronize(stream_);
        return x;
    }}

private:
    Logger logger_;
    std::unique_ptr<nvinfer1::IRuntime> runtime_;
    std::unique_ptr<nvinfer1::ICudaEngine> engine_;
    std::unique_ptr<nvinfer1::IExecutionContext> context_;
    cudaStream_t stream_{{}};
    void *z_{{}}, *x_{{}}{", *label_{}" if labelled else ""};
}};"""
