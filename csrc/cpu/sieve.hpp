// The pairs of points that may be near: what neighbours and ball counts have in common.
//
// A tile of float32 products gives each squared distance up to a known error; the value minus the error is a lower
// bound. The sieve visits all pairs in tiles and passes on those whose lower bound is not above a limit of one of their
// rows. The receiver decides about them in float64.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <vector>

#include "cpu/panels.hpp"
#include "cpu/parallel.hpp"

namespace egt::cpu {

inline std::int64_t blocks(std::int64_t n) { return (n + block_rows - 1) / block_rows; }

template <class T>
class Sieve {
 public:
  struct Hit {
    std::int64_t i, j;
    float lower;  // lower bound of the squared distance, in packed units
  };

  // y == nullptr: pairs i < j within x.
  Sieve(Points<T> x, const Points<T>* y, const Run& run)
      : x_(x),
        y_(y ? *y : x),
        self_(y == nullptr),
        bound_(x.d),
        underflow_(static_cast<double>(x.d) * std::numeric_limits<double>::min()),
        centre_(central_row(y_)),
        scale_(unit_scale(
            std::max(largest_coordinate(x_, centre_, run), self_ ? 0.0 : largest_coordinate(y_, centre_, run)))),
        unscale_(1.0 / scale_) {}

  // A limit in packed units for a squared distance: a pair that is not farther is never left out.
  float limit(double sq_distance) const {
    return rounded_up((sq_distance + underflow_) * scale_ * scale_ + bound_.absolute);
  }

  // At least the squared distance of a hit, given its packed squared norms.
  double upper(const Hit& hit, double sq_norms) const {
    // Factor by factor: the square of the scale may be infinite.
    return (static_cast<double>(hit.lower) + 2.1 * bound_.relative * sq_norms + bound_.absolute) * unscale_ * unscale_ *
               (1.0 + 1e-12) +
           underflow_;
  }

  double exact(const Hit& hit) const { return sq_distance(tile_, x_.row(hit.i), y_.row(hit.j), x_.d); }

  // make_handler() is called once per thread. A handler has
  //   begin(i0, n_i, j0, n_j, x_norms, y_norms)    a block of pairs starts; packed squared norms of its rows
  //   row_limits(i, n, limits), col_limits(j, n, limits)
  //   settle(hits, j, col_limits)                  hits of one strip; may lower the limits of columns j, j + 1, ...
  //   end()                                        the block is done (not called once stopped)
  template <class MakeHandler>
  void operator()(const Run& run, MakeHandler make_handler) const {
    const std::int64_t rows = blocks(x_.n), cols = blocks(y_.n);
    const std::int64_t n_tasks = self_ ? cols * (cols + 1) / 2 : rows * cols;
    for_each_task(n_tasks, run, [&] {
      return [this, rows, cols, handler = make_handler(), scratch = Scratch(tile_, x_.d)](std::int64_t task,
                                                                                          const Stop& stop) mutable {
        // Tasks that run together should work on different rows: all rows against one block of columns, and within one
        // set the block pairs i <= j diagonal by diagonal.
        std::int64_t i = task % rows, j = task / rows;
        if (self_) {
          std::int64_t distance = 0;
          for (i = task; i >= cols - distance; ++distance) i -= cols - distance;
          j = i + distance;
        }
        block_pair(i * block_rows, j * block_rows, handler, scratch, stop);
      };
    });
  }

 private:
  struct Scratch {
    Panels a, b;
    FloatBuffer strip;
    std::vector<float> row_term, col_term, row_limit, col_limit;
    std::vector<std::int32_t> positions;
    std::vector<Hit> hits;
    Scratch(const Tile& tile, std::int64_t d)
        : a(block_rows, d, tile.panel_rows),
          b(block_rows, d, tile.panel_cols),
          strip(tile.panel_rows * strip_width),
          row_term(block_rows),
          col_term(block_rows),
          row_limit(static_cast<std::size_t>(tile.panel_rows)),
          col_limit(strip_width),
          positions(static_cast<std::size_t>(tile.panel_rows * strip_width)) {}
  };

  template <class Handler>
  void block_pair(std::int64_t i0, std::int64_t j0, Handler& handler, Scratch& s, const Stop& stop) const {
    const std::int64_t n_i = std::min(block_rows, x_.n - i0), n_j = std::min(block_rows, y_.n - j0);
    s.a.fill(tile_, x_, i0, n_i, centre_.data(), scale_);
    s.b.fill(tile_, y_, j0, n_j, centre_.data(), scale_);
    // With both norms shrunk by the relative bound, a tile entry is the lower bound itself.
    const auto shrink = static_cast<float>(1.0 - bound_.relative);
    std::transform(s.a.sq_norms(0), s.a.sq_norms(n_i), s.row_term.begin(), [&](float norm) { return norm * shrink; });
    std::transform(s.b.sq_norms(0), s.b.sq_norms(n_j), s.col_term.begin(), [&](float norm) { return norm * shrink; });
    handler.begin(i0, n_i, j0, n_j, s.a.sq_norms(0), s.b.sq_norms(0));
    for (std::int64_t c0 = 0; c0 < n_j; c0 += strip_width) {
      const std::int64_t n_cols = std::min(strip_width, n_j - c0);
      handler.col_limits(j0 + c0, n_cols, s.col_limit.data());
      for (std::int64_t r0 = 0; r0 < n_i; r0 += tile_.panel_rows) {
        if (self_ && i0 + r0 >= j0 + c0 + n_cols - 1) break;  // below the diagonal
        if (stop) return;
        const std::int64_t n_rows = std::min(tile_.panel_rows, n_i - r0);
        handler.row_limits(i0 + r0, n_rows, s.row_limit.data());
        tile_.distances(s.a.values(r0), s.b.values(c0), x_.d, round_up(n_cols, tile_.panel_cols),
                        s.row_term.data() + r0, s.col_term.data() + c0, s.strip.get());
        const std::int64_t found =
            tile_.select(s.strip.get(), n_rows, n_cols, s.row_limit.data(), s.col_limit.data(), s.positions.data());
        s.hits.clear();
        for (std::int64_t p = 0; p < found; ++p) {
          const std::int64_t position = s.positions[static_cast<std::size_t>(p)];
          const Hit hit{i0 + r0 + position / strip_width, j0 + c0 + position % strip_width, s.strip.get()[position]};
          if (!self_ || hit.i < hit.j) s.hits.push_back(hit);
        }
        if (!s.hits.empty()) handler.settle(s.hits, j0 + c0, s.col_limit.data());
      }
    }
    handler.end();
  }

  const Tile& tile_ = tile();
  Points<T> x_, y_;
  bool self_;
  ErrorBound bound_;
  double underflow_;  // more than squares of differences lose where they underflow
  std::vector<double> centre_;
  double scale_, unscale_;
};

}  // namespace egt::cpu
