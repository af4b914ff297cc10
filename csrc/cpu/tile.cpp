#include "cpu/tile.hpp"

#include <cstdlib>
#include <cstring>

namespace egt::cpu {
namespace {

const Tile& choose() {
#if defined(EGT_X86)
  const char* wish = std::getenv("EGTMETRICS_ISA");
  const auto allowed = [wish](const char* isa) {
    return !wish || std::strcmp(wish, isa) == 0 || (std::strcmp(wish, "avx512") == 0 && std::strcmp(isa, "avx2") == 0);
  };
  __builtin_cpu_init();
  if (allowed("avx512") && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw")) {
    return tile_avx512;
  }
  if (allowed("avx2") && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return tile_avx2;
#endif
  return tile_generic;
}

}  // namespace

const Tile& tile() {
  static const Tile& chosen = choose();
  return chosen;
}

}  // namespace egt::cpu
