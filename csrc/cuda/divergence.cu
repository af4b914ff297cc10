// Bootstrap of f-divergences: a warp is 32 replicates of one group and walks the tree of its bins, so that only the
// counts differ between its lanes. A block shares the first levels of the tree among its warps, and each then walks a
// subtree of its own. Bins are visited in order and added to the sums at once: no histogram is stored.
#include <algorithm>
#include <limits>

#include "cuda/philox.cuh"
#include "cuda/tile.cuh"
#include "egt/divergence.hpp"

namespace egt {
namespace cuda {
namespace {

constexpr int most_levels = 3, most_warps = 1 << most_levels;
constexpr int most_threads = warp_size * most_warps;
constexpr int most_terms = 20;  // divergences in one pass: their sums fill the shared memory of a block
constexpr std::int64_t most_blocks = 1 << 12;
constexpr std::int64_t most_cells = std::int64_t{1} << 26;  // cumulative counts in memory, if one group has not more
constexpr std::int64_t most_draws = (std::int64_t{1} << 31) - 1;

// q f(p / q) summed over the bins that both have, + at_zero Q(p = 0) + slope P(q = 0).
struct Term {
  Divergence which;
  double a;
  double factor;  // of alpha: 1 / (a (a - 1)); of the hinges: f at 1 before it is shifted to 0
  double at_zero;
  double slope;
};

struct Terms {
  Term term[most_terms];
  int size;
  bool logs, log_sum;  // whether any term needs them
};

Term term_of(Divergence which, double a) {
  constexpr double infinity = std::numeric_limits<double>::infinity(), log_2 = 0.6931471805599453;
  switch (which) {
    case Divergence::kl:
      return {which, a, 0.0, 0.0, infinity};
    case Divergence::reverse_kl:
      return {which, a, 0.0, infinity, 0.0};
    case Divergence::jensen_shannon:
      return {which, a, 0.0, log_2, log_2};
    case Divergence::jeffreys:
      return {which, a, 0.0, infinity, infinity};
    case Divergence::total_variation:
    case Divergence::le_cam:
      return {which, a, 0.0, 0.5, 0.5};
    case Divergence::pearson:
      return {which, a, 0.0, 1.0, infinity};
    case Divergence::neyman:
      return {which, a, 0.0, infinity, 1.0};
    case Divergence::hellinger:
      return {which, a, 0.0, 1.0, 1.0};
    case Divergence::alpha:
      return {which, a, 1.0 / (a * (a - 1.0)), a > 0.0 ? 1.0 / a : infinity, a < 1.0 ? 1.0 / (1.0 - a) : infinity};
    case Divergence::hockey_stick: {
      const double offset = std::max(1.0 - a, 0.0);
      return {which, a, offset, -offset, 1.0};
    }
    case Divergence::precision_recall:
      break;
  }
  const double offset = std::max(a, 1.0);
  return {which, a, offset, 1.0 - offset, a};
}

Terms terms_of(const std::int32_t* divergences, const double* parameters, std::int64_t size) {
  Terms terms{};
  terms.size = static_cast<int>(size);
  for (int f = 0; f < terms.size; ++f) {
    const auto which = static_cast<Divergence>(divergences[f]);
    terms.term[f] = term_of(which, parameters[f]);
    terms.log_sum |= which == Divergence::jensen_shannon;
    terms.logs |= terms.log_sum || which == Divergence::kl || which == Divergence::reverse_kl ||
                  which == Divergence::jeffreys || which == Divergence::alpha;
  }
  return terms;
}

// Shared memory of a block: a row of sums for each term, and two for the masses that only one side has.
int rows_of(const Terms& terms) { return terms.size + 2; }
std::size_t sums_bytes(const Terms& terms, int threads) {
  return static_cast<std::size_t>(rows_of(terms)) * static_cast<std::size_t>(threads) * sizeof(double);
}

__device__ int thread_in_block() { return static_cast<int>(threadIdx.y) * warp_size + static_cast<int>(threadIdx.x); }
__device__ int threads_in_block() { return static_cast<int>(blockDim.y) * warp_size; }

__device__ void clear(double* sums, int n_rows) {
  for (int row = 0; row < n_rows; ++row) sums[row * threads_in_block() + thread_in_block()] = 0.0;
}

// Adds a bin to the sums of this thread.
__device__ void add_bin(const Terms& terms, double p, double q, double* sums) {
  const int stride = threads_in_block();
  double* const own = sums + thread_in_block();
  if (!(p > 0.0 && q > 0.0)) {
    own[terms.size * stride] += p;
    own[(terms.size + 1) * stride] += q;
    return;
  }
  double log_p = 0.0, log_q = 0.0, log_mean = 0.0;
  if (terms.logs) {
    log_p = log(p);
    log_q = log(q);
  }
  if (terms.log_sum) log_mean = log(0.5 * (p + q));
  const double difference = p - q;
  for (int f = 0; f < terms.size; ++f) {
    const double a = terms.term[f].a, factor = terms.term[f].factor;
    double value = 0.0;
    switch (terms.term[f].which) {
      case Divergence::kl:
        value = p * (log_p - log_q);
        break;
      case Divergence::reverse_kl:
        value = q * (log_q - log_p);
        break;
      case Divergence::jensen_shannon:
        value = p * (log_p - log_mean) + q * (log_q - log_mean);
        break;
      case Divergence::jeffreys:
        value = difference * (log_p - log_q);
        break;
      case Divergence::total_variation:
        value = 0.5 * fabs(difference);
        break;
      case Divergence::pearson:
        value = difference * difference / q;
        break;
      case Divergence::neyman:
        value = difference * difference / p;
        break;
      case Divergence::hellinger: {
        const double root = sqrt(p) - sqrt(q);
        value = root * root;
        break;
      }
      case Divergence::le_cam:
        value = 0.5 * difference * difference / (p + q);
        break;
      case Divergence::alpha:
        value = (exp(a * log_p + (1.0 - a) * log_q) - a * p - (1.0 - a) * q) * factor;
        break;
      case Divergence::hockey_stick:
        value = fmax(p - a * q, 0.0) - factor * q;
        break;
      case Divergence::precision_recall:
        value = fmax(a * p, q) - factor * q;
        break;
    }
    own[f * stride] += value;
  }
}

// A row of sums over the warps of the block, for this thread's lane.
__device__ double over_warps(const double* sums, int row) {
  double total = 0.0;
  for (int warp = 0; warp < static_cast<int>(blockDim.y); ++warp) {
    total += sums[row * threads_in_block() + warp * warp_size + static_cast<int>(threadIdx.x)];
  }
  return total;
}

__device__ double with_lone_masses(const Term& term, double total, double p_alone, double q_alone) {
  if (p_alone > 0.0) total += p_alone * term.slope;  // an infinite slope times no mass is 0
  if (q_alone > 0.0) total += q_alone * term.at_zero;
  return total;
}

__device__ double not_a_number() { return __longlong_as_double(0x7FF8000000000000LL); }

// Running sums of both histograms of a group, cumulative (2, n_bins + 1). The last is the number of draws, or 0
// where the counts are not a histogram's: results are then not a number. A block for each side of each group.
__global__ void __launch_bounds__(most_threads) accumulate(const std::int64_t* p_counts, const std::int64_t* q_counts,
                                                           std::int64_t n_groups, int n_bins, unsigned* cumulative) {
  __shared__ unsigned long long warp_totals[2][most_warps];
  const int lane = static_cast<int>(threadIdx.x), warp = static_cast<int>(threadIdx.y);
  for (std::int64_t row = blockIdx.x; row < 2 * n_groups; row += gridDim.x) {
    const std::int64_t* const counts = (row % 2 == 0 ? p_counts : q_counts) + row / 2 * n_bins;
    unsigned* const out = cumulative + row * (static_cast<std::int64_t>(n_bins) + 1);
    if (thread_in_block() == 0) out[0] = 0;
    unsigned long long before = 0;
    int now = 0;
    for (std::int64_t start = 0; start < n_bins; start += most_threads, now ^= 1) {
      const std::int64_t k = start + thread_in_block(), count = k < n_bins ? counts[k] : 0;
      // Sums that hold an impossible count exceed most_draws, and none overflows.
      unsigned long long sum =
          static_cast<unsigned long long>(count < 0 || count > most_draws ? most_draws + 1 : count);
      for (int offset = 1; offset < warp_size; offset *= 2) {
        const unsigned long long other = __shfl_up_sync(full_warp, sum, static_cast<unsigned>(offset));
        if (lane >= offset) sum += other;
      }
      if (lane == warp_size - 1) warp_totals[now][warp] = sum;
      __syncthreads();
      sum += before;
      for (int other = 0; other < most_warps; ++other) {
        if (other < warp) sum += warp_totals[now][other];
        before += warp_totals[now][other];
      }
      const bool possible = sum <= static_cast<unsigned long long>(most_draws);
      if (k < n_bins) out[k + 1] = possible ? static_cast<unsigned>(sum) : 0;
    }
    __syncthreads();
  }
}

// Divergences of the counts themselves, values (n_groups, n_divergences): a block for each group.
__global__ void __launch_bounds__(most_threads)
    evaluate_counts(const std::int64_t* p_counts, const std::int64_t* q_counts, const unsigned* cumulative,
                    std::int64_t n_groups, int n_bins, Terms terms, std::int64_t n_divergences, double smoothing,
                    double* values) {
  EGT_DYNAMIC_SHARED(double, sums);
  const std::int64_t width = static_cast<std::int64_t>(n_bins) + 1;
  for (std::int64_t group = blockIdx.x; group < n_groups; group += gridDim.x) {
    const unsigned p_total = cumulative[2 * group * width + n_bins],
                   q_total = cumulative[(2 * group + 1) * width + n_bins];
    const double p_norm = 1.0 / (p_total + smoothing * n_bins), q_norm = 1.0 / (q_total + smoothing * n_bins);
    clear(sums, terms.size + 2);
    for (std::int64_t k = thread_in_block(); k < n_bins; k += most_threads) {
      add_bin(terms, (static_cast<double>(p_counts[group * n_bins + k]) + smoothing) * p_norm,
              (static_cast<double>(q_counts[group * n_bins + k]) + smoothing) * q_norm, sums);
    }
    __syncthreads();
    const double p_alone = warp_sum(over_warps(sums, terms.size));
    const double q_alone = warp_sum(over_warps(sums, terms.size + 1));
    for (int f = static_cast<int>(threadIdx.y); f < terms.size; f += most_warps) {
      const double total = warp_sum(over_warps(sums, f));
      if (threadIdx.x != 0) continue;
      values[group * n_divergences + f] =
          p_total == 0 || q_total == 0 ? not_a_number() : with_lone_masses(terms.term[f], total, p_alone, q_alone);
    }
    __syncthreads();
  }
}

// One replicate's random numbers for one side of a group.
struct Stream {
  unsigned replicate, group, side;
  std::uint64_t seed;

