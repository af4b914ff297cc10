// Compiled with what tile_avx512.cpp is, and -mavx512vpopcntdq, which counts the bits of the draws in one instruction.
#define EGT_LANES 16
#define EGT_ROWS 12
#define EGT_VECS 2
#define EGT_TILE tile_avx512_popcnt
#define EGT_ISA "avx512-popcnt"
#include "cpu/tile_body.hpp"
