// Bodies of the inner loops over GCC/Clang vector types. The including unit defines
//   EGT_LANES  floats per vector      EGT_ROWS  rows per panel      EGT_VECS  vectors per panel of columns
//   EGT_TILE   name of the Tile it defines                          EGT_ISA   its name as text
#include "cpu/tile.hpp"
#include "egt/divergence.hpp"

#if defined(__AVX2__) || defined(__SSE2__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
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
// v - 0 is v whatever its sign, so compilers drop the subtraction and broadcast from memory where v lies there. 0 + v
// is not v for -0: it would stay a scalar addition and a broadcast from a register, on a port that the products need.
inline Vec splat(float v) { return v - Vec{}; }

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
    const float* columns = b + c * d;
    Vec acc[rows_per_panel][vecs] = {};
    for (std::int64_t k = 0; k < d; ++k) {
      Vec column[vecs];
#pragma GCC unroll 4
      for (int v = 0; v < vecs; ++v) column[v] = load(columns + k * cols_per_panel + v * lanes);
#if defined(__aarch64__)
      // A product by one lane of a register costs nothing, a load that broadcasts takes the port of the products.
      Vec rows[rows_per_panel / lanes];
#pragma GCC unroll 4
      for (int q = 0; q < rows_per_panel / lanes; ++q) rows[q] = load(a + k * rows_per_panel + q * lanes);
#endif
#pragma GCC unroll 16
      for (int r = 0; r < rows_per_panel; ++r) {
#if defined(__aarch64__)
        const Vec broadcast = splat(rows[r / lanes][r % lanes]);
#else
        const Vec broadcast = splat(a[k * rows_per_panel + r]);
#endif
#pragma GCC unroll 4
        for (int v = 0; v < vecs; ++v) acc[r][v] += broadcast * column[v];
      }
    }
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

#if (EGT_LANES == 16 && defined(__AVX512VNNI__)) || (EGT_LANES == 4 && defined(__ARM_FEATURE_DOTPROD))
constexpr int rounded_rows = 8;
constexpr int rounded_vecs = 2;
constexpr int rounded_width = lanes * rounded_vecs;

// add_products: to sums of products of bytes, rows by columns, those of one word (four bytes) of each.
#if defined(__AVX512VNNI__)
typedef __m512i Sum;
typedef Sum Sums[rounded_rows][rounded_vecs];
// Bytes of columns are multiplied as unsigned numbers, 128 more than they are.
constexpr bool columns_unsigned = true;

inline void store_bytes(std::int8_t* p, Vec integer) {
  const __m512i whole = reinterpret_cast<__m512i>(__builtin_convertvector(integer, IntVec));
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtepi32_epi8(whole));
}

inline __attribute__((always_inline)) void add_products(Sums& sums, const std::int8_t* columns,
                                                        const std::int8_t* rows) {
  __m512i column[rounded_vecs];
#pragma GCC unroll 4
  for (int v = 0; v < rounded_vecs; ++v) {
    column[v] = _mm512_xor_si512(_mm512_loadu_si512(columns + v * lanes * 4), _mm512_set1_epi8(-128));
  }
#pragma GCC unroll 8
  for (int r = 0; r < rounded_rows; ++r) {
    std::int32_t word;
    __builtin_memcpy(&word, rows + r * 4, 4);
    const __m512i broadcast = _mm512_set1_epi32(word);
#pragma GCC unroll 4
    for (int v = 0; v < rounded_vecs; ++v) {
      // As GCC 12 compiles _mm512_dpbusd_epi32, every sum is copied to another register and back.
      asm("vpdpbusd %2, %1, %0" : "+v"(sums[r][v]) : "v"(column[v]), "v"(broadcast));
    }
  }
}
#else
typedef int32x4_t Sum;
typedef Sum Sums[rounded_rows][rounded_vecs];
constexpr bool columns_unsigned = false;

inline void store_bytes(std::int8_t* p, Vec integer) {
  typedef std::int8_t Bytes __attribute__((vector_size(EGT_LANES)));
  const Bytes bytes = __builtin_convertvector(__builtin_convertvector(integer, IntVec), Bytes);
  __builtin_memcpy(p, &bytes, sizeof bytes);
}

inline __attribute__((always_inline)) void add_products(Sums& sums, const std::int8_t* columns,
                                                        const std::int8_t* rows) {
#pragma GCC unroll 2
  for (int r = 0; r < rounded_rows; r += lanes) {
    const int8x16_t words = vld1q_s8(rows + r * 4);
#pragma GCC unroll 4
    for (int v = 0; v < rounded_vecs; ++v) {
      const int8x16_t column = vld1q_s8(columns + v * lanes * 4);
      sums[r][v] = vdotq_laneq_s32(sums[r][v], column, words, 0);
      sums[r + 1][v] = vdotq_laneq_s32(sums[r + 1][v], column, words, 1);
      sums[r + 2][v] = vdotq_laneq_s32(sums[r + 2][v], column, words, 2);
      sums[r + 3][v] = vdotq_laneq_s32(sums[r + 3][v], column, words, 3);
    }
  }
}
#endif

