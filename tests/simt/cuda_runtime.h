// Runs CUDA kernels on the host: stands in for the CUDA runtime where csrc/cuda is compiled with a host compiler and
// EGT_SIMT defined. tests/simt/build.py compiles and loads the result.
//
// A launch runs one block after another, every thread of a block on a stack of its own. A thread runs until it reaches
// a barrier, a warp collective or its end; then another one of its block goes on, in an order that depends on the seed
// (simt_seed; 0: everything in its natural order). What the program must not do is reported as SimtError:
//
//   barrier     threads of a block wait at different __syncthreads. As CUDA has it since compute capability 7.0, those
//               that have exited need not come
//   collective  a warp intrinsic that lanes named in its mask never reach (they wait elsewhere or, stricter than CUDA,
//               have exited or do not exist), whose mask lacks the calling lane, or that reads a lane outside its mask
//   memory      cudaFreeAsync of what is not allocated; reported by the next launch or simt_allocated
//
// Barriers and intrinsics are identified by their source line, in the checked build also by the calls around them.
// Static shared memory is static memory of the process: launches follow one another, also of different threads.
//
// The checked build compiles the kernels with the instrumentation of ThreadSanitizer and UndefinedBehaviorSanitizer,
// but into functions of its own (checker.cpp), which know all device memory and the shared memory of every block:
//
//   bounds          accesses outside of device allocations, NumPy arrays (all that exist since the module was loaded),
//                   registered memory and shared variables, to freed memory or that of another device, writes to
//                   constants or to memory registered as read-only, indices beyond any array, also a local one, whose
//                   length is known from its type, misaligned accesses
//   race            two accesses to the same bytes, not both atomic and not both reads, with no barrier between them:
//                   of two threads of a block, where between lanes of a warp __syncwarp is a barrier too, or of two
//                   blocks of a launch. Shuffles and votes order no memory accesses in CUDA, nor here.
//   uninitialised   reads of shared or device memory that nothing wrote; shared memory is new in every block
//   arithmetic      overflow of signed integers, shifts that are too wide, values that do not fit the integer they
//                   become
//
// It does not see
//   - memory weaker than sequentially consistent, pre-emption, two blocks at work at the same time: a race shows as the
//     two accesses and their order, never as a wrong value, and a kernel that spins on what another thread writes
//     hangs;
//   - streams and time: every call is complete when it returns, in the order of the calls; __threadfence, and thus the
//     order it gives to atomics, is unknown to it: blocks that hand on memory in that way are reported as a race;
//   - inline PTX, tensor cores, asynchronous copies, cluster and grid synchronisation, textures;
//   - indices beyond one row of an array that is indexed through a pointer, as long as they stay in the variable;
//   - values computed by other instructions than on the device: no fused multiply-adds but fma(), and another libm;
//   - registers, spills, occupancy, coalescing, bank conflicts.
#pragma once

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#define __host__
#define __device__
#define __global__
#define __constant__ const
#define __shared__ static
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __align__(bytes) alignas(bytes)

#define SIMT_VECTORS(type, name, align2, align4)                              \
  struct alignas(align2) name##2 { type x, y; };                              \
  struct name##3 { type x, y, z; };                                           \
  struct alignas(align4) name##4 { type x, y, z, w; };                        \
  inline name##2 make_##name##2(type x, type y) { return {x, y}; }            \
  inline name##3 make_##name##3(type x, type y, type z) { return {x, y, z}; } \
  inline name##4 make_##name##4(type x, type y, type z, type w) { return {x, y, z, w}; }
SIMT_VECTORS(int, int, 8, 16)
SIMT_VECTORS(unsigned, uint, 8, 16)
SIMT_VECTORS(float, float, 8, 16)
SIMT_VECTORS(long long, longlong, 16, 16)
SIMT_VECTORS(unsigned long long, ulonglong, 16, 16)
SIMT_VECTORS(double, double, 16, 16)
#undef SIMT_VECTORS

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

// Built-in variables, of the thread that runs now.
namespace simt {
struct BuiltIns {
  uint3 thread, block;
  dim3 block_size, grid_size;
};
extern BuiltIns built_ins;
}  // namespace simt
#define threadIdx (::simt::built_ins.thread)
#define blockIdx (::simt::built_ins.block)
#define blockDim (::simt::built_ins.block_size)
#define gridDim (::simt::built_ins.grid_size)
constexpr int warpSize = 32;

// ---- Synchronisation and warp collectives. They meet by the line of the source they stand on.

#define SIMT_SITE const char *file = __builtin_FILE(), int line = __builtin_LINE()

