// Bootstrap of f-divergences: replicates side by side in vector lanes, drawn and evaluated by the tiles.
#include "egt/divergence.hpp"

#include <algorithm>
#include <array>
#include <memory>
#include <numeric>
#include <vector>

#include "cpu/parallel.hpp"
#include "cpu/tile.hpp"

namespace egt {

void divergence_bootstrap(const DivergenceBootstrap& in, const Run& run) {
  const cpu::Tile& tile = cpu::tile();
  const std::int64_t lanes = tile.n_lanes;
  // Not cleared, which may take seconds where there are many bins: the pages are touched where a stop is seen.
  struct Side {
    std::unique_ptr<std::int64_t[]> cumulative, lanes;
    double norm = 0.0;
  };
  const auto cells = static_cast<std::size_t>(in.n_bins * lanes);
  const auto new_side = [&] {
    return Side{std::unique_ptr<std::int64_t[]>(new std::int64_t[static_cast<std::size_t>(in.n_bins) + 1]),
                std::unique_ptr<std::int64_t[]>(new std::int64_t[cells])};
  };
  cpu::for_each_task(in.n_groups, run, [&] {
    return [&, sides = std::array<Side, 2>{new_side(), new_side()},
            scratch = std::unique_ptr<double[]>(new double[5 * cells]),
            out = std::vector<double>(static_cast<std::size_t>(in.n_divergences * lanes))](
               std::int64_t group, const cpu::Stop& stop) mutable {
      const auto evaluate = [&] {
        tile.divergences(sides[0].lanes.get(), sides[1].lanes.get(), in.n_bins, in.smoothing, sides[0].norm,
                         sides[1].norm, in.divergences, in.parameters, in.n_divergences, scratch.get(), out.data(),
                         stop);
      };
      for (int s = 0; s < 2; ++s) {
        const std::int64_t* counts = (s == 0 ? in.p_counts : in.q_counts) + group * in.n_bins;
        Side& own = sides[static_cast<std::size_t>(s)];
        own.cumulative[0] = 0;
        std::partial_sum(counts, counts + in.n_bins, own.cumulative.get() + 1);
        own.norm = 1.0 / (static_cast<double>(own.cumulative[static_cast<std::size_t>(in.n_bins)]) +
                          in.smoothing * static_cast<double>(in.n_bins));
        for (std::int64_t k = 0; k < in.n_bins && !stop; ++k)
          std::fill_n(own.lanes.get() + k * lanes, lanes, counts[k]);
      }
      evaluate();
      for (std::int64_t f = 0; f < in.n_divergences; ++f) {
        in.values[group * in.n_divergences + f] = out[static_cast<std::size_t>(f * lanes)];
      }
      for (std::int64_t b = 0; b < in.n_replicates && !stop; b += lanes) {
        for (std::uint32_t s = 0; s < 2; ++s) {
          tile.multinomial(sides[s].cumulative.get(), in.n_bins, static_cast<std::uint32_t>(b),
                           static_cast<std::uint32_t>(group), s, in.seed, sides[s].lanes.get(), stop);
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
