// Kernels that test the harness itself: what the intrinsics do, and mistakes, each beside its correct form.
#include <cstdint>

#include "cuda/tile.cuh"
#include "samples.hpp"

namespace egt::samples {
namespace {

using cuda::Buffer;
using cuda::check;
using cuda::full_warp;
using cuda::stream_of;
using cuda::warp_size;

constexpr int threads = 64;

__device__ int me() { return static_cast<int>(threadIdx.x); }
__device__ int my_row() { return static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x); }
__device__ int my_lane() { return static_cast<int>(threadIdx.x) % warp_size; }

// ---- Barriers.

template <bool kWrong>
__global__ void lacks_barrier(const float* in, int, float* out) {
  __shared__ float values[threads];
  values[me()] = in[me()];
  if (!kWrong) __syncthreads();
  out[me()] = values[threads - 1 - me()];
}

// Without the second barrier a thread may overwrite what another has yet to read.
template <bool kWrong>
__global__ void lacks_second_barrier(const float* in, int, float* out) {
  __shared__ float values[threads];
  float sum = 0.0f;
  for (int round = 0; round < 2; ++round) {
    values[me()] = in[me()];
    __syncthreads();
    sum += values[threads - 1 - me()];
    if (!kWrong) __syncthreads();
  }
  out[me()] = sum;
}

template <bool kWrong>
__global__ void divergent_barrier(const float* in, int, float* out) {
  __shared__ float values[threads];
  values[me()] = in[me()];
  if (!kWrong || me() < 40) __syncthreads();
  values[me()] += 1.0f;
  __syncthreads();
  out[me()] = values[threads - 1 - me()];
}

__device__ float exchanged(float* values, float value) {
  values[me()] = value;
  __syncthreads();
  return values[threads - 1 - me()];
}

template <bool kWrong>
__global__ void barrier_by_two_calls(const float* in, int, float* out) {
  __shared__ float values[threads];
  const bool first = me() < 32;
  float value = in[me()];
  if (kWrong && first) {
    value = exchanged(values, value);
  } else {
    value = exchanged(values, value + (first ? 0.0f : 1.0f));
  }
  out[me()] = value;
}

// Threads that have exited need not come to a barrier: nothing is wrong with either.
template <bool kWrong>
__global__ void exit_before_barrier(const float* in, int, float* out) {
  __shared__ float values[threads];
  values[me()] = in[me()];
  __syncthreads();
  if (me() >= 40) return;
  values[me()] += 1.0f;
  __syncthreads();
  out[me()] = values[39 - me()];
}

// ---- Warps.

template <bool kWrong>
__global__ void lacks_syncwarp(const float* in, int, float* out) {
  __shared__ float values[threads];
  values[me()] = in[me()];
  if (!kWrong) __syncwarp();
  out[me()] = values[me() ^ 1];
}

template <bool kWrong>
__global__ void syncwarp_of_another_half(const float* in, int, float* out) {
  __shared__ float values[threads];
  values[me()] = in[me()];
  const bool low = my_lane() < 16;
  __syncwarp(low ? 0x0000ffffu : 0xffff0000u);
  out[me()] = values[me() ^ (kWrong ? 16 : 15)];
}

template <bool kWrong>
__global__ void vote_in_place_of_syncwarp(const float* in, int, float* out) {
  __shared__ float values[threads];
  values[me()] = in[me()];
  if (kWrong) {
    __any_sync(full_warp, 1);
  } else {
    __syncwarp();
  }
  out[me()] = values[me() ^ 1];
}

template <bool kWrong>
__global__ void syncwarp_between_warps(const float* in, int, float* out) {
  __shared__ float values[threads];
  values[me()] = in[me()];
  __syncwarp();
  out[me()] = values[me() ^ (kWrong ? 32 : 31)];
}

template <bool kWrong>
__global__ void lacks_second_syncwarp(const float* in, int, float* out) {
  __shared__ float values[threads];
  values[me()] = in[me()];
  __syncwarp();
  const float other = values[me() ^ 1];
  if (!kWrong) __syncwarp();
  values[me()] = other;
  __syncwarp();
  out[me()] = values[me() ^ 1];
}

template <bool kWrong>
__global__ void mask_lacks_the_caller(const float* in, int, float* out) {
  out[me()] = __shfl_sync(kWrong ? 0x0000ffffu : full_warp, in[me()], 0);
}

template <bool kWrong>
__global__ void mask_names_exited_lanes(const float* in, int, float* out) {
  if (my_lane() >= 16) return;
  out[me()] = __shfl_xor_sync(kWrong ? full_warp : 0x0000ffffu, in[me()], 1);
}

template <bool kWrong>
__global__ void mask_names_lanes_that_wait(const float* in, int, float* out) {
  if (my_lane() < 16) out[me()] = __shfl_sync(kWrong ? full_warp : 0x0000ffffu, in[me()], 0);
  __syncthreads();
}

template <bool kWrong>
__global__ void two_sites(const float* in, int, float* out) {
  const unsigned mask = kWrong ? full_warp : my_lane() < 16 ? 0x0000ffffu : 0xffff0000u;
  if (my_lane() < 16) {
    out[me()] = __shfl_sync(mask, in[me()], 0);
  } else {
    out[me()] = __shfl_sync(mask, in[me()], 16);
  }
}

template <bool kWrong>
__global__ void reads_outside_the_mask(const float* in, int, float* out) {
  if (my_lane() < 16) out[me()] = __shfl_sync(0x0000ffffu, in[me()], kWrong ? 16 : 15);
}

template <bool kWrong>
__global__ void collective_by_two_calls(const float* in, int, float* out) {
  const double value = in[me()];
  double sum = 0.0;
  if (kWrong && my_lane() < 16) {
    sum = cuda::warp_sum(value);
  } else {
    sum = cuda::warp_sum(value);
  }
  out[me()] = static_cast<float>(sum);
}

// ---- Memory.

template <bool kWrong>
__global__ void lacks_guard(const float* in, int n, float* out) {
  if (kWrong || my_row() < n) out[my_row()] = in[my_row()];
}

template <bool kWrong>
__global__ void before_the_start(const float* in, int, float* out) {
  out[me()] = in[me() - (kWrong ? 1 : 0)];
}

template <bool kWrong>
__global__ void beyond_shared(const float* in, int, float* out) {
  __shared__ float first[threads], second[threads];
  first[me()] = second[me()] = in[me()];
  __syncthreads();
  const float* values = first;
  out[me()] = values[me() + (kWrong ? 1 : 0)] + second[me()];
}

template <bool kWrong>
__global__ void beyond_a_row(const float* in, int, float* out) {
  __shared__ float values[2][threads];
  for (int i = 0; i < 2; ++i) values[i][me()] = in[me()];
  __syncthreads();
  out[me()] = values[0][me() + (kWrong ? 1 : 0)];
}

template <bool kWrong>
__global__ void beyond_local(const float* in, int n, float* out) {
  float values[4] = {};
  for (int i = 0; i < 4; ++i) values[(i + n) % 4] = in[i];
  out[me()] = values[n % 4 + (kWrong ? 4 : 0)];
}

template <bool kWrong>
__global__ void beyond_dynamic(const float* in, int, float* out) {
  EGT_DYNAMIC_SHARED(float, values);
  values[me() + (kWrong ? 1 : 0)] = in[me()];
  __syncthreads();
  out[me()] = values[me()];
}

template <bool kWrong>
__global__ void uninitialised_shared(const float* in, int, float* out) {
  __shared__ float values[threads];
  if (!kWrong || me() != 7) values[me()] = in[me()];
  __syncthreads();
  out[me()] = values[threads - 1 - me()];
}

// What one block leaves in shared memory, another does not find.
template <bool kWrong>
__global__ void shared_of_the_block_before(const float* in, int, float* out) {
  __shared__ float value;
  if (me() == 0 && (!kWrong || blockIdx.x == 0)) value = in[0];
  __syncthreads();
  if (me() == 0) out[blockIdx.x] = value;
}

// Two threads read a word, and the one that does so last changes it.
template <bool kWrong>
__global__ void written_by_a_reader(const float* in, int, float* out) {
  __shared__ float value;
  if (me() == 0) value = in[0];
  __syncthreads();
  float own = 0.0f;
  if (me() == 0 || me() == threads - 1) own = value;
  if (!kWrong) __syncthreads();
  if (me() == threads - 1) value = own + 1.0f;
  __syncthreads();
  out[me()] = own + value;
}

// As a whole, a pair is copied with the bytes behind its index, which no member has.
struct alignas(16) Pair {
  double value;
  int index;
};

template <bool kWrong>
__global__ void uninitialised_member(const float* in, int, float* out) {
  __shared__ Pair pairs[threads], copies[threads];
  if (!kWrong || me() != 7) pairs[me()].value = in[me()];
  pairs[me()].index = me();
  __syncthreads();
  copies[me()] = pairs[threads - 1 - me()];
  out[me()] = static_cast<float>(copies[me()].value + copies[me()].index);
}

__global__ void copy(const float* in, int n, float* out) {
  if (my_row() < n) out[my_row()] = in[my_row()];
}

__global__ void add_one(unsigned* count, bool plainly) {
  if (!plainly) {
    atomicAdd(count, 1u);
  } else if (me() == 0) {
    *count += 1;
  }
}

__global__ void count_and_read(unsigned* count, bool early, float* out) {
  atomicAdd(count, 1u);
  if (!early) __syncthreads();
  if (me() == 0) out[0] = static_cast<float>(*count);
}

template <bool kWrong>
__global__ void reads_what_another_thread_writes(const float* in, int, float* out) {
  out[me()] = in[me()];
  if (!kWrong) __syncthreads();
  const float other = out[threads - 1 - me()];
  __syncthreads();
  out[me()] = other;
}

template <bool kWrong>
__global__ void reads_what_another_block_writes(const float* in, int, float* out) {
  if (me() != 0) return;
  const float other = kWrong ? out[(blockIdx.x + 1) % gridDim.x] : 0.0f;
  out[blockIdx.x] = in[0] + other;
}

// Every block writes the same, which is a race all the same.
template <bool kWrong>
__global__ void blocks_write_one_word(const float* in, int, float* out) {
  if (me() == 0) out[kWrong ? 0 : blockIdx.x] = in[0];
}

template <bool kWrong>
__global__ void writes_what_it_should_read(const float* in, int, float* out) {
  if (me() == 0) (kWrong ? const_cast<float*>(in) : out)[0] = 1.0f;
}

template <bool kWrong>
__global__ void local_of_another_thread(const float* in, int, float* out) {
  __shared__ const float* places[threads];
  float own = in[me()];
  asm volatile("" : : "r"(&own) : "memory");  // stays in memory
  places[me()] = &own;
  __syncthreads();
  out[me()] = *places[kWrong ? threads - 1 - me() : me()];
  __syncthreads();
}

template <bool kWrong>
__global__ void misaligned(const float* in, int, float* out) {
  if (me() >= 4) return;
  const float4 four = *reinterpret_cast<const float4*>(in + me() * 4 + (kWrong ? 1 : 0));
  out[me()] = four.x + four.y + four.z + four.w;
}

// ---- Arithmetic.

template <bool kWrong>
__global__ void product_overflows(const float* in, int n, float* out) {
  const int large = n * 1000000;
  const std::int64_t index = kWrong ? large * n : static_cast<std::int64_t>(large) * n;
  out[me()] = index > 0 ? in[me()] : 0.0f;
}

template <bool kWrong>
__global__ void shift_is_too_wide(const float*, int n, float* out) {
  const int width = n / 2 + me();
  out[me()] = static_cast<float>(kWrong || width < 32 ? 1u << width : 0u);
}

template <bool kWrong>
__global__ void value_does_not_fit(const float* in, int n, float* out) {
  const float value = in[me()] * 1e10f * static_cast<float>(n);
  out[me()] = static_cast<float>(kWrong ? static_cast<int>(value) : static_cast<long long>(value));
}

// ---- Host code of the samples.

// One block, or `blocks` of them.
#define EGT_SAMPLE(kernel, blocks, bytes)                                                 \
  {#kernel, [](bool wrong, const float* in, int n, float* out, const Queue& queue) {      \
     if (wrong) {                                                                         \
       EGT_LAUNCH((kernel<true>), blocks, threads, bytes, stream_of(queue), in, n, out);  \
     } else {                                                                             \
       EGT_LAUNCH((kernel<false>), blocks, threads, bytes, stream_of(queue), in, n, out); \
     }                                                                                    \
   }}

