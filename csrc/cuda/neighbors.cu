// k nearest neighbours: tiles of approximate distances exclude pairs, float64 distances decide about the others.
//
// A block searches a range of references, tile by tile, for the neighbours of up to 128 rows. Each row has a buffer for
// the pairs whose lower bound is not above its limit. Before a tile that might not fit, the buffer is cut: the k-th
// smallest upper bound becomes the new limit, and pairs above it are dropped. Where the bounds do not separate enough
// pairs, exact distances do, and exactly k pairs stay. In the end one warp for each row decides among the pairs that
// its ranges have left.
//
// This works for every k: a buffer holds k pairs, those of a tile, and max(k / 2, 128) more, so a row that sees its
// references in random order is cut about log(references / k) times.
#include <algorithm>
#include <limits>
#include <vector>

#include "cuda/centre_and_scale.cuh"
#include "cuda/select.cuh"
#include "egt/neighbors.hpp"

namespace egt {
namespace cuda {
namespace {

using PairTile = Tile<128>;
constexpr int warps = tile_threads / warp_size;
constexpr int rows_of_warp = tile_rows / warps;
constexpr std::int64_t scratch_bytes = std::int64_t{512} << 20;
constexpr std::int64_t finish_bytes = std::int64_t{64} << 20;
constexpr float unlimited = std::numeric_limits<float>::infinity();
constexpr double infinity = std::numeric_limits<double>::infinity();

// Rows [x_first, x_first + n_rows) of x against rows [y_first, y_last) of y.
struct Item {
  int x_first, n_rows;
  int y_first, y_last;

  // One of `splits` successive ranges of the references.
  __host__ __device__ Item part(int split, int splits) const {
    const std::int64_t cols = (y_last - y_first + PairTile::cols - 1) / PairTile::cols;
    const auto end = [&](std::int64_t before) {
      return y_first + static_cast<int>(cols * before / splits) * PairTile::cols;
    };
    return {x_first, n_rows, end(split), split + 1 == splits ? y_last : end(split + 1)};
  }
};

struct alignas(8) Candidate {
  float lower;  // lower bound of the squared distance, scaled
  int row;
};

// What the kernels work on: tiles of rows, each against `splits` ranges of its references. A slot is a row of a tile;
// every tile has tile_rows of them.
template <class T>
struct Search {
  PointsAndNorms<T> x, y;
  const T* centre;
  const double* scale;
  const Item* tiles;         // null: rows in their order, each against all of y
  int first_tile;            // of the launch
  Candidate* candidates;     // (slots, splits, capacity)
  int* counts;               // (slots, splits)
  unsigned long long* keys;  // (warps, capacity), at the end (warps, splits, capacity)
  double sq_limit;
  std::int64_t capacity;
  float shrink;
  int d, k, splits;
  bool self;

  __device__ Item tile(std::int64_t number) const {
    if (tiles) return tiles[first_tile + number];
    const int first = (first_tile + static_cast<int>(number)) * tile_rows;
    return {first, min(tile_rows, static_cast<int>(x.n) - first), 0, static_cast<int>(y.n)};
  }

  // With both norms shrunk by the relative bound, a tile entry is the lower bound itself; not a number where a
  // coordinate overflowed, so that the pair is never excluded.
  __device__ float term(float sq_norm) const { return sq_norm < unlimited ? sq_norm * shrink : sq_norm - sq_norm; }
};

// Which lower bounds exclude: those above a limit belong to pairs whose float64 distance is larger, too.
struct Bounds {
  double relative, absolute, scale;
  double overflow;  // from here on, scaled, float64 distances of the inputs may be infinite

  __device__ Bounds(int d, double unit_scale) : relative(ErrorBound(d).relative), scale(unit_scale) {
    // What squares of the inputs lose where they underflow; it may be much after scaling.
    const double lost = static_cast<double>(d) * 0x1p-1074 * scale * scale;
    absolute = ErrorBound(d).absolute + lost;
    overflow = 0x1p1023 * scale * scale;
  }

  __device__ double upper(float lower, double sq_norms) const {
    const double bound = static_cast<double>(lower) + 2.1 * relative * sq_norms;
    return bound < infinity ? fmax(bound, 0.0) : infinity;  // not a number where coordinates overflowed
  }

  // For an upper bound after scaling.
  __device__ float limit(double bound) const {
    const double value = fmax(bound + 2.0 * absolute, 0.0);
    if (!(value < overflow && value < 0x1p127)) return unlimited;
    return __uint_as_float(__float_as_uint(static_cast<float>(value)) + 1);  // never rounded down
  }

