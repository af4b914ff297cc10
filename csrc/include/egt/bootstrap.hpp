// Bootstrap replicates of the rows of a set: how often each replicate draws each row, with replacement.
#pragma once

#include "egt/run.hpp"

namespace egt {

// counts[row, b] of n_rows draws of replicate b fall on that row, shape (n_rows, n_replicates). A replicate is a pure
// function of (seed, b, n_rows), in integer arithmetic alone, so that every backend draws the same.
//
// Draws 2 i and 2 i + 1 of replicate b take the low and the high 64 bits w of the Philox block (egt/divergence.hpp)
// under the key (low, high word of seed) at the counter (i, b, 0, 0), and fall on row floor(w n_rows / 2^64). The
// chance of a row differs from 1 / n_rows by less than 2^-64.
//
// n_rows is below 2^31, n_replicates below 2^32. Counts fit into 16 bits: only more than 65535 rows can be drawn more
// than 65535 times, and a row is with a chance below 1 / 65536!, which is less than 10^-287000.
//
// Memory: the result, and up to 64 n_rows bytes per thread.
void bootstrap_counts(std::int64_t n_rows, std::int64_t n_replicates, std::uint64_t seed, std::uint16_t* counts,
                      const Run& run);
void bootstrap_counts(std::int64_t n_rows, std::int64_t n_replicates, std::uint64_t seed, std::uint16_t* counts,
                      const Queue& queue);

}  // namespace egt