void counter(bool wrong, const float*, int, float*, const Queue& queue) {
  const Buffer<unsigned> count(queue, 1);
  check(cudaMemsetAsync(count.get(), 0, sizeof(unsigned), stream_of(queue)), "cudaMemsetAsync");
  EGT_LAUNCH((add_one), 3, threads, 0, stream_of(queue), count.get(), wrong);
}

void counter_without_start(bool wrong, const float*, int, float*, const Queue& queue) {
  const Buffer<unsigned> count(queue, 1);
  if (!wrong) check(cudaMemsetAsync(count.get(), 0, sizeof(unsigned), stream_of(queue)), "cudaMemsetAsync");
  EGT_LAUNCH((add_one), 3, threads, 0, stream_of(queue), count.get(), false);
}

void counter_read_early(bool wrong, const float*, int, float* out, const Queue& queue) {
  const Buffer<unsigned> count(queue, 1);
  check(cudaMemsetAsync(count.get(), 0, sizeof(unsigned), stream_of(queue)), "cudaMemsetAsync");
  EGT_LAUNCH((count_and_read), 1, threads, 0, stream_of(queue), count.get(), wrong, out);
}

void beyond_scratch(bool wrong, const float* in, int n, float*, const Queue& queue) {
  const Buffer<float> scratch(queue, wrong ? n - 1 : n);
  EGT_LAUNCH((copy), cuda::blocks_of(n, threads), threads, 0, stream_of(queue), in, n, scratch.get());
}