  // For a float64 distance of the inputs.
  __device__ float limit_of_distance(double sq_distance) const {
    return limit(sq_distance * scale * scale * (1.0 + relative));
  }
};

// The k-th smallest of (distance, row), and whether a pair is not above it.
struct Nth {
  unsigned long long key;
  unsigned long long row;
  __device__ bool reaches(unsigned long long other_key, int other_row) const {
    return other_key < key || (other_key == key && static_cast<unsigned long long>(other_row) <= row);
  }
};

// A row of x and its candidates, handled by one warp. There are more than k candidates when it is cut.
template <class T>
struct Row {
  const Search<T>& search;
  const Bounds& bounds;
  int* histogram;
  Candidate* candidates;
  unsigned long long* keys;
  int x_row;
  int count;
  float limit;

  __device__ void cut_by_bounds() {
    const double own_norm = search.x.sq_norms[x_row];
#pragma unroll 4
    for (int c = lane_in_warp(); c < count; c += warp_size) {
      const Candidate own = candidates[c];
      keys[c] = bits_of(bounds.upper(own.lower, own_norm + search.y.sq_norms[own.row]));
    }
    int rank = search.k;
    const unsigned long long kth =
        warp_select([&](int c) { return keys[c]; }, count, rank, search.k + search.k / 4 + 4, histogram);
    lower_limit(bounds.limit(value_of(kth)));
    count = warp_keep(candidates, count, [&](int, const Candidate& own) { return !(own.lower > limit); });
  }

  // keys[c] becomes the float64 distance of candidate c.
  __device__ void find_distances() {
    const int lane = lane_in_warp();
    const T* const own_point = search.x.row(x_row, search.d);
    for (int base = 0; base < count; base += warp_size) {
      const int own_row = base + lane < count ? candidates[base + lane].row : 0;
      double own_distance = 0.0;
      for (int u = 0; u < min(warp_size, count - base); ++u) {
        const int row = __shfl_sync(full_warp, own_row, u);
        const double sq_distance = warp_sq_distance(own_point, search.y.row(row, search.d), search.d);
        if (u == lane) own_distance = sq_distance;
      }
      if (base + lane < count) keys[base + lane] = bits_of(own_distance);
    }
  }

  // After find_distances.
  __device__ Nth kth() {
    int rank = search.k;
    const unsigned long long key = warp_select([&](int c) { return keys[c]; }, count, rank, 0, histogram);
    const auto row_if_equal = [&](int c) {
      return keys[c] == key ? static_cast<unsigned long long>(candidates[c].row) : ~0ull;
    };
    return {key, warp_select(row_if_equal, count, rank, 0, histogram)};
  }

  __device__ void cut_exactly() {
    find_distances();
    const Nth last = kth();
    count = warp_keep(candidates, count, [&](int c, const Candidate& own) { return last.reaches(keys[c], own.row); });
    lower_limit(bounds.limit_of_distance(value_of(last.key)));
  }

