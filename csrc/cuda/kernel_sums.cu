// Kernel sums: a tile of squared distances becomes kernel values, and is summed or multiplied at once.
//
// The kernel is 0 for nearly all pairs, so for a band each row lists its neighbours within the bandwidth, and only
// the counts of these are summed. Tiles with a row of too many neighbours are multiplied with all counts.
//
// A float32 product is accurate wherever both points are within a few bandwidths of the centre. Pairs that are near
// each other but far from the centre are recomputed in float64.
#include <algorithm>
#include <cmath>

#include "cuda/centre_and_scale.cuh"
#include "cuda/device.hpp"
#include "cuda/select.cuh"
#include "cuda/settle.cuh"
#include "cuda/tile.cuh"
#include "egt/kernel_sums.hpp"

namespace egt::cuda {
namespace {

using KernelTile = Tile<64>;
constexpr int own_rows = KernelTile::own_rows, own_cols = KernelTile::own_cols;

// Below it, after scaling, float32 lacks digits or range.
constexpr float smallest = 0x1p-60f;

// cos(pi/2 sqrt(s)) is entire in s. On [0, 1] it is (1 - s) q(s), and q = 1 + s r(s) with r the Chebyshev interpolant
// of degree 3: exactly 1 at s = 0, exactly 0 at s = 1 without a comparison, and within 9e-10 of the cosine between. NaN
// gives 0.
__device__ float cosine_of_square(float s) {
  s = s < 1.0f ? s : 1.0f;
  s = s > 0.0f ? s : 0.0f;
  float q = 2.3824918562453945e-05f;
  q = q * s - 0.0008939560742038388f;
  q = q * s + 0.01996884464137623f;
  q = q * s - 0.23370054660257225f;
  q = q * s + 1.0f;
  return (1.0f - s) * q;
}

// NaN for a point that does not exist, so that no pair with it is near.
template <class T>
__device__ float norm_of(PointsAndNorms<T> points, int first, int offset, int n) {
  return offset < n ? points.sq_norms[first + offset] : __builtin_nanf("");
}

// The kernel of a tile of pairs.
struct KernelValues {
  // Groups of four rows are permuted by column, so that neither stores nor loads of a warp conflict in a bank.
  alignas(16) float values[KernelTile::cols][tile_rows];

