// Threads as fibers, their scheduling, and the runtime API; see cuda_runtime.h.
#include "runtime.hpp"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <numeric>
#include <stdexcept>

// Saves the registers a function must preserve on the stack, stores the stack pointer in *save, and goes on with the
// stack at `load`.
extern "C" void simt_switch(void** save, void* load);

#if defined(__x86_64__)
asm(R"(
  .text
  .globl simt_switch
  .hidden simt_switch
  .type simt_switch, @function
simt_switch:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
  .size simt_switch, .-simt_switch
)");
#elif defined(__aarch64__)
asm(R"(
  .text
  .globl simt_switch
  .hidden simt_switch
  .type simt_switch, %function
simt_switch:
  sub sp, sp, #160
  stp x19, x20, [sp, #0]
  stp x21, x22, [sp, #16]
  stp x23, x24, [sp, #32]
  stp x25, x26, [sp, #48]
  stp x27, x28, [sp, #64]
  stp x29, x30, [sp, #80]
  stp d8, d9, [sp, #96]
  stp d10, d11, [sp, #112]
  stp d12, d13, [sp, #128]
  stp d14, d15, [sp, #144]
  mov x9, sp
  str x9, [x0]
  mov sp, x1
  ldp x19, x20, [sp, #0]
  ldp x21, x22, [sp, #16]
  ldp x23, x24, [sp, #32]
  ldp x25, x26, [sp, #48]
  ldp x27, x28, [sp, #64]
  ldp x29, x30, [sp, #80]
  ldp d8, d9, [sp, #96]
  ldp d10, d11, [sp, #112]
  ldp d12, d13, [sp, #128]
  ldp d14, d15, [sp, #144]
  add sp, sp, #160
  ret
  .size simt_switch, .-simt_switch
)");
#else
#error "simt_switch is written for x86-64 and aarch64"
#endif

namespace simt {

BuiltIns built_ins;
Machine machine;

namespace {

constexpr std::size_t stack_bytes = 128 << 10;

Thread threads[most_threads];
int n_stacks = 0;
void* scheduler = nullptr;  // stack pointer of the code that started the block
std::uint64_t seed = 0, random_state = 1;
std::string stopped;  // report of the thread that ended the launch
std::recursive_mutex machine_mutex;

alignas(128) char dynamic_bytes[most_shared_bytes];

std::uint64_t random_bits() {
  random_state ^= random_state << 13;
  random_state ^= random_state >> 7;
  random_state ^= random_state << 17;
  return random_state;
}

void make_stacks(int count) {
  const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  for (; n_stacks < count; ++n_stacks) {
    // Below every stack a page that must not be touched.
    void* memory = mmap(nullptr, stack_bytes + page, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED || mprotect(static_cast<char*>(memory) + page, stack_bytes, PROT_READ | PROT_WRITE) != 0) {
      throw std::bad_alloc();
    }
    Thread& thread = threads[n_stacks];
    thread.number = n_stacks;
    thread.stack_low = static_cast<char*>(memory) + page;
    // Stacks begin at different offsets, or the frames of all threads fall into the same lines of the cache.
    thread.stack_high = thread.stack_low + stack_bytes - static_cast<std::size_t>(n_stacks * 832 % 8192 / 64 * 64);
  }
}

void resume(Warp& warp, int lane, void** save) {
  Thread& thread = threads[warp.number * warp_lanes + lane];
  warp.ready &= ~(1u << lane);
  machine.now = &thread;
  machine.warp_now = &warp;
  built_ins.thread = thread.index;
  simt_switch(save, thread.stack_pointer);
}

int choose_lane(unsigned ready) {
  if (seed == 0) return __builtin_ctz(ready);
  const std::uint64_t random = random_bits();
  const unsigned first = random & 31, turned = ready >> first | ready << (-first & 31);
  return static_cast<int>(((random & 32 ? 31 - __builtin_clz(turned) : __builtin_ctz(turned)) + first) & 31);
}

int lane_now() { return machine.now->number % warp_lanes; }

// Lets another thread run; returns when this one is ready again and its turn has come.
void wait_for_turn() {
  Warp& warp = *machine.warp_now;
  Thread& own = *machine.now;
  if (warp.ready != 0 && (seed == 0 || random_bits() % 16 != 0)) {
    const int lane = choose_lane(warp.ready);
    if (lane == lane_now()) {
      warp.ready &= ~(1u << lane);
    } else {
      resume(warp, lane, &own.stack_pointer);
    }
  } else {
    machine.now = nullptr;
    simt_switch(&own.stack_pointer, scheduler);
  }
}

void run_thread() {
  machine.launch->call(machine.launch->parameters);
  machine.warp_now->alive &= ~(1u << lane_now());
  wait_for_turn();
  std::abort();
}

void prepare(Thread& thread) {
  void** top = reinterpret_cast<void**>(thread.stack_high);
#if defined(__x86_64__)
  top -= 2;  // of these the first is read as the address to go to
  top[0] = reinterpret_cast<void*>(&run_thread);
  top[1] = nullptr;
  top -= 6;
  std::fill(top, top + 6, nullptr);
#else
  top -= 20;
  std::fill(top, top + 20, nullptr);
  top[11] = reinterpret_cast<void*>(&run_thread);
#endif
  thread.stack_pointer = top;
}

const char* name_of(Collective kind) {
  switch (kind) {
    case Collective::sync:
      return "__syncwarp";
    case Collective::shuffle:
      return "__shfl_sync";
    case Collective::shuffle_up:
      return "__shfl_up_sync";
    case Collective::shuffle_down:
      return "__shfl_down_sync";
    case Collective::shuffle_xor:
      return "__shfl_xor_sync";
    case Collective::ballot:
      return "__ballot_sync";
    case Collective::any:
      return "__any_sync";
    case Collective::all:
      return "__all_sync";
    case Collective::none:
      break;
  }
  return "?";
}

std::string hexadecimal(unsigned mask) {
  char text[16];
  std::snprintf(text, sizeof text, "0x%08x", mask);
  return text;
}

// With the kernel, the block and the thread, if one runs.
std::string report_of(const std::string& kind, const std::string& text) {
  const uint3& block = built_ins.block;
  std::string where = std::string(" in ") + machine.launch->name + ", block (" + std::to_string(block.x) + ", " +
                      std::to_string(block.y) + ", " + std::to_string(block.z) + ")";
  if (machine.now) where += ", " + name_of_thread(machine.now->number);
  return kind + where + ": " + text;
}

std::string describe(const Warp& warp, const Gathering& gathering) {
  return std::string(name_of(gathering.kind)) + " at " + text_of(gathering.site) + " with mask " +
         hexadecimal(gathering.mask) + " in warp " + std::to_string(warp.number);
}

// The report on the collective whose lanes cannot all come.
std::string unfinished(const Warp& warp) {
  const Gathering& gathering = warp.gatherings[0];
  const unsigned missing = gathering.mask & ~gathering.arrived;
  std::string text = describe(warp, gathering) + ": lanes " + text_of_lanes(gathering.arrived) + " wait";
  if (missing & ~warp.alive) text += ", lanes " + text_of_lanes(missing & ~warp.alive) + " have exited or do not exist";
  if (missing & warp.at_barrier) {
    text += ", lanes " + text_of_lanes(missing & warp.at_barrier) + " wait at __syncthreads at " +
            text_of(machine.barrier_site);
  }
  for (int g = 1; g < warp.n_gatherings; ++g) {
    if (const unsigned lanes = missing & warp.gatherings[g].arrived) {
      text += ", lanes " + text_of_lanes(lanes) + " wait at " + describe(warp, warp.gatherings[g]);
    }
  }
  return report_of("collective", text);
}

// Works out what every lane of a gathering receives. False where a lane reads one that does not take part.
bool exchange(Warp& warp, const Gathering& gathering) {
  unsigned votes = 0;
  if (gathering.kind == Collective::ballot || gathering.kind == Collective::any || gathering.kind == Collective::all) {
    for (unsigned rest = gathering.mask; rest != 0; rest &= rest - 1) {
      const int lane = __builtin_ctz(rest);
      votes |= static_cast<unsigned>(warp.values[lane]) << lane;
    }
  }
  for (unsigned rest = gathering.mask; rest != 0; rest &= rest - 1) {
    const int lane = __builtin_ctz(rest), argument = warp.arguments[lane], width = warp.widths[lane];
    const int first = lane & ~(width - 1), last = first + width - 1;
    int source = lane;
    switch (gathering.kind) {
      case Collective::shuffle:
        source = first | (argument & (width - 1));
        break;
      case Collective::shuffle_up:
        if (lane - argument >= first) source = lane - argument;
        break;
      case Collective::shuffle_down:
        if (lane + argument <= last) source = lane + argument;
        break;
      case Collective::shuffle_xor:
        if ((lane ^ argument) <= last) source = lane ^ argument;
        break;
      case Collective::ballot:
        warp.results[lane] = votes;
        continue;
      case Collective::any:
        warp.results[lane] = votes != 0;
        continue;
      case Collective::all:
        warp.results[lane] = votes == gathering.mask;
        continue;
      default:
        continue;
    }
    if (!(gathering.mask >> source & 1)) return false;
    warp.results[lane] = warp.values[source];
  }
  return true;
}

void release_barrier() {
  checker::pass_barrier();
  for (int w = 0; w < machine.n_warps; ++w) {
    machine.warps[w].ready |= machine.warps[w].at_barrier;
    machine.warps[w].at_barrier = 0;
  }
  machine.barrier_open = false;
}

void run_block() {
  int order[most_threads / warp_lanes];
  std::iota(order, order + machine.n_warps, 0);
  for (int number = 0; number < machine.n_threads; ++number) prepare(threads[number]);
  for (int w = 0; w < machine.n_warps; ++w) {
    Warp& warp = machine.warps[w];
    const int lanes = std::min(warp_lanes, machine.n_threads - w * warp_lanes);
    warp.number = w;
    warp.alive = warp.ready = lanes == warp_lanes ? ~0u : (1u << lanes) - 1;
    warp.at_barrier = 0;
    warp.n_gatherings = 0;
  }
  machine.barrier_open = false;
  for (;;) {
    for (int i = machine.n_warps - 1; seed != 0 && i > 0; --i) {
      std::swap(order[i], order[random_bits() % static_cast<std::uint64_t>(i + 1)]);
    }
    for (bool any = true; any;) {
      any = false;
      for (int i = 0; i < machine.n_warps; ++i) {
        Warp& warp = machine.warps[order[i]];
        if (warp.ready == 0) continue;
        resume(warp, choose_lane(warp.ready), &scheduler);
        machine.now = nullptr;
        if (!stopped.empty()) return;
        any |= warp.ready != 0;
        if (warp.ready == 0 && warp.n_gatherings > 0) {
          stopped = unfinished(warp);
          return;
        }
      }
    }
    if (!machine.barrier_open) return;
    release_barrier();
  }
}

}  // namespace

bool same(const Site& a, const Site& b) {
  return a.line == b.line && (a.file == b.file || std::strcmp(a.file, b.file) == 0);
}

std::string text_of(const Site& site) {
  if (site.file == nullptr) return "?";
  const char* name = std::strrchr(site.file, '/');
  return std::string(name ? name + 1 : site.file) + ":" + std::to_string(site.line);
}

std::string text_of_lanes(unsigned lanes) {
  std::string text;
  for (int first = 0; first < warp_lanes; ++first) {
    if (!(lanes >> first & 1)) continue;
    int last = first;
    while (last + 1 < warp_lanes && (lanes >> (last + 1) & 1)) ++last;
    text += (text.empty() ? "" : ",") + std::to_string(first) + (last > first ? "-" + std::to_string(last) : "");
    first = last;
  }
  return text;
}

std::string name_of_thread(int number) {
  const dim3& size = built_ins.block_size;
  const auto x = static_cast<unsigned>(number);
  if (size.y * size.z == 1) return "thread " + std::to_string(number);
  return "thread (" + std::to_string(x % size.x) + ", " + std::to_string(x / size.x % size.y) + ", " +
         std::to_string(x / size.x / size.y) + ")";
}

void stop(const std::string& kind, const std::string& text) {
  stopped = report_of(kind, text);
  Thread& own = *machine.now;
  simt_switch(&own.stack_pointer, scheduler);
  std::abort();
}

uint64_t collective(Collective kind, unsigned mask, uint64_t value, int argument, int width, const char* file,
                    int line) {
  Warp& warp = *machine.warp_now;
  const int lane = lane_now();
  const Site site{file, line};
  const auto about = [&] { return describe(warp, {kind, mask, 0, site, 0}) + ": "; };
  if (!(mask >> lane & 1))
    stop("collective", about() + "the mask lacks lane " + std::to_string(lane) + ", which calls");
  if (mask & ~warp.alive) {
    stop("collective", about() + "lanes " + text_of_lanes(mask & ~warp.alive) + " have exited or do not exist");
  }
  if (width < 1 || width > warp_lanes || (width & (width - 1)) != 0) {
    stop("collective", about() + "the width is " + std::to_string(width));
  }
  warp.values[lane] = value;
  warp.arguments[lane] = argument;
  warp.widths[lane] = width;
  int g = 0;
  while (g < warp.n_gatherings &&
         !(warp.gatherings[g].kind == kind && warp.gatherings[g].mask == mask && same(warp.gatherings[g].site, site))) {
    ++g;
  }
  if (g == warp.n_gatherings) {
    warp.gatherings[g] = {kind, mask, 0, site, machine.now->number};
    ++warp.n_gatherings;
  }
  Gathering& gathering = warp.gatherings[g];
  const std::string paths = checker::different_path(gathering.first, machine.now->number);
  if (!paths.empty()) stop("collective", about() + "lanes come by different calls:" + paths);
  gathering.arrived |= 1u << lane;
  if (gathering.arrived == mask) {
    if (!exchange(warp, gathering)) stop("collective", about() + "a lane reads one that the mask does not name");
    if (kind == Collective::sync) checker::pass_warp_barrier(warp, mask);
    warp.gatherings[g] = warp.gatherings[--warp.n_gatherings];
    warp.ready |= mask;
    if (seed == 0) {
      warp.ready &= ~(1u << lane);
      return warp.results[lane];
    }
  }
  wait_for_turn();
  return machine.warp_now->results[lane_now()];
}

void* dynamic_shared() { return dynamic_bytes; }
const char* dynamic_memory() { return dynamic_bytes; }

void set_seed(std::uint64_t value) {
  const std::lock_guard<std::recursive_mutex> lock(machine_mutex);
  seed = value;
  random_state = value * 0x9E3779B97F4A7C15u + 0x2545F4914F6CDD1Du;
  if (random_state == 0) random_state = 1;
}

}  // namespace simt

void __syncthreads(const char* file, int line) {
  using namespace simt;
  const Site site{file, line};
  if (machine.barrier_open && !same(machine.barrier_site, site)) {
    stop("barrier", "arrives at __syncthreads at " + text_of(site) + " while others of its block wait at " +
                        text_of(machine.barrier_site));
  }
  if (machine.barrier_open) {
    const std::string paths = checker::different_path(machine.barrier_first, machine.now->number);
    if (!paths.empty()) {
      stop("barrier", "threads of a block come to __syncthreads at " + text_of(site) + " by different calls:" + paths);
    }
  } else {
    machine.barrier_open = true;
    machine.barrier_site = site;
    machine.barrier_first = machine.now->number;
  }
  machine.warp_now->at_barrier |= 1u << lane_now();
  wait_for_turn();
}

// ---- Atomics.

#define SIMT_ATOMIC(name, type, result)                                          \
  type name(type* address, type value) {                                         \
    ::simt::checker::atomic(address, sizeof(type), __builtin_return_address(0)); \
    const type old = *address;                                                   \
    *address = result;                                                           \
    return old;                                                                  \
  }
#define SIMT_ATOMICS(type)                                                                                      \
  SIMT_ATOMIC(atomicMax, type, (old > value ? old : value))                                                     \
  SIMT_ATOMIC(atomicMin, type, (old < value ? old : value))                                                     \
  SIMT_ATOMIC(atomicAnd, type, (old & value))                                                                   \
  SIMT_ATOMIC(atomicOr, type, (old | value))                                                                    \
  SIMT_ATOMIC(atomicXor, type, (old ^ value))                                                                   \
  SIMT_ATOMIC(atomicExch, type, value)                                                                          \
  SIMT_ATOMIC(atomicAdd, type,                                                                                  \
              static_cast<type>(static_cast<unsigned long long>(old) + static_cast<unsigned long long>(value))) \
  type atomicCAS(type* address, type expected, type value) {                                                    \
    ::simt::checker::atomic(address, sizeof(type), __builtin_return_address(0));                                \
    const type old = *address;                                                                                  \
    if (old == expected) *address = value;                                                                      \
    return old;                                                                                                 \
  }
SIMT_ATOMICS(int)
SIMT_ATOMICS(unsigned)
SIMT_ATOMICS(unsigned long long)
SIMT_ATOMIC(atomicSub, int, static_cast<int>(static_cast<unsigned>(old) - static_cast<unsigned>(value)))
SIMT_ATOMIC(atomicSub, unsigned, old - value)

// ---- The runtime API.

namespace simt {
namespace {

thread_local cudaError_t last_error = cudaSuccess;
thread_local int current_device = 0;

int n_devices = 1;
bool is_capturing = false;
cudaError_t no_device_error = cudaErrorNoDevice;
int driver_version = 11080;
std::size_t memory = std::size_t{4} << 30, in_use = 0;

struct Failure {
  int after, times;
  cudaError_t error;
};
std::map<std::string, Failure> failures;
std::map<const void*, std::size_t> allowed_dynamic_bytes;
std::set<std::pair<int, std::uintptr_t>> queues;
Counts counts;
std::vector<std::string> pending;  // found where nothing can be thrown

constexpr std::size_t margin = 256;

cudaError_t failed(cudaError_t error) {
  if (error != cudaSuccess) last_error = error;
  return error;
}

// The error with which a call is to fail, by the device's state or because a test wants it.
cudaError_t error_of(const char* call) {
  if (n_devices == 0) return no_device_error;
  if (current_device >= n_devices) return cudaErrorInvalidDevice;
  const auto found = failures.find(call);
  if (found == failures.end()) return cudaSuccess;
  Failure& failure = found->second;
  if (--failure.after > 0) return cudaSuccess;
  const cudaError_t error = failure.error;
  if (--failure.times <= 0) failures.erase(found);
  return error;
}

void used(cudaStream_t stream) { queues.emplace(current_device, reinterpret_cast<std::uintptr_t>(stream)); }

struct Name {
  cudaError_t error;
  const char *name, *text;
};
constexpr Name names[] = {
    {cudaSuccess, "cudaSuccess", "no error"},
    {cudaErrorInvalidValue, "cudaErrorInvalidValue", "invalid argument"},
    {cudaErrorMemoryAllocation, "cudaErrorMemoryAllocation", "out of memory"},
    {cudaErrorInitializationError, "cudaErrorInitializationError", "initialization error"},
    {cudaErrorInvalidConfiguration, "cudaErrorInvalidConfiguration", "invalid configuration argument"},
    {cudaErrorInsufficientDriver, "cudaErrorInsufficientDriver",
     "CUDA driver version is insufficient for CUDA runtime version"},
    {cudaErrorNoDevice, "cudaErrorNoDevice", "no CUDA-capable device is detected"},
    {cudaErrorInvalidDevice, "cudaErrorInvalidDevice", "invalid device ordinal"},
    {cudaErrorNoKernelImageForDevice, "cudaErrorNoKernelImageForDevice",
     "no kernel image is available for execution on the device"},
    {cudaErrorIllegalAddress, "cudaErrorIllegalAddress", "an illegal memory access was encountered"},
    {cudaErrorLaunchOutOfResources, "cudaErrorLaunchOutOfResources", "too many resources requested for launch"},
    {cudaErrorLaunchFailure, "cudaErrorLaunchFailure", "unspecified launch failure"},
};

cudaError_t error_of_shape(const Launch& launch) {
  const dim3 &grid = launch.grid, &block = launch.block;
  if (grid.x == 0 || grid.y == 0 || grid.z == 0 || block.x == 0 || block.y == 0 || block.z == 0 ||
      grid.x > 0x7fffffffu || grid.y > 65535 || grid.z > 65535 || block.x > 1024 || block.y > 1024 || block.z > 64 ||
      block.x * block.y * block.z > most_threads) {
    return cudaErrorInvalidConfiguration;
  }
  const auto allowed = allowed_dynamic_bytes.find(launch.kernel);
  const bool usual = allowed == allowed_dynamic_bytes.end();
  const std::size_t bytes = checker::static_bytes(launch.kernel) + launch.dynamic_bytes;
  if (bytes > (usual ? usual_shared_bytes : most_shared_bytes)) return cudaErrorInvalidValue;
  return !usual && launch.dynamic_bytes > allowed->second ? cudaErrorInvalidValue : cudaSuccess;
}

void run(const Launch& launch) {
  machine.launch = &launch;
  machine.threads = threads;
  machine.n_blocks = static_cast<std::int64_t>(launch.grid.x) * launch.grid.y * launch.grid.z;
  machine.n_threads = static_cast<int>(launch.block.x * launch.block.y * launch.block.z);
  machine.n_warps = (machine.n_threads + warp_lanes - 1) / warp_lanes;
  built_ins.block_size = launch.block;
  built_ins.grid_size = launch.grid;
  make_stacks(machine.n_threads);
  for (int number = 0; number < machine.n_threads; ++number) {
    const auto n = static_cast<unsigned>(number);
    threads[number].index = {n % launch.block.x, n / launch.block.x % launch.block.y,
                             n / launch.block.x / launch.block.y};
  }
  // Blocks in the order first + i * step, which meets every block once.
  const auto n = static_cast<std::uint64_t>(machine.n_blocks);
  std::uint64_t first = 0, step = 1;
  if (seed != 0) {
    first = random_bits() % n;
    do step = random_bits() % n;
    while (std::gcd(step, n) != 1);
  }
  stopped.clear();
  checker::begin_launch();
  std::uint64_t block = first;
  for (std::uint64_t i = 0; i < n && stopped.empty(); ++i) {
    machine.block = static_cast<std::int64_t>(block);
    built_ins.block = {static_cast<unsigned>(block % launch.grid.x),
                       static_cast<unsigned>(block / launch.grid.x % launch.grid.y),
                       static_cast<unsigned>(block / launch.grid.x / launch.grid.y)};
    std::memset(dynamic_bytes, 0xff, launch.dynamic_bytes);
    checker::begin_block();
    run_block();
    block = (block + step) % n;
  }
}

void throw_pending() {
  if (pending.empty()) return;
  const std::string text = pending.front();
  pending.clear();
  throw Error{text};
}

}  // namespace

int device_now() { return current_device; }

Trace trace;

void launch(const Launch& launch) {
  const std::lock_guard<std::recursive_mutex> lock(machine_mutex);
  throw_pending();
  cudaError_t error = error_of("launch");
  if (error == cudaSuccess) error = error_of_shape(launch);
  if (failed(error) != cudaSuccess) return;
  used(launch.stream);
  ++counts.launches;
  struct Reset {
    ~Reset() {
      machine.launch = nullptr;
      machine.now = nullptr;
    }
  } reset;
  if (trace) trace(launch, false);
  run(launch);
  const std::string findings = checker::take_findings();
  if (!stopped.empty() && !findings.empty()) stopped += "\n";
  if (!stopped.empty() || !findings.empty()) throw Error{stopped + findings};
  if (trace) trace(launch, true);
}

void allow_dynamic_bytes(const void* kernel, size_t bytes) {
  const std::lock_guard<std::recursive_mutex> lock(machine_mutex);
  allowed_dynamic_bytes[kernel] = std::min(bytes, most_shared_bytes);
}

Registry* const own_regions = new Registry;  // never freed: NumPy frees arrays until the very end
Registry* array_regions = nullptr;

void Registry::add(Region region) {
  static std::atomic<std::uint64_t> serials{0};
  const std::lock_guard<std::mutex> lock(mutex_);
  region.serial = ++serials;
  regions_[region.address] = region;
  ++generation_;
}

bool Registry::remove(std::uintptr_t address) {
  const std::lock_guard<std::mutex> lock(mutex_);
  ++generation_;
  return regions_.erase(address) > 0;
}

bool Registry::find(std::uintptr_t address, Region* found) const {
  const std::lock_guard<std::mutex> lock(mutex_);
  auto after = regions_.upper_bound(address);
  if (after == regions_.begin()) return false;
  *found = std::prev(after)->second;
  return address - found->address < found->size;
}

std::vector<Region> Registry::all() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  std::vector<Region> all;
  for (const auto& entry : regions_) all.push_back(entry.second);
  return all;
}

bool find_region(std::uintptr_t address, Region* found) {
  return own_regions->find(address, found) || (array_regions && array_regions->find(address, found));
}

bool know_arrays() { return checker::know_arrays(); }

void set_devices(int count, int error, int driver) {
  const std::lock_guard<std::recursive_mutex> lock(machine_mutex);
  n_devices = count;
  no_device_error = static_cast<cudaError_t>(error);
  driver_version = driver;
  current_device = 0;
}

void set_capturing(bool capturing) { is_capturing = capturing; }

void set_memory(std::size_t bytes) {
  const std::lock_guard<std::recursive_mutex> lock(machine_mutex);
  memory = bytes;
}

void set_trace(Trace wanted) {
  const std::lock_guard<std::recursive_mutex> lock(machine_mutex);
  trace = std::move(wanted);
}

void fail_call(const std::string& call, int after, int times, int error) {
  const std::lock_guard<std::recursive_mutex> lock(machine_mutex);
  failures[call] = {after, times, static_cast<cudaError_t>(error)};
  if (times <= 0) failures.erase(call);
}

std::size_t allocated() {
  const std::lock_guard<std::recursive_mutex> lock(machine_mutex);
  throw_pending();
  return in_use;
}

std::set<std::pair<int, std::uintptr_t>> queues_used() {
  const std::lock_guard<std::recursive_mutex> lock(machine_mutex);
  return std::exchange(queues, {});
}

Counts take_counts() {
  const std::lock_guard<std::recursive_mutex> lock(machine_mutex);
  return std::exchange(counts, {});
}

}  // namespace simt

using namespace simt;

cudaError_t cudaGetLastError() { return std::exchange(last_error, cudaSuccess); }
cudaError_t cudaPeekAtLastError() { return last_error; }

const char* cudaGetErrorName(cudaError_t error) {
  for (const Name& name : names) {
    if (name.error == error) return name.name;
  }
  return "unrecognized error code";
}

const char* cudaGetErrorString(cudaError_t error) {
  for (const Name& name : names) {
    if (name.error == error) return name.text;
  }
  return "unrecognized error code";
}

cudaError_t cudaGetDeviceCount(int* count) {
  *count = n_devices;
  return failed(n_devices == 0 ? no_device_error : cudaSuccess);
}

cudaError_t cudaGetDevice(int* device) {
  if (n_devices == 0) return failed(no_device_error);
  *device = current_device;
  return cudaSuccess;
}

cudaError_t cudaSetDevice(int device) {
  if (n_devices == 0) return failed(no_device_error);
  if (device < 0 || device >= n_devices) return failed(cudaErrorInvalidDevice);
  current_device = device;
  return cudaSuccess;
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  if (n_devices == 0) return failed(no_device_error);
  if (device < 0 || device >= n_devices) return failed(cudaErrorInvalidDevice);
  *properties = {"host", memory, usual_shared_bytes, most_shared_bytes, 32, most_threads, 9, 0, 4};
  return cudaSuccess;
}

cudaError_t cudaStreamIsCapturing(cudaStream_t, cudaStreamCaptureStatus* status) {
  *status = is_capturing ? cudaStreamCaptureStatusActive : cudaStreamCaptureStatusNone;
  return cudaSuccess;
}

cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* attributes, const void* address) {
  Region region{};
  const bool found = find_region(reinterpret_cast<std::uintptr_t>(address), &region) && region.device >= 0;
  *attributes = {found ? cudaMemoryTypeDevice : cudaMemoryTypeUnregistered, found ? region.device : -2};
  return cudaSuccess;
}

cudaError_t cudaDriverGetVersion(int* version) {
  *version = driver_version;
  return cudaSuccess;
}

cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = 13000;
  return cudaSuccess;
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  cudaDeviceProp properties;
  const cudaError_t error = cudaGetDeviceProperties(&properties, device);
  if (error != cudaSuccess) return error;
  switch (attribute) {
    case cudaDevAttrMaxThreadsPerBlock:
      *value = properties.maxThreadsPerBlock;
      break;
    case cudaDevAttrMaxSharedMemoryPerBlock:
      *value = static_cast<int>(properties.sharedMemPerBlock);
      break;
    case cudaDevAttrMultiProcessorCount:
      *value = properties.multiProcessorCount;
      break;
    case cudaDevAttrComputeCapabilityMajor:
      *value = properties.major;
      break;
    case cudaDevAttrComputeCapabilityMinor:
      *value = properties.minor;
      break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin:
      *value = static_cast<int>(properties.sharedMemPerBlockOptin);
      break;
  }
  return cudaSuccess;
}

cudaError_t cudaMemGetInfo(size_t* available, size_t* total) {
  const std::lock_guard<std::recursive_mutex> lock(machine_mutex);
  const cudaError_t error = error_of("info");
  *total = memory;
  *available = memory > in_use ? memory - in_use : 0;
  return failed(error);
}

// Filled with all ones: not a number, and no sensible index.
cudaError_t cudaMallocAsync(void** address, size_t size, cudaStream_t stream) {
  const std::lock_guard<std::recursive_mutex> lock(machine_mutex);
  const cudaError_t error = error_of("malloc");
  if (error != cudaSuccess) return failed(error);
  if (size > memory || in_use > memory - size) return failed(cudaErrorMemoryAllocation);
  const std::size_t whole = (size + 3 * margin - 1) / margin * margin;
  char* block = static_cast<char*>(std::aligned_alloc(margin, whole));
  if (block == nullptr) return failed(cudaErrorMemoryAllocation);
  std::memset(block, 0xff, whole);
  *address = block + margin;
  in_use += size;
  used(stream);
  own_regions->add({reinterpret_cast<std::uintptr_t>(*address), size, current_device, true, true, false, 0});
  return cudaSuccess;
}

cudaError_t cudaFreeAsync(void* address, cudaStream_t stream) {
  const std::lock_guard<std::recursive_mutex> lock(machine_mutex);
  if (address == nullptr) return cudaSuccess;
  const auto number = reinterpret_cast<std::uintptr_t>(address);
  Region region{};
  if (!own_regions->find(number, &region) || region.address != number || !region.scratch) {
    pending.push_back("memory: cudaFreeAsync of an address that is not allocated");
    return failed(cudaErrorInvalidValue);
  }
  own_regions->remove(number);
  used(stream);
  in_use -= region.size;
  checker::release(region, static_cast<char*>(address) - margin);
  return cudaSuccess;
}

cudaError_t cudaMemsetAsync(void* address, int value, size_t size, cudaStream_t stream) {
  const std::lock_guard<std::recursive_mutex> lock(machine_mutex);
  const cudaError_t error = error_of("memset");
  if (error != cudaSuccess) return failed(error);
  used(stream);
  checker::host_access(address, size, true, "cudaMemsetAsync");
  std::memset(address, value, size);
  return cudaSuccess;
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t size, cudaMemcpyKind kind, cudaStream_t stream) {
  const std::lock_guard<std::recursive_mutex> lock(machine_mutex);
  const cudaError_t error = error_of("memcpy");
  if (error != cudaSuccess) return failed(error);
  used(stream);
  if (kind == cudaMemcpyHostToDevice) {
    ++counts.to_device;
    counts.bytes_to_device += static_cast<std::int64_t>(size);
  }
  if (kind == cudaMemcpyDeviceToHost) {
    ++counts.to_host;
    counts.bytes_to_host += static_cast<std::int64_t>(size);
  }
  if (kind == cudaMemcpyDeviceToHost || kind == cudaMemcpyDeviceToDevice) {
    checker::host_access(from, size, false, "cudaMemcpyAsync");
  }
  if (kind == cudaMemcpyHostToDevice || kind == cudaMemcpyDeviceToDevice) {
    checker::host_access(to, size, true, "cudaMemcpyAsync");
  }
  std::memmove(to, from, size);
  return cudaSuccess;
}

cudaError_t cudaStreamSynchronize(cudaStream_t) { return cudaDeviceSynchronize(); }
cudaError_t cudaDeviceSynchronize() {
  const std::lock_guard<std::recursive_mutex> lock(machine_mutex);
  ++counts.waits;
  return failed(error_of("synchronize"));
}