void uninitialised_scratch(bool wrong, const float* in, int n, float* out, const Queue& queue) {
  const Buffer<float> scratch(queue, n);
  EGT_LAUNCH((copy), 2, threads, 0, stream_of(queue), in, wrong ? n - 1 : n, scratch.get());
  EGT_LAUNCH((copy), 2, threads, 0, stream_of(queue), scratch.get(), n, out);
}

void freed_scratch(bool wrong, const float* in, int n, float* out, const Queue& queue) {
  Buffer<float> scratch(queue, n);
  const float* const values = scratch.get();
  EGT_LAUNCH((copy), 2, threads, 0, stream_of(queue), in, n, scratch.get());
  if (wrong) scratch = Buffer<float>(queue, n);
  EGT_LAUNCH((copy), 2, threads, 0, stream_of(queue), values, n, out);
}

void scratch_of_another_device(bool wrong, const float* in, int n, float*, const Queue& queue) {
  const Buffer<float> scratch(queue, n);
  if (wrong) check(cudaSetDevice(1), "cudaSetDevice");
  const cuda::DeviceGuard guard({wrong ? 1 : queue.device, queue.stream});
  EGT_LAUNCH((copy), 2, threads, 0, stream_of(queue), in, n, scratch.get());
}

void host_variable(bool wrong, const float* in, int, float* out, const Queue& queue) {
  const float value = 1.0f;
  EGT_LAUNCH((copy), 1, threads, 0, stream_of(queue), wrong ? &value : in, 1, out);
}

