// Random words that a counter gives.
#pragma once

#include <cstdint>

#include "cuda/simt.cuh"

namespace egt::cuda {

// Philox4x32-10; see include/egt/divergence.hpp.
__device__ inline uint4 philox(uint4 x, std::uint64_t seed) {
  unsigned k0 = static_cast<unsigned>(seed), k1 = static_cast<unsigned>(seed >> 32);
#pragma unroll
  for (int round = 0; round < 10; ++round) {
    x = make_uint4(__umulhi(x.z, 0xCD9E8D57u) ^ x.y ^ k0, x.z * 0xCD9E8D57u, __umulhi(x.x, 0xD2511F53u) ^ x.w ^ k1,
                   x.x * 0xD2511F53u);
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return x;
}

}  // namespace egt::cuda