// Not below a number that is positive.
inline float up(double value) { return static_cast<float>(value * (1.0 + 0x1p-20)) + 0x1p-126f; }

template <class T>
void round(const T* rows, std::int64_t n_rows, std::int64_t d, const double* centre, double scale,
           const RoundedRows& out) {
  const std::int64_t n_words = (d + 3) / 4;
  const std::int64_t padded = (n_rows + rounded_width - 1) / rounded_width * rounded_width;
  for (std::int64_t r = 0; r < padded; ++r) {
    std::int8_t* words = out.bytes + (r / rounded_width * n_words * rounded_width + r % rounded_width) * 4;
    Vec largest{};
    float chunk[chunk_size] = {};
    const auto fill = [&](std::int64_t k0) {
      const T* row = rows + r * d + k0;
      const std::int64_t n = d - k0 < chunk_size ? d - k0 : chunk_size;
      for (std::int64_t k = 0; k < n; ++k) {
        chunk[k] = static_cast<float>((static_cast<double>(row[k]) - centre[k0 + k]) * scale);
      }
      for (std::int64_t k = n; k < chunk_size; ++k) chunk[k] = 0.0f;
    };
    const std::int64_t row_d = r < n_rows ? d : 0;
    for (std::int64_t k0 = 0; k0 < row_d; k0 += chunk_size) {
      fill(k0);
      for (std::int64_t k = 0; k < chunk_size; k += lanes) {
        const Vec v = load(chunk + k), size = v < Vec{} ? -v : v;
        largest = size > largest ? size : largest;
      }
    }
    float most = 0.0f;
    for (int l = 0; l < lanes; ++l) most = largest[l] > most ? largest[l] : most;
    // A row of next to nothing is zero up to an error; 1 / most might overflow.
    const float step = most > 0x1p-100f ? most / 127.0f : 0.0f;
    const Vec steps = splat(step), inverse = splat(step > 0.0f ? 127.0f / most : 0.0f);
    const Vec nearest = splat(0x1.8p23f);  // adding it rounds to an integer
    Wide sq_norm{}, sq_error{};
    Vec sum{}, sq_bytes{};
    for (std::int64_t k0 = 0; k0 < d; k0 += chunk_size) {
      if (row_d) fill(k0);
      std::int8_t bytes[chunk_size];
      for (std::int64_t k = 0; k < chunk_size; k += lanes) {
        const Vec v = load(chunk + k);
        const Vec integer = (v * inverse + nearest) - nearest;
        float missed[lanes];
        store(missed, v - steps * integer);
        for (int half = 0; half < lanes; half += wide_lanes) {
          const Wide value = widened(chunk + k + half), error = widened(missed + half);
          sq_norm += value * value;
          sq_error += error * error;
        }
        sum += integer;
        sq_bytes += integer * integer;
        store_bytes(bytes + k, integer);
      }
      const std::int64_t n = n_words - k0 / 4 < chunk_size / 4 ? n_words - k0 / 4 : chunk_size / 4;
      for (std::int64_t w = 0; w < n; ++w) {
        __builtin_memcpy(words + (k0 / 4 + w) * rounded_width * 4, bytes + 4 * w, 4);
      }
    }
    double norm = 0.0, error = 0.0, squares = 0.0, total = 0.0;
    for (int l = 0; l < wide_lanes; ++l) norm += sq_norm[l], error += sq_error[l];
    for (int l = 0; l < lanes; ++l) total += static_cast<double>(sum[l]), squares += static_cast<double>(sq_bytes[l]);
    out.sums[r] = 128 * static_cast<std::int32_t>(total);
    out.sq_norms[r] = static_cast<float>(norm * (1.0 - rounded_shrink));
    out.step[r] = step;
    out.length[r] = up(__builtin_sqrt(norm));
    // The coordinates were rounded to float32 before.
    out.error[r] = up(__builtin_sqrt(error) + 0x1p-22 * __builtin_sqrt(norm));
    out.rounded_length[r] = up(static_cast<double>(step) * __builtin_sqrt(squares));
  }
}

