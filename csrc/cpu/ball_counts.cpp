// Ball memberships: a tile decides every pair that its error bound allows, float64 distances decide the rest.
#include "egt/ball_counts.hpp"

#include <algorithm>
#include <limits>
#include <vector>

#include "cpu/sieve.hpp"

namespace egt::cpu {
namespace {

using Counter = std::vector<std::int64_t>;

template <class Count>
void clear(Count* counts, std::int64_t n, const Run& run) {
  for_each_part(n, 1, run, [&](std::int64_t first, std::int64_t last) { std::fill(counts + first, counts + last, 0); });
}

// Adds the counts of one block of pairs to the shared ones. They are integers, so the order of additions is free.
void add(const Counter& part, std::int64_t n, std::int64_t* total) {
  for (std::int64_t i = 0; i < n; ++i) {
    const std::int64_t count = part[static_cast<std::size_t>(i)];
    if (count) __atomic_fetch_add(total + i, count, __ATOMIC_RELAXED);
  }
}

template <class T>
struct Handler {
  using Hit = typename Sieve<T>::Hit;

  const Sieve<T>& sieve;
  const double *x_sq_radii, *y_sq_radii;
  bool closed;
  std::int64_t *all_x_sizes, *all_y_in_x, *all_y_sizes, *all_x_in_y;

  std::int64_t i0 = 0, n_i = 0, j0 = 0, n_j = 0;
  Counter x_sizes = Counter(block_rows), y_in_x = x_sizes, y_sizes = x_sizes, x_in_y = x_sizes;

  void begin(std::int64_t first_i, std::int64_t rows, std::int64_t first_j, std::int64_t cols) {
    i0 = first_i, n_i = rows, j0 = first_j, n_j = cols;
    for (Counter* counter : {&x_sizes, &y_in_x, &y_sizes, &x_in_y}) std::fill(counter->begin(), counter->end(), 0);
  }

  void row_limits(std::int64_t i, std::int64_t n, float* limits) const { fill_limits(x_sq_radii, i, n, limits); }
  void col_limits(std::int64_t j, std::int64_t n, float* limits) const { fill_limits(y_sq_radii, j, n, limits); }

  std::int64_t settle(const std::vector<Hit>& hits, std::int64_t, float*) {
    std::int64_t n_computed = 0;
    for (const Hit& hit : hits) {
      const std::int64_t i = hit.i - i0, j = hit.j - j0;
      double exact = -1.0;
      const auto inside = [&](double radius) {
        if (hit.upper < radius) return true;
        if (exact < 0.0) exact = sieve.exact(hit);
        return closed ? exact <= radius : exact < radius;
      };
      if (x_sq_radii && inside(x_sq_radii[hit.i])) {
        ++x_sizes[static_cast<std::size_t>(i)];
        ++y_in_x[static_cast<std::size_t>(j)];
      }
      if (y_sq_radii && inside(y_sq_radii[hit.j])) {
        ++y_sizes[static_cast<std::size_t>(j)];
        ++x_in_y[static_cast<std::size_t>(i)];
      }
      n_computed += exact >= 0.0;
    }
    return n_computed;
  }

  void end() const {
    if (x_sq_radii) {
      add(x_sizes, n_i, all_x_sizes + i0);
      add(y_in_x, n_j, all_y_in_x + j0);
    }
    if (y_sq_radii) {
      add(y_sizes, n_j, all_y_sizes + j0);
      add(x_in_y, n_i, all_x_in_y + i0);
    }
  }

 private:
  void fill_limits(const double* sq_radii, std::int64_t first, std::int64_t n, float* limits) const {
    for (std::int64_t r = 0; r < n; ++r) {
      limits[r] = sq_radii ? sieve.limit(sq_radii[first + r]) : -std::numeric_limits<float>::infinity();
    }
  }
};

// The same for many radii of each x at once, one a replicate, and points on sides.
template <class T>
struct SplitHandler {
  using Hit = typename Sieve<T>::Hit;
  using Counts = std::vector<std::int32_t>;

  const Sieve<T>& sieve;
  const double* sq_radii;
  const double* largest;  // of the radii of each x
  const std::uint8_t *x_sides, *y_sides;
  std::int64_t n_replicates;
  bool closed;
  std::int32_t *all_x_sizes, *all_y_in_x;

  std::int64_t i0 = 0, n_i = 0, j0 = 0, n_j = 0;
  Counts x_sizes = Counts(static_cast<std::size_t>(block_rows * n_replicates)), y_in_x = x_sizes;
  const Tile& tiles = tile();

  void begin(std::int64_t first_i, std::int64_t rows, std::int64_t first_j, std::int64_t cols) {
    i0 = first_i, n_i = rows, j0 = first_j, n_j = cols;
    std::fill(x_sizes.begin(), x_sizes.end(), 0);
    std::fill(y_in_x.begin(), y_in_x.end(), 0);
  }