  // At node `middle`.
  __device__ uint4 words(unsigned middle, unsigned kind) const {
    return philox(make_uint4(middle, replicate, group, side + 2 * kind), seed);
  }
};

// How many of the low n bits of a word are 1.
__device__ unsigned ones_among(unsigned word, unsigned n) {
  return static_cast<unsigned>(__popc(n < 32 ? word & ((1u << n) - 1u) : word));
}

__device__ unsigned less(unsigned n, unsigned taken) { return n > taken ? n - taken : 0; }

// Successes among n draws with probability left / total; see include/egt/divergence.hpp. total < 2^31.
__device__ unsigned binomial(unsigned n, unsigned left, unsigned total, int middle, const Stream& stream) {
  if (left == total) return n;
  const auto node = static_cast<unsigned>(middle);
  unsigned undecided = n, successes = 0, remainder = left;
  uint4 fields{};
  for (unsigned t = 0; t < 64 && remainder > 0 && undecided > 0; ++t) {
    remainder *= 2;
    const bool bit = remainder >= total;
    if (bit) remainder -= total;
    if (t % 8 == 0) {
      fields = stream.words(node, t / 8);
    } else if (t % 2 == 0) {
      fields = make_uint4(fields.y, fields.z, fields.w, 0);
    }
    unsigned ones = ones_among(t % 2 == 0 ? fields.x : fields.x >> 16, undecided < 16 ? undecided : 16);
    unsigned further = less(undecided, 16);
    for (unsigned kind = 64 + t; further > 0; kind += 64) {
      const uint4 words = stream.words(node, kind);
      ones += ones_among(words.x, further) + ones_among(words.y, less(further, 32)) +
              ones_among(words.z, less(further, 64)) + ones_among(words.w, less(further, 96));
      further = less(further, 128);
    }
    if (bit) successes += undecided - ones;
    undecided = bit ? ones : undecided - ones;
  }
  return successes;
}

// The bins of a node of the tree.
struct Node {
  int first, last;
  __device__ int middle() const { return first + (last - first) / 2; }
};

// The index-th node of a level.
__device__ Node node_of(int n_bins, int level, int index) {
  Node node{0, n_bins};
  for (int l = level - 1; l >= 0; --l) {
    const int middle = node.middle();
    if (index >> l & 1) {
      node.first = middle;
    } else {
      node.last = middle;
    }
  }
  return node;
}

__device__ unsigned draws_to_the_left(unsigned n, Node node, const unsigned* cumulative, const Stream& stream) {
  const int middle = node.middle();
  const unsigned before = cumulative[node.first];
  return binomial(n, cumulative[middle] - before, cumulative[node.last] - before, middle, stream);
}

// Replicates [32 b, 32 b + 32) of a group in each block, lane by lane, bins shared among 2^n_levels warps; replicates
// (n_groups, n_divergences, n_replicates).
__global__ void __launch_bounds__(most_threads, 3)
    redraw(const unsigned* cumulative, std::int64_t first_group, std::int64_t n_groups, int n_bins, int n_levels,
           Terms terms, std::int64_t n_divergences, double smoothing, std::int64_t n_replicates, std::uint64_t seed,
           double* replicates) {
  EGT_DYNAMIC_SHARED(double, sums);
  __shared__ unsigned node_draws[2][most_warps][warp_size];
  const int lane = static_cast<int>(threadIdx.x), warp = static_cast<int>(threadIdx.y);
  const int n_warps = 1 << n_levels;
  const std::int64_t width = static_cast<std::int64_t>(n_bins) + 1;
  const std::int64_t blocks_per_group = (n_replicates + warp_size - 1) / warp_size;
  for (std::int64_t block = blockIdx.x; block < n_groups * blocks_per_group; block += gridDim.x) {
    const std::int64_t group = block / blocks_per_group, replicate = block % blocks_per_group * warp_size + lane;
    const unsigned* const p_cumulative = cumulative + 2 * group * width;
    const unsigned* const q_cumulative = p_cumulative + width;
    const unsigned p_total = p_cumulative[n_bins], q_total = q_cumulative[n_bins];
    const bool possible = p_total > 0 && q_total > 0, wanted = replicate < n_replicates;
    const Stream p_stream{static_cast<unsigned>(replicate), static_cast<unsigned>(first_group + group), 0, seed};
    const Stream q_stream{p_stream.replicate, p_stream.group, 1, seed};
    if (possible) {
      // The i-th node of a level stands at the first of the warps whose subtrees it holds.
      if (warp == 0) {
        node_draws[0][0][lane] = wanted ? p_total : 0;
        node_draws[1][0][lane] = wanted ? q_total : 0;
      }
      __syncthreads();
      for (int level = 0; level < n_levels; ++level) {
        if (warp < 2 << level) {
          const int side = warp % 2, index = warp / 2, at = index << (n_levels - level);
          const unsigned n = node_draws[side][at][lane];
          const Stream stream{p_stream.replicate, p_stream.group, static_cast<unsigned>(side), seed};
          const unsigned left =
              draws_to_the_left(n, node_of(n_bins, level, index), p_cumulative + side * width, stream);
          node_draws[side][at][lane] = left;
          node_draws[side][at + (n_warps >> (level + 1))][lane] = n - left;
        }
        __syncthreads();
      }
      clear(sums, terms.size + 2);
      const double p_norm = 1.0 / (p_total + smoothing * n_bins), q_norm = 1.0 / (q_total + smoothing * n_bins);
      struct {
        int last;
        unsigned p, q;
      } waiting[32];  // right halves, at most one a level
      int n_waiting = 0;
      Node node = node_of(n_bins, n_levels, warp);
      unsigned p = node_draws[0][warp][lane], q = node_draws[1][warp][lane];
      for (;;) {
        while (node.last - node.first > 1) {
          const unsigned p_left = draws_to_the_left(p, node, p_cumulative, p_stream);
          const unsigned q_left = draws_to_the_left(q, node, q_cumulative, q_stream);
          waiting[n_waiting].last = node.last;
          waiting[n_waiting].p = p - p_left;
          waiting[n_waiting].q = q - q_left;
          ++n_waiting;
          node.last = node.middle();
          p = p_left;
          q = q_left;
        }
        add_bin(terms, (p + smoothing) * p_norm, (q + smoothing) * q_norm, sums);
        if (n_waiting == 0) break;
        --n_waiting;
        node = {node.last, waiting[n_waiting].last};
        p = waiting[n_waiting].p;
        q = waiting[n_waiting].q;
      }
      __syncthreads();  // and once more before a warp clears its sums for the next replicates
    }
    if (wanted) {
      const double p_alone = possible ? over_warps(sums, terms.size) : 0.0;
      const double q_alone = possible ? over_warps(sums, terms.size + 1) : 0.0;
      for (int f = warp; f < terms.size; f += n_warps) {
        replicates[(group * n_divergences + f) * n_replicates + replicate] =
            possible ? with_lone_masses(terms.term[f], over_warps(sums, f), p_alone, q_alone) : not_a_number();
      }
    }
  }
}

unsigned grid_of(std::int64_t n_blocks) { return static_cast<unsigned>(std::min(n_blocks, most_blocks)); }

}  // namespace
}  // namespace cuda

void divergence_bootstrap(const DivergenceBootstrap& in, const Queue& queue) {
  using namespace cuda;
  const DeviceGuard guard(queue);
  const cudaStream_t stream = stream_of(queue);
  const int width = static_cast<int>(in.n_bins);
  int n_levels = 0;
  while (n_levels < most_levels && in.n_bins >= 2 << n_levels) ++n_levels;
  const dim3 whole_block(warp_size, most_warps), block(warp_size, 1u << n_levels);
  const std::int64_t row = 2 * (in.n_bins + 1),
                     fitting = std::min(in.n_groups, std::max(most_cells / row, std::int64_t{1}));
  with_less_memory(fitting, 1, [&](std::int64_t groups) {
    const Buffer<unsigned> cumulative(queue, groups * row);
    for (std::int64_t first = 0; first < in.n_groups; first += groups) {
      const std::int64_t now = std::min(groups, in.n_groups - first);
      const std::int64_t *p = in.p_counts + first * in.n_bins, *q = in.q_counts + first * in.n_bins;
      EGT_LAUNCH((accumulate), grid_of(2 * now), whole_block, 0, stream, p, q, now, width, cumulative.get());
      for (std::int64_t f = 0; f < in.n_divergences; f += most_terms) {
        const auto terms =
            terms_of(in.divergences + f, in.parameters + f, std::min<std::int64_t>(most_terms, in.n_divergences - f));
        EGT_LAUNCH((evaluate_counts), grid_of(now), whole_block, sums_bytes(terms, most_threads), stream, p, q,
                   cumulative.get(), now, width, terms, in.n_divergences, in.smoothing,
                   in.values + first * in.n_divergences + f);
        if (in.n_replicates == 0) continue;
        EGT_LAUNCH((redraw), grid_of(now * ((in.n_replicates + warp_size - 1) / warp_size)), block,
                   sums_bytes(terms, warp_size << n_levels), stream, cumulative.get(), first, now, width, n_levels,
                   terms, in.n_divergences, in.smoothing, in.n_replicates, in.seed,
                   in.replicates + (first * in.n_divergences + f) * in.n_replicates);
      }
    }
  });
}

}  // namespace egt
