// Projections by tiles through shared memory. Every output is one chain of fused products and sums over the columns, so
// that it depends only on its row and its direction.
#include <algorithm>

#include "cuda/device.hpp"
#include "egt/projection.hpp"

namespace egt {
namespace cuda {
namespace {

constexpr int threads = 256;
constexpr int depth = 16;        // columns in shared memory at a time
constexpr int lanes_across = 8;  // threads side by side along the directions
constexpr int own_points = 2, own_directions = 4;
constexpr int tile_points = threads / lanes_across * own_points;
constexpr int tile_directions = lanes_across * own_directions;
constexpr std::int64_t most_blocks = 1 << 12;

// Rows first ... first + kRows - 1 and columns k0 ... k0 + depth - 1, 0 where there are none.
template <int kRows, class V>
__device__ void load(const V* data, std::int64_t n, int d, std::int64_t first, int k0,
                     double (&tile)[kRows][depth + 1]) {
  for (int e = static_cast<int>(threadIdx.x); e < kRows * depth; e += threads) {
    const int row = e / depth, k = e % depth;
    const bool inside = first + row < n && k < d - k0;
    tile[row][k] = inside ? static_cast<double>(data[(first + row) * d + k0 + k]) : 0.0;
  }
}

template <class T>
__global__ void __launch_bounds__(threads)
    project_tiles(const T* x, std::int64_t n, int d, const double* matrix, std::int64_t n_rows, double* out) {
  __shared__ double points[tile_points][depth + 1], directions[tile_directions][depth + 1];
  const int point = static_cast<int>(threadIdx.x) / lanes_across,
            direction = static_cast<int>(threadIdx.x) % lanes_across;
  const std::int64_t tiles_across = (n_rows + tile_directions - 1) / tile_directions;
  const std::int64_t n_tiles = (n + tile_points - 1) / tile_points * tiles_across;
  for (std::int64_t tile = blockIdx.x; tile < n_tiles; tile += gridDim.x) {
    const std::int64_t first_point = tile / tiles_across * tile_points;
    const std::int64_t first_direction = tile % tiles_across * tile_directions;
    double sums[own_points][own_directions] = {};
    for (int k0 = 0; k0 < d; k0 += depth) {
      load(x, n, d, first_point, k0, points);
      load(matrix, n_rows, d, first_direction, k0, directions);
      __syncthreads();
#pragma unroll
      for (int k = 0; k < depth; ++k) {
#pragma unroll
        for (int i = 0; i < own_points; ++i) {
#pragma unroll
          for (int j = 0; j < own_directions; ++j) {
            sums[i][j] = fma(points[point + i * (tile_points / own_points)][k],
                             directions[direction + j * lanes_across][k], sums[i][j]);
          }
        }
      }
      __syncthreads();
    }
    for (int i = 0; i < own_points; ++i) {
      const std::int64_t row = first_point + point + i * (tile_points / own_points);
      for (int j = 0; j < own_directions; ++j) {
        const std::int64_t column = first_direction + direction + j * lanes_across;
        if (row < n && column < n_rows) out[row * n_rows + column] = sums[i][j];
      }
    }
  }
}

}  // namespace
}  // namespace cuda

template <class T>
void project(Points<T> x, const double* matrix, std::int64_t n_rows, double* out, const Queue& queue) {
  using namespace cuda;
  const DeviceGuard guard(queue);
  const std::int64_t tiles_down = (x.n + tile_points - 1) / tile_points;
  const std::int64_t tiles_across = (n_rows + tile_directions - 1) / tile_directions;
  EGT_LAUNCH((project_tiles<T>), static_cast<unsigned>(std::min(tiles_down * tiles_across, most_blocks)), threads, 0,
             stream_of(queue), x.data, x.n, static_cast<int>(x.d), matrix, n_rows, out);
}

template void project(Points<float>, const double*, std::int64_t, double*, const Queue&);
template void project(Points<double>, const double*, std::int64_t, double*, const Queue&);

}  // namespace egt
