#include "cpu/tile.hpp"

#include <cstdlib>
#include <cstring>
#include <utility>

namespace egt::cpu {
namespace {

const Tile& choose() {
#if defined(EGT_X86)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
                      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw");
  const bool popcnt = avx512 && __builtin_cpu_supports("avx512vpopcntdq");
  const std::pair<const Tile*, bool> widest_first[] = {
      {&tile_avx512_popcnt, popcnt}, {&tile_avx512, avx512}, {&tile_avx2, avx2}};
  const char* wanted = std::getenv("EGTMETRICS_ISA");
  bool allowed = !wanted;
  for (const auto& [tile, runs] : widest_first) {
    allowed = allowed || std::strcmp(wanted, tile->isa) == 0;
    if (allowed && runs) return *tile;
  }
#endif
  return tile_generic;
}

}  // namespace

const Tile& tile() {
  static const Tile& chosen = choose();
  return chosen;
}

}  // namespace egt::cpu
