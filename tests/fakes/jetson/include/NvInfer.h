// Stands in for TensorRT 10's header of this name, with the signatures of NvInferRuntime.h. An engine is a file of three
// numbers, the values and the images of a batch and whether they have labels; it computes x = z / 2 + label.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <map>
#include <new>
#include <string>

#include <cuda_runtime_api.h>

namespace nvinfer1 {

class ILogger {
public:
    enum class Severity : int32_t { kINTERNAL_ERROR, kERROR, kWARNING, kINFO, kVERBOSE };
    virtual void log(Severity severity, char const* msg) noexcept = 0;
    ILogger() = default;
    virtual ~ILogger() = default;
};

struct Engine {
    int32_t values, images, labelled;
};

class IExecutionContext {
public:
    explicit IExecutionContext(Engine engine) : engine_(engine) {}
    virtual ~IExecutionContext() noexcept = default;

    bool setTensorAddress(char const* tensorName, void* data) noexcept {
        addresses_[tensorName] = data;
        return true;
    }

    bool enqueueV3(cudaStream_t stream) noexcept {
        if (!stream || addresses_.size() != (engine_.labelled ? 3u : 2u)) return false;
        auto const* z = static_cast<float const*>(addresses_["z"]);
        auto const* label = engine_.labelled ? static_cast<int64_t const*>(addresses_["label"]) : nullptr;
        auto* x = static_cast<float*>(addresses_["x"]);
        for (int32_t i = 0; i < engine_.values; ++i)
            x[i] = z[i] / 2 + (label ? static_cast<float>(label[i / (engine_.values / engine_.images)]) : 0);
        return true;
    }

private:
    Engine engine_;
    std::map<std::string, void*> addresses_;
};

enum class ExecutionContextAllocationStrategy : int32_t { kSTATIC };

class ICudaEngine {
public:
    explicit ICudaEngine(Engine engine) : engine_(engine) {}
    virtual ~ICudaEngine() noexcept = default;

    IExecutionContext* createExecutionContext(
        ExecutionContextAllocationStrategy = ExecutionContextAllocationStrategy::kSTATIC) noexcept {
        return new (std::nothrow) IExecutionContext(engine_);
    }

private:
    Engine engine_;
};

class IRuntime {
public:
    virtual ~IRuntime() noexcept = default;

    ICudaEngine* deserializeCudaEngine(void const* blob, std::size_t size) noexcept {
        Engine engine;
        if (size != sizeof engine) return nullptr;
        std::memcpy(&engine, blob, size);
        return new (std::nothrow) ICudaEngine(engine);
    }
};

inline IRuntime* createInferRuntime(ILogger&) noexcept { return new (std::nothrow) IRuntime; }

}  // namespace nvinfer1
