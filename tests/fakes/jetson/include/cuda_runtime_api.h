// Stands in for CUDA's header of this name: memory of the "device" is the host's, and copies are done at once.
#pragma once

#include <cstdlib>
#include <cstring>

enum cudaError_t { cudaSuccess };
enum cudaMemcpyKind { cudaMemcpyHostToDevice = 1, cudaMemcpyDeviceToHost = 2 };
typedef struct CUstream_st* cudaStream_t;

inline int cudaOpen = 0;  // allocations and streams that are not freed

inline cudaError_t cudaMalloc(void** pointer, size_t size) {
    *pointer = std::malloc(size);
    ++cudaOpen;
    return cudaSuccess;
}

inline cudaError_t cudaFree(void* pointer) {
    std::free(pointer);
    --cudaOpen;
    return cudaSuccess;
}

inline cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t count, cudaMemcpyKind, cudaStream_t = nullptr) {
    std::memcpy(to, from, count);
    return cudaSuccess;
}

inline cudaError_t cudaStreamCreate(cudaStream_t* stream) {
    *stream = reinterpret_cast<cudaStream_t>(++cudaOpen);
    return cudaSuccess;
}

inline cudaError_t cudaStreamDestroy(cudaStream_t) {
    --cudaOpen;
    return cudaSuccess;
}

inline cudaError_t cudaStreamSynchronize(cudaStream_t) { return cudaSuccess; }
