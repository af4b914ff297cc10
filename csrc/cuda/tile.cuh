// Tiles of float32 products, the distances they give, and the exact distance that decides where those do not.
//
// Points are read where they lie, and centred, scaled and rounded to float32 on the way into shared memory. A tile
// entry then differs from the true squared distance, scaled, by at most relative * (|x|^2 + |y|^2) + absolute; see
// csrc/cpu/panels.hpp, whose bound this is.
#pragma once

#include <cstdint>

#include "cuda/device.hpp"

namespace egt::cuda {

inline constexpr int warp_size = 32;
inline constexpr unsigned full_warp = 0xffffffffu;
inline constexpr int tile_threads = 256;
inline constexpr int tile_rows = 128;

__device__ inline double warp_sum(double value) {
  for (int offset = warp_size / 2; offset > 0; offset /= 2) value += __shfl_xor_sync(full_warp, value, offset);
  return value;
}

// Float64 sum of squared differences of the inputs, by one warp; every lane gets it. All that is decided exactly is
// decided on this sum, so it must have the same bits in every kernel: it adds in one order for (a, b) and (b, a), and
// says where a product and a sum are fused, which a compiler may choose anew wherever it inlines the function.
template <class T>
__device__ double warp_sq_distance(const T* a, const T* b, std::int64_t d) {
  double sum = 0.0;
  for (std::int64_t k = threadIdx.x % warp_size; k < d; k += warp_size) {
    const double difference = static_cast<double>(a[k]) - static_cast<double>(b[k]);
    sum = fma(difference, difference, sum);
  }
  return warp_sum(sum);
}

// The bound above, for d columns.
struct ErrorBound {
  double relative;
  double absolute;
  __host__ __device__ explicit ErrorBound(std::int64_t d)
      : relative((static_cast<double>(d) + 16.0) / (1 << 24)), absolute(static_cast<double>(d) * 0x1p-124) {}
};

// One set of points as it is given, and its squared norms after centring and scaling.
template <class T>
struct PointsAndNorms {
  const T* data;
  std::int64_t n;
  const float* sq_norms;
  __device__ const T* row(std::int64_t i, std::int64_t d) const { return data + i * d; }
};

// A tile of tile_rows x kCols products by tile_threads threads, eight rows and kCols / 16 columns each.
template <int kCols>
struct Tile {
  static constexpr int cols = kCols;
  static constexpr int depth = 8;
  static constexpr int own_rows = 8;
  static constexpr int own_cols = kCols / 16;
  static_assert(kCols % 64 == 0, "a thread's columns come in fours");

  // Four columns more than there are, so that the transposing stores of a warp fall into different banks.
  struct Shared {
    alignas(16) float a[2][depth][tile_rows + 4];
    alignas(16) float b[2][depth][kCols + 4];
  };

  // Row and column within the tile of this thread's (i, j)-th product.
  __device__ static int row(int i) { return i / 4 * 64 + static_cast<int>(threadIdx.x) / 16 * 4 + i % 4; }
  __device__ static int col(int j) { return j / 4 * 64 + static_cast<int>(threadIdx.x) % 16 * 4 + j % 4; }

  // acc[i][j] = x'_row(i) . y'_col(j), primes for points centred and scaled; rows and columns that do not exist count
  // as 0. All threads of the block must call it; shared memory is free again when it returns.
  template <class T>
  __device__ static void products(const T* x, int n_rows, const T* y, int n_cols, int d, const T* centre, double scale,
                                  Shared& shared, float (&acc)[own_rows][own_cols]) {
    const T factor = static_cast<T>(scale);
    for (int i = 0; i < own_rows; ++i) {
      for (int j = 0; j < own_cols; ++j) acc[i][j] = 0.0f;
    }
    const int e = static_cast<int>(threadIdx.x), k_own = e % 2 * 4;
    const int a_row = e / 2, b_row = e / 2;
    const bool loads_b = b_row < kCols;
    float a_next[4], b_next[4];
    load(x, a_row, n_rows, k_own, d, centre, factor, a_next);
    if (loads_b) load(y, b_row, n_cols, k_own, d, centre, factor, b_next);
    int now = 0;
    for (int k0 = 0;; k0 += depth, now ^= 1) {
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        shared.a[now][k_own + k][a_row] = a_next[k];
        if (loads_b) shared.b[now][k_own + k][b_row] = b_next[k];
      }
      __syncthreads();
      const bool last = k0 + depth >= d;
      if (!last) {
        load(x, a_row, n_rows, k0 + depth + k_own, d, centre, factor, a_next);
        if (loads_b) load(y, b_row, n_cols, k0 + depth + k_own, d, centre, factor, b_next);
      }
#pragma unroll 2  // more steps at once take more registers than there are
      for (int k = 0; k < depth; ++k) {
        float a[own_rows], b[own_cols];
        fours<own_rows>(shared.a[now][k] + row(0), a);
        fours<own_cols>(shared.b[now][k] + col(0), b);
#pragma unroll
        for (int i = 0; i < own_rows; ++i) {
#pragma unroll
          for (int j = 0; j < own_cols; ++j) acc[i][j] += a[i] * b[j];
        }
      }
      if (last) break;
    }
    __syncthreads();
  }

 private:
  template <class T>
  __device__ static void load(const T* rows, int row, int n_rows, int k, int d, const T* centre, T factor,
                              float (&out)[4]) {
#pragma unroll
    for (int c = 0; c < 4; ++c) {
      const bool inside = row < n_rows && k + c < d;
      out[c] =
          inside ? centred_and_scaled(rows[static_cast<std::int64_t>(row) * d + k + c], centre[k + c], factor) : 0.0f;
    }
  }

  // Every 64th four of consecutive values.
  template <int kCount>
  __device__ static void fours(const float* from, float (&out)[kCount]) {
#pragma unroll
    for (int i = 0; i < kCount; i += 4) {
      const float4 four = *reinterpret_cast<const float4*>(from + i / 4 * 64);
      out[i] = four.x;
      out[i + 1] = four.y;
      out[i + 2] = four.z;
      out[i + 3] = four.w;
    }
  }

 public:
  // Used for the norms too, which must be those of what the tiles multiply.
  template <class T>
  __device__ static float centred_and_scaled(T value, T centre, T factor) {
    return static_cast<float>((value - centre) * factor);
  }
};

}  // namespace egt::cuda