void __syncthreads(SIMT_SITE);

namespace simt {
enum class Collective : unsigned char { none, sync, shuffle, shuffle_up, shuffle_down, shuffle_xor, ballot, any, all };
uint64_t collective(Collective kind, unsigned mask, uint64_t value, int argument, int width, const char* file,
                    int line);

template <class V>
V shuffle(Collective kind, unsigned mask, V value, int argument, int width, const char* file, int line) {
  static_assert(std::is_arithmetic_v<V> && (sizeof(V) == 4 || sizeof(V) == 8), "shuffles move words of 32 or 64 bits");
  uint64_t bits = 0;
  __builtin_memcpy(&bits, &value, sizeof(V));
  bits = collective(kind, mask, bits, argument, width, file, line);
  __builtin_memcpy(&value, &bits, sizeof(V));
  return value;
}
}  // namespace simt

inline void __syncwarp(unsigned mask = 0xffffffffu, SIMT_SITE) {
  simt::collective(simt::Collective::sync, mask, 0, 0, 32, file, line);
}
template <class V>
V __shfl_sync(unsigned mask, V value, int lane, int width = 32, SIMT_SITE) {
  return simt::shuffle(simt::Collective::shuffle, mask, value, lane, width, file, line);
}
template <class V>
V __shfl_up_sync(unsigned mask, V value, unsigned delta, int width = 32, SIMT_SITE) {
  return simt::shuffle(simt::Collective::shuffle_up, mask, value, static_cast<int>(delta), width, file, line);
}
template <class V>
V __shfl_down_sync(unsigned mask, V value, unsigned delta, int width = 32, SIMT_SITE) {
  return simt::shuffle(simt::Collective::shuffle_down, mask, value, static_cast<int>(delta), width, file, line);
}
template <class V>
V __shfl_xor_sync(unsigned mask, V value, int lane_mask, int width = 32, SIMT_SITE) {
  return simt::shuffle(simt::Collective::shuffle_xor, mask, value, lane_mask, width, file, line);
}
inline unsigned __ballot_sync(unsigned mask, int predicate, SIMT_SITE) {
  return static_cast<unsigned>(simt::collective(simt::Collective::ballot, mask, predicate != 0, 0, 32, file, line));
}
inline int __any_sync(unsigned mask, int predicate, SIMT_SITE) {
  return static_cast<int>(simt::collective(simt::Collective::any, mask, predicate != 0, 0, 32, file, line));
}
inline int __all_sync(unsigned mask, int predicate, SIMT_SITE) {
  return static_cast<int>(simt::collective(simt::Collective::all, mask, predicate != 0, 0, 32, file, line));
}
#undef SIMT_SITE

// ---- Atomics, in runtime.cpp, where they are not taken for plain accesses.

#define SIMT_ATOMICS(type)      \
  type atomicAdd(type*, type);  \
  type atomicMax(type*, type);  \
  type atomicMin(type*, type);  \
  type atomicAnd(type*, type);  \
  type atomicOr(type*, type);   \
  type atomicXor(type*, type);  \
  type atomicExch(type*, type); \
  type atomicCAS(type*, type, type);
SIMT_ATOMICS(int)
SIMT_ATOMICS(unsigned)
SIMT_ATOMICS(unsigned long long)
#undef SIMT_ATOMICS
int atomicSub(int*, int);
unsigned atomicSub(unsigned*, unsigned);

// ---- Arithmetic.

namespace simt {
template <class To, class From>
To bits_of(From value) {
  static_assert(sizeof(To) == sizeof(From));
  To result;
  __builtin_memcpy(&result, &value, sizeof(To));
  return result;
}
}  // namespace simt

inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline int __ffs(int x) { return __builtin_ffs(x); }
inline int __ffsll(long long x) { return __builtin_ffsll(x); }
inline int __clz(int x) { return x == 0 ? 32 : __builtin_clz(static_cast<unsigned>(x)); }
inline int __clzll(long long x) { return x == 0 ? 64 : __builtin_clzll(static_cast<unsigned long long>(x)); }
inline unsigned __umulhi(unsigned a, unsigned b) {
  return static_cast<unsigned>(static_cast<unsigned long long>(a) * b >> 32);
}
inline int __mulhi(int a, int b) { return static_cast<int>(static_cast<long long>(a) * b >> 32); }
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
  return static_cast<unsigned long long>(static_cast<unsigned __int128>(a) * b >> 64);
}
inline long long __mul64hi(long long a, long long b) {
  return static_cast<long long>(static_cast<__int128>(a) * b >> 64);
}
inline unsigned __float_as_uint(float x) { return simt::bits_of<unsigned>(x); }
inline int __float_as_int(float x) { return simt::bits_of<int>(x); }
inline float __uint_as_float(unsigned x) { return simt::bits_of<float>(x); }
inline float __int_as_float(int x) { return simt::bits_of<float>(x); }
inline long long __double_as_longlong(double x) { return simt::bits_of<long long>(x); }
inline double __longlong_as_double(long long x) { return simt::bits_of<double>(x); }
inline double rsqrt(double x) { return 1.0 / sqrt(x); }
inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
template <class V>
V __ldg(const V* address) {
  return *address;
}

