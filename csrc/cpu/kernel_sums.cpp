// Kernel sums: strips of scaled squared distances, of which each row keeps the few within the kernel's support.
//
// The strip is in units of the bandwidth, so a float32 product is accurate wherever both points are within a few
// bandwidths of the centre. Pairs that are near each other but far from the centre are recomputed in float64.
#include "egt/kernel_sums.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <mutex>
#include <utility>
#include <vector>

#include "cpu/panels.hpp"
#include "cpu/parallel.hpp"

namespace egt::cpu {
namespace {

constexpr float minus_infinity = -std::numeric_limits<float>::infinity();
// At most this many rows a task, which bounds the memory of their sums and lists.
constexpr std::int64_t task_rows = 384;
// Entries that a row's list holds before they are summed, of which a strip may add strip_width at once.
constexpr std::int64_t list_size = 3 * strip_width;

// Squared distances in units of `radius`, strip by strip; at radius 0 they are 0 where two points coincide, else
// above 1.
template <class T>
class ScaledStrips {
 public:
  ScaledStrips(Points<T> x, Points<T> y, double radius, const Run& run)
      : x_(x),
        y_(y),
        radius_(radius),
        error_(2.0 * ErrorBound(x.d).relative),
        centre_(central_row(y)),
        packed_(y.n, y.d, tile_.panel_cols) {
    scale_ = 1.0 / radius;
    if (radius == 0.0) {
      // Large enough that no two different points of ordinary data are within 1; those that are get recomputed.
      scale_ = unit_scale(std::max(largest_coordinate(x, centre_, run), largest_coordinate(y, centre_, run))) * 0x1p50;
    }
    scale_ = std::min(scale_, 0x1p1023);  // infinity times 0 is no coordinate
    for_each_task((y.n + block_rows - 1) / block_rows, run, [&] {
      return [&](std::int64_t task, const Stop&) {
        const std::int64_t first = task * block_rows;
        packed_.fill(tile_, y_, first, std::min(block_rows, y_.n - first), centre_.data(), scale_, first);
      };
    });
  }

  struct Scratch {
    Panels rows;
    FloatBuffer strip;
    std::vector<float> row_limit;
    std::vector<std::int32_t> positions;
    Scratch(const Tile& tile, std::int64_t d)
        : rows(task_rows, d, tile.panel_rows),
          strip(tile.panel_rows * strip_width),
          row_limit(static_cast<std::size_t>(tile.panel_rows)),
          positions(static_cast<std::size_t>(tile.panel_rows * strip_width)) {}
  };

  // For rows i0 ... of x: use(r0, n_rows, c0, n_cols, strip) is called for every panel of rows and strip of y.
  // recompute_below(norms) is the value under which an entry of two points whose packed squared norms are at most
  // `norms` together is recomputed.
  template <class Use, class Below>
  void walk(std::int64_t i0, std::int64_t n_rows, Scratch& s, const Stop& stop, Use use, Below recompute_below) const {
    s.rows.fill(tile_, x_, i0, n_rows, centre_.data(), scale_);
    for (std::int64_t c0 = 0; c0 < y_.n; c0 += strip_width) {
      const std::int64_t n_cols = std::min(strip_width, y_.n - c0);
      const float largest = packed_.max_sq_norm(c0, n_cols);
      for (std::int64_t r0 = 0; r0 < n_rows; r0 += tile_.panel_rows) {
        if (stop) return;
        const std::int64_t n = std::min(tile_.panel_rows, n_rows - r0);
        tile_.distances(s.rows.values(r0), packed_.values(c0), x_.d, round_up(n_cols, tile_.panel_cols),
                        s.rows.sq_norms(r0), packed_.sq_norms(c0), s.strip.get());
        bool any = false;
        for (std::int64_t r = 0; r < n; ++r) {
          const float norms = *s.rows.sq_norms(r0 + r) + largest;
          const float below = radius_ == 0.0             ? recompute_coincident(norms)
                              : radius_ * scale_ < 0.999 ? std::numeric_limits<float>::max()  // the strip is too near
                                                         : recompute_below(norms);
          s.row_limit[static_cast<std::size_t>(r)] = below;
          any |= below != minus_infinity;
        }
        if (any) recompute(i0 + r0, c0, n, n_cols, s);
        use(r0, n, c0, n_cols, s.strip.get());
      }
    }
  }

