// The inner loops, once per instruction set. Each set is one translation unit over tile_body.hpp, chosen at run time.
//
// Those translation units are compiled with the set's flags, so they must not instantiate anything that another unit
// may share (an inline standard library function compiled with AVX-512 would be linked into the scalar path): no
// standard library containers or algorithms there.
#pragma once

#include <cstdint>

namespace egt::cpu {

// Columns a strip is laid out for: row r of a strip starts at r * strip_width.
inline constexpr std::int64_t strip_width = 256;
// Rows and columns one task packs at a time; a multiple of strip_width and of every panel height.
inline constexpr std::int64_t block_rows = 768;

// Set by one thread, looked at by others. Inlined wherever it is used, for the reason above.
class Stop {
 public:
  __attribute__((always_inline)) operator bool() const { return __atomic_load_n(&set_, __ATOMIC_RELAXED); }
  __attribute__((always_inline)) void set() { __atomic_store_n(&set_, true, __ATOMIC_RELAXED); }

 private:
  bool set_ = false;
};

struct Tile {
  const char* isa;
  std::int64_t panel_rows;  // height of a strip
  std::int64_t panel_cols;  // strips are computed in multiples of this many columns

  // Write value v of coordinate k of row r as out[k * width + r]: the layout both sides of a product are read in.
  // v = float((row[k] - centre[k]) * scale), and sq_norms[r] = sum of v^2. Rows past n_rows are zeros.
  void (*pack_f32)(const float* rows, std::int64_t n_rows, std::int64_t d, const double* centre, double scale,
                   std::int64_t width, float* out, float* sq_norms);
  void (*pack_f64)(const double* rows, std::int64_t n_rows, std::int64_t d, const double* centre, double scale,
                   std::int64_t width, float* out, float* sq_norms);

  // strip[r, c] = row_term[r] + col_term[c] - 2 <a_r, b_c>, for one panel of rows and n_cols columns.
  void (*distances)(const float* a, const float* b, std::int64_t d, std::int64_t n_cols, const float* row_term,
                    const float* col_term, float* strip);

  // Positions r * strip_width + c, ascending, of entries that are not above max(row_limit[r], col_limit[c]); NaN is not
  // above. col_limit may be null.
  std::int64_t (*select)(const float* strip, std::int64_t n_rows, std::int64_t n_cols, const float* row_limit,
                         const float* col_limit, std::int32_t* positions);

  // Append the entries of a row of n_cols that are not above 1, and their columns, counted from first_column; returns
  // how many there are. There must be room for n_cols.
  std::int64_t (*within)(const float* row, std::int64_t n_cols, std::int32_t first_column, float* values,
                         std::int32_t* columns);

  // In place, s -> cos(pi/2 sqrt(s)) for s in [0, 1], 0 above, 1 below; returns their sum.
  double (*cosine)(float* values, std::int64_t n);

  // products[r] *= prod_c clamp(strip[r, c], 0, 1).
  void (*product)(const float* strip, std::int64_t n_rows, std::int64_t n_cols, double* products);

  // sums[b] += sum_i values[i] * excess[rows[i] * n_replicates + b] for b < n_replicates, which must be a multiple of
  // `lanes`; multiples of `replicates` are fast.
  std::int64_t lanes, replicates;
  void (*weighted_i8)(const float* values, const std::int32_t* rows, std::int64_t n, const std::int8_t* excess,
                      std::int64_t n_replicates, double* sums);
  void (*weighted_f32)(const float* values, const std::int32_t* rows, std::int64_t n, const float* excess,
                       std::int64_t n_replicates, double* sums);

  // Multinomial draws (include/egt/divergence.hpp) of replicates first_replicate, ... (n_lanes of them at once):
  // drawn[k * n_lanes + lane] of cumulative[n_bins] draws fall into bin k, which has weight cumulative[k + 1] -
  // cumulative[k]. Once stop is set, it and the next two functions return soon, and what they wrote means nothing.
  std::int64_t n_lanes;
  void (*multinomial)(const std::int64_t* cumulative, std::int64_t n_bins, std::uint32_t first_replicate,
                      std::uint32_t group, std::uint32_t side, std::uint64_t seed, std::int64_t* drawn,
                      const Stop& stop);

  // Bootstrap draws (include/egt/bootstrap.hpp) of replicates first_replicate, ... (n_lanes of them at once):
  // drawn[row * n_lanes + lane] grows by the number of draws on a row.
  void (*draw_rows)(std::int64_t n_rows, std::uint32_t first_replicate, std::uint64_t seed, std::uint16_t* drawn,
                    const Stop& stop);

  // f-divergences of n_lanes pairs of histograms laid out like drawn: out[f * n_lanes + lane]. Probabilities are
  // (count + smoothing) * norm. scratch holds 5 * n_bins * n_lanes numbers.
  void (*divergences)(const std::int64_t* p_counts, const std::int64_t* q_counts, std::int64_t n_bins, double smoothing,
                      double p_norm, double q_norm, const std::int32_t* codes, const double* parameters,
                      std::int64_t n_divergences, double* scratch, double* out, const Stop& stop);

  // sum_k (a[k] - b[k])^2 in float64.
  double (*sq_distance_f32)(const float* a, const float* b, std::int64_t d);
  double (*sq_distance_f64)(const double* a, const double* b, std::int64_t d);
};

// The widest set this processor has, or the one that EGTMETRICS_ISA names (for tests and bug reports). Throws
// std::invalid_argument for a name that there is not, and for a set that the processor lacks.
const Tile& tile();

// The sets that this processor has, widest first, and a null pointer.
const Tile* const* available_tiles();

extern const Tile tile_generic;
#if defined(EGT_X86)
extern const Tile tile_avx2;
extern const Tile tile_avx512;
extern const Tile tile_avx512_popcnt;
#endif

}  // namespace egt::cpu