  __device__ float* at(int row, int col) { return &values[col][(row / 4 ^ (col / 4 & 7)) * 4 + row % 4]; }
};

// Sums of many products are kept as integers, in units of 2^-bits: exact, in any order.
struct Units {
  float per_one;
  double one;
  explicit Units(double largest) {
    const int bits = std::min(40, 62 - std::ilogb(largest));
    per_one = static_cast<float>(std::ldexp(1.0, bits));
    one = std::ldexp(1.0, -bits);
  }
};

// What is near after scaling. The kernel's argument is square * per_square. Entries of points whose squared norms are
// at most `accurate` together have an error of about 1e-7 of these: about 1e-6 for 8 squared bandwidths. Others are
// recomputed where square <= limit + relative * norms; beyond, the kernel is certainly 0.
struct alignas(16) Nearness {
  float per_square, accurate, limit, relative;
};

__global__ void find_nearness(const double* scale, double bandwidth, ErrorBound bound, Nearness* nearness) {
  const double square = bandwidth * *scale * (bandwidth * *scale);
  nearness->per_square = static_cast<float>(1.0 / square);
  nearness->accurate = square < static_cast<double>(smallest) ? -1.0f : static_cast<float>(8.0 * square);
  nearness->limit = static_cast<float>(square * (1.0 + 1e-6) + bound.absolute);
  nearness->relative = static_cast<float>(bound.relative);
}

// Puts the kernel of a tile of pairs into shared memory; 0 for rows and columns that do not exist. All threads of the
// block must call it, and synchronise before they read.
template <class T>
__device__ void kernel_of_tile(PointsAndNorms<T> x, int i0, int n_rows, PointsAndNorms<T> y, int j0, int n_cols, int d,
                               const T* centre, const double* scale, double bandwidth, const Nearness* nearness,
                               KernelTile::Shared& products, KernelValues& kernel) {
  const T *x_rows = x.row(i0, d), *y_rows = y.row(j0, d);
  float p[own_rows][own_cols];
  KernelTile::products(x_rows, n_rows, y_rows, n_cols, d, centre, *scale, products, p);
  const Nearness near = *nearness;
  unsigned open = 0;
  float col_norms[own_cols];
#pragma unroll
  for (int j = 0; j < own_cols; ++j) {
    col_norms[j] = norm_of(y, j0, KernelTile::col(j), n_cols);
  }
#pragma unroll
  for (int i = 0; i < own_rows; ++i) {
    const float row_norm = norm_of(x, i0, KernelTile::row(i), n_rows);
#pragma unroll
    for (int j = 0; j < own_cols; ++j) {
      const float norms = row_norm + col_norms[j];
      const float square = norms - 2.0f * p[i][j];
      if (norms > near.accurate && square <= near.limit + near.relative * norms) {
        open |= 1u << (own_cols * i + j);
      }
      p[i][j] = cosine_of_square(square * near.per_square);
    }
  }
#pragma unroll
  for (int j = 0; j < own_cols; ++j) {
#pragma unroll
    for (int i = 0; i < own_rows; i += 4) {
      *reinterpret_cast<float4*>(kernel.at(KernelTile::row(i), KernelTile::col(j))) =
          make_float4(p[i][j], p[i + 1][j], p[i + 2][j], p[i + 3][j]);
    }
  }
  const auto row_of = [](int bit) { return KernelTile::row(bit / own_cols); };
  const auto col_of = [](int bit) { return KernelTile::col(bit % own_cols); };
  settle(
      open, x_rows, y_rows, d, [&](int bit) { return row_of(bit) * 128 + col_of(bit); },
      [&](int bit, double exact) {
        const double s = exact == 0.0 ? 0.0 : exact / bandwidth / bandwidth;
        *kernel.at(row_of(bit), col_of(bit)) = cosine_of_square(static_cast<float>(s < 2.0 ? s : 2.0));
      });
}

// Adds the rows of the tile in shared memory to the density: two threads a row, four sums each.
__device__ void add_to_density(KernelValues& kernel, int i0, int n_rows, Units units, unsigned long long* density) {
  const int e = static_cast<int>(threadIdx.x);
  const int row = e % tile_rows, first_col = e / tile_rows * (KernelTile::cols / 2);
  float part[4] = {};
#pragma unroll 1
  for (int j = 0; j < KernelTile::cols / 2; j += 4) {
#pragma unroll
    for (int k = 0; k < 4; ++k) part[k] += *kernel.at(row, first_col + j + k);
  }
  if (row < n_rows) {
    const float sum = (part[0] + part[1]) + (part[2] + part[3]);
    atomicAdd(density + i0 + row, static_cast<unsigned long long>(sum * units.per_one));
  }
}

// The tiles of one row of tiles, from blockIdx.y * tiles_per_block on.
template <class T>
__global__ void __launch_bounds__(tile_threads, 2)
    add_kernels(PointsAndNorms<T> x, PointsAndNorms<T> y, int d, const T* centre, const double* scale, double bandwidth,
                const Nearness* nearness, int tiles_per_block, Units units, unsigned long long* density) {
  __shared__ KernelTile::Shared products;
  __shared__ KernelValues kernel;
  const int i0 = static_cast<int>(blockIdx.x) * tile_rows;
  const int n_rows = min(static_cast<int>(x.n) - i0, tile_rows);
  const int n_tiles = (static_cast<int>(y.n) - 1) / KernelTile::cols + 1;
  const int first = static_cast<int>(blockIdx.y) * tiles_per_block, last = min(first + tiles_per_block, n_tiles);
  for (int tile = first; tile < last; ++tile) {
    const int j0 = tile * KernelTile::cols, n_cols = min(static_cast<int>(y.n) - j0, KernelTile::cols);
    kernel_of_tile(x, i0, n_rows, y, j0, n_cols, d, centre, scale, bandwidth, nearness, products, kernel);
    __syncthreads();
    add_to_density(kernel, i0, n_rows, units, density);
    __syncthreads();  // before the next tile
  }
}

struct Neighbor {
  int column;
  float kernel;
};

// Neighbours that a list holds. TopP&R's bandwidth is the median distance to the 160th neighbour. Tests compile shorter
// lists, which small sets fill.
#ifndef EGT_LIST_SIZE
#define EGT_LIST_SIZE 2048
#endif
constexpr int list_size = EGT_LIST_SIZE;

// The lists of the rows of tiles from first_tile on, with columns in ascending order, and the rows' density. `lengths`
// has how many neighbours a row has, and `longest` the most in a tile: where it is above list_size, lists lack some.
template <class T>
__global__ void __launch_bounds__(tile_threads, 2)
    list_kernels(PointsAndNorms<T> x, int d, const T* centre, const double* scale, double bandwidth,
                 const Nearness* nearness, int first_tile, Units units, unsigned long long* density, Neighbor* lists,
                 int* lengths, int* longest) {
  __shared__ KernelTile::Shared products;
  __shared__ KernelValues kernel;
  __shared__ int listed[tile_rows];
  const int e = static_cast<int>(threadIdx.x), lane = e % warp_size;
  const int tile_row = first_tile + static_cast<int>(blockIdx.x), i0 = tile_row * tile_rows;
  const int n_rows = min(static_cast<int>(x.n) - i0, tile_rows);
  constexpr int rows_of_warp = tile_rows * warp_size / tile_threads;
  const int first_row = e / warp_size * rows_of_warp;
  if (e < tile_rows) listed[e] = 0;
  for (int j0 = 0; j0 < static_cast<int>(x.n); j0 += KernelTile::cols) {
    const int n_cols = min(static_cast<int>(x.n) - j0, KernelTile::cols);
    kernel_of_tile(x, i0, n_rows, x, j0, n_cols, d, centre, scale, bandwidth, nearness, products, kernel);
    __syncthreads();
    add_to_density(kernel, i0, n_rows, units, density);
#pragma unroll 1
    for (int row = first_row; row < min(first_row + rows_of_warp, n_rows); ++row) {
      Neighbor* const list = lists + (static_cast<std::int64_t>(blockIdx.x) * tile_rows + row) * list_size;
      const int before = listed[row];
      int n = before;
#pragma unroll
      for (int col = lane; col < KernelTile::cols; col += warp_size) {
        const float value = *kernel.at(row, col);
        const unsigned near = __ballot_sync(full_warp, value > 0.0f);
        const int position = n + lower_lanes(near);  // of a lane that is near
        if (value > 0.0f && position < list_size) list[position] = {j0 + col, value};
        n += __popc(near);
      }
      __syncwarp();  // all lanes have read the number
      if (lane == 0) listed[row] = n;
    }
    __syncthreads();  // before the next tile
  }
  if (e < n_rows) {
    lengths[static_cast<std::int64_t>(blockIdx.x) * tile_rows + e] = listed[e];
    atomicMax(longest + tile_row, listed[e]);
  }
}

// The bits of non-negative doubles are in their order.
__device__ void raise_to(double* largest, double value) {
  atomicMax(reinterpret_cast<unsigned long long*>(largest),
            static_cast<unsigned long long>(__double_as_longlong(value)));
}

constexpr int list_rows = 16;             // of a block
constexpr int own_replicates = 4;         // of a thread
constexpr int list_chunk = tile_threads;  // neighbours at a time, and those that are summed in float32

// For each replicate the largest |sum_j (counts_j - 1) K_ij| / n over the rows i of lists that are whole. Columns come
// in one order, so the sums have the same bits in every run.
__global__ void __launch_bounds__(tile_threads)
    sum_lists(const Neighbor* lists, const int* lengths, const int* longest, int first_tile, std::int64_t n,
              const std::uint16_t* counts, int n_replicates, double* deviation) {
  __shared__ Neighbor chunk[list_chunk];
  const int e = static_cast<int>(threadIdx.x);
  const int r0 = static_cast<int>(blockIdx.x) * list_rows;
  if (longest[first_tile + r0 / tile_rows] > list_size) return;
  const auto n_rows = static_cast<int>(
      min(n - static_cast<std::int64_t>(first_tile) * tile_rows - r0, static_cast<std::int64_t>(list_rows)));
  const int b0 = static_cast<int>(blockIdx.y) * own_replicates * tile_threads + e;
  double largest[own_replicates] = {};
  for (int row = r0; row < r0 + n_rows; ++row) {
    const int length = lengths[row];
    double totals[own_replicates] = {};
    for (int first = 0; first < length; first += list_chunk) {
      __syncthreads();  // the last chunk has been read
      if (first + e < length) chunk[e] = lists[static_cast<std::int64_t>(row) * list_size + first + e];
      __syncthreads();
      float sums[own_replicates] = {};
      const int size = min(length - first, list_chunk);
#pragma unroll 4
      for (int k = 0; k < size; ++k) {
        const Neighbor neighbor = chunk[k];
        const std::uint16_t* of_column = counts + static_cast<std::int64_t>(neighbor.column) * n_replicates;
#pragma unroll
        for (int q = 0; q < own_replicates; ++q) {
          const int b = b0 + q * tile_threads;
          if (b < n_replicates) sums[q] += neighbor.kernel * (static_cast<float>(of_column[b]) - 1.0f);
        }
      }
#pragma unroll
      for (int q = 0; q < own_replicates; ++q) totals[q] += static_cast<double>(sums[q]);
    }
#pragma unroll
    for (int q = 0; q < own_replicates; ++q) largest[q] = fmax(largest[q], fabs(totals[q]));
  }
#pragma unroll
  for (int q = 0; q < own_replicates; ++q) {
    const int b = b0 + q * tile_threads;
    if (b < n_replicates) raise_to(deviation + b, largest[q] / static_cast<double>(n));
  }
}

// Products with the counts are summed in float32 over this many tiles.
constexpr int tiles_per_sum = 8;
constexpr int replicates = 64;  // of a block

// The same for rows of tiles with a list that is not whole: block y works on replicates 64 y and following. Each block
// computes the kernel tile again; to share it between all replicates, it would have to go through memory.
template <class T>
__global__ void __launch_bounds__(tile_threads, 2)
    multiply_counts(PointsAndNorms<T> x, int d, const T* centre, const double* scale, double bandwidth,
                    const Nearness* nearness, int first_tile, const int* longest, const std::uint16_t* counts,
                    int n_replicates, Units units, double* deviation) {
  const int tile_row = first_tile + static_cast<int>(blockIdx.x);
  if (longest[tile_row] <= list_size) return;
  __shared__ union {
    KernelTile::Shared products;
    float excess[KernelTile::cols][replicates];  // counts - 1
  } shared;
  __shared__ KernelValues kernel;
  const int e = static_cast<int>(threadIdx.x);
  const int i0 = tile_row * tile_rows;
  const int n_rows = min(static_cast<int>(x.n) - i0, tile_rows);
  const int n_tiles = (static_cast<int>(x.n) - 1) / KernelTile::cols + 1;
  const int b0 = static_cast<int>(blockIdx.y) * replicates;

  // Registers are scarce. Loops over the rows of totals are not unrolled, which keeps them in local memory.
  float sums[own_rows][own_cols] = {};
  long long totals[own_rows][own_cols];
#pragma unroll 1
  for (int i = 0; i < own_rows; ++i) {
#pragma unroll
    for (int b = 0; b < own_cols; ++b) totals[i][b] = 0;
  }

  for (int tile = 0; tile < n_tiles; ++tile) {
    const int j0 = tile * KernelTile::cols, n_cols = min(static_cast<int>(x.n) - j0, KernelTile::cols);
    kernel_of_tile(x, i0, n_rows, x, j0, n_cols, d, centre, scale, bandwidth, nearness, shared.products, kernel);
    const int b = e % replicates;
    constexpr int step = tile_threads / replicates;
#pragma unroll
    for (int k = 0; k < KernelTile::cols / step; ++k) {
      const int j = e / replicates + k * step;
      const bool inside = j < n_cols && b0 + b < n_replicates;
      shared.excess[j][b] =
          inside ? static_cast<float>(counts[static_cast<std::int64_t>(j0 + j) * n_replicates + b0 + b]) - 1.0f : 0.0f;
    }
    __syncthreads();
#pragma unroll 4
    for (int j = 0; j < KernelTile::cols; ++j) {
      const float4 weight = *reinterpret_cast<const float4*>(&shared.excess[j][KernelTile::col(0)]);
      const float weights[own_cols] = {weight.x, weight.y, weight.z, weight.w};
#pragma unroll
      for (int i = 0; i < own_rows; i += 4) {
        const float4 value = *reinterpret_cast<const float4*>(kernel.at(KernelTile::row(i), j));
        const float values[4] = {value.x, value.y, value.z, value.w};
#pragma unroll
        for (int r = 0; r < 4; ++r) {
#pragma unroll
          for (int b = 0; b < own_cols; ++b) sums[i + r][b] += values[r] * weights[b];
        }
      }
    }
    if ((tile + 1) % tiles_per_sum == 0 || tile + 1 == n_tiles) {
#pragma unroll 1
      for (int i = 0; i < own_rows; ++i) {
#pragma unroll
        for (int b = 0; b < own_cols; ++b) {
          totals[i][b] += static_cast<long long>(sums[0][b] * units.per_one);
          // Row i + 1 comes to the front.
#pragma unroll
          for (int r = 0; r + 1 < own_rows; ++r) sums[r][b] = sums[r + 1][b];
          sums[own_rows - 1][b] = 0.0f;
        }
      }
    }
    __syncthreads();  // before the next tile overwrites the counts
  }

  // sum_j (counts_j - 1) K_ij is n (p_b - p) without the cancellation.
  double largest[own_cols] = {};
#pragma unroll 1
  for (int i = 0; i < own_rows; ++i) {
#pragma unroll
    for (int b = 0; b < own_cols; ++b) largest[b] = fmax(largest[b], fabs(static_cast<double>(totals[i][b])));
  }
#pragma unroll
  for (int b = 0; b < own_cols; ++b) {
    largest[b] = fmax(largest[b], __shfl_xor_sync(full_warp, largest[b], 16));
    const int replicate = b0 + KernelTile::col(b);
    if (e % warp_size < 16 && replicate < n_replicates) {
      raise_to(deviation + replicate, largest[b] * units.one / static_cast<double>(x.n));
    }
  }
}

__global__ void divide(const unsigned long long* sums, std::int64_t n, double unit, double n_y, double* density) {
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i < n) density[i] = static_cast<double>(sums[i]) * unit / n_y;
}

// A product of factors up to 1 that does not underflow: value * 2^exponent. From the exponent zero_exponent down, far
// below the range of its square root in float64, it counts as 0.
constexpr int zero_exponent = -5000;
template <class V>
struct LongProduct {
  V value;
  int exponent;
};

__device__ void multiply(LongProduct<float>& product, float value, int exponent) {
  const unsigned bits = __float_as_uint(product.value * value);
  product.value = __uint_as_float((bits & 0x007fffffu) | 0x3f800000u);
  product.exponent += static_cast<int>(bits >> 23) - 127 + exponent;
}

// Products of squared factors over the tiles of one row of tiles, from blockIdx.y * tiles_per_block on. What the norm
// of a row loses in float32 is lost in all its factors: about 5e-8 of each.
template <class T>
__global__ void __launch_bounds__(tile_threads, 2)
    multiply_distances(PointsAndNorms<T> x, PointsAndNorms<T> y, int d, const T* centre, const double* scale,
                       double radius, ErrorBound bound, int tiles_per_block, LongProduct<double>* products) {
  __shared__ KernelTile::Shared shared;
  __shared__ LongProduct<float> own[own_rows][tile_threads];  // each thread's own; registers are scarce
  const int e = static_cast<int>(threadIdx.x);
  const int i0 = static_cast<int>(blockIdx.x) * tile_rows;
  const int n_rows = min(static_cast<int>(x.n) - i0, tile_rows);
  const int n_tiles = (static_cast<int>(y.n) - 1) / KernelTile::cols + 1;
  const int first = static_cast<int>(blockIdx.y) * tiles_per_block, last = min(first + tiles_per_block, n_tiles);
  const T* x_rows = x.row(i0, d);
  const double unit_scale = *scale;

  // A squared factor is square * per_square * 2^shift: with a radius far beyond all points it is out of float32's
  // range.
  double scaled_radius = radius * unit_scale;
  const double sq_radius = scaled_radius * scaled_radius;
  const auto inside_below = static_cast<float>(sq_radius);
  const auto limit = static_cast<float>(sq_radius * (1.0 + 1e-6) + bound.absolute);
  const auto relative = static_cast<float>(bound.relative);
  int shift = 0;
  if (scaled_radius > 0x1p1000) {
    scaled_radius = 1.0;
    shift = zero_exponent;
  } else if (scaled_radius > 0x1p30) {
    scaled_radius = frexp(scaled_radius, &shift);
    shift *= -2;
  }
  const auto per_square = static_cast<float>(1.0 / (scaled_radius * scaled_radius));
  for (int i = 0; i < own_rows; ++i) own[i][e] = {1.0f, 0};

  for (int tile = first; tile < last; ++tile) {
    const int j0 = tile * KernelTile::cols, n_cols = min(static_cast<int>(y.n) - j0, KernelTile::cols);
    const T* y_rows = y.row(j0, d);
    float p[own_rows][own_cols];
    KernelTile::products(x_rows, n_rows, y_rows, n_cols, d, centre, unit_scale, shared, p);
    float col_norms[own_cols];
#pragma unroll
    for (int j = 0; j < own_cols; ++j) {
      col_norms[j] = norm_of(y, j0, KernelTile::col(j), n_cols);
    }
    unsigned open = 0;
#pragma unroll
    for (int i = 0; i < own_rows; ++i) {
      const float row_norm = norm_of(x, i0, KernelTile::row(i), n_rows);
      LongProduct<float> product = own[i][e];
#pragma unroll
      for (int j = 0; j < own_cols; ++j) {
        const float norms = row_norm + col_norms[j];
        const float square = norms - 2.0f * p[i][j];
        if (!(square <= limit + relative * norms)) continue;
        // A factor needs relative accuracy, so pairs much nearer to each other than to the centre are recomputed.
        if (!(square >= 0.0625f * norms && square >= smallest)) {
          open |= 1u << (own_cols * i + j);
        } else if (square < inside_below) {
          multiply(product, square * per_square, shift);
        }
      }
      product.exponent = max(product.exponent, zero_exponent);
      own[i][e] = product;
    }
    const auto pair_of = [](int bit) {
      return KernelTile::row(bit / own_cols) * 128 + KernelTile::col(bit % own_cols);
    };
    settle(open, x_rows, y_rows, d, pair_of, [&](int bit, double exact) {
      const double factor = fmin(sqrt(exact) / radius, 1.0);
      float value = 1.0f;
      int exponent = zero_exponent;
      if (exact > 0.0 && factor > 0.0) {
        const double fraction = frexp(factor, &exponent);
        value = static_cast<float>(fraction * fraction);
        exponent *= 2;
      }
      multiply(own[bit / own_cols][e], value, exponent);
    });
  }

  // Sixteen lanes share a row.
  for (int i = 0; i < own_rows; ++i) {
    auto value = static_cast<double>(own[i][e].value);
    int exponent = own[i][e].exponent;
    for (int offset = 8; offset > 0; offset /= 2) {
      value *= __shfl_xor_sync(full_warp, value, offset);
      exponent += __shfl_xor_sync(full_warp, exponent, offset);
    }
    if (e % 16 == 0 && KernelTile::row(i) < n_rows) {
      products[blockIdx.y * x.n + i0 + KernelTile::row(i)] = {value, max(exponent, zero_exponent)};
    }
  }
}

// The product of the parts of each row, and of the distances instead of their squares.
__global__ void combine_products(const LongProduct<double>* products, std::int64_t n, int n_parts, double* product) {
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= n) return;
  double value = 1.0;
  int exponent = 0;
  for (int part = 0; part < n_parts; ++part) {
    const LongProduct<double> own = products[part * n + i];
    int more = 0;
    value = frexp(value * own.value, &more);
    exponent += own.exponent + more;
  }
  const int odd = exponent & 1;
  product[i] = fmin(ldexp(sqrt(odd != 0 ? 2.0 * value : value), (exponent - odd) / 2), 1.0);
}