 private:
  float recompute_coincident(float norms) const { return std::max(1.0f, static_cast<float>(error_) * norms); }

  void recompute(std::int64_t i0, std::int64_t j0, std::int64_t n_rows, std::int64_t n_cols, Scratch& s) const {
    const std::int64_t found =
        tile_.select(s.strip.get(), n_rows, n_cols, s.row_limit.data(), nullptr, s.positions.data());
    for (std::int64_t p = 0; p < found; ++p) {
      const std::int64_t position = s.positions[static_cast<std::size_t>(p)];
      const double exact =
          sq_distance(tile_, x_.row(i0 + position / strip_width), y_.row(j0 + position % strip_width), x_.d);
      s.strip.get()[position] =
          radius_ == 0.0 ? (exact == 0.0 ? 0.0f : 2.0f) : static_cast<float>(std::min(exact / radius_ / radius_, 2.0));
    }
  }

  const Tile& tile_ = tile();
  Points<T> x_, y_;
  double radius_;
  double error_;
  std::vector<double> centre_;
  double scale_ = 1.0;
  Panels packed_;
};

// Rows of a task: as many as the cache holds, fewer where that would leave threads without work. Rows are independent,
// so results do not depend on it.
std::int64_t rows_per_task(std::int64_t n, const Run& run, const Tile& tile) {
  const std::int64_t share = round_up(n / (4 * std::max(run.n_threads, 1)) + 1, tile.panel_rows);
  return std::min(share, task_rows);
}

// The error of a float32 entry is about 1e-7 times the norms: below 1e-5 for norms up to 32 squared bandwidths. Above 1
// the kernel is 0 whatever the error, as long as it is less than the distance from 1.
float recompute_cosine_below(float norms) {
  return norms <= 32.0f ? minus_infinity : norms < 1e30f ? 1.0f + 1e-5f * norms : std::numeric_limits<float>::max();
}

// Bootstrap counts - 1, exactly, in panels of replicates: of all rows of one panel as few bytes are read as there can
// be.
template <class Value>
class Excess {
 public:
  Excess(const Tile& tile, const std::uint16_t* counts, std::int64_t n, std::int64_t n_replicates, const Run& run)
      : n_(n), width_(std::min(tile.replicates, round_up(n_replicates, tile.lanes))) {
    n_panels_ = (n_replicates + width_ - 1) / width_;
    values_.resize(static_cast<std::size_t>(n_panels_ * n_ * width_));
    for_each_part(n, n_replicates, run, [&](std::int64_t first, std::int64_t last) {
      for (std::int64_t row = first; row < last; ++row) {
        for (std::int64_t b = 0; b < n_replicates; ++b) {
          values_[static_cast<std::size_t>((b / width_ * n_ + row) * width_ + b % width_)] =
              static_cast<Value>(static_cast<int>(counts[row * n_replicates + b]) - 1);
        }
      }
    });
  }
  std::int64_t n_panels() const { return n_panels_; }
  std::int64_t width() const { return width_; }
  const Value* panel(std::int64_t index) const { return values_.data() + index * n_ * width_; }

