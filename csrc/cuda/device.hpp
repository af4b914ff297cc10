// Host side of a primitive: errors by name, the device set and restored, scratch memory in stream order.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>

#include "cuda/simt.cuh"
#include "egt/run.hpp"

namespace egt::cuda {

inline void check(cudaError_t status, const char* what) {
  if (status == cudaSuccess) return;
  cudaGetLastError();  // a failed launch or allocation must not show up again in the caller's next call
  throw DeviceError{std::string(cudaGetErrorName(status)) + " (" + cudaGetErrorString(status) + ") at " + what,
                    status == cudaErrorMemoryAllocation};
}

inline cudaStream_t stream_of(const Queue& queue) { return static_cast<cudaStream_t>(queue.stream); }

// For work that copies from memory of the call's own, which is gone when a captured graph runs again.
inline void refuse_capture(const Queue& queue) {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  check(cudaStreamIsCapturing(stream_of(queue), &status), "cudaStreamIsCapturing");
  if (status == cudaStreamCaptureStatusNone) return;
  throw DeviceError{
      "a CUDA graph is being captured, which cannot hold a search within groups; call it outside of the graph (with "
      "torch.compile, leave out mode='reduce-overhead')",
      false};
}

// Makes the queue's device current, and the former one again on every way out.
class DeviceGuard {
 public:
  explicit DeviceGuard(const Queue& queue) {
    check(cudaGetDevice(&before_), "cudaGetDevice");
    if (queue.device != before_) check(cudaSetDevice(queue.device), "cudaSetDevice");
    changed_ = queue.device != before_;
  }
  ~DeviceGuard() {
    if (changed_) cudaSetDevice(before_);
  }
  DeviceGuard(const DeviceGuard&) = delete;
  DeviceGuard& operator=(const DeviceGuard&) = delete;

 private:
  int before_ = 0;
  bool changed_ = false;
};

// Uninitialised device memory, freed in stream order.
template <class V>
class Buffer {
 public:
  Buffer(const Queue& queue, std::int64_t size) : stream_(stream_of(queue)) {
    void* data = nullptr;
    const auto bytes = static_cast<std::size_t>(size > 0 ? size : 1) * sizeof(V);
    check(cudaMallocAsync(&data, bytes, stream_), "cudaMallocAsync");
    data_ = static_cast<V*>(data);
  }
  Buffer(Buffer&& other) noexcept : data_(std::exchange(other.data_, nullptr)), stream_(other.stream_) {}
  Buffer& operator=(Buffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(stream_, other.stream_);
    return *this;
  }
  ~Buffer() {
    if (data_) cudaFreeAsync(data_, stream_);
  }
  V* get() const { return data_; }

 private:
  V* data_ = nullptr;
  cudaStream_t stream_;
};

// Calls attempt(size) with size = wanted, then half of it and so on down to `smallest` while device memory runs out.
template <class Attempt>
void with_less_memory(std::int64_t wanted, std::int64_t smallest, Attempt attempt) {
  for (std::int64_t size = wanted;; size = size / 2 > smallest ? size / 2 : smallest) {
    try {
      return attempt(size);
    } catch (const DeviceError& error) {
      if (!error.out_of_memory || size <= smallest) throw;
    }
  }
}

inline int blocks_of(std::int64_t n, std::int64_t per_block) {
  return static_cast<int>((n + per_block - 1) / per_block);
}

}  // namespace egt::cuda