// <x, y> = <x', y'> + <x - x', y> + <x', y - y'> for rounded rows x' and y'. The 128 of unsigned columns are taken off
// with the sums of the rows.
void rounded_distances(const RoundedRows& a, std::int64_t r0, const RoundedRows& b, std::int64_t c0, std::int64_t d,
                       std::int64_t n_cols, float* strip) {
  const std::int64_t n_words = (d + 3) / 4;
  const std::int8_t* row_words = a.bytes + (r0 / rounded_width * n_words * rounded_width + r0 % rounded_width) * 4;
  for (std::int64_t c = 0; c < n_cols; c += rounded_width) {
    const std::int8_t* columns = b.bytes + (c0 + c) * n_words * 4;
    Sums acc;
#pragma GCC unroll 8
    for (int r = 0; r < rounded_rows; ++r) {
#pragma GCC unroll 4
      for (int v = 0; v < rounded_vecs; ++v)
        acc[r][v] = reinterpret_cast<Sum>(IntVec{} - (columns_unsigned ? a.sums[r0 + r] : 0));
    }
    for (std::int64_t w = 0; w < n_words; ++w) {
      add_products(acc, columns + w * rounded_width * 4, row_words + w * rounded_width * 4);
    }
#pragma GCC unroll 4
    for (int v = 0; v < rounded_vecs; ++v) {
      const std::int64_t at = c0 + c + v * lanes;
      const Vec sq_norm = load(b.sq_norms + at), step = load(b.step + at);
      const Vec length = load(b.length + at), error = load(b.error + at);
#pragma GCC unroll 8
      for (int r = 0; r < rounded_rows; ++r) {
        const std::int64_t own = r0 + r;
        const Vec product = __builtin_convertvector(reinterpret_cast<IntVec>(acc[r][v]), Vec) * step;
        const Vec taken = a.step[own] * product + (a.error[own] * length + a.rounded_length[own] * error);
        store(strip + r * strip_width + c + v * lanes, (a.sq_norms[own] + sq_norm) - (taken + taken));
      }
    }
  }
}
#else
constexpr int rounded_rows = 0;
constexpr int rounded_width = 0;
template <class T>
constexpr void (*round)(const T*, std::int64_t, std::int64_t, const double*, double, const RoundedRows&) = nullptr;
constexpr decltype(Tile::rounded_distances) rounded_distances = nullptr;
#endif

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
#elif EGT_LANES == 4 && defined(__aarch64__)
  typedef std::uint32_t Bits __attribute__((vector_size(16)));
  const Bits above = reinterpret_cast<Bits>(value > limit);
  return vaddvq_u32(reinterpret_cast<uint32x4_t>(~above & Bits{1, 2, 4, 8}));
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

std::int64_t within(const float* row, std::int64_t n_cols, std::int32_t first_column, float* values,
                    std::int32_t* columns) {
  std::int64_t found = 0, c = 0;
#if EGT_LANES == 16 && defined(__AVX512F__)
  // Without a branch on what is found, which no processor predicts.
  const __m512i ramp = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  for (; c + lanes <= n_cols; c += lanes) {
    const __m512 value = _mm512_loadu_ps(row + c);
    const __mmask16 mask = _mm512_cmp_ps_mask(value, _mm512_set1_ps(1.0f), _CMP_NGT_UQ);
    const __m512i column = _mm512_add_epi32(ramp, _mm512_set1_epi32(first_column + static_cast<std::int32_t>(c)));
    _mm512_storeu_ps(values + found, _mm512_maskz_compress_ps(mask, value));
    _mm512_storeu_si512(columns + found, _mm512_maskz_compress_epi32(mask, column));
    found += __builtin_popcount(mask);
  }
#else
  const Vec one = splat(1.0f);
  for (; c + lanes <= n_cols; c += lanes) {
    for (std::uint32_t bits = not_above(load(row + c), one); bits; bits &= bits - 1) {
      const std::int64_t at = c + __builtin_ctz(bits);
      values[found] = row[at];
      columns[found++] = first_column + static_cast<std::int32_t>(at);
    }
  }
#endif
  for (; c < n_cols; ++c) {
    if (row[c] > 1.0f) continue;
    values[found] = row[c];
    columns[found++] = first_column + static_cast<std::int32_t>(c);
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

double cosine(float* values, std::int64_t n) {
  double total = 0.0;
  std::int64_t i = 0;
  Wide low{}, high{};
  for (; i + lanes <= n; i += lanes) {
    store(values + i, cosine_of_square(load(values + i)));
    low += widened(values + i);
    high += widened(values + i + wide_lanes);
  }
  low += high;
  for (int l = 0; l < wide_lanes; ++l) total += low[l];
  if (i < n) {
    float rest[lanes] = {};
    for (std::int64_t j = i; j < n; ++j) rest[j - i] = values[j];
    store(rest, cosine_of_square(load(rest)));
    for (std::int64_t j = i; j < n; ++j) total += static_cast<double>(values[j] = rest[j - i]);
  }
  return total;
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

inline Vec as_floats(const float* p) { return load(p); }
inline Vec as_floats(const std::int8_t* p) {
#if EGT_LANES == 16 && defined(__AVX512F__)
  const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return reinterpret_cast<Vec>(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(bytes)));
#elif EGT_LANES == 8 && defined(__AVX2__)
  const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(p));
  return reinterpret_cast<Vec>(_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(bytes)));
#elif EGT_LANES == 4 && defined(__SSE2__)
  int four;
  __builtin_memcpy(&four, p, sizeof four);
  __m128i bytes = _mm_cvtsi32_si128(four);  // each to the top of a lane of 32 bits, and down with its sign
  bytes = _mm_unpacklo_epi8(bytes, bytes);
  return reinterpret_cast<Vec>(_mm_cvtepi32_ps(_mm_srai_epi32(_mm_unpacklo_epi16(bytes, bytes), 24)));
#elif EGT_LANES == 4 && defined(__aarch64__)
  std::uint32_t four;
  __builtin_memcpy(&four, p, sizeof four);
  const int8x8_t bytes = vreinterpret_s8_u32(vdup_n_u32(four));
  return reinterpret_cast<Vec>(vcvtq_f32_s32(vmovl_s16(vget_low_s16(vmovl_s8(bytes)))));
#else
  Vec v;
  for (int l = 0; l < lanes; ++l) v[l] = static_cast<float>(p[l]);
  return v;
#endif
}