 private:
  std::int64_t n_, width_, n_panels_;
  std::vector<Value> values_;
};

inline void weighted(const Tile& tile, const float* values, const std::int32_t* rows, std::int64_t n,
                     const std::int8_t* excess, std::int64_t width, double* sums) {
  tile.weighted_i8(values, rows, n, excess, width, sums);
}
inline void weighted(const Tile& tile, const float* values, const std::int32_t* rows, std::int64_t n,
                     const float* excess, std::int64_t width, double* sums) {
  tile.weighted_f32(values, rows, n, excess, width, sums);
}

// Row sums of the kernel and of the kernel times excess, a task of rows at a time:
//   finish(i0, n_rows, sums, weighted_sums, ld)   weighted_sums[r * ld + b] = sum_j excess[j, b] K_rj; null without
template <class T, class Value, class Finish>
void sum_kernel(Points<T> x, Points<T> y, double bandwidth, const Excess<Value>* excess, const Run& run,
                Finish finish) {
  const Tile& tile = cpu::tile();
  const ScaledStrips<T> strips(x, y, bandwidth, run);
  const std::int64_t rows = rows_per_task(x.n, run, tile);
  const std::int64_t ld = excess ? excess->n_panels() * excess->width() : 0;
  struct List {
    float values[list_size];
    std::int32_t columns[list_size];
    std::int64_t size, summed;
  };
  for_each_task((x.n + rows - 1) / rows, run, [&] {
    return [&, scratch = typename ScaledStrips<T>::Scratch(tile, x.d),
            lists = std::vector<List>(static_cast<std::size_t>(rows)),
            sums = std::vector<double>(static_cast<std::size_t>(rows)),
            weighted_sums = std::vector<double>(static_cast<std::size_t>(rows * ld))](std::int64_t task,
                                                                                      const Stop& stop) mutable {
      const std::int64_t i0 = task * rows, n_rows = std::min(rows, x.n - i0);
      std::fill(sums.begin(), sums.end(), 0.0);
      std::fill(weighted_sums.begin(), weighted_sums.end(), 0.0);
      for (List& list : lists) list.size = 0;
      // Panel by panel of the replicates, so that the numbers of one panel stay in cache for all rows.
      const auto sum = [&](std::int64_t first, std::int64_t last) {
        for (std::int64_t r = first; r < last; ++r) {
          List& list = lists[static_cast<std::size_t>(r)];
          sums[static_cast<std::size_t>(r)] += tile.cosine(list.values, list.size);
          list.summed = std::exchange(list.size, 0);
        }
        for (std::int64_t p = 0; excess && p < excess->n_panels(); ++p) {
          for (std::int64_t r = first; r < last; ++r) {
            if (stop) return;
            const List& list = lists[static_cast<std::size_t>(r)];
            weighted(tile, list.values, list.columns, list.summed, excess->panel(p), excess->width(),
                     weighted_sums.data() + r * ld + p * excess->width());
          }
        }
      };
      const auto use = [&](std::int64_t r0, std::int64_t n, std::int64_t c0, std::int64_t n_cols, const float* strip) {
        for (std::int64_t r = 0; r < n; ++r) {
          List& list = lists[static_cast<std::size_t>(r0 + r)];
          list.size += tile.within(strip + r * strip_width, n_cols, static_cast<std::int32_t>(c0),
                                   list.values + list.size, list.columns + list.size);
          if (list.size > list_size - strip_width) sum(r0 + r, r0 + r + 1);
        }
      };
      strips.walk(i0, n_rows, scratch, stop, use, recompute_cosine_below);
      sum(0, n_rows);
      if (!stop) finish(i0, n_rows, sums.data(), weighted_sums.data(), ld);
    };
  });
}

// sum_kernel with counts - 1, in bytes where they fit; without replicates counts may be null.
template <class T, class Finish>
void sum_resampled(Points<T> x, Points<T> y, double bandwidth, const std::uint16_t* counts, std::int64_t n_replicates,
                   const Run& run, Finish finish) {
  if (n_replicates == 0) {
    sum_kernel<T, float>(x, y, bandwidth, nullptr, run, finish);
  } else if (*std::max_element(counts, counts + y.n * n_replicates) <= 128) {
    const Excess<std::int8_t> excess(tile(), counts, y.n, n_replicates, run);
    sum_kernel(x, y, bandwidth, &excess, run, finish);
  } else {
    const Excess<float> excess(tile(), counts, y.n, n_replicates, run);
    sum_kernel(x, y, bandwidth, &excess, run, finish);
  }
}

}  // namespace
}  // namespace egt::cpu

