// What the parts of the harness share: the state of the block that runs, memory, reports.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "cuda_runtime.h"

namespace simt {

constexpr int warp_lanes = 32;
constexpr int most_threads = 1024;
constexpr std::size_t most_shared_bytes = 227 << 10, usual_shared_bytes = 48 << 10;  // of a block

// What a kernel did wrong; SimtError in Python.
struct Error {
  std::string message;
};

struct Site {
  const char* file = nullptr;
  int line = 0;
};
bool same(const Site& a, const Site& b);
std::string text_of(const Site& site);

struct Thread {
  void* stack_pointer;
  char *stack_low, *stack_high;
  uint3 index;
  int number;
};

// Lanes that wait in one collective for the others of its mask.
struct Gathering {
  Collective kind;
  unsigned mask, arrived;
  Site site;
  int first;  // number of the thread that came first
};

struct Warp {
  int number;
  unsigned alive, ready, at_barrier;  // ready: neither waiting nor the one that runs
  int n_gatherings;
  Gathering gatherings[warp_lanes];
  std::uint64_t values[warp_lanes], results[warp_lanes];
  int arguments[warp_lanes], widths[warp_lanes];
};

// The launch that runs now, one at a time in the process.
struct Machine {
  const Launch* launch = nullptr;
  std::int64_t n_blocks = 0, block = 0;  // block: number of the one that runs
  int n_threads = 0, n_warps = 0;
  Thread* threads = nullptr;
  Warp warps[most_threads / warp_lanes];
  Thread* now = nullptr;  // null outside of kernels
  Warp* warp_now = nullptr;
  bool barrier_open = false;
  Site barrier_site;
  int barrier_first = 0;
};
extern Machine machine;

int device_now();
std::string name_of_thread(int number);
std::string text_of_lanes(unsigned lanes);

// Ends the launch with this report, from the thread that runs.
[[noreturn]] void stop(const std::string& kind, const std::string& text);

// Memory that kernels may use. Arrays of the host have device -1: any.
struct Region {
  std::uintptr_t address;
  std::size_t size;
  int device;
  bool scratch, writable, initialised;
  std::uint64_t serial;  // given by the registry
};

class Registry {
 public:
  void add(Region region);
  bool remove(std::uintptr_t address);
  // Whether an address lies in a region, and in which.
  bool find(std::uintptr_t address, Region* found) const;
  std::vector<Region> all() const;
  unsigned generation() const { return generation_.load(std::memory_order_relaxed); }  // changes with every region

 private:
  mutable std::mutex mutex_;
  std::map<std::uintptr_t, Region> regions_;
  std::atomic<unsigned> generation_{0};
};
extern Registry* const own_regions;  // scratch memory and what tests registered
extern Registry* array_regions;      // NumPy's, of all checked modules of the process; null in the fast build
bool find_region(std::uintptr_t address, Region* found);
bool know_arrays();  // false: with a Python error

// For tests; see module.cpp.
using Trace = std::function<void(const Launch&, bool done)>;
// What a program asked of the devices: a copy is named by where it ends, a wait is for a stream or a device.
struct Counts {
  std::int64_t launches = 0, to_device = 0, bytes_to_device = 0, to_host = 0, bytes_to_host = 0, waits = 0;
};
void set_seed(std::uint64_t seed);
void set_devices(int count, int error, int driver);
void set_memory(std::size_t bytes);
void set_capturing(bool capturing);
void set_trace(Trace trace);
void fail_call(const std::string& call, int after, int times, int error);
std::size_t allocated();
std::set<std::pair<int, std::uintptr_t>> queues_used();
Counts take_counts();  // since the last time
const char* dynamic_memory();

// What the checked build does in addition, in checker.cpp.
namespace checker {
#ifdef SIMT_CHECKED
std::size_t static_bytes(const void* kernel);  // of shared memory, but for what device functions declare
void begin_launch();                           // after static_bytes
std::string take_findings();                   // of the launch, one a line
void begin_block();
void pass_barrier();
void pass_warp_barrier(const Warp& warp, unsigned mask);
std::string different_path(int first, int second);  // the calls two threads are in, where they differ
void atomic(const void* address, std::size_t size, const void* pc);
void host_access(const void* address, std::size_t size, bool write, const char* call);
void release(const Region& region, void* block);
bool know_arrays();  // in arrays.cpp
#else
inline std::size_t static_bytes(const void*) { return 0; }
inline void begin_launch() {}
inline std::string take_findings() { return ""; }
inline void begin_block() {}
inline void pass_barrier() {}
inline void pass_warp_barrier(const Warp&, unsigned) {}
inline std::string different_path(int, int) { return ""; }
inline void atomic(const void*, std::size_t, const void*) {}
inline void host_access(const void*, std::size_t, bool, const char*) {}
inline void release(const Region&, void* block) { std::free(block); }
inline bool know_arrays() { return true; }
#endif
}  // namespace checker

}  // namespace simt
