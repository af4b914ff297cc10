// k nearest neighbours: tiles of approximate distances exclude pairs, float64 distances decide about the others.
//
// Only pairs that the sieve cannot place above the current k-th smallest distance of one of their rows are computed in
// float64 and offered to that row. What is kept is exact, so the result depends neither on the order of the tiles
// nor on the number of threads.
#include "egt/neighbors.hpp"

#include <algorithm>
#include <atomic>
#include <limits>
#include <memory>
#include <mutex>
#include <new>
#include <type_traits>
#include <vector>

#include "cpu/sieve.hpp"

namespace egt::cpu {
namespace {

struct Candidate {
  double sq_distance;
  std::int64_t row;
  bool operator<(const Candidate& other) const {
    return sq_distance < other.sq_distance || (sq_distance == other.sq_distance && row < other.row);
  }
};
inline double distance_of(double value) { return value; }
inline double distance_of(const Candidate& value) { return value.sq_distance; }

// The smallest k values offered to each row, in a buffer that is cut back when full: a cut costs one selection per
// max(4, k / 2) offers, and what lies above the k-th of the last cut is not even offered. Value is double where only
// the radius is wanted (half the memory), Candidate where the neighbours are.
//
// Values up to range.floor are counted, not kept; the row is done when there are k of them. Values above range.limit
// are not counted.
template <class Value>
class Nearest {
 public:
  Nearest(std::int64_t n, std::int64_t k, SqRange range)
      : floor_(range.floor),
        capacity_(k + std::max<std::int64_t>(4, k / 2)),
        values_(new Value[product(n, capacity_)]),
        rows_(static_cast<std::size_t>(n)) {
    for (Row& row : rows_) {
      row.limit.store(range.limit, std::memory_order_relaxed);
      row.wanted = k;
    }
  }

  // Never below the k-th smallest squared distance so far, unless the row is done. May be read while another thread
  // offers.
  double limit(std::int64_t i) const {
    return rows_[static_cast<std::size_t>(i)].limit.load(std::memory_order_relaxed);
  }

  // True when the limit of the row changed.
  bool offer(std::int64_t i, const Value& value) {
    Row& row = rows_[static_cast<std::size_t>(i)];
    if (!(distance_of(value) <= row.limit.load(std::memory_order_relaxed))) return false;
    if (distance_of(value) <= floor_) {
      if (--row.wanted > 0) return false;
      row.limit.store(-std::numeric_limits<double>::infinity(), std::memory_order_relaxed);
      return true;
    }
    values_[static_cast<std::size_t>(i * capacity_ + row.count++)] = value;
    if (row.count < capacity_) return false;
    cut(i);
    return true;
  }

  // use(i, kept, wanted) for every row: the k-th smallest value is kept[wanted - 1]. kept is null where it is above the
  // limit, wanted is 0 where it is not above the floor.
  template <class Use>
  void for_each(const Run& run, Use use) {
    const auto n = static_cast<std::int64_t>(rows_.size());
    for_each_task(blocks(n), run, [&] {
      return [&](std::int64_t block, const Stop& stop) {
        for (std::int64_t i = block * block_rows; i < std::min(n, (block + 1) * block_rows) && !stop; ++i) {
          const Row& row = rows_[static_cast<std::size_t>(i)];
          const bool enough = row.count >= row.wanted;
          if (enough && row.wanted > 0) cut(i);
          use(i, enough ? values_.get() + i * capacity_ : nullptr, row.wanted);
        }
      };
    });
  }

 private:
  struct Row {
    std::atomic<double> limit{0.0};
    std::int64_t count = 0;
    std::int64_t wanted = 0;
  };

  void cut(std::int64_t i) {
    Row& row = rows_[static_cast<std::size_t>(i)];
    Value* own = values_.get() + i * capacity_;
    std::nth_element(own, own + (row.wanted - 1), own + row.count);
    row.count = row.wanted;
    row.limit.store(distance_of(own[row.wanted - 1]), std::memory_order_relaxed);
  }

  static std::size_t product(std::int64_t n, std::int64_t capacity) {
    if (n > std::numeric_limits<std::int64_t>::max() / capacity) throw std::bad_alloc();
    return static_cast<std::size_t>(n * capacity);
  }

