// Ball memberships: a tile decides every pair that its error bound allows, float64 distances decide the rest.
#include <algorithm>

#include "cuda/centre_and_scale.cuh"
#include "cuda/device.hpp"
#include "cuda/settle.cuh"
#include "cuda/tile.cuh"
#include "egt/ball_counts.hpp"

namespace egt::cuda {
namespace {

using PairTile = Tile<128>;

// A row counts at most eight members in each tile, and counts in half a word.
constexpr int most_tiles = 2048;

constexpr float infinity = __builtin_huge_valf();

// What a product p of two points, centred and scaled, says about the ball of one of them (its terms) and the other
// (primes): outside where p < out + low', inside where p > in + high'. Between them the bound leaves the pair open; it
// includes the few roundings of these terms, among its 16. All points are outside for a point without a ball.
struct alignas(16) Terms {
  float low, high, out, in;
};

template <class T>
__global__ void find_terms(PointsAndNorms<T> points, const double* sq_radii, const double* scale, ErrorBound bound,
                           Terms* terms) {
  const std::int64_t i = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
  if (i >= points.n) return;
  const double low = static_cast<double>(points.sq_norms[i]) * (1.0 - bound.relative);
  const double high = static_cast<double>(points.sq_norms[i]) * (1.0 + bound.relative);
  Terms own{static_cast<float>(0.5 * low), static_cast<float>(0.5 * high), infinity, infinity};
  if (sq_radii) {
    const double radius = sq_radii[i] * *scale * *scale;
    own.out = static_cast<float>(0.5 * (low - bound.absolute - radius));
    own.in = static_cast<float>(0.5 * (high + bound.absolute - radius));
  }
  terms[i] = own;
}

struct Balls {
  const Terms* terms;
  const double* sq_radii;
  unsigned long long *sizes, *others;  // members of a ball; balls that a point of the other set lies in
};

// Counts of the balls of x in the low half of a word, of y in the high one.
constexpr int x_member = 1, y_member = 1 << 16;

// The tiles of one row of tiles, from blockIdx.y * tiles_per_block on. Within one set (both Balls the same) pairs i <
// j.
template <class T>
__global__ void __launch_bounds__(tile_threads, 2)
    count_members(Points<T> x, Points<T> y, bool self, const T* centre, const double* scale, Balls x_balls,
                  Balls y_balls, bool closed, int tiles_per_block) {
  __shared__ PairTile::Shared shared;
  __shared__ Terms row_terms[tile_rows], col_terms[PairTile::cols];
  __shared__ int col_counts[PairTile::cols];
  __shared__ int row_counts[PairTile::own_rows][tile_threads];  // each thread's own; registers are scarce
  const int d = static_cast<int>(x.d), e = static_cast<int>(threadIdx.x);
  const int i0 = static_cast<int>(blockIdx.x) * tile_rows;
  const int n_rows = min(static_cast<int>(x.n) - i0, tile_rows);
  const int n_tiles = (static_cast<int>(y.n) - 1) / PairTile::cols + 1;
  const int first = static_cast<int>(blockIdx.y) * tiles_per_block, last = min(first + tiles_per_block, n_tiles);
  const T* x_rows = x.data + static_cast<std::int64_t>(i0) * d;
  const double unit_scale = *scale;
  if (e < tile_rows) row_terms[e] = e < n_rows ? x_balls.terms[i0 + e] : Terms{};
  for (int i = 0; i < PairTile::own_rows; ++i) row_counts[i][e] = 0;

  for (int tile = self ? max(first, static_cast<int>(blockIdx.x)) : first; tile < last; ++tile) {
    const int j0 = tile * PairTile::cols, n_cols = min(static_cast<int>(y.n) - j0, PairTile::cols);
    const T* y_rows = y.data + static_cast<std::int64_t>(j0) * d;
    if (e < PairTile::cols) {
      col_terms[e] = e < n_cols ? y_balls.terms[j0 + e] : Terms{};
      col_counts[e] = 0;
    }
    float p[PairTile::own_rows][PairTile::own_cols];
    PairTile::products(x_rows, n_rows, y_rows, n_cols, d, centre, unit_scale, shared, p);
    const bool diagonal = self && i0 == j0;

    // Four columns at a time: their terms and the open pairs then fit into few registers.
#pragma unroll
    for (int half = 0; half < PairTile::own_cols; half += 4) {
      Terms col[4];
      int counts[4];
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        col[j] = col_terms[PairTile::col(half + j)];
        counts[j] = 0;
      }
      unsigned open = 0;
#pragma unroll
      for (int i = 0; i < PairTile::own_rows; ++i) {
        const Terms row = row_terms[PairTile::row(i)];
        const int first_col = PairTile::row(i) >= n_rows ? n_cols : diagonal ? PairTile::row(i) + 1 : 0;
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          const float product = p[i][half + j];
          const float x_out = row.out + col[j].low, y_out = col[j].out + row.low;
          if (product < (x_out < y_out ? x_out : y_out)) continue;  // nearly all pairs
          const int column = PairTile::col(half + j);
          if (column < first_col || column >= n_cols) continue;
          const bool in_x = product > row.in + col[j].high, in_y = product > col[j].in + row.high;
          if ((in_x || product < x_out) && (in_y || product < y_out)) {
            const int count = (in_x ? x_member : 0) + (in_y ? y_member : 0);
            row_counts[i][e] += count;
            counts[j] += count;
          } else {
            open |= 1u << (4 * i + j);
          }
        }
      }
      const auto pair_of = [half](int bit) { return PairTile::row(bit / 4) * 128 + PairTile::col(half + bit % 4); };
      settle(open, x_rows, y_rows, d, pair_of, [&](int bit, double exact) {
        int count = 0;
        const auto inside = [&](double radius) { return closed ? exact <= radius : exact < radius; };
        if (x_balls.sq_radii && inside(x_balls.sq_radii[i0 + PairTile::row(bit / 4)])) count += x_member;
        if (y_balls.sq_radii && inside(y_balls.sq_radii[j0 + PairTile::col(half + bit % 4)])) count += y_member;
        row_counts[bit / 4][e] += count;
#pragma unroll
        for (int j = 0; j < 4; ++j) counts[j] += bit % 4 == j ? count : 0;
      });
      // Two lanes of a warp share a column.
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        counts[j] += __shfl_xor_sync(full_warp, counts[j], 16);
        if (e % warp_size < 16 && counts[j] != 0) atomicAdd(col_counts + PairTile::col(half + j), counts[j]);
      }
    }
    __syncthreads();
    if (e < n_cols && col_counts[e] != 0) {
      const unsigned long long in_x = col_counts[e] % y_member, in_y = col_counts[e] / y_member;
      if (in_x) atomicAdd(x_balls.others + j0 + e, in_x);
      if (in_y) atomicAdd(y_balls.sizes + j0 + e, in_y);
    }
  }

  // Sixteen lanes share a row.
  for (int i = 0; i < PairTile::own_rows; ++i) {
    unsigned long long in_x = row_counts[i][e] % y_member, in_y = row_counts[i][e] / y_member;
    unsigned long long both = in_y << 32 | in_x;
    for (int offset = 8; offset > 0; offset /= 2) both += __shfl_xor_sync(full_warp, both, offset);
    if (e % 16 == 0 && PairTile::row(i) < n_rows) {
      in_x = both & 0xffffffffu, in_y = both >> 32;
      if (in_x) atomicAdd(x_balls.sizes + i0 + PairTile::row(i), in_x);
      if (in_y) atomicAdd(y_balls.others + i0 + PairTile::row(i), in_y);
    }
  }
}