#define SIMT_MIN_MAX(result, a_type, b_type)                                                                  \
  inline result min(a_type a, b_type b) {                                                                     \
    return static_cast<result>(a) < static_cast<result>(b) ? static_cast<result>(a) : static_cast<result>(b); \
  }                                                                                                           \
  inline result max(a_type a, b_type b) {                                                                     \
    return static_cast<result>(a) > static_cast<result>(b) ? static_cast<result>(a) : static_cast<result>(b); \
  }
SIMT_MIN_MAX(int, int, int)
SIMT_MIN_MAX(unsigned, unsigned, unsigned)
SIMT_MIN_MAX(unsigned, int, unsigned)
SIMT_MIN_MAX(unsigned, unsigned, int)
SIMT_MIN_MAX(long, long, long)
SIMT_MIN_MAX(unsigned long, unsigned long, unsigned long)
SIMT_MIN_MAX(unsigned long, long, unsigned long)
SIMT_MIN_MAX(unsigned long, unsigned long, long)
SIMT_MIN_MAX(long long, long long, long long)
SIMT_MIN_MAX(unsigned long long, unsigned long long, unsigned long long)
SIMT_MIN_MAX(unsigned long long, long long, unsigned long long)
SIMT_MIN_MAX(unsigned long long, unsigned long long, long long)
#undef SIMT_MIN_MAX
inline float min(float a, float b) { return fminf(a, b); }
inline float max(float a, float b) { return fmaxf(a, b); }
inline double min(double a, double b) { return fmin(a, b); }
inline double max(double a, double b) { return fmax(a, b); }
inline double min(float a, double b) { return fmin(a, b); }
inline double max(float a, double b) { return fmax(a, b); }
inline double min(double a, float b) { return fmin(a, b); }
inline double max(double a, float b) { return fmax(a, b); }

// ---- The runtime API, with CUDA's numbers.

enum cudaError_t {
  cudaSuccess = 0,
  cudaErrorInvalidValue = 1,
  cudaErrorMemoryAllocation = 2,
  cudaErrorInitializationError = 3,
  cudaErrorInvalidConfiguration = 9,
  cudaErrorInsufficientDriver = 35,
  cudaErrorNoDevice = 100,
  cudaErrorInvalidDevice = 101,
  cudaErrorNoKernelImageForDevice = 209,
  cudaErrorIllegalAddress = 700,
  cudaErrorLaunchOutOfResources = 701,
  cudaErrorLaunchFailure = 719,
  cudaErrorUnknown = 999,
};
typedef struct CUstream_st* cudaStream_t;
enum cudaMemcpyKind {
  cudaMemcpyHostToHost,
  cudaMemcpyHostToDevice,
  cudaMemcpyDeviceToHost,
  cudaMemcpyDeviceToDevice,
  cudaMemcpyDefault
};
enum cudaFuncAttribute { cudaFuncAttributeMaxDynamicSharedMemorySize = 8 };
enum cudaDeviceAttr {
  cudaDevAttrMaxThreadsPerBlock = 1,
  cudaDevAttrMaxSharedMemoryPerBlock = 8,
  cudaDevAttrMultiProcessorCount = 16,
  cudaDevAttrComputeCapabilityMajor = 75,
  cudaDevAttrComputeCapabilityMinor = 76,
  cudaDevAttrMaxSharedMemoryPerBlockOptin = 97,
};
struct cudaDeviceProp {
  char name[256];
  size_t totalGlobalMem;
  size_t sharedMemPerBlock;
  size_t sharedMemPerBlockOptin;
  int warpSize;
  int maxThreadsPerBlock;
  int major, minor;
  int multiProcessorCount;
};