// Vectors of replicates that are summed together: enough that the loop waits for no sum.
constexpr int summed = 8;
// Rows ahead that are fetched: they lie far apart, and no processor guesses the next one.
constexpr std::int64_t ahead = 16;

template <int kVecs, class T>
inline void weigh(const float* values, const std::int32_t* rows, std::int64_t n, const T* excess,
                  std::int64_t n_replicates, double* sums) {
  Vec acc[kVecs] = {};
  for (std::int64_t i = 0; i < n; ++i) {
    const Vec value = splat(values[i]);
    const T* row = excess + rows[i] * n_replicates;
    const char* later = reinterpret_cast<const char*>(excess + rows[i + ahead < n ? i + ahead : i] * n_replicates);
    __builtin_prefetch(later);
    __builtin_prefetch(later + 64);
#pragma GCC unroll 8
    for (int v = 0; v < kVecs; ++v) acc[v] += value * as_floats(row + v * lanes);
  }
  float part[kVecs * lanes];
#pragma GCC unroll 8
  for (int v = 0; v < kVecs; ++v) store(part + v * lanes, acc[v]);
  for (int b = 0; b < kVecs * lanes; ++b) sums[b] += static_cast<double>(part[b]);
}

template <class T>
void weighted(const float* values, const std::int32_t* rows, std::int64_t n, const T* excess, std::int64_t n_replicates,
              double* sums) {
  std::int64_t b = 0;
  for (; b + summed * lanes <= n_replicates; b += summed * lanes) {
    weigh<summed>(values, rows, n, excess + b, n_replicates, sums + b);
  }
  for (; b < n_replicates; b += lanes) weigh<1>(values, rows, n, excess + b, n_replicates, sums + b);
}

// 32-bit numbers in 64-bit lanes, where a product fits.
typedef std::uint64_t Long __attribute__((vector_size(EGT_LANES * 4)));
typedef std::int64_t SignedLong __attribute__((vector_size(EGT_LANES * 4)));
typedef std::uint64_t LooseLong __attribute__((vector_size(EGT_LANES * 4), aligned(8)));

// Not references to LooseLong: what returns one returns a Long for clang, which is then read as if it were aligned.
inline Long load(const std::int64_t* p) { return *reinterpret_cast<const LooseLong*>(p); }
inline void store(std::int64_t* p, Long v) { *reinterpret_cast<LooseLong*>(p) = v; }

inline Long times(Long a, std::uint32_t b) {
#if EGT_LANES == 16 && defined(__AVX512F__)
  return reinterpret_cast<Long>(_mm512_mul_epu32(reinterpret_cast<__m512i>(a), _mm512_set1_epi64(b)));
#elif EGT_LANES == 8 && defined(__AVX2__)
  return reinterpret_cast<Long>(_mm256_mul_epu32(reinterpret_cast<__m256i>(a), _mm256_set1_epi64x(b)));
#elif EGT_LANES == 4 && defined(__SSE2__)
  return reinterpret_cast<Long>(_mm_mul_epu32(reinterpret_cast<__m128i>(a), _mm_set1_epi64x(b)));
#elif EGT_LANES == 4 && defined(__aarch64__)
  return reinterpret_cast<Long>(vmull_u32(vmovn_u64(reinterpret_cast<uint64x2_t>(a)), vdup_n_u32(b)));
#else
  return a * std::uint64_t{b};
#endif
}

inline bool any(Long v) {
#if EGT_LANES == 16 && defined(__AVX512F__)
  return _mm512_test_epi64_mask(reinterpret_cast<__m512i>(v), reinterpret_cast<__m512i>(v)) != 0;
#elif EGT_LANES == 8 && defined(__AVX2__)
  return !_mm256_testz_si256(reinterpret_cast<__m256i>(v), reinterpret_cast<__m256i>(v));
#else
  std::uint64_t all = 0;
  for (int l = 0; l < wide_lanes; ++l) all |= v[l];
  return all != 0;
#endif
}

// Vectors of replicates that go down a tree together: every step of one waits for the step before.
constexpr int together = 4;
constexpr int n_lanes = together * wide_lanes;

// Two 64-bit halves of a Philox4x32-10 block for each lane.
struct Blocks {
  Long low[together], high[together];
};

// One stream a lane: its replicate is counter word 1.
struct Streams {
  Long replicates[together];
  std::uint32_t group, side;
  std::uint64_t seed;

  Streams(std::uint32_t first_replicate, std::uint32_t group, std::uint32_t side, std::uint64_t seed)
      : group(group), side(side), seed(seed) {
    for (int i = 0; i < n_lanes; ++i) {
      replicates[i / wide_lanes][i % wide_lanes] = first_replicate + static_cast<std::uint32_t>(i);
    }
  }

