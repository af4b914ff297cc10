// Points as the tiles read them: centred, scaled, rounded to float32, in panels.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <memory>
#include <new>
#include <vector>

#include "cpu/parallel.hpp"
#include "cpu/tile.hpp"
#include "egt/run.hpp"

namespace egt::cpu {

// Uninitialised, aligned for the widest vector.
class FloatBuffer {
 public:
  explicit FloatBuffer(std::int64_t size)
      : data_(static_cast<float*>(::operator new(static_cast<std::size_t>(size) * sizeof(float), alignment))) {}
  float* get() const { return data_.get(); }

 private:
  static constexpr std::align_val_t alignment{64};
  struct Free {
    void operator()(float* p) const { ::operator delete(p, alignment); }
  };
  std::unique_ptr<float, Free> data_;
};

inline std::int64_t round_up(std::int64_t n, std::int64_t multiple) { return (n + multiple - 1) / multiple * multiple; }

// Half the relative spacing of float32.
inline constexpr double unit_roundoff = 1.0 / (1 << 24);

// The squared distance that a tile computes from packed points differs from the true one by at most
// relative * (|x|^2 + |y|^2) + absolute, in packed units: d roundings in the product, 4 for the packed coordinates, a
// few for the norms and the last operations (16 in all is generous); and what may underflow.
struct ErrorBound {
  double relative;
  double absolute;
  explicit ErrorBound(std::int64_t d)
      : relative((static_cast<double>(d) + 16.0) * unit_roundoff), absolute(static_cast<double>(d) * 0x1p-124) {}
};

// Near the mean of the rows, from at most a thousand or so of them: the products cancel least around the middle of the
// points, wherever exactly it is put.
template <class T>
std::vector<double> central_row(Points<T> points) {
  std::vector<double> centre(static_cast<std::size_t>(points.d), 0.0);
  const std::int64_t stride = points.n / 1024 + 1;
  std::int64_t n_rows = 0;
  for (std::int64_t i = 0; i < points.n; i += stride, ++n_rows) {
    const T* row = points.row(i);
    for (std::int64_t k = 0; k < points.d; ++k) centre[static_cast<std::size_t>(k)] += static_cast<double>(row[k]);
  }
  for (double& value : centre) value /= static_cast<double>(n_rows);
  return centre;
}

// Largest absolute coordinate once the centre is taken off.
template <class T>
double largest_coordinate(Points<T> points, const std::vector<double>& centre, const Run& run) {
  if (points.n == 0) return 0.0;
  std::vector<T> low(points.row(0), points.row(1)), high = low;
  for_each_part(points.n, points.d, run, [&](std::int64_t first, std::int64_t last) {
    for (std::int64_t i = first; i < last; ++i) {
      const T* row = points.row(i);
      T *lowest = low.data(), *highest = high.data();
      for (std::int64_t k = 0; k < points.d; ++k) {
        lowest[k] = row[k] < lowest[k] ? row[k] : lowest[k];
        highest[k] = row[k] > highest[k] ? row[k] : highest[k];
      }
    }
  });
  double largest = 0.0;
  for (std::size_t k = 0; k < centre.size(); ++k) {
    largest = std::max({largest, static_cast<double>(high[k]) - centre[k], centre[k] - static_cast<double>(low[k])});
  }
  return largest;
}

// The power of two that brings coordinates up to `largest` to at most 1, so that no square overflows.
inline double unit_scale(double largest) {
  if (!(largest > 0.0)) return 1.0;
  int exponent = 0;
  std::frexp(largest, &exponent);
  return std::ldexp(1.0, std::clamp(-exponent, -1000, 1000));
}

// float32 not below the value, plus one step.
inline float rounded_up(double value) {
  return std::nextafter(static_cast<float>(value), std::numeric_limits<float>::infinity());
}

inline void pack(const Tile& tile, const float* rows, std::int64_t n, std::int64_t d, const double* centre,
                 double scale, std::int64_t width, float* out, float* sq_norms) {
  tile.pack_f32(rows, n, d, centre, scale, width, out, sq_norms);
}
inline void pack(const Tile& tile, const double* rows, std::int64_t n, std::int64_t d, const double* centre,
                 double scale, std::int64_t width, float* out, float* sq_norms) {
  tile.pack_f64(rows, n, d, centre, scale, width, out, sq_norms);
}
inline void round_rows(const Tile& tile, const float* rows, std::int64_t n, std::int64_t d, const double* centre,
                       double scale, const RoundedRows& out) {
  tile.round_f32(rows, n, d, centre, scale, out);
}
inline void round_rows(const Tile& tile, const double* rows, std::int64_t n, std::int64_t d, const double* centre,
                       double scale, const RoundedRows& out) {
  tile.round_f64(rows, n, d, centre, scale, out);
}
inline double sq_distance(const Tile& tile, const float* a, const float* b, std::int64_t d) {
  return tile.sq_distance_f32(a, b, d);
}
inline double sq_distance(const Tile& tile, const double* a, const double* b, std::int64_t d) {
  return tile.sq_distance_f64(a, b, d);
}

// A block of rows packed in panels of one width, with their squared norms.
class Panels {
 public:
  Panels(std::int64_t max_rows, std::int64_t d, std::int64_t width)
      : d_(d),
        width_(width),
        values_(round_up(max_rows, width) * d),
        sq_norms_(static_cast<std::size_t>(round_up(max_rows, width))) {}

