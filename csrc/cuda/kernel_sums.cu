// Kernel sums: a tile of squared distances becomes kernel values, and is summed or multiplied at once.
//
// A float32 product is accurate wherever both points are within a few bandwidths of the centre. Pairs that are near
// each other but far from the centre are recomputed in float64.
#include <algorithm>
#include <cmath>

#include "cuda/centre_and_scale.cuh"
#include "cuda/device.hpp"
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

// A tile of kernel values, and of counts - 1: how often each replicate drew each column, less one.
constexpr int replicates = 64;
struct BandTile {
  union {
    KernelTile::Shared products;
    float excess[KernelTile::cols][replicates];
  };
  // Groups of four rows are permuted by column, so that neither stores nor loads of a warp conflict in a bank.
  alignas(16) float kernel[KernelTile::cols][tile_rows];

  __device__ float* at(int row, int col) { return &kernel[col][(row / 4 ^ (col / 4 & 7)) * 4 + row % 4]; }
};
static_assert(sizeof(BandTile) <= 48 << 10, "static shared memory ends there");

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

// Products with the counts are summed in float32 over this many tiles.
constexpr int tiles_per_sum = 8;

// The tiles of one row of tiles, from blockIdx.z * tiles_per_block on. Blocks of blockIdx.y = 0 add up the density;
// with counts, block y also works on replicates 64 y and following. Each block computes the kernel tile again: at d =
// 32 that takes half as many multiplications as the counts do, a third of all. To share the tile between all
// replicates, it would have to go through memory.
template <class T>
__global__ void __launch_bounds__(tile_threads, 2)
    add_kernels(PointsAndNorms<T> x, PointsAndNorms<T> y, int d, const T* centre, const double* scale, double bandwidth,
                const Nearness* nearness, int tiles_per_block, Units density_units, unsigned long long* density,
                const std::uint16_t* counts, int n_replicates, Units deviation_units, double* deviation) {
  __shared__ BandTile shared;
  const int e = static_cast<int>(threadIdx.x);
  const int i0 = static_cast<int>(blockIdx.x) * tile_rows;
  const int n_rows = min(static_cast<int>(x.n) - i0, tile_rows);
  const int n_tiles = (static_cast<int>(y.n) - 1) / KernelTile::cols + 1;
  const int first = static_cast<int>(blockIdx.z) * tiles_per_block, last = min(first + tiles_per_block, n_tiles);
  const int b0 = static_cast<int>(blockIdx.y) * replicates;
  const T* x_rows = x.row(i0, d);

  // Registers are scarce. Loops over the rows of totals are not unrolled, which keeps them in local memory.
  float sums[own_rows][own_cols] = {};
  long long totals[own_rows][own_cols];
#pragma unroll 1
  for (int i = 0; i < own_rows; ++i) {
#pragma unroll
    for (int b = 0; b < own_cols; ++b) totals[i][b] = 0;
  }

  for (int tile = first; tile < last; ++tile) {
    const int j0 = tile * KernelTile::cols, n_cols = min(static_cast<int>(y.n) - j0, KernelTile::cols);
    const T* y_rows = y.row(j0, d);
    {
      float p[own_rows][own_cols];
      KernelTile::products(x_rows, n_rows, y_rows, n_cols, d, centre, *scale, shared.products, p);
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
          *reinterpret_cast<float4*>(shared.at(KernelTile::row(i), KernelTile::col(j))) =
              make_float4(p[i][j], p[i + 1][j], p[i + 2][j], p[i + 3][j]);
        }
      }
      const auto row_of = [](int bit) { return KernelTile::row(bit / own_cols); };
      const auto col_of = [](int bit) { return KernelTile::col(bit % own_cols); };
      settle(
          open, x_rows, y_rows, d, [&](int bit) { return row_of(bit) * 128 + col_of(bit); },
          [&](int bit, double exact) {
            const double s = exact == 0.0 ? 0.0 : exact / bandwidth / bandwidth;
            *shared.at(row_of(bit), col_of(bit)) = cosine_of_square(static_cast<float>(s < 2.0 ? s : 2.0));
          });
    }
    if (counts) {
      const int b = e % replicates;
      constexpr int step = tile_threads / replicates;
#pragma unroll
      for (int k = 0; k < KernelTile::cols / step; ++k) {
        const int j = e / replicates + k * step;
        const bool inside = j < n_cols && b0 + b < n_replicates;
        shared.excess[j][b] =
            inside ? static_cast<float>(counts[static_cast<std::int64_t>(j0 + j) * n_replicates + b0 + b]) - 1.0f
                   : 0.0f;
      }
    }
    __syncthreads();
    if (blockIdx.y == 0) {
      // Two threads a row, four sums each.
      const int row = e % tile_rows, first_col = e / tile_rows * (KernelTile::cols / 2);
      float part[4] = {};
#pragma unroll 1
      for (int j = 0; j < KernelTile::cols / 2; j += 4) {
#pragma unroll
        for (int k = 0; k < 4; ++k) part[k] += *shared.at(row, first_col + j + k);
      }
      if (row < n_rows) {
        const float sum = (part[0] + part[1]) + (part[2] + part[3]);
        atomicAdd(density + i0 + row, static_cast<unsigned long long>(sum * density_units.per_one));
      }
    }
    if (counts) {
#pragma unroll 4
      for (int j = 0; j < KernelTile::cols; ++j) {
        const float4 weight = *reinterpret_cast<const float4*>(&shared.excess[j][KernelTile::col(0)]);
        const float weights[own_cols] = {weight.x, weight.y, weight.z, weight.w};
#pragma unroll
        for (int i = 0; i < own_rows; i += 4) {
          const float4 value = *reinterpret_cast<const float4*>(shared.at(KernelTile::row(i), j));
          const float values[4] = {value.x, value.y, value.z, value.w};
#pragma unroll
          for (int r = 0; r < 4; ++r) {
#pragma unroll
            for (int b = 0; b < own_cols; ++b) sums[i + r][b] += values[r] * weights[b];
          }
        }
      }
      if ((tile + 1) % tiles_per_sum == 0 || tile + 1 == last) {
#pragma unroll 1
        for (int i = 0; i < own_rows; ++i) {
#pragma unroll
          for (int b = 0; b < own_cols; ++b) {
            totals[i][b] += static_cast<long long>(sums[0][b] * deviation_units.per_one);
            // Row i + 1 comes to the front.
#pragma unroll
            for (int r = 0; r + 1 < own_rows; ++r) sums[r][b] = sums[r + 1][b];
            sums[own_rows - 1][b] = 0.0f;
          }
        }
      }
    }
    __syncthreads();  // before the next tile overwrites the counts
  }

  if (!counts) return;
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
      const double value = largest[b] * deviation_units.one / static_cast<double>(y.n);
      // The bits of non-negative doubles are in their order.
      atomicMax(reinterpret_cast<unsigned long long*>(deviation) + replicate,
                static_cast<unsigned long long>(__double_as_longlong(value)));
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
  const auto n_y = static_cast<double>(y.n);
  const Units density_units(n_y), deviation_units(n_y * 65536.0);
  const int row_tiles = blocks_of(x.n, tile_rows), col_tiles = blocks_of(y.n, KernelTile::cols);
  const auto add = [&](dim3 grid, int n_tiles) {
    EGT_LAUNCH((add_kernels<T>), grid, tile_threads, 0, stream, scaled.x(), scaled.y(), static_cast<int>(x.d),
               scaled.centre(), scaled.scale(), bandwidth, nearness.get(), n_tiles, density_units, sums.get(), counts,
               static_cast<int>(n_replicates), deviation_units, deviation);
  };
  if (counts) {
    check(cudaMemsetAsync(deviation, 0, static_cast<std::size_t>(n_replicates) * sizeof(double), stream),
          "cudaMemsetAsync");
    add(dim3(row_tiles, blocks_of(n_replicates, replicates)), col_tiles);
  } else {
    const int n_tiles = tiles_per_block(x.n, y.n);
    add(dim3(row_tiles, 1, blocks_of(col_tiles, n_tiles)), n_tiles);
  }
  EGT_LAUNCH((divide), blocks_of(x.n, tile_threads), tile_threads, 0, stream, sums.get(), x.n, density_units.one, n_y,
             density);
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