  double floor_;
  std::int64_t capacity_;
  std::unique_ptr<Value[]> values_;
  std::vector<Row> rows_;
};

template <class Value>
Value make(double sq_distance, std::int64_t row) {
  if constexpr (std::is_same_v<Value, double>)
    return sq_distance;
  else
    return {sq_distance, row};
}

template <class T, class Value>
Nearest<Value> search(Points<T> x, const Points<T>* y, std::int64_t k, SqRange range, const Run& run) {
  using Hit = typename Sieve<T>::Hit;
  const bool self = y == nullptr;
  const Sieve<T> sieve(x, y, run);
  Nearest<Value> nearest(x.n, k, range);
  // One lock per block of rows: threads meet only where they work on the same rows, and hold it for a few offers.
  std::vector<std::mutex> locks(static_cast<std::size_t>(blocks(x.n)));

  struct Handler {
    bool self;
    const Sieve<T>& sieve;
    Nearest<Value>& nearest;
    std::vector<std::mutex>& locks;
    std::vector<double> exact;

    void begin(std::int64_t, std::int64_t, std::int64_t, std::int64_t) {}
    void end() {}
    void row_limits(std::int64_t i, std::int64_t n, float* limits) {
      for (std::int64_t r = 0; r < n; ++r) limits[r] = sieve.limit(nearest.limit(i + r));
    }
    void col_limits(std::int64_t j, std::int64_t n, float* limits) {
      if (self) return row_limits(j, n, limits);
      std::fill_n(limits, n, -std::numeric_limits<float>::infinity());
    }
    std::int64_t settle(const std::vector<Hit>& hits, std::int64_t first_col, float* col_limits) {
      std::int64_t n_far = 0;
      exact.clear();
      for (const Hit& hit : hits) {
        exact.push_back(sieve.exact(hit));
        n_far += exact.back() > (self ? std::max(nearest.limit(hit.i), nearest.limit(hit.j)) : nearest.limit(hit.i));
      }
      {
        const std::lock_guard<std::mutex> lock(lock_of(hits[0].i));
        for (std::size_t p = 0; p < hits.size(); ++p) nearest.offer(hits[p].i, make<Value>(exact[p], hits[p].j));
      }
      if (!self) return n_far;
      const std::lock_guard<std::mutex> lock(lock_of(hits[0].j));
      for (std::size_t p = 0; p < hits.size(); ++p) {
        const std::int64_t j = hits[p].j;
        if (nearest.offer(j, make<Value>(exact[p], hits[p].i)))
          col_limits[j - first_col] = sieve.limit(nearest.limit(j));
      }
      return n_far;
    }
    std::mutex& lock_of(std::int64_t row) { return locks[static_cast<std::size_t>(row / block_rows)]; }
  };
  sieve(run, [&] { return Handler{self, sieve, nearest, locks, {}}; });
  return nearest;
}

}  // namespace
}  // namespace egt::cpu

