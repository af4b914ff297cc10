// Bootstrap counts: replicates side by side in vector lanes, counted where they stay in cache.
#include "egt/bootstrap.hpp"

#include <algorithm>
#include <vector>

#include "cpu/parallel.hpp"
#include "cpu/tile.hpp"

namespace egt {

void bootstrap_counts(std::int64_t n_rows, std::int64_t n_replicates, std::uint64_t seed, std::uint16_t* counts,
                      const Run& run) {
  const cpu::Tile& tile = cpu::tile();
  const std::int64_t lanes = tile.n_lanes;
  cpu::for_each_task((n_replicates + lanes - 1) / lanes, run, [&] {
    return [&, drawn = std::vector<std::uint16_t>(static_cast<std::size_t>(n_rows * lanes))](
               std::int64_t task, const cpu::Stop& stop) mutable {
      const std::int64_t first = task * lanes, n = std::min(lanes, n_replicates - first);
      std::fill(drawn.begin(), drawn.end(), std::uint16_t{0});
      tile.draw_rows(n_rows, static_cast<std::uint32_t>(first), seed, drawn.data(), stop);
      for (std::int64_t row = 0; row < n_rows && !stop; ++row) {
        std::copy_n(drawn.data() + row * lanes, n, counts + row * n_replicates + first);
      }
    };
  });
}

}  // namespace egt