namespace egt {

template <class T>
void kernel_density(Points<T> x, Points<T> y, double bandwidth, const std::uint16_t* counts, std::int64_t n_replicates,
                    double* density, double* deviation, const Run& run) {
  const auto n_y = static_cast<double>(y.n);
  std::mutex mutex;
  const auto finish = [&](std::int64_t i0, std::int64_t n_rows, const double* sums, const double* excess,
                          std::int64_t ld) {
    for (std::int64_t r = 0; r < n_rows; ++r) density[i0 + r] = sums[r] / n_y;
    if (n_replicates == 0) return;
    // sum_j (counts_j - 1) K_ij is n (p_b - p) without the cancellation.
    std::vector<double> largest(static_cast<std::size_t>(n_replicates), 0.0);
    for (std::int64_t r = 0; r < n_rows; ++r) {
      for (std::int64_t b = 0; b < n_replicates; ++b) {
        double& own = largest[static_cast<std::size_t>(b)];
        own = std::max(own, std::abs(excess[r * ld + b]) / n_y);
      }
    }
    const std::lock_guard<std::mutex> lock(mutex);
    for (std::int64_t b = 0; b < n_replicates; ++b) {
      deviation[b] = std::max(deviation[b], largest[static_cast<std::size_t>(b)]);
    }
  };
  std::fill_n(deviation, n_replicates, 0.0);
  cpu::sum_resampled(x, y, bandwidth, counts, n_replicates, run, finish);
}

template <class T>
void resampled_density(Points<T> x, Points<T> y, double bandwidth, const std::uint16_t* counts,
                       std::int64_t n_replicates, double* density, double* deviation, const Run& run) {
  const auto n_y = static_cast<double>(y.n);
  const auto finish = [&](std::int64_t i0, std::int64_t n_rows, const double* sums, const double* excess,
                          std::int64_t ld) {
    for (std::int64_t r = 0; r < n_rows; ++r) {
      density[i0 + r] = sums[r] / n_y;
      double* row = deviation + (i0 + r) * n_replicates;
      for (std::int64_t b = 0; b < n_replicates; ++b) row[b] = excess[r * ld + b] / n_y;
    }
  };
  cpu::sum_resampled(x, y, bandwidth, counts, n_replicates, run, finish);
}

template <class T>
void soft_ball_product(Points<T> x, Points<T> y, double radius, double* product, const Run& run) {
  using namespace cpu;
  const Tile& tile = cpu::tile();
  const ScaledStrips<T> strips(x, y, radius, run);
  const std::int64_t rows = rows_per_task(x.n, run, tile);
  // A factor needs relative accuracy, so every pair much nearer to each other than to the centre is recomputed.
  const auto recompute_below = [](float norms) {
    return norms < 1e30f ? 0.01f * norms : std::numeric_limits<float>::max();
  };
  for_each_task((x.n + rows - 1) / rows, run, [&] {
    return
        [&, scratch = typename ScaledStrips<T>::Scratch(tile, x.d),
         products = std::vector<double>(static_cast<std::size_t>(rows))](std::int64_t task, const Stop& stop) mutable {
          const std::int64_t i0 = task * rows, n_rows = std::min(rows, x.n - i0);
          std::fill(products.begin(), products.end(), 1.0);
          const auto use = [&](std::int64_t r0, std::int64_t n, std::int64_t, std::int64_t n_cols, const float* strip) {
            tile.product(strip, n, n_cols, products.data() + r0);
          };
          strips.walk(i0, n_rows, scratch, stop, use, recompute_below);
          // The factors were squared distances. A product too small for a float32 lane is 0 here: the soft balls cover.
          for (std::int64_t r = 0; r < n_rows; ++r) product[i0 + r] = std::sqrt(products[static_cast<std::size_t>(r)]);
        };
  });
}

template void kernel_density<float>(Points<float>, Points<float>, double, const std::uint16_t*, std::int64_t, double*,
                                    double*, const Run&);
template void kernel_density<double>(Points<double>, Points<double>, double, const std::uint16_t*, std::int64_t,
                                     double*, double*, const Run&);
template void resampled_density<float>(Points<float>, Points<float>, double, const std::uint16_t*, std::int64_t,
                                       double*, double*, const Run&);
template void resampled_density<double>(Points<double>, Points<double>, double, const std::uint16_t*, std::int64_t,
                                        double*, double*, const Run&);
template void soft_ball_product<float>(Points<float>, Points<float>, double, double*, const Run&);
template void soft_ball_product<double>(Points<double>, Points<double>, double, double*, const Run&);

}  // namespace egt
