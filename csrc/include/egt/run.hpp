// Points as raw pointers, and where and how a primitive runs.
#pragma once

#include <cstdint>
#include <functional>
#include <string>

namespace egt {

// n rows of d contiguous values. A view: nothing is owned, nothing is written.
template <class T>
struct Points {
  const T* data;
  std::int64_t n;
  std::int64_t d;

  const T* row(std::int64_t i) const { return data + i * d; }
};

struct Run {
  int n_threads = 1;
  // Called about twenty times a second on the calling thread; true stops the work, and the primitive throws
  // Interrupted.
  std::function<bool()> interrupted = [] { return false; };
};

struct Interrupted {};

// Where a primitive runs on a GPU. Every primitive that has an overload with a Queue takes device pointers there, all
// of that device, writes its results in stream order and does not wait for them.
struct Queue {
  int device = 0;
  void* stream = nullptr;  // a cudaStream_t
};

// What a primitive on a Queue throws: the CUDA error's name and text. Nothing stays allocated.
struct DeviceError {
  std::string message;
  bool out_of_memory;
};

}  // namespace egt
