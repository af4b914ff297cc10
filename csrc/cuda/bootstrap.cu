// Bootstrap counts: a block counts those draws of one replicate that fall on some thousand rows, in shared memory. With
// more rows several blocks make the same draws, which costs far less than what the counts are used for.
#include <algorithm>

#include "cuda/device.hpp"
#include "cuda/philox.cuh"
#include "egt/bootstrap.hpp"

namespace egt {
namespace cuda {
namespace {

constexpr int draw_threads = 512;
constexpr int rows_of_block = (48 << 10) / sizeof(unsigned);  // static shared memory ends there
constexpr std::int64_t most_draw_blocks = 1 << 14;

__global__ void __launch_bounds__(draw_threads)
    count_draws(int n_rows, std::int64_t n_replicates, std::int64_t n_blocks, std::uint64_t seed,
                std::uint16_t* counts) {
  __shared__ unsigned drawn[rows_of_block];
  const auto n = static_cast<unsigned>(n_rows), thread = static_cast<unsigned>(threadIdx.x);
  for (std::int64_t block = blockIdx.x; block < n_blocks; block += gridDim.x) {
    const std::int64_t replicate = block % n_replicates;
    const unsigned first = static_cast<unsigned>(block / n_replicates) * rows_of_block;
    const unsigned n_own = min(n - first, static_cast<unsigned>(rows_of_block));
    // A thread clears what it wrote out itself, so it needs not wait for others.
    for (unsigned row = thread; row < n_own; row += draw_threads) drawn[row] = 0;
    __syncthreads();
    const auto count = [&](unsigned low, unsigned high) {
      const std::uint64_t row = (static_cast<std::uint64_t>(high) * n + __umulhi(low, n)) >> 32;
      const unsigned own = static_cast<unsigned>(row) - first;  // beyond n_own for rows before the first, too
      if (own < n_own) atomicAdd(drawn + own, 1u);
    };
    for (unsigned i = thread; i < n - n / 2; i += draw_threads) {
      const uint4 words = philox(make_uint4(i, static_cast<unsigned>(replicate), 0, 0), seed);
      count(words.x, words.y);
      if (i < n / 2) count(words.z, words.w);
    }
    __syncthreads();
    for (unsigned row = thread; row < n_own; row += draw_threads) {
      counts[static_cast<std::int64_t>(first + row) * n_replicates + replicate] =
          static_cast<std::uint16_t>(drawn[row]);
    }
  }
}

}  // namespace
}  // namespace cuda

void bootstrap_counts(std::int64_t n_rows, std::int64_t n_replicates, std::uint64_t seed, std::uint16_t* counts,
                      const Queue& queue) {
  using namespace cuda;
  if (n_replicates == 0) return;
  const DeviceGuard guard(queue);
  const std::int64_t n_blocks = (n_rows + rows_of_block - 1) / rows_of_block * n_replicates;
  EGT_LAUNCH((count_draws), static_cast<unsigned>(std::min(n_blocks, most_draw_blocks)), draw_threads, 0,
             stream_of(queue), static_cast<int>(n_rows), n_replicates, n_blocks, seed, counts);
}

}  // namespace egt