 private:
  __device__ void lower_limit(float other) { limit = other < limit ? other : limit; }
};

// What a block keeps of its work lies in shared memory and is read again for every tile: the products need the
// registers.
struct Block {
  PairTile::Shared tile;
  Item item;
  float row_terms[tile_rows], col_terms[PairTile::cols], limits[tile_rows];
  Candidate* candidates[tile_rows];
  int counts[tile_rows];
  int* counts_out;
  int histograms[warps][histogram_bins];
};

// Makes room for `next` more candidates of each row; next == 0 leaves little more than k. Each warp handles its rows.
template <class T>
__device__ void cut_rows(const Search<T>& search, int next, Block& block) {
  const int lane = lane_in_warp(), warp = warp_in_block(), first = warp * rows_of_warp;
  const std::int64_t most = next > 0 ? search.capacity - next : search.k;
  unsigned over = __ballot_sync(full_warp, lane < rows_of_warp && block.counts[first + lane] > most);
  for (; over != 0; over &= over - 1) {
    const int r = first + __ffs(static_cast<int>(over)) - 1;
    const Bounds bounds(search.d, *search.scale);
    Row<T> row{search,
               bounds,
               block.histograms[warp],
               block.candidates[r],
               search.keys + (static_cast<std::int64_t>(blockIdx.x) * warps + warp) * search.capacity,
               block.item.x_first + r,
               same_in_warp(block.counts[r]),
               block.limits[r]};
    row.cut_by_bounds();
    if (next > 0 && row.count > most) row.cut_exactly();
    if (lane == 0) {
      block.counts[r] = row.count;
      block.limits[r] = row.limit;
    }
  }
  __syncwarp(full_warp);
}

template <class T>
__global__ void __launch_bounds__(tile_threads, 2) find_candidates(Search<T> search) {
  __shared__ Block block;
  const int thread = static_cast<int>(threadIdx.x);
  const std::int64_t first_slot = static_cast<std::int64_t>(blockIdx.x) / search.splits * tile_rows;
  const auto split = static_cast<int>(blockIdx.x) % search.splits;
  if (thread < tile_rows) {
    const Item item = search.tile(blockIdx.x / search.splits).part(split, search.splits);
    if (thread == 0) {
      block.item = item;
      block.counts_out = search.counts + first_slot * search.splits + split;
    }
    block.row_terms[thread] = thread < item.n_rows ? search.term(search.x.sq_norms[item.x_first + thread]) : 0.0f;
    block.limits[thread] = Bounds(search.d, *search.scale).limit_of_distance(search.sq_limit);
    block.candidates[thread] = search.candidates + ((first_slot + thread) * search.splits + split) * search.capacity;
    block.counts[thread] = 0;
  }
  __syncthreads();

  for (int start = block.item.y_first; start < block.item.y_last; start += PairTile::cols) {
    if (thread < PairTile::cols) {
      block.col_terms[thread] =
          start + thread < block.item.y_last ? search.term(search.y.sq_norms[start + thread]) : 0.0f;
    }
    float acc[PairTile::own_rows][PairTile::own_cols];
    PairTile::products(search.x.row(block.item.x_first, search.d), block.item.n_rows, search.y.row(start, search.d),
                       min(PairTile::cols, block.item.y_last - start), search.d, search.centre, *search.scale,
                       block.tile, acc);
#pragma unroll
    for (int i = 0; i < PairTile::own_rows; ++i) {
      const int row = PairTile::row(i);
      const float row_term = block.row_terms[row], limit = block.limits[row];
#pragma unroll
      for (int j = 0; j < PairTile::own_cols; ++j) {
        const float lower = row_term + block.col_terms[PairTile::col(j)] - 2.0f * acc[i][j];
        if (lower > limit) continue;
        const int col = PairTile::col(j);
        if (row >= block.item.n_rows || start + col >= block.item.y_last) continue;
        if (search.self && block.item.x_first + row == start + col) continue;
        block.candidates[row][atomicAdd(block.counts + row, 1)] = {lower, start + col};
      }
    }
    __syncthreads();
    cut_rows(search, max(0, min(PairTile::cols, block.item.y_last - start - PairTile::cols)), block);
  }
  __syncthreads();
  if (thread < tile_rows) block.counts_out[static_cast<std::int64_t>(thread) * search.splits] = block.counts[thread];
}

// With rows == nullptr out is (x.n), the k-th smallest; else out and rows are (x.n, k).
template <class T>
__global__ void __launch_bounds__(tile_threads, 2)
    finish(Search<T> search, std::int64_t n_slots, SqRange range, double* out, std::int64_t* rows) {
  __shared__ int histograms[warps][histogram_bins];
  const int lane = lane_in_warp(), warp = warp_in_block();
  const std::int64_t own = static_cast<std::int64_t>(blockIdx.x) * warps + warp;
  const std::int64_t row_stride = search.splits * search.capacity;
  const Bounds bounds(search.d, *search.scale);
  for (std::int64_t slot = own; slot < n_slots; slot += static_cast<std::int64_t>(gridDim.x) * warps) {
    const Item item = search.tile(slot / tile_rows);
    const auto r = static_cast<int>(slot % tile_rows);
    if (r >= same_in_warp(item.n_rows)) continue;
    const int* const counts = search.counts + slot * search.splits;
    Row<T> row{search,
               bounds,
               histograms[warp],
               search.candidates + slot * row_stride,
               search.keys + own * row_stride,
               item.x_first + r,
               same_in_warp(counts[0]),
               unlimited};
    for (int split = 1; split < search.splits; ++split) {
      const Candidate* const from = row.candidates + split * search.capacity;
      const int size = same_in_warp(counts[split]);
      for (int base = 0; base < size; base += warp_size) {
        Candidate moved{};
        const bool exists = base + lane < size;
        if (exists) moved = from[base + lane];
        __syncwarp(full_warp);  // another lane may have read the place that is written next
        if (exists) row.candidates[row.count + base + lane] = moved;
      }
      row.count += size;
    }
    __syncwarp(full_warp);
    if (row.count > search.k) row.cut_by_bounds();
    if (rows == nullptr) {
      double sq_radius = infinity;
      if (row.count >= search.k) {
        row.find_distances();
        int rank = search.k;
        sq_radius = value_of(warp_select([&](int c) { return row.keys[c]; }, row.count, rank, 0, histograms[warp]));
      }
      if (lane == 0) out[row.x_row] = sq_radius <= range.floor ? 0.0 : sq_radius > range.limit ? infinity : sq_radius;
      continue;
    }
    row.find_distances();
    const Nth last = row.kth();
    double* const own_out = out + static_cast<std::int64_t>(row.x_row) * search.k;
    std::int64_t* const own_rows = rows + static_cast<std::int64_t>(row.x_row) * search.k;
    for (int base = 0, written = 0; base < row.count; base += warp_size) {
      const int c = base + lane;
      const bool stays = c < row.count && last.reaches(row.keys[c], row.candidates[c].row);
      const unsigned staying = __ballot_sync(full_warp, stays);
      if (stays) {
        const int place = written + lower_lanes(staying);
        own_out[place] = value_of(row.keys[c]);
        own_rows[place] = row.candidates[c].row;
      }
      written += __popc(staying);
    }
    __syncwarp(full_warp);
    warp_sort(own_out, own_rows, search.k);
  }
}

void add_tiles(std::int64_t x_first, std::int64_t x_last, std::int64_t y_first, std::int64_t y_last,
               std::vector<Item>& tiles) {
  for (std::int64_t i = x_first; i < x_last; i += tile_rows) {
    tiles.push_back({static_cast<int>(i), static_cast<int>(std::min<std::int64_t>(tile_rows, x_last - i)),
                     static_cast<int>(y_first), static_cast<int>(y_last)});
  }
}

// Into how many ranges to divide the references of each of n_tiles tiles of rows, so that the last block ends earliest,
// if all blocks take the same time for each of their tiles and for what is done once.
int best_splits(std::int64_t n_tiles, std::int64_t reference_tiles, std::int64_t d, const Queue& queue) {
  int processors = 1;
  check(cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, queue.device), "cudaDeviceGetAttribute");
  const std::int64_t at_once = 2 * std::max(processors, 1);
  const std::int64_t once = 1 + 512 / std::max<std::int64_t>(d, 32);
  std::int64_t best = 1, best_time = std::numeric_limits<std::int64_t>::max();
  for (std::int64_t splits = 1; splits <= std::min(at_once, reference_tiles); ++splits) {
    const std::int64_t rounds = (n_tiles * splits + at_once - 1) / at_once;
    const std::int64_t time = rounds * ((reference_tiles + splits - 1) / splits + once);
    if (time >= best_time) continue;
    best = splits;
    best_time = time;
  }
  return static_cast<int>(best);
}

// Without `tiles` every row of x is compared with all of y.
template <class T>
void search_tiles(Points<T> x, const Points<T>* y, const std::vector<Item>* tiles, std::int64_t k, SqRange range,
                  double* out, std::int64_t* rows, const Queue& queue) {
  const cudaStream_t stream = stream_of(queue);
  const std::int64_t n_tiles = tiles ? static_cast<std::int64_t>(tiles->size()) : blocks_of(x.n, tile_rows);
  if (n_tiles == 0) return;
  Item most{0, 0, 0, static_cast<int>(y ? y->n : x.n)};
  if (tiles) {
    most = *std::max_element(tiles->begin(), tiles->end(),
                             [](const Item& a, const Item& b) { return a.y_last - a.y_first < b.y_last - b.y_first; });
  }
  const int splits = best_splits(n_tiles, blocks_of(most.y_last - most.y_first, PairTile::cols), x.d, queue);
  std::int64_t longest = 0;
  for (int split = 0; split < splits; ++split) {
    const Item part = most.part(split, splits);
    longest = std::max<std::int64_t>(longest, part.y_last - part.y_first);
  }

  const CentredAndScaled<T> scaled(x, y, queue);
  const Buffer<Item> device_tiles(queue, tiles ? n_tiles : 0);
  if (tiles) {
    refuse_capture(queue);
    // From memory that is not pinned: the call returns when it has taken the tiles, and the driver may make it wait.
    check(cudaMemcpyAsync(device_tiles.get(), tiles->data(), tiles->size() * sizeof(Item), cudaMemcpyHostToDevice,
                          stream),
          "cudaMemcpyAsync");
  }
  const std::int64_t capacity = std::min(longest, k + std::max<std::int64_t>(k / 2, 128) + PairTile::cols);
  const std::int64_t row_bytes = splits * capacity * static_cast<std::int64_t>(sizeof(Candidate));
  const std::int64_t wanted = std::clamp<std::int64_t>(scratch_bytes / ((tile_rows + warps) * row_bytes), 1, n_tiles);
  with_less_memory(wanted, 1, [&](std::int64_t chunk) {
    const std::int64_t finish_grid =
        std::clamp<std::int64_t>(finish_bytes / (warps * row_bytes), 1, chunk * rows_of_warp);
    const Buffer<Candidate> candidates(queue, chunk * tile_rows * splits * capacity);
    const Buffer<int> counts(queue, chunk * tile_rows * splits);
    const Buffer<unsigned long long> keys(queue, std::max(chunk, finish_grid) * warps * splits * capacity);
    for (std::int64_t first = 0; first < n_tiles; first += chunk) {
      const std::int64_t now = std::min(chunk, n_tiles - first);
      const Search<T> search{scaled.x(),
                             scaled.y(),
                             scaled.centre(),
                             scaled.scale(),
                             tiles ? device_tiles.get() : nullptr,
                             static_cast<int>(first),
                             candidates.get(),
                             counts.get(),
                             keys.get(),
                             range.limit,
                             capacity,
                             static_cast<float>(1.0 - ErrorBound(x.d).relative),
                             static_cast<int>(x.d),
                             static_cast<int>(k),
                             splits,
                             y == nullptr};
      EGT_LAUNCH((find_candidates<T>), static_cast<unsigned>(now * splits), tile_threads, 0, stream, search);
      EGT_LAUNCH((finish<T>), static_cast<unsigned>(std::min(finish_grid, now * rows_of_warp)), tile_threads, 0, stream,
                 search, now * tile_rows, range, out, rows);
    }
  });
}

}  // namespace
}  // namespace cuda

