// Bodies of the inner loops over GCC/Clang vector types. The including unit defines
//   EGT_LANES  floats per vector      EGT_ROWS  rows per panel      EGT_VECS  vectors per panel of columns
//   EGT_TILE   name of the Tile it defines                          EGT_ISA   its name as text
#include "cpu/tile.hpp"

#if defined(__AVX2__) || defined(__SSE2__)
#include <immintrin.h>
#endif

namespace egt::cpu {
namespace {

constexpr int lanes = EGT_LANES;
constexpr int rows_per_panel = EGT_ROWS;
constexpr int vecs = EGT_VECS;
constexpr int cols_per_panel = lanes * vecs;

typedef float Vec __attribute__((vector_size(EGT_LANES * 4)));
typedef float LooseVec __attribute__((vector_size(EGT_LANES * 4), aligned(4)));
typedef int IntVec __attribute__((vector_size(EGT_LANES * 4)));
typedef double Wide __attribute__((vector_size(EGT_LANES * 4)));  // half as many lanes
typedef double LooseWide __attribute__((vector_size(EGT_LANES * 4), aligned(8)));
typedef float Half __attribute__((vector_size(EGT_LANES * 2), aligned(4)));
constexpr int wide_lanes = lanes / 2;
constexpr std::int64_t chunk_size = 64;

inline Vec load(const float* p) { return *reinterpret_cast<const LooseVec*>(p); }
inline void store(float* p, Vec v) { *reinterpret_cast<LooseVec*>(p) = v; }
inline Wide widened(const float* p) { return __builtin_convertvector(*reinterpret_cast<const Half*>(p), Wide); }
inline Wide widened(const double* p) { return *reinterpret_cast<const LooseWide*>(p); }
inline Vec splat(float v) { return Vec{} + v; }

// acc[r][v] = sum_k a(r, k) * b[k * cols_per_panel + v * lanes ...], a(r, k) = a[r * row_stride + k * k_stride].
template <int row_stride, int k_stride>
inline __attribute__((always_inline)) void multiply(const float* __restrict__ a, const float* __restrict__ b,
                                                    std::int64_t depth, Vec (&acc)[rows_per_panel][vecs]) {
#pragma GCC unroll 16
  for (int r = 0; r < rows_per_panel; ++r) {
#pragma GCC unroll 4
    for (int v = 0; v < vecs; ++v) acc[r][v] = Vec{};
  }
  for (std::int64_t k = 0; k < depth; ++k) {
    Vec column[vecs];
#pragma GCC unroll 4
    for (int v = 0; v < vecs; ++v) column[v] = load(b + k * cols_per_panel + v * lanes);
#pragma GCC unroll 16
    for (int r = 0; r < rows_per_panel; ++r) {
      const Vec broadcast = splat(a[r * row_stride + k * k_stride]);
#pragma GCC unroll 4
      for (int v = 0; v < vecs; ++v) acc[r][v] += broadcast * column[v];
    }
  }
}

template <class T>
void pack(const T* rows, std::int64_t n_rows, std::int64_t d, const double* centre, double scale, std::int64_t width,
          float* out, float* sq_norms) {
  const std::int64_t padded = (n_rows + width - 1) / width * width;
  for (std::int64_t first = 0; first < padded; first += width) {
    float* panel = out + first * d;
    for (std::int64_t r = 0; r < width; ++r) {
      if (first + r >= n_rows) {
        for (std::int64_t k = 0; k < d; ++k) panel[k * width + r] = 0.0f;
        sq_norms[first + r] = 0.0f;
        continue;
      }
      const T* row = rows + (first + r) * d;
      Wide sum{};
      // A chunk at a time, so that the arithmetic vectorises and only the scatter does not.
      for (std::int64_t k0 = 0; k0 < d; k0 += chunk_size) {
        const std::int64_t n = d - k0 < chunk_size ? d - k0 : chunk_size;
        float chunk[chunk_size] = {};
        for (std::int64_t k = 0; k < n; ++k) {
          chunk[k] = static_cast<float>((static_cast<double>(row[k0 + k]) - centre[k0 + k]) * scale);
        }
        for (std::int64_t k = 0; k < chunk_size; k += wide_lanes) {
          const Wide value = widened(chunk + k);
          sum += value * value;
        }
        for (std::int64_t k = 0; k < n; ++k) panel[(k0 + k) * width + r] = chunk[k];
      }
      double sq_norm = 0.0;
      for (int l = 0; l < wide_lanes; ++l) sq_norm += sum[l];
      sq_norms[first + r] = static_cast<float>(sq_norm);
    }
  }
}

void distances(const float* a, const float* b, std::int64_t d, std::int64_t n_cols, const float* row_term,
               const float* col_term, float* strip) {
  for (std::int64_t c = 0; c < n_cols; c += cols_per_panel) {
    Vec acc[rows_per_panel][vecs];
    multiply<1, rows_per_panel>(a, b + c * d, d, acc);
#pragma GCC unroll 16
    for (int r = 0; r < rows_per_panel; ++r) {
#pragma GCC unroll 4
      for (int v = 0; v < vecs; ++v) {
        const Vec terms = row_term[r] + load(col_term + c + v * lanes);
        store(strip + r * strip_width + c + v * lanes, terms - (acc[r][v] + acc[r][v]));
      }
    }
  }
}

// One bit per lane where value > limit does not hold.
inline std::uint32_t not_above(Vec value, Vec limit) {
#if EGT_LANES == 16 && defined(__AVX512F__)
  return static_cast<std::uint32_t>(
      _mm512_cmp_ps_mask(reinterpret_cast<__m512>(value), reinterpret_cast<__m512>(limit), _CMP_NGT_UQ));
#elif EGT_LANES == 8 && defined(__AVX2__)
  return static_cast<std::uint32_t>(
      _mm256_movemask_ps(_mm256_cmp_ps(reinterpret_cast<__m256>(value), reinterpret_cast<__m256>(limit), _CMP_NGT_UQ)));
#elif EGT_LANES == 4 && defined(__SSE2__)
  return static_cast<std::uint32_t>(
      _mm_movemask_ps(_mm_cmpngt_ps(reinterpret_cast<__m128>(value), reinterpret_cast<__m128>(limit))));
#else
  std::uint32_t bits = 0;
  for (int l = 0; l < lanes; ++l) bits |= static_cast<std::uint32_t>(!(value[l] > limit[l])) << l;
  return bits;
#endif
}

std::int64_t select(const float* strip, std::int64_t n_rows, std::int64_t n_cols, const float* row_limit,
                    const float* col_limit, std::int32_t* positions) {
  std::int64_t found = 0;
  const std::int64_t whole = n_cols / lanes * lanes;
  for (std::int64_t r = 0; r < n_rows; ++r) {
    const float* row = strip + r * strip_width;
    const Vec own = splat(row_limit[r]);
    const auto base = static_cast<std::int32_t>(r * strip_width);
    std::int64_t c = 0;
    for (; c < whole; c += lanes) {
      Vec limit = own;
      if (col_limit) {
        const Vec other = load(col_limit + c);
        limit = other > own ? other : own;
      }
      std::uint32_t bits = not_above(load(row + c), limit);
      while (bits) {
        positions[found++] = base + static_cast<std::int32_t>(c) + __builtin_ctz(bits);
        bits &= bits - 1;
      }
    }
    for (; c < n_cols; ++c) {
      const float limit = col_limit && col_limit[c] > row_limit[r] ? col_limit[c] : row_limit[r];
      if (!(row[c] > limit)) positions[found++] = base + static_cast<std::int32_t>(c);
    }
  }
  return found;
}

// cos(pi/2 sqrt(s)) is entire in s. On [0, 1] it is (1 - s) q(s), and q = 1 + s r(s) with r the Chebyshev interpolant
// of degree 3: exactly 1 at s = 0, exactly 0 at s = 1 without a comparison, and within 9e-10 of the cosine between.
inline Vec cosine_of_square(Vec s) {
  s = s > Vec{} ? s : Vec{};
  const Vec one = splat(1.0f);
  s = s < one ? s : one;
  Vec q = splat(2.3824918562453945e-05f);
  q = q * s - 0.0008939560742038388f;
  q = q * s + 0.01996884464137623f;
  q = q * s - 0.23370054660257225f;
  q = q * s + 1.0f;
  return (one - s) * q;
}

void cosine(float* strip, std::int64_t n_rows, std::int64_t n_cols, double* sums) {
  const std::int64_t whole = (n_cols + lanes - 1) / lanes * lanes;
  for (std::int64_t r = 0; r < n_rows; ++r) {
    float* row = strip + r * strip_width;
    for (std::int64_t c = n_cols; c < whole; ++c) row[c] = 1.0f;  // past the last column: kernel value 0
    Vec sum{};
    for (std::int64_t c = 0; c < whole; c += lanes) {
      const Vec value = cosine_of_square(load(row + c));
      store(row + c, value);
      sum += value;
    }
    double total = 0.0;
    for (int l = 0; l < lanes; ++l) total += static_cast<double>(sum[l]);
    sums[r] += total;
  }
}

void product(const float* strip, std::int64_t n_rows, std::int64_t n_cols, double* products) {
  const Vec one = splat(1.0f);
  const std::int64_t whole = n_cols / lanes * lanes;
  for (std::int64_t r = 0; r < n_rows; ++r) {
    const float* row = strip + r * strip_width;
    Vec part = one;
    for (std::int64_t c = 0; c < whole; c += lanes) {
      Vec s = load(row + c);
      s = s > Vec{} ? s : Vec{};
      part *= s < one ? s : one;
    }
    double total = 1.0;
    for (int l = 0; l < lanes; ++l) total *= static_cast<double>(part[l]);
    for (std::int64_t c = whole; c < n_cols; ++c) {
      const float s = row[c] > 0.0f ? row[c] : 0.0f;
      total *= static_cast<double>(s < 1.0f ? s : 1.0f);
    }
    products[r] *= total;
  }
}

void pack_excess(const std::uint16_t* counts, std::int64_t n_rows, std::int64_t n_replicates, float* out) {
  for (std::int64_t b = 0; b < n_replicates; b += cols_per_panel) {
    const std::int64_t n = n_replicates - b < cols_per_panel ? n_replicates - b : cols_per_panel;
    for (std::int64_t row = 0; row < n_rows; ++row) {
      const std::uint16_t* from = counts + row * n_replicates + b;
      float* to = out + (b * n_rows + row * cols_per_panel);
      for (std::int64_t i = 0; i < n; ++i) to[i] = static_cast<float>(from[i]) - 1.0f;
      for (std::int64_t i = n; i < cols_per_panel; ++i) to[i] = 0.0f;
    }
  }
}

void weighted(const float* strip, std::int64_t n_cols, const float* excess, std::int64_t n_replicates, double* sums,
              std::int64_t ld) {
  for (std::int64_t b = 0; b < n_replicates; b += cols_per_panel) {
    Vec acc[rows_per_panel][vecs];
    multiply<strip_width, 1>(strip, excess + b * n_cols, n_cols, acc);
#pragma GCC unroll 16
    for (int r = 0; r < rows_per_panel; ++r) {
      float part[cols_per_panel];
#pragma GCC unroll 4
      for (int v = 0; v < vecs; ++v) store(part + v * lanes, acc[r][v]);
#pragma GCC unroll 8
      for (int c = 0; c < cols_per_panel; c += wide_lanes) {
        LooseWide* sum = reinterpret_cast<LooseWide*>(sums + r * ld + b + c);
        *sum = *sum + widened(part + c);
      }
    }
  }
}

template <class T>
double sq_distance(const T* a, const T* b, std::int64_t d) {
  Wide first{}, second{};
  std::int64_t k = 0;
  for (; k + 2 * wide_lanes <= d; k += 2 * wide_lanes) {
    const Wide x = widened(a + k) - widened(b + k);
    const Wide y = widened(a + k + wide_lanes) - widened(b + k + wide_lanes);
    first += x * x;
    second += y * y;
  }
  first += second;
  double sum = 0.0;
  for (int l = 0; l < wide_lanes; ++l) sum += first[l];
  for (; k < d; ++k) {
    const double x = static_cast<double>(a[k]) - static_cast<double>(b[k]);
    sum += x * x;
  }
  return sum;
}

}  // namespace

extern const Tile EGT_TILE;
const Tile EGT_TILE = {
    EGT_ISA, rows_per_panel, cols_per_panel, pack<float>, pack<double>,       distances,          select,
    cosine,  product,        pack_excess,    weighted,    sq_distance<float>, sq_distance<double>};

}  // namespace egt::cpu
