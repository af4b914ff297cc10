// Pairs of a tile that its float32 products leave open, decided by the warp that has found them.
#pragma once

#include <cstdint>

#include "cuda/tile.cuh"

namespace egt::cuda {

// Each lane of a warp brings pairs of its own, as bits of `open`; pair_of(bit) is row * 128 + column of one, within the
// tile whose rows start at x and y. The warp computes the squared distances one after the other, and the lane that
// brought a pair receives use(bit, squared distance). All lanes must call it.
template <class T, class PairOf, class Use>
__device__ void settle(unsigned open, const T* x, const T* y, std::int64_t d, PairOf pair_of, Use use) {
  const int lane = static_cast<int>(threadIdx.x) % warp_size;
  for (;;) {
    const unsigned lanes = __ballot_sync(full_warp, open != 0);
    if (lanes == 0) return;
    const int source = __ffs(static_cast<int>(lanes)) - 1, bit = __ffs(static_cast<int>(open)) - 1;
    const int pair = __shfl_sync(full_warp, open == 0 ? 0 : pair_of(bit), source);
    const double exact = warp_sq_distance(x + pair / 128 * d, y + pair % 128 * d, d);
    if (lane == source) {
      use(bit, exact);
      open &= open - 1;
    }
  }
}

}  // namespace egt::cuda