cudaError_t cudaGetLastError();
cudaError_t cudaPeekAtLastError();
const char* cudaGetErrorName(cudaError_t);
const char* cudaGetErrorString(cudaError_t);
cudaError_t cudaGetDeviceCount(int*);
cudaError_t cudaGetDevice(int*);
cudaError_t cudaSetDevice(int);
cudaError_t cudaGetDeviceProperties(cudaDeviceProp*, int);
cudaError_t cudaDeviceGetAttribute(int*, cudaDeviceAttr, int);
cudaError_t cudaMemGetInfo(size_t* available, size_t* total);
cudaError_t cudaMallocAsync(void**, size_t, cudaStream_t);
cudaError_t cudaFreeAsync(void*, cudaStream_t);
cudaError_t cudaMemsetAsync(void*, int, size_t, cudaStream_t = nullptr);
cudaError_t cudaMemcpyAsync(void*, const void*, size_t, cudaMemcpyKind, cudaStream_t = nullptr);
cudaError_t cudaStreamSynchronize(cudaStream_t);
enum cudaStreamCaptureStatus { cudaStreamCaptureStatusNone = 0, cudaStreamCaptureStatusActive = 1 };
cudaError_t cudaStreamIsCapturing(cudaStream_t, cudaStreamCaptureStatus*);
enum cudaMemoryType { cudaMemoryTypeUnregistered = 0, cudaMemoryTypeDevice = 2 };
struct cudaPointerAttributes {
  cudaMemoryType type;
  int device;
};
cudaError_t cudaPointerGetAttributes(cudaPointerAttributes*, const void*);
cudaError_t cudaDriverGetVersion(int*);
cudaError_t cudaRuntimeGetVersion(int*);
cudaError_t cudaDeviceSynchronize();

// ---- Launches.

namespace simt {
// Parameters are those of a kernel, filled in; call runs one thread.
struct Launch {
  const char* name;
  const void* kernel;
  dim3 grid, block;
  size_t dynamic_bytes;
  cudaStream_t stream;
  void (*call)(const void* parameters);
  const void* parameters;
  size_t parameters_size;
  // The parameters as CUDA passes them: each at the next multiple of its alignment.
  std::vector<unsigned char> (*packed)(const void* parameters);
};
void launch(const Launch&);
void allow_dynamic_bytes(const void* kernel, size_t bytes);
void* dynamic_shared();

template <class... P>
struct Launcher {
  void (*kernel)(P...);
  Launch launch;

  struct Parameters {
    void (*kernel)(P...);
    std::tuple<P...> values;
  };
  static void call(const void* parameters) {
    const auto* own = static_cast<const Parameters*>(parameters);
    std::apply(own->kernel, own->values);
  }
  static std::vector<unsigned char> packed(const void* parameters) {
    std::vector<unsigned char> bytes;
    const auto add = [&bytes](const auto& value) {
      constexpr size_t align = alignof(decltype(value));
      const auto* data = reinterpret_cast<const unsigned char*>(&value);
      bytes.resize((bytes.size() + align - 1) / align * align);
      bytes.insert(bytes.end(), data, data + sizeof(value));
    };
    std::apply([&](const auto&... value) { (add(value), ...); }, static_cast<const Parameters*>(parameters)->values);
    return bytes;
  }
  template <class... A>
  void operator()(A&&... arguments) {
    const Parameters parameters{kernel, std::tuple<P...>(std::forward<A>(arguments)...)};
    launch.call = &call;
    launch.packed = &packed;
    launch.parameters = &parameters;
    launch.parameters_size = sizeof(parameters);
    simt::launch(launch);
  }
};
template <class... P>
Launcher<P...> launcher(const char* name, void (*kernel)(P...), dim3 grid, dim3 block, size_t bytes,
                        cudaStream_t stream) {
  const auto* address = reinterpret_cast<const void*>(kernel);
  return {kernel, {name, address, grid, block, bytes, stream, nullptr, nullptr, 0, nullptr}};
}
}  // namespace simt

template <class... P>
cudaError_t cudaFuncSetAttribute(void (*kernel)(P...), cudaFuncAttribute, int value) {
  simt::allow_dynamic_bytes(reinterpret_cast<const void*>(kernel), static_cast<size_t>(value));
  return cudaSuccess;
}

#define EGT_LAUNCH(kernel, grid, block, bytes, stream, ...)                             \
  do {                                                                                  \
    ::simt::launcher(#kernel, kernel, (grid), (block), (bytes), (stream))(__VA_ARGS__); \
    ::egt::cuda::check(cudaGetLastError(), #kernel);                                    \
  } while (false)

#define EGT_DYNAMIC_SHARED(type, name) type* const name = static_cast<type*>(::simt::dynamic_shared())

// Adds the functions simt_... and SimtError to a Python module; see module.cpp.
namespace pybind11 __attribute__((visibility("hidden"))) {
  class module_;
}
void define_simt(pybind11::module_& module);