template <class T>
Buffer<Terms> terms_of(PointsAndNorms<T> points, std::int64_t d, const double* sq_radii, const double* scale,
                       const Queue& queue) {
  Buffer<Terms> terms(queue, points.n);
  EGT_LAUNCH((find_terms<T>), blocks_of(points.n, tile_threads), tile_threads, 0, stream_of(queue), points, sq_radii,
             scale, ErrorBound(d), terms.get());
  return terms;
}

unsigned long long* cleared(std::int64_t* counts, std::int64_t n, const Queue& queue) {
  check(cudaMemsetAsync(counts, 0, static_cast<std::size_t>(n) * sizeof(std::int64_t), stream_of(queue)),
        "cudaMemsetAsync");
  return reinterpret_cast<unsigned long long*>(counts);
}

}  // namespace
}  // namespace egt::cuda

namespace egt {

template <class T>
void ball_counts(Points<T> x, const Points<T>* y, const double* x_sq_radii, const double* y_sq_radii, bool closed,
                 std::int64_t* x_sizes, std::int64_t* y_in_x, std::int64_t* y_sizes, std::int64_t* x_in_y,
                 const Queue& queue) {
  using namespace cuda;
  const DeviceGuard guard(queue);
  const Points<T> other = y ? *y : x;
  const CentredAndScaled<T> scaled(x, y, queue);
  const Buffer<Terms> x_terms = terms_of(scaled.x(), x.d, x_sq_radii, scaled.scale(), queue);
  Balls x_balls{x_terms.get(), x_sq_radii, nullptr, nullptr};
  if (x_sq_radii) {
    x_balls.sizes = cleared(x_sizes, x.n, queue);
    x_balls.others = cleared(y_in_x, other.n, queue);
  }
  // Within one set a pair is seen once, and both its memberships count for the same balls.
  Balls y_balls = x_balls;
  const Buffer<Terms> y_terms =
      y ? terms_of(scaled.y(), x.d, y_sq_radii, scaled.scale(), queue) : Buffer<Terms>(queue, 0);
  if (y) y_balls = {y_terms.get(), y_sq_radii, nullptr, nullptr};
  if (y && y_sq_radii) {
    y_balls.sizes = cleared(y_sizes, other.n, queue);
    y_balls.others = cleared(x_in_y, x.n, queue);
  }
  // Enough blocks for the largest devices.
  const int row_tiles = blocks_of(x.n, tile_rows), col_tiles = blocks_of(other.n, PairTile::cols);
  const int tiles_per_block = std::min(blocks_of(col_tiles, blocks_of(1024, row_tiles)), most_tiles);
  EGT_LAUNCH((count_members<T>), dim3(row_tiles, blocks_of(col_tiles, tiles_per_block)), tile_threads, 0,
             stream_of(queue), x, other, y == nullptr, scaled.centre(), scaled.scale(), x_balls, y_balls, closed,
             tiles_per_block);
}

template void ball_counts<float>(Points<float>, const Points<float>*, const double*, const double*, bool, std::int64_t*,
                                 std::int64_t*, std::int64_t*, std::int64_t*, const Queue&);
template void ball_counts<double>(Points<double>, const Points<double>*, const double*, const double*, bool,
                                  std::int64_t*, std::int64_t*, std::int64_t*, std::int64_t*, const Queue&);

}  // namespace egt
