// What one warp does with a row of values in memory: find the k-th smallest, keep some of them, sort them.
//
// All lanes of the warp must call these functions with the same arguments; only the functions passed may differ.
#pragma once

#include <cstdint>

#include "cuda/tile.cuh"

namespace egt::cuda {

inline constexpr int histogram_bins = 256;

__device__ inline int lane_in_warp() { return static_cast<int>(threadIdx.x) % warp_size; }

// A value that all lanes have, in a form that shows it to the compiler: branches on it keep the lanes together.
template <class Value>
__device__ Value same_in_warp(Value value) {
  return __shfl_sync(full_warp, value, 0);
}
// Of the lanes in the mask, how many are lower than this one, which is in it.
__device__ inline int lower_lanes(unsigned mask) { return __popc(mask << (warp_size - 1 - lane_in_warp())) - 1; }

__device__ inline int warp_in_block() { return same_in_warp(static_cast<int>(threadIdx.x) / warp_size); }

// Non-negative doubles are in the order of their bits.
__device__ inline unsigned long long bits_of(double value) {
  return static_cast<unsigned long long>(__double_as_longlong(value));
}
__device__ inline double value_of(unsigned long long bits) {
  return __longlong_as_double(static_cast<long long>(bits));
}

// The rank-th smallest (from 1) of key(0), ..., key(n - 1); rank becomes its rank among the keys that equal it.
//
// Where that saves work, a greater number may be returned that at most `enough` keys do not exceed; then rank means
// nothing. histogram: histogram_bins integers of shared memory of the warp's own. A lane asks for every 32nd key,
// always the same ones.
template <class Key>
__device__ unsigned long long warp_select(Key key, int n, int& rank, int enough, int* histogram) {
  constexpr int own_bins = histogram_bins / warp_size;
  const int lane = lane_in_warp();
  const int first_rank = rank;
  unsigned long long low = 0, high = ~0ull;  // what is looked for lies in [low, high]
  for (;;) {
    unsigned long long smallest = ~0ull, largest = 0;
#pragma unroll 4
    for (int c = lane; c < n; c += warp_size) {
      const unsigned long long value = key(c);
      const bool inside = low <= value && value <= high;
      if (inside && value < smallest) smallest = value;
      if (inside && value > largest) largest = value;
    }
    for (int offset = warp_size / 2; offset > 0; offset /= 2) {
      const unsigned long long other_smallest = __shfl_xor_sync(full_warp, smallest, offset);
      const unsigned long long other_largest = __shfl_xor_sync(full_warp, largest, offset);
      smallest = other_smallest < smallest ? other_smallest : smallest;
      largest = other_largest > largest ? other_largest : largest;
    }
    smallest = same_in_warp(smallest);
    largest = same_in_warp(largest);
    if (smallest == largest) return smallest;

    const unsigned long long width = largest - smallest;
    const auto upper_half = static_cast<unsigned>(width >> 32);
    const int width_bits = upper_half ? 64 - __clz(static_cast<int>(upper_half))
                                      : 32 - __clz(static_cast<int>(static_cast<unsigned>(width)));
    const int shift = width_bits > 8 ? width_bits - 8 : 0;
    for (int b = 0; b < own_bins; ++b) histogram[b * warp_size + lane] = 0;
    __syncwarp(full_warp);
#pragma unroll 4
    for (int c = lane; c < n; c += warp_size) {
      const unsigned long long value = key(c);
      if (smallest <= value && value <= largest)
        atomicAdd(histogram + static_cast<int>((value - smallest) >> shift), 1);
    }
    __syncwarp(full_warp);
    int sum = 0;
    for (int b = 0; b < own_bins; ++b) sum += histogram[lane * own_bins + b];
    int through = sum;  // keys in the bins of this lane and of those before it
    for (int offset = 1; offset < warp_size; offset *= 2) {
      const int other = __shfl_up_sync(full_warp, through, static_cast<unsigned>(offset));
      if (lane >= offset) through += other;
    }
    const int owner = __ffs(static_cast<int>(__ballot_sync(full_warp, through >= rank))) - 1;
    int bin = owner * own_bins, before = __shfl_sync(full_warp, through - sum, owner);
    int members = same_in_warp(histogram[bin]);
    while (before + members < rank) {
      before += members;
      members = same_in_warp(histogram[++bin]);
    }
    __syncwarp(full_warp);  // read before the next round clears it

    rank -= before;
    low = smallest + (static_cast<unsigned long long>(bin) << shift);
    const unsigned long long rest = (1ull << shift) - 1;
    high = largest - low < rest ? largest : low + rest;
    if (shift == 0 || first_rank - rank + members <= enough) return high;
  }
}

// Moves the values with keep(position, value) to the front, in their order; returns how many there are.
template <class Value, class Keep>
__device__ int warp_keep(Value* values, int n, Keep keep) {
  constexpr int batch = 4;
  const int lane = lane_in_warp();
  int kept = 0;
  for (int base = 0; base < n; base += batch * warp_size) {
    Value own[batch];
    bool stays[batch];
#pragma unroll
    for (int u = 0; u < batch; ++u) {
      const int c = base + u * warp_size + lane;
      stays[u] = c < n;
      if (!stays[u]) continue;
      own[u] = values[c];
      stays[u] = keep(c, own[u]);
    }
    __syncwarp(full_warp);  // places are written once all lanes have read theirs
#pragma unroll
    for (int u = 0; u < batch; ++u) {
      const unsigned staying = __ballot_sync(full_warp, stays[u]);
      if (stays[u]) values[kept + lower_lanes(staying)] = own[u];
      kept += __popc(staying);
    }
  }
  __syncwarp(full_warp);
  return kept;
}

// Sorts (value, row) ascending by value, then row. A bitonic network that always moves the smaller one down, so that
// the length need not be a power of two.
__device__ inline void warp_sort(double* values, std::int64_t* rows, int n) {
  const auto size = static_cast<unsigned>(n);
  for (unsigned half = 1; half < size; half *= 2) {
    for (unsigned stride = half; stride > 0; stride /= 2) {
      for (auto p = static_cast<unsigned>(lane_in_warp());; p += warp_size) {
        const unsigned a = (p & ~(stride - 1)) * 2 + (p & (stride - 1));
        const unsigned b = stride == half ? a ^ (2 * half - 1) : a + stride;
        if (a >= size) break;
        if (b >= size) continue;
        const double a_value = values[a], b_value = values[b];
        const std::int64_t a_row = rows[a], b_row = rows[b];
        if (a_value < b_value || (a_value == b_value && a_row < b_row)) continue;
        values[a] = b_value;
        values[b] = a_value;
        rows[a] = b_row;
        rows[b] = a_row;
      }
      __syncwarp(full_warp);
    }
  }
}

}  // namespace egt::cuda
