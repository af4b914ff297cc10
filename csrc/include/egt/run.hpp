// What every primitive takes besides its data: points as raw pointers, and how to run.
#pragma once

#include <cstdint>
#include <functional>

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

}  // namespace egt
