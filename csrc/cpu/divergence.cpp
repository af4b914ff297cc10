// Bootstrap of f-divergences: replicates side by side in vector lanes, drawn and evaluated by the tiles.
#include "egt/divergence.hpp"

#include <algorithm>
#include <numeric>
#include <vector>

#include "cpu/parallel.hpp"
#include "cpu/tile.hpp"

namespace egt {

void divergence_bootstrap(const DivergenceBootstrap& in, const Run& run) {
  const cpu::Tile& tile = cpu::tile();
  const std::int64_t lanes = tile.n_lanes;
  using Counts = std::vector<std::int64_t>;
  struct Side {
    Counts cumulative, lanes;
    double norm = 0.0;
  };
  const auto cells = static_cast<std::size_t>(in.n_bins * lanes);
  cpu::for_each_task(in.n_groups, run, [&] {
    const Side side{Counts(static_cast<std::size_t>(in.n_bins) + 1), Counts(cells)};
    return [&, sides = std::vector<Side>(2, side), scratch = std::vector<double>(5 * cells),
            out = std::vector<double>(static_cast<std::size_t>(in.n_divergences * lanes))](
               std::int64_t group, const cpu::Stop& stop) mutable {
      const auto evaluate = [&] {
        tile.divergences(sides[0].lanes.data(), sides[1].lanes.data(), in.n_bins, in.smoothing, sides[0].norm,
                         sides[1].norm, in.divergences, in.parameters, in.n_divergences, scratch.data(), out.data());
      };
      for (int s = 0; s < 2; ++s) {
        const std::int64_t* counts = (s == 0 ? in.p_counts : in.q_counts) + group * in.n_bins;
        Side& own = sides[static_cast<std::size_t>(s)];
        std::partial_sum(counts, counts + in.n_bins, own.cumulative.begin() + 1);
        own.norm = 1.0 / (static_cast<double>(own.cumulative.back()) + in.smoothing * static_cast<double>(in.n_bins));
        for (std::int64_t k = 0; k < in.n_bins; ++k) std::fill_n(own.lanes.begin() + k * lanes, lanes, counts[k]);
      }
      evaluate();
      for (std::int64_t f = 0; f < in.n_divergences; ++f) {
        in.values[group * in.n_divergences + f] = out[static_cast<std::size_t>(f * lanes)];
      }
      for (std::int64_t b = 0; b < in.n_replicates && !stop; b += lanes) {
        for (std::uint32_t s = 0; s < 2; ++s) {
          tile.multinomial(sides[s].cumulative.data(), in.n_bins, static_cast<std::uint32_t>(b),
                           static_cast<std::uint32_t>(group), s, in.seed, sides[s].lanes.data());
        }
        evaluate();
        for (std::int64_t f = 0; f < in.n_divergences; ++f) {
          std::copy_n(out.begin() + f * lanes, std::min(lanes, in.n_replicates - b),
                      in.replicates + (group * in.n_divergences + f) * in.n_replicates + b);
        }
      }
    };
  });
}

}  // namespace egt