  inline __attribute__((always_inline)) Blocks operator()(std::uint32_t node, std::uint32_t kind) const {
    constexpr std::uint64_t low_word = 0xFFFFFFFFu;
    Long x0[together], x1[together], x2[together], x3[together];
    for (int v = 0; v < together; ++v) {
      x0[v] = Long{} + node;
      x1[v] = replicates[v];
      x2[v] = Long{} + group;
      x3[v] = Long{} + (side + 2 * kind);
    }
    auto k0 = static_cast<std::uint32_t>(seed), k1 = static_cast<std::uint32_t>(seed >> 32);
#pragma GCC unroll 10
    for (int round = 0; round < 10; ++round) {
      const Long key0 = Long{} + k0, key1 = Long{} + k1;
#pragma GCC unroll 8
      for (int v = 0; v < together; ++v) {
        const Long a = times(x0[v], 0xD2511F53u), b = times(x2[v], 0xCD9E8D57u);
        x0[v] = (b >> 32) ^ x1[v] ^ key0;
        x1[v] = b & low_word;
        x2[v] = (a >> 32) ^ x3[v] ^ key1;
        x3[v] = a & low_word;
      }
      k0 += 0x9E3779B9u;
      k1 += 0xBB67AE85u;
    }
    Blocks blocks;
    for (int v = 0; v < together; ++v) {
      blocks.low[v] = x0[v] | (x1[v] << 32);
      blocks.high[v] = x2[v] | (x3[v] << 32);
    }
    return blocks;
  }
};

// The low n bits, n from 0 to 64.
inline Long low_bits(Long bits, Long n) {
  const Long shift = (64 - n) & 63;
  return n == 0 ? Long{} : (bits << shift) >> shift;
}

inline Long population_count(Long v) {
#if EGT_LANES == 16 && defined(__AVX512VPOPCNTDQ__)
  return reinterpret_cast<Long>(_mm512_popcnt_epi64(reinterpret_cast<__m512i>(v)));
#elif EGT_LANES == 16 && defined(__AVX512BW__)
  const __m512i table = _mm512_broadcast_i32x4(_mm_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4));
  const __m512i nibble = _mm512_set1_epi8(15), bits = reinterpret_cast<__m512i>(v);
  const __m512i low = _mm512_shuffle_epi8(table, _mm512_and_si512(bits, nibble));
  const __m512i high = _mm512_shuffle_epi8(table, _mm512_and_si512(_mm512_srli_epi16(bits, 4), nibble));
  return reinterpret_cast<Long>(_mm512_sad_epu8(_mm512_add_epi8(low, high), _mm512_setzero_si512()));
#elif EGT_LANES == 8 && defined(__AVX2__)
  const __m256i table = _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4));
  const __m256i nibble = _mm256_set1_epi8(15), bits = reinterpret_cast<__m256i>(v);
  const __m256i low = _mm256_shuffle_epi8(table, _mm256_and_si256(bits, nibble));
  const __m256i high = _mm256_shuffle_epi8(table, _mm256_and_si256(_mm256_srli_epi16(bits, 4), nibble));
  return reinterpret_cast<Long>(_mm256_sad_epu8(_mm256_add_epi8(low, high), _mm256_setzero_si256()));
#elif EGT_LANES == 4 && defined(__aarch64__)
  return reinterpret_cast<Long>(vpaddlq_u32(vpaddlq_u16(vpaddlq_u8(vcntq_u8(reinterpret_cast<uint8x16_t>(v))))));
#else
  for (int l = 0; l < wide_lanes; ++l) v[l] = static_cast<std::uint64_t>(__builtin_popcountll(v[l]));
  return v;
#endif
}

// Numbers of successes of binomials (n, left / total), n replaced by them; see include/egt/divergence.hpp. kPolls:
// looks at stop also between the blocks of one draw, which takes a register too many where draws are few.
template <bool kPolls>
inline void binomial(Long (&n)[together], std::uint64_t left, std::uint64_t total, std::uint32_t middle,
                     const Streams& streams, const Stop& stop) {
  if (left == total) return;
  Long undecided[together], successes[together] = {};
  for (int v = 0; v < together; ++v) undecided[v] = n[v];
  std::uint64_t remainder = left;
  Blocks fields;
  for (std::uint32_t t = 0; t < 64 && remainder > 0; ++t) {
    Long some = undecided[0];
    for (int v = 1; v < together; ++v) some |= undecided[v];
    if (!any(some)) break;
    remainder *= 2;
    const bool bit = remainder >= total;
    if (bit) remainder -= total;
    if (t % 8 == 0) fields = streams(middle, t / 8);
    Long ones[together], further[together], many{};
    for (int v = 0; v < together; ++v) {
      const Long field = (t % 8 < 4 ? fields.low[v] : fields.high[v]) >> (16 * (t % 4));
      const Long first = undecided[v] < 16 ? undecided[v] : Long{} + 16;
      ones[v] = population_count(field & (((Long{} + 1) << first) - 1));
      further[v] = undecided[v] - first;
      many |= further[v];
    }
    for (std::uint32_t kind = 64 + t; any(many) && !(kPolls && stop); kind += 64) {
      const Blocks blocks = streams(middle, kind);
      many = Long{};
      for (int v = 0; v < together; ++v) {
        const Long low = further[v] < 64 ? further[v] : Long{} + 64;
        const Long rest = further[v] - low;
        const Long high = rest < 64 ? rest : Long{} + 64;
        ones[v] += population_count(low_bits(blocks.low[v], low)) + population_count(low_bits(blocks.high[v], high));
        further[v] = rest - high;
        many |= further[v];
      }
    }
    for (int v = 0; v < together; ++v) {
      if (bit) successes[v] += undecided[v] - ones[v];
      undecided[v] = bit ? ones[v] : undecided[v] - ones[v];
    }
  }
  for (int v = 0; v < together; ++v) n[v] = successes[v];
}

