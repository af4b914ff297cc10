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

// Coordinates of a row that may be rounded to bytes: 127 * 255 times as much fits into 32 bits, and a float holds the
// sum of a sixteenth of the squares.
inline constexpr std::int64_t largest_rounded_d = 16384;

// Set by one thread, looked at by others. Inlined wherever it is used, for the reason above.
class Stop {
 public:
  __attribute__((always_inline)) operator bool() const { return __atomic_load_n(&set_, __ATOMIC_RELAXED); }
  __attribute__((always_inline)) void set() { __atomic_store_n(&set_, true, __ATOMIC_RELAXED); }

 private:
  bool set_ = false;
};

// Rows rounded to 8 bits: row r, centred and scaled, is step[r] * (its bytes) up to an error of length error[r]. Byte b
// of word w stands at ((r / width * n_words + w) * width + r % width) * 4 + b, where width is Tile::rounded_width and
// n_words the number of words of four bytes that hold the coordinates. Lengths and errors are rounded up.
struct RoundedRows {
  std::int8_t* bytes;
  std::int32_t* sums;  // of the bytes, times 128
  float* sq_norms;     // shrunk by rounded_shrink
  float *step, *error, *length, *rounded_length;
};

// More than the roundings of a bound, relative to the sum of two squared norms.
inline constexpr double rounded_shrink = 64.0 / (1 << 24);

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

  // The same from rows rounded to 8 bits, as lower bounds of the squared distances: for rounded_rows rows from r0 on
  // and n_cols columns from c0 on, multiples of rounded_rows and of rounded_width. Null where the processor multiplies
  // bytes no faster than floats. The sums of products fit for at most largest_rounded_d coordinates. Rows past n_rows
  // are zeros.
  std::int64_t rounded_rows, rounded_width;
  void (*round_f32)(const float* rows, std::int64_t n_rows, std::int64_t d, const double* centre, double scale,
                    const RoundedRows& out);
  void (*round_f64)(const double* rows, std::int64_t n_rows, std::int64_t d, const double* centre, double scale,
                    const RoundedRows& out);
  void (*rounded_distances)(const RoundedRows& a, std::int64_t r0, const RoundedRows& b, std::int64_t c0,
                            std::int64_t d, std::int64_t n_cols, float* strip);

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

  // How many of n values are from low to high.
  std::int64_t (*between)(const double* values, std::int64_t n, double low, double high);

  // For replicates b < n in which both sides are equal, and the distance is less than radii[b], or not more if closed:
  // ++a[b], ++c[b].
  void (*count_inside)(double distance, bool closed, const double* radii, const std::uint8_t* a_sides,
                       const std::uint8_t* c_sides, std::int64_t n, std::int32_t* a, std::int32_t* c);

  // sum_k (a[k] - b[k])^2 in float64.
  double (*sq_distance_f32)(const float* a, const float* b, std::int64_t d);
  double (*sq_distance_f64)(const double* a, const double* b, std::int64_t d);
};

// The widest set this processor has, or the one that EGTMETRICS_ISA names (for tests and bug reports). Throws
// std::invalid_argument for a name that there is not, and for a set that the processor lacks.
const Tile& tile();

// The sets that were compiled, widest first, and a null pointer; those of them that this processor has.
const Tile* const* compiled_tiles();
const Tile* const* available_tiles();

extern const Tile tile_generic;
#if defined(EGT_X86)
extern const Tile tile_avx2;
extern const Tile tile_avx512;
extern const Tile tile_avx512_vnni;
#elif defined(EGT_ARM)
extern const Tile tile_neon;
extern const Tile tile_neon_dot;
#endif

}  // namespace egt::cpu