  void row_limits(std::int64_t i, std::int64_t n, float* limits) const {
    for (std::int64_t r = 0; r < n; ++r) limits[r] = sieve.limit(largest[i + r]);
  }
  void col_limits(std::int64_t, std::int64_t n, float* limits) const {
    std::fill_n(limits, n, -std::numeric_limits<float>::infinity());
  }

  std::int64_t settle(const std::vector<Hit>& hits, std::int64_t, float*) {
    std::int64_t n_computed = 0;
    for (const Hit& hit : hits) {
      const double* radii = sq_radii + hit.i * n_replicates;
      const std::uint8_t *x_side = x_sides + hit.i * n_replicates, *y_side = y_sides + hit.j * n_replicates;
      std::int32_t* x_size = x_sizes.data() + (hit.i - i0) * n_replicates;
      std::int32_t* memberships = y_in_x.data() + (hit.j - j0) * n_replicates;
      // Where no radius lies between the bounds, every number between them decides as the distance does.
      const bool open = tiles.between(radii, n_replicates, hit.lower, hit.upper) > 0;
      n_computed += open;
      tiles.count_inside(open ? sieve.exact(hit) : hit.upper, closed, radii, x_side, y_side, n_replicates, x_size,
                         memberships);
    }
    return n_computed;
  }

  void end() const {
    for (std::int64_t c = 0; c < n_i * n_replicates; ++c) add(x_sizes, c, all_x_sizes + i0 * n_replicates);
    for (std::int64_t c = 0; c < n_j * n_replicates; ++c) add(y_in_x, c, all_y_in_x + j0 * n_replicates);
  }

 private:
  static void add(const Counts& part, std::int64_t c, std::int32_t* total) {
    const std::int32_t count = part[static_cast<std::size_t>(c)];
    if (count) __atomic_fetch_add(total + c, count, __ATOMIC_RELAXED);
  }
};

}  // namespace
}  // namespace egt::cpu

namespace egt {

template <class T>
void ball_counts(Points<T> x, const Points<T>* y, const double* x_sq_radii, const double* y_sq_radii, bool closed,
                 std::int64_t* x_sizes, std::int64_t* y_in_x, std::int64_t* y_sizes, std::int64_t* x_in_y,
                 const Run& run) {
  const std::int64_t m = y ? y->n : x.n;
  if (!y) {  // within one set a pair is seen once, and both its memberships count for the same balls
    y_sq_radii = x_sq_radii;
    y_sizes = x_sizes;
    x_in_y = y_in_x;
  }
  if (x_sq_radii) {
    cpu::clear(x_sizes, x.n, run);
    cpu::clear(y_in_x, m, run);
  }
  if (y_sq_radii) {
    cpu::clear(y_sizes, m, run);
    cpu::clear(x_in_y, x.n, run);
  }
  const cpu::Sieve<T> sieve(x, y, run);
  sieve(run, [&] { return cpu::Handler<T>{sieve, x_sq_radii, y_sq_radii, closed, x_sizes, y_in_x, y_sizes, x_in_y}; });
}

template <class T>
void split_ball_counts(Points<T> x, Points<T> y, const double* x_sq_radii, const std::uint8_t* x_sides,
                       const std::uint8_t* y_sides, std::int64_t n_replicates, bool closed, std::int32_t* x_sizes,
                       std::int32_t* y_in_x, const Run& run) {
  cpu::clear(x_sizes, x.n * n_replicates, run);
  cpu::clear(y_in_x, y.n * n_replicates, run);
  if (n_replicates == 0) return;
  std::vector<double> largest(static_cast<std::size_t>(x.n));
  cpu::for_each_part(x.n, n_replicates, run, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t i = first; i < last; ++i) {
      const double* radii = x_sq_radii + i * n_replicates;
      largest[static_cast<std::size_t>(i)] = *std::max_element(radii, radii + n_replicates);
    }
  });
  const cpu::Sieve<T> sieve(x, &y, run);
  sieve(run, [&] {
    return cpu::SplitHandler<T>{sieve,        x_sq_radii, largest.data(), x_sides, y_sides,
                                n_replicates, closed,     x_sizes,        y_in_x};
  });
}

template void split_ball_counts<float>(Points<float>, Points<float>, const double*, const std::uint8_t*,
                                       const std::uint8_t*, std::int64_t, bool, std::int32_t*, std::int32_t*,
                                       const Run&);
template void split_ball_counts<double>(Points<double>, Points<double>, const double*, const std::uint8_t*,
                                        const std::uint8_t*, std::int64_t, bool, std::int32_t*, std::int32_t*,
                                        const Run&);
template void ball_counts<float>(Points<float>, const Points<float>*, const double*, const double*, bool, std::int64_t*,
                                 std::int64_t*, std::int64_t*, std::int64_t*, const Run&);
template void ball_counts<double>(Points<double>, const Points<double>*, const double*, const double*, bool,
                                  std::int64_t*, std::int64_t*, std::int64_t*, std::int64_t*, const Run&);

}  // namespace egt