void multinomial(const std::int64_t* cumulative, std::int64_t n_bins, std::uint32_t first_replicate,
                 std::uint32_t group, std::uint32_t side, std::uint64_t seed, std::int64_t* drawn, const Stop& stop) {
  const Streams streams(first_replicate, group, side, seed);
  const auto at = [drawn](std::int64_t bin, int v) { return drawn + bin * n_lanes + v * wide_lanes; };
  struct Node {
    std::int64_t first, last;
  };
  Node stack[64];  // a level of the tree each, and one
  int depth = 0;
  stack[depth++] = {0, n_bins};
  for (int v = 0; v < together; ++v) store(at(0, v), Long{} + static_cast<std::uint64_t>(cumulative[n_bins]));
  while (depth > 0 && !stop) {
    const Node node = stack[--depth];
    if (node.last - node.first == 1) continue;
    const std::int64_t middle = node.first + (node.last - node.first) / 2, base = cumulative[node.first];
    stack[depth++] = {middle, node.last};
    stack[depth++] = {node.first, middle};
    Long n[together], left[together];
    for (int v = 0; v < together; ++v) n[v] = left[v] = load(at(node.first, v));
    const auto below = static_cast<std::uint64_t>(cumulative[middle] - base),
               all = static_cast<std::uint64_t>(cumulative[node.last] - base);
    if (all < 1 << 22) {
      binomial<false>(left, below, all, static_cast<std::uint32_t>(middle), streams, stop);
    } else {
      binomial<true>(left, below, all, static_cast<std::uint32_t>(middle), streams, stop);
    }
    for (int v = 0; v < together; ++v) {
      store(at(node.first, v), left[v]);
      store(at(middle, v), n[v] - left[v]);
    }
  }
}

void draw_rows(std::int64_t n_rows, std::uint32_t first_replicate, std::uint64_t seed, std::uint16_t* drawn,
               const Stop& stop) {
  const Streams streams(first_replicate, 0, 0, seed);
  const auto n = static_cast<std::uint32_t>(n_rows);
  const auto count = [&](const Long(&words)[together]) {
    for (int v = 0; v < together; ++v) {
      const Long rows = (times(words[v] >> 32, n) + (times(words[v] & 0xFFFFFFFFu, n) >> 32)) >> 32;
      for (int l = 0; l < wide_lanes; ++l) ++drawn[rows[l] * n_lanes + static_cast<std::uint64_t>(v * wide_lanes + l)];
    }
  };
  for (std::uint32_t i = 0; i < n - n / 2 && !stop; ++i) {
    const Blocks blocks = streams(i, 0);
    count(blocks.low);
    if (i < n / 2) count(blocks.high);
  }
}

inline Wide bits_as_double(Long v) { return reinterpret_cast<Wide>(v); }
inline Long double_as_bits(Wide v) { return reinterpret_cast<Long>(v); }

// log x for normal positive x: x = 2^e m, m in [sqrt 1/2, sqrt 2), log m = 2 artanh s, s = (m - 1) / (m + 1).
inline Wide log(Wide x) {
  const Long bits = double_as_bits(x);
  const SignedLong e = reinterpret_cast<SignedLong>(bits - 0x3FE6A09E667F3BCDu) >> 52;  // less the bits of sqrt 1/2
  const Wide m = bits_as_double(bits - (reinterpret_cast<Long>(e) << 52));
  const Wide s = (m - 1.0) / (m + 1.0), z = s * s;
  Wide r = Wide{} + 2.0 / 21;
  r = r * z + 2.0 / 19;
  r = r * z + 2.0 / 17;
  r = r * z + 2.0 / 15;
  r = r * z + 2.0 / 13;
  r = r * z + 2.0 / 11;
  r = r * z + 2.0 / 9;
  r = r * z + 2.0 / 7;
  r = r * z + 2.0 / 5;
  r = r * z + 2.0 / 3;
  return __builtin_convertvector(e, Wide) * 0.6931471805599453 + (2.0 * s + s * z * r);
}

