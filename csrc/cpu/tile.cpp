#include "cpu/tile.hpp"

#if defined(EGT_ARM) && defined(__linux__)
#include <sys/auxv.h>
#endif

#include <array>
#include <cstdlib>
#include <iterator>
#include <stdexcept>
#include <string>

namespace egt::cpu {
namespace {

constexpr const Tile* all_tiles[] = {
#if defined(EGT_X86)
    &tile_avx512_vnni, &tile_avx512, &tile_avx2,
#elif defined(EGT_ARM)
    &tile_neon_dot, &tile_neon,
#endif
    &tile_generic, nullptr};
using Tiles = std::array<const Tile*, std::size(all_tiles)>;

bool runs(const Tile* tile) {
#if defined(EGT_X86)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
                      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw");
  if (tile == &tile_avx2) return avx2;
  if (tile == &tile_avx512) return avx512;
  if (tile == &tile_avx512_vnni) {
    return avx512 && __builtin_cpu_supports("avx512vpopcntdq") && __builtin_cpu_supports("avx512vnni");
  }
#elif defined(EGT_ARM)
  if (tile == &tile_neon) return true;
#if defined(__linux__)
  constexpr unsigned long asimddp = 1ul << 20;  // HWCAP_ASIMDDP, which old headers lack
  if (tile == &tile_neon_dot) return (getauxval(AT_HWCAP) & asimddp) != 0;
#elif defined(__APPLE__)
  if (tile == &tile_neon_dot) return true;  // as every Mac with an Arm processor
#endif
#endif
  return tile == &tile_generic;
}

std::string names(const Tile* const* tiles) {
  std::string text;
  for (; *tiles; ++tiles) text += (text.empty() ? "" : ", ") + std::string((*tiles)->isa);
  return text;
}

const Tile& choose() {
  const Tile* const* available = available_tiles();
  const char* wanted = std::getenv("EGTMETRICS_ISA");
  if (!wanted) return **available;
  for (const Tile* const* tile = available; *tile; ++tile) {
    if (std::string((*tile)->isa) == wanted) return **tile;
  }
  std::string reason = "is no instruction set of these kernels";
  for (const Tile* const* tile = compiled_tiles(); *tile; ++tile) {
    if (std::string((*tile)->isa) == wanted) reason = "is an instruction set that this processor lacks";
  }
  throw std::invalid_argument("EGTMETRICS_ISA=" + std::string(wanted) + " " + reason + ", expected one of " +
                              names(available) + "; unset it to use the widest");
}

}  // namespace

const Tile* const* compiled_tiles() { return all_tiles; }

const Tile* const* available_tiles() {
  static const Tiles available = [] {
    Tiles found{};
    std::size_t n = 0;
    for (const Tile* const* tile = compiled_tiles(); *tile; ++tile) {
      if (runs(*tile)) found[n++] = *tile;
    }
    return found;
  }();
  return available.data();
}

const Tile& tile() {
  static const Tile& chosen = choose();
  return chosen;
}

}  // namespace egt::cpu