void clears_too_much(bool wrong, const float*, int n, float*, const Queue& queue) {
  const Buffer<float> scratch(queue, n);
  const auto bytes = static_cast<std::size_t>(n) * sizeof(float) + (wrong ? 1 : 0);
  check(cudaMemsetAsync(scratch.get(), 0, bytes, stream_of(queue)), "cudaMemsetAsync");
}

void copies_what_nothing_wrote(bool wrong, const float*, int n, float*, const Queue& queue) {
  const Buffer<float> scratch(queue, n);
  const auto bytes = static_cast<std::size_t>(n) * sizeof(float);
  check(cudaMemsetAsync(scratch.get(), 0, bytes - (wrong ? 1 : 0), stream_of(queue)), "cudaMemsetAsync");
  std::vector<float> values(static_cast<std::size_t>(n));
  check(cudaMemcpyAsync(values.data(), scratch.get(), bytes, cudaMemcpyDeviceToHost, stream_of(queue)),
        "cudaMemcpyAsync");
  check(cudaStreamSynchronize(stream_of(queue)), "cudaStreamSynchronize");
}

void frees_twice(bool wrong, const float* in, int, float* out, const Queue& queue) {
  void* data = nullptr;
  check(cudaMallocAsync(&data, 4, stream_of(queue)), "cudaMallocAsync");
  check(cudaFreeAsync(data, stream_of(queue)), "cudaFreeAsync");
  if (wrong) cudaFreeAsync(data, stream_of(queue));
  cudaGetLastError();
  EGT_LAUNCH((copy), 1, threads, 0, stream_of(queue), in, 1, out);
}