// exp y: 0 below -708, infinity from 710.
inline Wide exp(Wide y) {
  const Wide clamped = y < -708.0 ? Wide{} - 708.0 : (y > 710.0 ? Wide{} + 710.0 : y);
  constexpr double magic = 0x1.8p52;  // adding and subtracting it rounds to an integer
  const Wide shifted = clamped * 1.4426950408889634 + magic;
  const Wide k = shifted - magic;
  const Wide r = (clamped - k * 0x1.62e42fefa3800p-1) - k * 0x1.ef35793c76730p-45;
  Wide sum = Wide{} + 1.0 / 6227020800.0;
  sum = sum * r + 1.0 / 479001600.0;
  sum = sum * r + 1.0 / 39916800.0;
  sum = sum * r + 1.0 / 3628800.0;
  sum = sum * r + 1.0 / 362880.0;
  sum = sum * r + 1.0 / 40320.0;
  sum = sum * r + 1.0 / 5040.0;
  sum = sum * r + 1.0 / 720.0;
  sum = sum * r + 1.0 / 120.0;
  sum = sum * r + 1.0 / 24.0;
  sum = sum * r + 1.0 / 6.0;
  sum = sum * r + 0.5;
  sum = sum * r + 1.0;
  sum = sum * r + 1.0;
  const Long power = (double_as_bits(shifted) + 1023) << 52;  // the low bits of shifted are those of k
  return y < -708.0 ? Wide{} : sum * bits_as_double(power);
}
inline Wide square_root(Wide v) {
#if EGT_LANES == 16 && defined(__AVX512F__)
  return reinterpret_cast<Wide>(_mm512_sqrt_pd(reinterpret_cast<__m512d>(v)));
#elif EGT_LANES == 8 && defined(__AVX2__)
  return reinterpret_cast<Wide>(_mm256_sqrt_pd(reinterpret_cast<__m256d>(v)));
#elif EGT_LANES == 4 && defined(__aarch64__)
  return reinterpret_cast<Wide>(vsqrtq_f64(reinterpret_cast<float64x2_t>(v)));
#else
  for (int l = 0; l < wide_lanes; ++l) v[l] = __builtin_sqrt(v[l]);
  return v;
#endif
}

inline Wide larger(Wide a, Wide b) { return a > b ? a : b; }

// Pairs of histograms in lanes. Bins that only one of them has are set to p = q = 1, where every f is 0, and their mass
// is kept apart.
struct Overlap {
  const LooseWide *p, *q, *log_p, *log_q, *log_sum;
  std::int64_t n_bins;
  Wide p_alone, q_alone;

  // sum of term(p, q, log p, log q, log(p + q)), + at_zero Q(p = 0) + slope P(q = 0), with inf * 0 = 0.
  template <class Term>
  Wide sum(double at_zero, double slope, Term term) const {
    Wide total{};
    for (std::int64_t k = 0; k < n_bins; ++k) total += term(Wide(p[k]), Wide(q[k]), log_p[k], log_q[k], log_sum[k]);
    if (at_zero != 0.0) total += q_alone > 0.0 ? q_alone * at_zero : Wide{};
    if (slope != 0.0) total += p_alone > 0.0 ? p_alone * slope : Wide{};
    return total;
  }

  Wide divergence(Divergence which, double a) const {
    constexpr double infinity = __builtin_inf(), log_2 = 0.6931471805599453;
    switch (which) {
      case Divergence::kl:
        return sum(0.0, infinity, [](Wide p, Wide, Wide lp, Wide lq, Wide) { return p * (lp - lq); });
      case Divergence::reverse_kl:
        return sum(infinity, 0.0, [](Wide, Wide q, Wide lp, Wide lq, Wide) { return q * (lq - lp); });
      case Divergence::jensen_shannon:
        return sum(log_2, log_2, [](Wide p, Wide q, Wide lp, Wide lq, Wide ls) {
          const Wide mean = ls - log_2;
          return p * (lp - mean) + q * (lq - mean);
        });
      case Divergence::jeffreys:
        return sum(infinity, infinity, [](Wide p, Wide q, Wide lp, Wide lq, Wide) { return (p - q) * (lp - lq); });
      case Divergence::total_variation:
        return sum(0.5, 0.5, [](Wide p, Wide q, Wide, Wide, Wide) { return 0.5 * larger(p - q, q - p); });
      case Divergence::pearson:
        return sum(1.0, infinity, [](Wide p, Wide q, Wide, Wide, Wide) { return (p - q) * (p - q) / q; });
      case Divergence::neyman:
        return sum(infinity, 1.0, [](Wide p, Wide q, Wide, Wide, Wide) { return (p - q) * (p - q) / p; });
      case Divergence::hellinger:
        return sum(1.0, 1.0, [](Wide p, Wide q, Wide, Wide, Wide) {
          const Wide difference = square_root(p) - square_root(q);
          return difference * difference;
        });
      case Divergence::le_cam:
        return sum(0.5, 0.5, [](Wide p, Wide q, Wide, Wide, Wide) { return 0.5 * (p - q) * (p - q) / (p + q); });
      case Divergence::alpha:
        return sum(a > 0.0 ? 1.0 / a : infinity, a < 1.0 ? 1.0 / (1.0 - a) : infinity,
                   [a](Wide p, Wide q, Wide lp, Wide lq, Wide) {
                     return (exp(a * lp + (1.0 - a) * lq) - a * p - (1.0 - a) * q) / (a * (a - 1.0));
                   });
      case Divergence::hockey_stick: {
        const double offset = a < 1.0 ? 1.0 - a : 0.0;
        return sum(-offset, 1.0,
                   [a, offset](Wide p, Wide q, Wide, Wide, Wide) { return larger(p - a * q, Wide{}) - offset * q; });
      }
      case Divergence::precision_recall: {
        const double offset = a > 1.0 ? a : 1.0;
        return sum(1.0 - offset, a,
                   [a, offset](Wide p, Wide q, Wide, Wide, Wide) { return larger(a * p, q) - offset * q; });
      }
    }
    return Wide{} + __builtin_nan("");
  }
};

