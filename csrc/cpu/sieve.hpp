// The pairs of points that may be near: what neighbours and ball counts have in common.
//
// A tile of products gives each squared distance up to a known error; the value minus the error is a lower bound. The
// sieve visits all pairs in tiles and passes on those whose lower bound is not above a limit of one of their rows. The
// receiver decides about them in float64.
//
// Where the processor multiplies bytes faster than floats, a tile is of bytes first. Its error is that of rounding
// coordinates to 8 bits: small against the spread of distances in most data, large where rows lie in clusters that are
// far apart. Where it leaves too many pairs open, tiles of floats take over for a while.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <optional>
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
    double lower, upper;  // the squared distance is between them
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
        unscale_(1.0 / scale_) {
    const bool rounds = tile_.rounded_distances && x_.d >= least_rounded_d && x_.d <= largest_rounded_d &&
                        std::min(x_.n, y_.n) >= least_rounded_n;
    if (!rounds) return;
    rounded_x_.emplace(tile_, x_, centre_, scale_, run);
    if (!self_) rounded_y_.emplace(tile_, y_, centre_, scale_, run);
  }

  // A limit in packed units for a squared distance: a pair that is not farther is never left out.
  float limit(double sq_distance) const {
    return rounded_up((sq_distance + underflow_) * scale_ * scale_ + bound_.absolute);
  }

  double exact(const Hit& hit) const { return sq_distance(tile_, x_.row(hit.i), y_.row(hit.j), x_.d); }

  // make_handler() is called once per thread. A handler has
  //   begin(i0, n_i, j0, n_j)        a block of pairs starts
  //   row_limits(i, n, limits), col_limits(j, n, limits)
  //   settle(hits, j, col_limits)    hits of one strip; may lower the limits of columns j, j + 1, ...; returns how many
  //                                  distances it computed that tighter bounds would have spared
  //   end()                          the block is done (not called once stopped)
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
  // Below, packing and looking through a tile of bytes cost what it saves.
  static constexpr std::int64_t least_rounded_d = 24, least_rounded_n = 128;
  // Tiles of floats take over where they would spare the distances of more than one pair in `bearable`: for one block
  // of pairs, and twice as many each time that a block of bytes fails again.
  static constexpr std::int64_t bearable = 16, most_in_floats = 64;

  struct Scratch {
    Panels a, b;
    FloatBuffer strip;
    std::vector<float> row_term, col_term, row_limit, col_limit;
    std::vector<std::int32_t> positions;
    std::vector<Hit> hits;
    std::int64_t n_in_floats = 0, next_in_floats = 1;  // blocks of pairs to do without rounding, now and next time
    Scratch(const Tile& tile, std::int64_t d) : Scratch(tile, d, std::max(tile.panel_rows, tile.rounded_rows)) {}
    Scratch(const Tile& tile, std::int64_t d, std::int64_t most_rows)
        : a(block_rows, d, tile.panel_rows),
          b(block_rows, d, tile.panel_cols),
          strip(most_rows * strip_width),
          row_term(block_rows),
          col_term(block_rows),
          row_limit(static_cast<std::size_t>(most_rows)),
          col_limit(strip_width),
          positions(static_cast<std::size_t>(most_rows * strip_width)) {}
  };

  template <class Handler>
  void block_pair(std::int64_t i0, std::int64_t j0, Handler& handler, Scratch& s, const Stop& stop) const {
    const std::int64_t n_i = std::min(block_rows, x_.n - i0), n_j = std::min(block_rows, y_.n - j0);
    bool rounds = rounded_x_ && s.n_in_floats == 0, packed = false;
    s.n_in_floats = std::max<std::int64_t>(s.n_in_floats - 1, 0);
    handler.begin(i0, n_i, j0, n_j);
    for (std::int64_t c0 = 0; c0 < n_j; c0 += strip_width) {
      const std::int64_t n_cols = std::min(strip_width, n_j - c0);
      handler.col_limits(j0 + c0, n_cols, s.col_limit.data());
      std::int64_t n_pairs = 0, n_spared = 0;
      for (std::int64_t r0 = 0, height; r0 < n_i; r0 += height) {
        if (self_ && i0 + r0 >= j0 + c0 + n_cols - 1) break;  // below the diagonal
        if (stop) return;
        if (rounds && n_spared * bearable > n_pairs && r0 % tile_.panel_rows == 0) {
          rounds = false;
          s.n_in_floats = s.next_in_floats;
          s.next_in_floats = std::min(2 * s.next_in_floats, most_in_floats);
        }
        if (!rounds && !packed) {
          pack(i0, n_i, j0, n_j, s);
          packed = true;
        }
        height = rounds ? tile_.rounded_rows : tile_.panel_rows;
        const std::int64_t n_rows = std::min(height, n_i - r0);
        handler.row_limits(i0 + r0, n_rows, s.row_limit.data());
        if (rounds) {
          tile_.rounded_distances(rounded_x_->rows(), i0 + r0, rounded_y().rows(), j0 + c0, x_.d,
                                  round_up(n_cols, tile_.rounded_width), s.strip.get());
        } else {
          tile_.distances(s.a.values(r0), s.b.values(c0), x_.d, round_up(n_cols, tile_.panel_cols),
                          s.row_term.data() + r0, s.col_term.data() + c0, s.strip.get());
        }
        const std::int64_t found =
            tile_.select(s.strip.get(), n_rows, n_cols, s.row_limit.data(), s.col_limit.data(), s.positions.data());
        s.hits.clear();
        n_pairs += n_rows * n_cols;
        for (std::int64_t p = 0; p < found; ++p) {
          const std::int64_t position = s.positions[static_cast<std::size_t>(p)];
          const std::int64_t row = r0 + position / strip_width, col = c0 + position % strip_width;
          if (self_ && i0 + row >= j0 + col) continue;
          const auto lower = static_cast<double>(s.strip.get()[position]);
          const double error =
              rounds ? rounding_error(i0 + row, j0 + col)
                     : 1.05 * bound_.relative *
                           (static_cast<double>(s.a.sq_norms(row)[0]) + static_cast<double>(s.b.sq_norms(col)[0]));
          s.hits.push_back({i0 + row, j0 + col, unpacked(lower - bound_.absolute) * (1.0 - 1e-12) - underflow_,
                            unpacked(lower + 2.0 * error + bound_.absolute) * (1.0 + 1e-12) + underflow_});
        }
        if (!s.hits.empty()) n_spared += handler.settle(s.hits, j0 + c0, s.col_limit.data());
      }
    }
    if (rounds) s.next_in_floats = 1;
    handler.end();
  }

  void pack(std::int64_t i0, std::int64_t n_i, std::int64_t j0, std::int64_t n_j, Scratch& s) const {
    s.a.fill(tile_, x_, i0, n_i, centre_.data(), scale_);
    s.b.fill(tile_, y_, j0, n_j, centre_.data(), scale_);
    // With both norms shrunk by the relative bound, a tile entry is the lower bound itself.
    const auto shrink = static_cast<float>(1.0 - bound_.relative);
    std::transform(s.a.sq_norms(0), s.a.sq_norms(n_i), s.row_term.begin(), [&](float norm) { return norm * shrink; });
    std::transform(s.b.sq_norms(0), s.b.sq_norms(n_j), s.col_term.begin(), [&](float norm) { return norm * shrink; });
  }

  // Factor by factor: the square of the scale may be infinite.
  double unpacked(double sq_distance) const { return sq_distance * unscale_ * unscale_; }

  const RoundedPanels& rounded_y() const { return self_ ? *rounded_x_ : *rounded_y_; }

  // How far an entry of a tile of bytes is from the squared distance without rounding.
  double rounding_error(std::int64_t i, std::int64_t j) const {
    const RoundedRows x = rounded_x_->rows(), y = rounded_y().rows();
    const double of_bytes = static_cast<double>(x.error[i]) * static_cast<double>(y.length[j]) +
                            static_cast<double>(x.rounded_length[i]) * static_cast<double>(y.error[j]);
    return 2.0 * of_bytes +
           1.05 * rounded_shrink * (static_cast<double>(x.sq_norms[i]) + static_cast<double>(y.sq_norms[j]));
  }

  const Tile& tile_ = tile();
  Points<T> x_, y_;
  bool self_;
  ErrorBound bound_;
  double underflow_;  // more than squares of differences lose where they underflow
  std::vector<double> centre_;
  double scale_, unscale_;
  std::optional<RoundedPanels> rounded_x_, rounded_y_;
};

}  // namespace egt::cpu