namespace egt {

template <class T>
void neighbor_radii(Points<T> x, const Points<T>* y, std::int64_t n_neighbors, SqRange range, double* sq_radii,
                    const Run& run) {
  auto nearest = cpu::search<T, double>(x, y, n_neighbors, range, run);
  nearest.for_each(run, [&](std::int64_t i, const double* kept, std::int64_t wanted) {
    sq_radii[i] = wanted == 0 ? 0.0 : kept ? kept[wanted - 1] : std::numeric_limits<double>::infinity();
  });
}

template <class T>
void neighbors(Points<T> x, const Points<T>* y, std::int64_t n_neighbors, double* sq_dists, std::int64_t* rows,
               const Run& run) {
  auto nearest = cpu::search<T, cpu::Candidate>(x, y, n_neighbors, SqRange{}, run);
  nearest.for_each(run, [&](std::int64_t i, cpu::Candidate* kept, std::int64_t) {
    std::sort(kept, kept + n_neighbors);
    for (std::int64_t k = 0; k < n_neighbors; ++k) {
      sq_dists[i * n_neighbors + k] = kept[k].sq_distance;
      rows[i * n_neighbors + k] = kept[k].row;
    }
  });
}

template <class T>
void grouped_neighbor_radii(Points<T> x, const Points<T>* y, std::int64_t n_groups, const std::int64_t* x_offsets,
                            const std::int64_t* y_offsets, std::int64_t n_neighbors, double* sq_radii, const Run& run) {
  const auto one_group = [&](std::int64_t g, const Run& how) {
    const Points<T> own{x.row(x_offsets[g]), x_offsets[g + 1] - x_offsets[g], x.d};
    if (own.n == 0) return;
    if (!y) return neighbor_radii<T>(own, nullptr, n_neighbors, SqRange{}, sq_radii + x_offsets[g], how);
    const Points<T> other{y->row(y_offsets[g]), y_offsets[g + 1] - y_offsets[g], y->d};
    neighbor_radii<T>(own, &other, n_neighbors, SqRange{}, sq_radii + x_offsets[g], how);
  };
  if (n_groups < 4 * run.n_threads) {
    for (std::int64_t g = 0; g < n_groups; ++g) one_group(g, run);
    return;
  }
  cpu::for_each_task(n_groups, run, [&] {
    return [&](std::int64_t g, const cpu::Stop& stop) { one_group(g, Run{1, [&stop] { return bool{stop}; }}); };
  });
}

template <class T>
void split_neighbor_radii(Points<T> x, const std::uint8_t* parts, std::int64_t n_splits,
                          const std::int64_t* n_neighbors, std::int64_t depth, double* sq_radii, const Run& run) {
  // More than depth are as impossible as depth + 1, and fit into the counters.
  std::vector<std::int32_t> most(static_cast<std::size_t>(n_splits));
  std::transform(n_neighbors, n_neighbors + n_splits, most.begin(),
                 [&](std::int64_t k) { return static_cast<std::int32_t>(std::min(k, depth + 1)); });
  auto nearest = cpu::search<T, cpu::Candidate>(x, nullptr, depth, SqRange{}, run);
  nearest.for_each(run, [&](std::int64_t i, cpu::Candidate* kept, std::int64_t) {
    std::sort(kept, kept + depth);
    // Of each split: how many neighbours in the own part are still wanted, and how far one had to look for them.
    std::vector<std::int32_t> wanted(most), place(most.size(), 0);
    const std::uint8_t* own = parts + i * n_splits;
    for (std::int64_t k = 0; k < depth; ++k) {
      const std::uint8_t* other = parts + kept[k].row * n_splits;
      for (std::int64_t b = 0; b < n_splits; ++b) {
        const std::int32_t looking = wanted[b] > 0;
        place[b] += looking;
        wanted[b] -= looking & static_cast<std::int32_t>(own[b] == other[b]);
      }
    }
    for (std::int64_t b = 0; b < n_splits; ++b) {
      const bool found = wanted[b] == 0;
      sq_radii[i * n_splits + b] = found ? kept[place[b] - 1].sq_distance : std::numeric_limits<double>::infinity();
    }
  });
}

template void split_neighbor_radii<float>(Points<float>, const std::uint8_t*, std::int64_t, const std::int64_t*,
                                          std::int64_t, double*, const Run&);
template void split_neighbor_radii<double>(Points<double>, const std::uint8_t*, std::int64_t, const std::int64_t*,
                                           std::int64_t, double*, const Run&);
template void neighbor_radii<float>(Points<float>, const Points<float>*, std::int64_t, SqRange, double*, const Run&);
template void neighbor_radii<double>(Points<double>, const Points<double>*, std::int64_t, SqRange, double*, const Run&);
template void grouped_neighbor_radii<float>(Points<float>, const Points<float>*, std::int64_t, const std::int64_t*,
                                            const std::int64_t*, std::int64_t, double*, const Run&);
template void grouped_neighbor_radii<double>(Points<double>, const Points<double>*, std::int64_t, const std::int64_t*,
                                             const std::int64_t*, std::int64_t, double*, const Run&);
template void neighbors<float>(Points<float>, const Points<float>*, std::int64_t, double*, std::int64_t*, const Run&);
template void neighbors<double>(Points<double>, const Points<double>*, std::int64_t, double*, std::int64_t*,
                                const Run&);

}  // namespace egt
