// Compiled with what tile_avx512.cpp is, -mavx512vpopcntdq, which counts the bits of the draws in one instruction, and
// -mavx512vnni, which multiplies four bytes where a float is multiplied otherwise.
#define EGT_LANES 16
#define EGT_ROWS 12
#define EGT_VECS 2
#define EGT_TILE tile_avx512_vnni
#define EGT_ISA "avx512-vnni"
#include "cpu/tile_body.hpp"