const Sample samples[] = {
    EGT_SAMPLE(lacks_barrier, 1, 0),
    EGT_SAMPLE(lacks_second_barrier, 1, 0),
    EGT_SAMPLE(divergent_barrier, 1, 0),
    EGT_SAMPLE(barrier_by_two_calls, 1, 0),
    EGT_SAMPLE(exit_before_barrier, 1, 0),
    EGT_SAMPLE(lacks_syncwarp, 1, 0),
    EGT_SAMPLE(syncwarp_of_another_half, 1, 0),
    EGT_SAMPLE(vote_in_place_of_syncwarp, 1, 0),
    EGT_SAMPLE(syncwarp_between_warps, 1, 0),
    EGT_SAMPLE(lacks_second_syncwarp, 1, 0),
    EGT_SAMPLE(mask_lacks_the_caller, 1, 0),
    EGT_SAMPLE(mask_names_exited_lanes, 1, 0),
    EGT_SAMPLE(mask_names_lanes_that_wait, 1, 0),
    EGT_SAMPLE(two_sites, 1, 0),
    EGT_SAMPLE(reads_outside_the_mask, 1, 0),
    EGT_SAMPLE(collective_by_two_calls, 1, 0),
    EGT_SAMPLE(lacks_guard, 2, 0),
    EGT_SAMPLE(before_the_start, 1, 0),
    EGT_SAMPLE(beyond_shared, 1, 0),
    EGT_SAMPLE(beyond_a_row, 1, 0),
    EGT_SAMPLE(beyond_local, 1, 0),
    EGT_SAMPLE(beyond_dynamic, 1, threads * sizeof(float)),
    EGT_SAMPLE(uninitialised_shared, 1, 0),
    EGT_SAMPLE(shared_of_the_block_before, 3, 0),
    EGT_SAMPLE(written_by_a_reader, 1, 0),
    EGT_SAMPLE(uninitialised_member, 1, 0),
    EGT_SAMPLE(reads_what_another_thread_writes, 1, 0),
    EGT_SAMPLE(reads_what_another_block_writes, 3, 0),
    EGT_SAMPLE(blocks_write_one_word, 3, 0),
    EGT_SAMPLE(writes_what_it_should_read, 1, 0),
    EGT_SAMPLE(local_of_another_thread, 1, 0),
    EGT_SAMPLE(misaligned, 1, 0),
    EGT_SAMPLE(product_overflows, 1, 0),
    EGT_SAMPLE(shift_is_too_wide, 1, 0),
    EGT_SAMPLE(value_does_not_fit, 1, 0),
    {"counter", counter},
    {"counter_without_start", counter_without_start},
    {"counter_read_early", counter_read_early},
    {"beyond_scratch", beyond_scratch},
    {"uninitialised_scratch", uninitialised_scratch},
    {"freed_scratch", freed_scratch},
    {"scratch_of_another_device", scratch_of_another_device},
    {"host_variable", host_variable},
    {"clears_too_much", clears_too_much},
    {"copies_what_nothing_wrote", copies_what_nothing_wrote},
    {"frees_twice", frees_twice},
};

// ---- What the intrinsics do.

__global__ void collectives(unsigned mask, int width, const int* arguments, const double* values, double* out) {
  const int lane = me();
  if (!(mask >> lane & 1)) return;
  const double value = values[lane];
  const int argument = arguments[lane];
  double* const own = out + lane * n_collectives;
  own[0] = __shfl_sync(mask, value, argument, width);
  own[1] = __shfl_up_sync(mask, value, 1, width);
  own[2] = __shfl_down_sync(mask, static_cast<float>(value), 2, width);
  own[3] = static_cast<double>(__shfl_xor_sync(mask, static_cast<long long>(value), 3, width));
  own[4] = __ballot_sync(mask, argument % 3 == 0);
  own[5] = __any_sync(mask, argument == 5);
  own[6] = __all_sync(mask, argument < 31);
}

__global__ void built_ins(int* out) {
  const unsigned in_block = (threadIdx.z * blockDim.y + threadIdx.y) * blockDim.x + threadIdx.x;
  const unsigned block = (blockIdx.z * gridDim.y + blockIdx.y) * gridDim.x + blockIdx.x;
  out[block * (blockDim.x * blockDim.y * blockDim.z) + in_block] = static_cast<int>(in_block + 1000 * block);
}