  // Rows first, ... of the points become rows `row`, ... here. `row` must start a panel, below too.
  template <class T>
  void fill(const Tile& tile, Points<T> points, std::int64_t first, std::int64_t n_rows, const double* centre,
            double scale, std::int64_t row = 0) {
    pack(tile, points.row(first), n_rows, d_, centre, scale, width_, values_.get() + row * d_, sq_norms_.data() + row);
  }
  const float* values(std::int64_t row) const { return values_.get() + row * d_; }
  const float* sq_norms(std::int64_t row) const { return sq_norms_.data() + row; }
  float max_sq_norm(std::int64_t row, std::int64_t n_rows) const {
    return *std::max_element(sq_norms_.begin() + row, sq_norms_.begin() + row + n_rows);
  }

 private:
  std::int64_t d_;
  std::int64_t width_;
  FloatBuffer values_;
  std::vector<float> sq_norms_;
};

// All rows, rounded to 8 bits.
class RoundedPanels {
 public:
  template <class T>
  RoundedPanels(const Tile& tile, Points<T> points, const std::vector<double>& centre, double scale, const Run& run)
      : size_(round_up(points.n, tile.rounded_width)),
        n_words_(round_up(points.d, 4) / 4),
        bytes_(size_ * n_words_),
        sums_(new std::int32_t[static_cast<std::size_t>(size_)]),
        numbers_(5 * size_) {
    const RoundedRows all = rows();
    for_each_task((points.n + block_rows - 1) / block_rows, run, [&] {
      return [&](std::int64_t block, const Stop&) {
        const std::int64_t first = block * block_rows, n = std::min(block_rows, points.n - first);
        round_rows(tile, points.row(first), n, points.d, centre.data(), scale,
                   RoundedRows{all.bytes + first * n_words_ * 4, all.sums + first, all.sq_norms + first,
                               all.step + first, all.error + first, all.length + first, all.rounded_length + first});
      };
    });
  }

  RoundedRows rows() const {
    float* const numbers = numbers_.get();
    return {reinterpret_cast<std::int8_t*>(bytes_.get()),
            sums_.get(),
            numbers,
            numbers + size_,
            numbers + 2 * size_,
            numbers + 3 * size_,
            numbers + 4 * size_};
  }

 private:
  std::int64_t size_, n_words_;
  FloatBuffer bytes_;  // four to a float
  std::unique_ptr<std::int32_t[]> sums_;
  FloatBuffer numbers_;
};

}  // namespace egt::cpu
