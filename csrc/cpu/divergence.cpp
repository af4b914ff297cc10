// Bootstrap of f-divergences: replicates side by side in vector lanes, drawn and evaluated by the tiles.
#include "egt/divergence.hpp"

#include <algorithm>
#include <numeric>
#include <vector>

#include "cpu/parallel.hpp"
#include "cpu/tile.hpp"

namespace egt {

void divergence_bootstrap(const std::int64_t* p_counts, const std::int64_t* q_counts, std::int64_t n_groups,
                          std::int64_t n_bins, const std::int32_t* divergences, const double* parameters,
                          std::int64_t n_divergences, double smoothing, std::int64_t n_replicates, std::uint64_t seed,
                          double* values, double* replicates, const Run& run) {
  const cpu::Tile& tile = cpu::tile();
  const std::int64_t lanes = tile.n_lanes;
  using Counts = std::vector<std::int64_t>;
  struct Side {
    Counts cumulative, lanes;
    double norm = 0.0;
  };
  const auto cells = static_cast<std::size_t>(n_bins * lanes);
  cpu::for_each_task(n_groups, run, [&] {
    const Side side{Counts(static_cast<std::size_t>(n_bins) + 1), Counts(cells)};
    return [&, sides = std::vector<Side>(2, side), scratch = std::vector<double>(5 * cells),
            out = std::vector<double>(static_cast<std::size_t>(n_divergences * lanes))](std::int64_t group,
                                                                                        const cpu::Stop& stop) mutable {
      const auto evaluate = [&] {
        tile.divergences(sides[0].lanes.data(), sides[1].lanes.data(), n_bins, smoothing, sides[0].norm, sides[1].norm,
                         divergences, parameters, n_divergences, scratch.data(), out.data());
      };
      for (int s = 0; s < 2; ++s) {
        const std::int64_t* counts = (s == 0 ? p_counts : q_counts) + group * n_bins;
        Side& own = sides[static_cast<std::size_t>(s)];
        std::partial_sum(counts, counts + n_bins, own.cumulative.begin() + 1);
        own.norm = 1.0 / (static_cast<double>(own.cumulative.back()) + smoothing * static_cast<double>(n_bins));
        for (std::int64_t k = 0; k < n_bins; ++k) std::fill_n(own.lanes.begin() + k * lanes, lanes, counts[k]);
      }
      evaluate();
      for (std::int64_t f = 0; f < n_divergences; ++f) {
        values[group * n_divergences + f] = out[static_cast<std::size_t>(f * lanes)];
      }
      for (std::int64_t b = 0; b < n_replicates && !stop; b += lanes) {
        for (std::uint32_t s = 0; s < 2; ++s) {
          tile.multinomial(sides[s].cumulative.data(), n_bins, static_cast<std::uint32_t>(b),
                           static_cast<std::uint32_t>(group), s, seed, sides[s].lanes.data());
        }
        evaluate();
        for (std::int64_t f = 0; f < n_divergences; ++f) {
          std::copy_n(out.begin() + f * lanes, std::min(lanes, n_replicates - b),
                      replicates + (group * n_divergences + f) * n_replicates + b);
        }
      }
    };
  });
}

}  // namespace egt