__global__ void atomics(int* signed_out, unsigned* out, unsigned long long* wide) {
  const int i = my_row();
  const auto u = static_cast<unsigned>(i);
  atomicAdd(signed_out, i % 2 == 0 ? i : -i);
  atomicMax(signed_out + 1, i);
  atomicMin(signed_out + 2, -i);
  atomicExch(signed_out + 3, 7);
  atomicSub(signed_out + 4, 2);
  atomicAdd(out, 0x10000001u);
  atomicOr(out + 1, 1u << u % 32);
  atomicAnd(out + 2, ~(1u << u % 16));
  atomicXor(out + 3, u);
  for (unsigned seen = 0;;) {  // the largest, by hand
    const unsigned before = atomicCAS(out + 4, seen, u > seen ? u : seen);
    if (before == seen) break;
    seen = before;
  }
  atomicAdd(wide, 1ull << 40);
  atomicMax(wide + 1, static_cast<unsigned long long>(u) << 33);
  atomicMin(wide + 2, static_cast<unsigned long long>(u) + 5);
}

__global__ void arithmetic(long long a, long long b, unsigned long long* out) {
  const auto u = static_cast<unsigned>(a), v = static_cast<unsigned>(b);
  const auto ua = static_cast<unsigned long long>(a), ub = static_cast<unsigned long long>(b);
  out[0] = static_cast<unsigned long long>(__popc(u));
  out[1] = static_cast<unsigned long long>(__popcll(ua));
  out[2] = static_cast<unsigned long long>(__ffs(static_cast<int>(u)));
  out[3] = static_cast<unsigned long long>(__clz(static_cast<int>(u)));
  out[4] = __umulhi(u, v);
  out[5] = __umul64hi(ua, ub);
  out[6] = static_cast<unsigned long long>(__mul64hi(a, b));
  out[7] = static_cast<unsigned long long>(min(a, b));
  out[8] = max(u, static_cast<int>(v));
  out[9] = static_cast<unsigned long long>(__ffsll(a));
  out[10] = static_cast<unsigned long long>(__clzll(a));
  out[11] = __float_as_uint(__uint_as_float(u));
  out[12] = static_cast<unsigned long long>(__double_as_longlong(__longlong_as_double(a)));
}

__global__ void in_shared_memory(int* out) {
  __shared__ int values[warp_size];
  values[me()] = me();
  out[me()] = values[me()];
}

}  // namespace

const Sample* find(const std::string& name) {
  for (const Sample& sample : samples) {
    if (name == sample.name) return &sample;
  }
  return nullptr;
}

std::vector<std::string> names() {
  std::vector<std::string> all;
  for (const Sample& sample : samples) all.emplace_back(sample.name);
  return all;
}

void run_collectives(unsigned mask, int width, const int* arguments, const double* values, double* out) {
  EGT_LAUNCH((collectives), 1, warp_size, 0, nullptr, mask, width, arguments, values, out);
}

void run_built_ins(const unsigned (&grid)[3], const unsigned (&block)[3], int* out) {
  EGT_LAUNCH((built_ins), dim3(grid[0], grid[1], grid[2]), dim3(block[0], block[1], block[2]), 0, nullptr, out);
}

void run_atomics(int blocks, int* signed_out, unsigned* out, unsigned long long* wide) {
  EGT_LAUNCH((atomics), blocks, threads, 0, nullptr, signed_out, out, wide);
}

void run_arithmetic(long long a, long long b, unsigned long long* out) {
  EGT_LAUNCH((arithmetic), 1, 1, 0, nullptr, a, b, out);
}

void run_dynamic(std::size_t bytes, bool allowed, int* out) {
  if (allowed) {
    check(cudaFuncSetAttribute(in_shared_memory, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes)),
          "cudaFuncSetAttribute");
  }
  EGT_LAUNCH((in_shared_memory), 1, warp_size, bytes, nullptr, out);
}

std::uintptr_t leak(std::size_t bytes) {
  void* data = nullptr;
  check(cudaMallocAsync(&data, bytes, nullptr), "cudaMallocAsync");
  return reinterpret_cast<std::uintptr_t>(data);
}

void give_back(std::uintptr_t address) {
  check(cudaFreeAsync(reinterpret_cast<void*>(address), nullptr), "cudaFreeAsync");
}

}  // namespace egt::samples