template <class T>
void neighbor_radii(Points<T> x, const Points<T>* y, std::int64_t n_neighbors, SqRange range, double* sq_radii,
                    const Queue& queue) {
  const cuda::DeviceGuard guard(queue);
  cuda::search_tiles<T>(x, y, nullptr, n_neighbors, range, sq_radii, nullptr, queue);
}

template <class T>
void neighbors(Points<T> x, const Points<T>* y, std::int64_t n_neighbors, double* sq_dists, std::int64_t* rows,
               const Queue& queue) {
  const cuda::DeviceGuard guard(queue);
  cuda::search_tiles<T>(x, y, nullptr, n_neighbors, SqRange{}, sq_dists, rows, queue);
}

template <class T>
void grouped_neighbor_radii(Points<T> x, const Points<T>* y, std::int64_t n_groups, const std::int64_t* x_offsets,
                            const std::int64_t* y_offsets, std::int64_t n_neighbors, double* sq_radii,
                            const Queue& queue) {
  const cuda::DeviceGuard guard(queue);
  const std::int64_t* const ranges = y ? y_offsets : x_offsets;
  std::vector<cuda::Item> tiles;
  for (std::int64_t g = 0; g < n_groups; ++g) {
    cuda::add_tiles(x_offsets[g], x_offsets[g + 1], ranges[g], ranges[g + 1], tiles);
  }
  cuda::search_tiles<T>(x, y, &tiles, n_neighbors, SqRange{}, sq_radii, nullptr, queue);
}

template void neighbor_radii<float>(Points<float>, const Points<float>*, std::int64_t, SqRange, double*, const Queue&);
template void neighbor_radii<double>(Points<double>, const Points<double>*, std::int64_t, SqRange, double*,
                                     const Queue&);
template void neighbors<float>(Points<float>, const Points<float>*, std::int64_t, double*, std::int64_t*, const Queue&);
template void neighbors<double>(Points<double>, const Points<double>*, std::int64_t, double*, std::int64_t*,
                                const Queue&);
template void grouped_neighbor_radii<float>(Points<float>, const Points<float>*, std::int64_t, const std::int64_t*,
                                            const std::int64_t*, std::int64_t, double*, const Queue&);
template void grouped_neighbor_radii<double>(Points<double>, const Points<double>*, std::int64_t, const std::int64_t*,
                                             const std::int64_t*, std::int64_t, double*, const Queue&);

}  // namespace egt
