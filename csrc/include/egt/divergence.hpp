// f-divergences between histograms, and their bootstrap: groups x generators x replicates in one call.
#pragma once

#include "egt/run.hpp"

namespace egt {

// D_f(P || Q) = sum_{q > 0} q f(p / q) + slope_at_infinity P(q = 0), with f as below, f(1) = 0, in nats.
enum class Divergence : std::int32_t {
  kl = 0,                 // t log t
  reverse_kl = 1,         // -log t
  jensen_shannon = 2,     // t log t - (t + 1) log((t + 1) / 2)
  jeffreys = 3,           // (t - 1) log t
  total_variation = 4,    // |t - 1| / 2
  pearson = 5,            // (t - 1)^2
  neyman = 6,             // (1 - t)^2 / t
  hellinger = 7,          // (sqrt t - 1)^2
  le_cam = 8,             // (t - 1)^2 / (2 (t + 1))
  alpha = 9,              // (t^a - a t - (1 - a)) / (a (a - 1)), a not 0 or 1
  hockey_stick = 10,      // max(t - a, 0) - max(1 - a, 0), a >= 0
  precision_recall = 11,  // max(a t, 1) - max(a, 1), a > 0
};

struct DivergenceBootstrap {
  const std::int64_t *p_counts, *q_counts;  // (n_groups, n_bins); totals of a group positive and below 2^31
  std::int64_t n_groups, n_bins;
  const std::int32_t* divergences;  // (n_divergences), read on the host
  const double* parameters;         // (n_divergences), read on the host: the a above; ignored where there is none
  std::int64_t n_divergences;
  double smoothing;  // added to every count before normalising
  std::int64_t n_replicates;
  std::uint64_t seed;
  double* values;      // (n_groups, n_divergences)
  double* replicates;  // (n_groups, n_divergences, n_replicates): both histograms redrawn, as many draws as they count
};

// A redrawn histogram is multinomial and a pure function of (seed, side, group, replicate), in integer arithmetic
// alone, so that every backend draws the same. All draws go down a binary tree over the bins; the node of bins [first,
// last) splits at middle = first + (last - first) / 2, and a binomial decides how many of its draws go left.
//
// Binomial (n, left / total): n uniform numbers are compared with the probability bit by bit, all at once. Of the u
// that equal it in all bits so far, the population count of u random bits says how many have a 1 next; where the
// probability's bit is 1 the others are below it (successes), where it is 0 those are above it. About half are decided
// by every bit. It ends when u = 0, when the probability's remaining bits are all 0, or after 64 bits (chance: n /
// 2^64).
//
// Random bits: Philox4x32-10 (Salmon, Moraes, Dror, Shaw: Parallel random numbers: as easy as 1, 2, 3. SC 2011) under
// the key (low, high word of seed) at the counter (middle, replicate, group, side + 2 kind): four words in order, low
// bits first. For bit t of the probability, the first min(u, 16) random bits are the t % 8-th 16 bits of kind t / 8,
// the others the low bits of kinds 64 + t, 128 + t, 192 + t, ..., 128 bits each.
//
// Memory: the results, and O(n_bins) per thread.
void divergence_bootstrap(const DivergenceBootstrap& in, const Run& run);
void divergence_bootstrap(const DivergenceBootstrap& in, const Queue& queue);

}  // namespace egt