void divergences(const std::int64_t* p_counts, const std::int64_t* q_counts, std::int64_t n_bins, double smoothing,
                 double p_norm, double q_norm, const std::int32_t* codes, const double* parameters,
                 std::int64_t n_divergences, double* scratch, double* out, const Stop& stop) {
  typedef std::int64_t LooseSigned __attribute__((vector_size(EGT_LANES * 4), aligned(8)));
  LooseWide* columns[5];
  for (int c = 0; c < 5; ++c) columns[c] = reinterpret_cast<LooseWide*>(scratch + c * n_bins * wide_lanes);
  for (int v = 0; v < together; ++v) {
    Overlap bins{columns[0], columns[1], columns[2], columns[3], columns[4], n_bins, Wide{}, Wide{}};
    for (std::int64_t k = 0; k < n_bins && (k % 1024 != 0 || !stop); ++k) {
      const SignedLong p_count = reinterpret_cast<const LooseSigned*>(p_counts + k * n_lanes)[v];
      const SignedLong q_count = reinterpret_cast<const LooseSigned*>(q_counts + k * n_lanes)[v];
      const Wide p = (__builtin_convertvector(p_count, Wide) + smoothing) * p_norm;
      const Wide q = (__builtin_convertvector(q_count, Wide) + smoothing) * q_norm;
      const auto shared = (p > 0.0) & (q > 0.0);
      const Wide p_k = shared ? p : Wide{} + 1.0, q_k = shared ? q : Wide{} + 1.0;
      bins.p_alone += shared ? Wide{} : p;
      bins.q_alone += shared ? Wide{} : q;
      columns[0][k] = p_k;
      columns[1][k] = q_k;
      columns[2][k] = log(p_k);
      columns[3][k] = log(q_k);
      columns[4][k] = log(p_k + q_k);
    }
    for (std::int64_t f = 0; f < n_divergences && !stop; ++f) {
      reinterpret_cast<LooseWide*>(out + f * n_lanes)[v] =
          bins.divergence(static_cast<Divergence>(codes[f]), parameters[f]);
    }
  }
}

std::int64_t between(const double* values, std::int64_t n, double low, double high) {
  typedef std::int64_t Found __attribute__((vector_size(EGT_LANES * 4)));
  Found found{};
  std::int64_t b = 0;
  for (; b + wide_lanes <= n; b += wide_lanes) {
    const Wide value = widened(values + b);
    found += (value >= low) & (value <= high);
  }
  std::int64_t total = 0;
  for (int l = 0; l < wide_lanes; ++l) total -= found[l];
  for (; b < n; ++b) total += (values[b] >= low) & (values[b] <= high);
  return total;
}

template <bool kClosed>
inline void count_inside(double distance, const double* radii, const std::uint8_t* a_sides, const std::uint8_t* c_sides,
                         std::int64_t n, std::int32_t* a, std::int32_t* c) {
  typedef std::uint8_t Sides __attribute__((vector_size(EGT_LANES / 2), aligned(1)));
  typedef std::int32_t Counts __attribute__((vector_size(EGT_LANES * 2), aligned(4)));
  std::int64_t b = 0;
  for (; b + wide_lanes <= n; b += wide_lanes) {
    const Wide radius = widened(radii + b);
    const auto near = kClosed ? radius >= distance : radius > distance;
    const auto same = *reinterpret_cast<const Sides*>(a_sides + b) == *reinterpret_cast<const Sides*>(c_sides + b);
    const Counts inside = __builtin_convertvector(near, Counts) & __builtin_convertvector(same, Counts);  // 0 or -1
    *reinterpret_cast<Counts*>(a + b) -= inside;
    *reinterpret_cast<Counts*>(c + b) -= inside;
  }
  for (; b < n; ++b) {
    const bool inside = a_sides[b] == c_sides[b] && (kClosed ? distance <= radii[b] : distance < radii[b]);
    a[b] += inside;
    c[b] += inside;
  }
}

void count_inside(double distance, bool closed, const double* radii, const std::uint8_t* a_sides,
                  const std::uint8_t* c_sides, std::int64_t n, std::int32_t* a, std::int32_t* c) {
  (closed ? count_inside<true> : count_inside<false>)(distance, radii, a_sides, c_sides, n, a, c);
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
// clang-format off
const Tile EGT_TILE = {
    EGT_ISA,
    rows_per_panel,
    cols_per_panel,
    pack<float>,
    pack<double>,
    distances,
    rounded_rows,
    rounded_width,
    round<float>,
    round<double>,
    rounded_distances,
    select,
    within,
    cosine,
    product,
    lanes,
    summed * lanes,
    weighted<std::int8_t>,
    weighted<float>,
    n_lanes,
    multinomial,
    draw_rows,
    divergences,
    between,
    count_inside,
    sq_distance<float>,
    sq_distance<double>,
};
// clang-format on

}  // namespace egt::cpu