// Rows of tiles whose lists are in memory at a time: 134 MB.
constexpr int most_listed_tiles = 64;

// How many tiles of columns a block takes, where rows alone give fewer blocks than the largest devices run at once.
int tiles_per_block(std::int64_t n_rows, std::int64_t n_cols) {
  return blocks_of(blocks_of(n_cols, KernelTile::cols), blocks_of(512, blocks_of(n_rows, tile_rows)));
}

}  // namespace
}  // namespace egt::cuda

namespace egt {

template <class T>
void kernel_density(Points<T> x, Points<T> y, double bandwidth, const std::uint16_t* counts, std::int64_t n_replicates,
                    double* density, double* deviation, const Queue& queue) {
  using namespace cuda;
  const DeviceGuard guard(queue);
  const cudaStream_t stream = stream_of(queue);
  const CentredAndScaled<T> scaled(x, &y, queue);
  const Buffer<unsigned long long> sums(queue, x.n);
  check(cudaMemsetAsync(sums.get(), 0, static_cast<std::size_t>(x.n) * sizeof(unsigned long long), stream),
        "cudaMemsetAsync");
  const Buffer<Nearness> nearness(queue, 1);
  EGT_LAUNCH((find_nearness), 1, 1, 0, stream, scaled.scale(), bandwidth, ErrorBound(x.d), nearness.get());
  const auto d = static_cast<int>(x.d);
  const auto n_y = static_cast<double>(y.n);
  const Units units(n_y), count_units(n_y * 65536.0);
  const int row_tiles = blocks_of(x.n, tile_rows);
  if (counts) {
    const auto n_b = static_cast<int>(n_replicates);
    const Buffer<int> longest(queue, row_tiles);
    check(cudaMemsetAsync(longest.get(), 0, static_cast<std::size_t>(row_tiles) * sizeof(int), stream),
          "cudaMemsetAsync");
    check(cudaMemsetAsync(deviation, 0, static_cast<std::size_t>(n_replicates) * sizeof(double), stream),
          "cudaMemsetAsync");
    with_less_memory(std::min(row_tiles, most_listed_tiles), 1, [&](std::int64_t n_tiles) {
      const Buffer<Neighbor> lists(queue, n_tiles * tile_rows * list_size);
      const Buffer<int> lengths(queue, n_tiles * tile_rows);
      for (int first = 0; first < row_tiles; first += static_cast<int>(n_tiles)) {
        const int tiles = std::min(row_tiles - first, static_cast<int>(n_tiles));
        const std::int64_t rows =
            std::min(x.n - static_cast<std::int64_t>(first) * tile_rows, static_cast<std::int64_t>(tiles) * tile_rows);
        EGT_LAUNCH((list_kernels<T>), tiles, tile_threads, 0, stream, scaled.x(), d, scaled.centre(), scaled.scale(),
                   bandwidth, nearness.get(), first, units, sums.get(), lists.get(), lengths.get(), longest.get());
        EGT_LAUNCH((sum_lists), dim3(blocks_of(rows, list_rows), blocks_of(n_b, own_replicates * tile_threads)),
                   tile_threads, 0, stream, lists.get(), lengths.get(), longest.get(), first, x.n, counts, n_b,
                   deviation);
        EGT_LAUNCH((multiply_counts<T>), dim3(tiles, blocks_of(n_b, replicates)), tile_threads, 0, stream, scaled.x(),
                   d, scaled.centre(), scaled.scale(), bandwidth, nearness.get(), first, longest.get(), counts, n_b,
                   count_units, deviation);
      }
    });
  } else {
    const int n_tiles = tiles_per_block(x.n, y.n);
    EGT_LAUNCH((add_kernels<T>), dim3(row_tiles, blocks_of(blocks_of(y.n, KernelTile::cols), n_tiles)), tile_threads, 0,
               stream, scaled.x(), scaled.y(), d, scaled.centre(), scaled.scale(), bandwidth, nearness.get(), n_tiles,
               units, sums.get());
  }
  EGT_LAUNCH((divide), blocks_of(x.n, tile_threads), tile_threads, 0, stream, sums.get(), x.n, units.one, n_y, density);
}

template <class T>
void soft_ball_product(Points<T> x, Points<T> y, double radius, double* product, const Queue& queue) {
  using namespace cuda;
  const DeviceGuard guard(queue);
  const cudaStream_t stream = stream_of(queue);
  const CentredAndScaled<T> scaled(x, &y, queue);
  const int n_tiles = tiles_per_block(x.n, y.n);
  const int n_parts = blocks_of(blocks_of(y.n, KernelTile::cols), n_tiles);
  const Buffer<LongProduct<double>> parts(queue, n_parts * x.n);
  EGT_LAUNCH((multiply_distances<T>), dim3(blocks_of(x.n, tile_rows), n_parts), tile_threads, 0, stream, scaled.x(),
             scaled.y(), static_cast<int>(x.d), scaled.centre(), scaled.scale(), radius, ErrorBound(x.d), n_tiles,
             parts.get());
  EGT_LAUNCH((combine_products), blocks_of(x.n, tile_threads), tile_threads, 0, stream, parts.get(), x.n, n_parts,
             product);
}

template void kernel_density<float>(Points<float>, Points<float>, double, const std::uint16_t*, std::int64_t, double*,
                                    double*, const Queue&);
template void kernel_density<double>(Points<double>, Points<double>, double, const std::uint16_t*, std::int64_t,
                                     double*, double*, const Queue&);
template void soft_ball_product<float>(Points<float>, Points<float>, double, double*, const Queue&);
template void soft_ball_product<double>(Points<double>, Points<double>, double, double*, const Queue&);

}  // namespace egt
