// For any 64-bit Arm processor: 12 x 8, 24 of 32 registers accumulate.
#define EGT_LANES 4
#define EGT_ROWS 12
#define EGT_VECS 2
#define EGT_TILE tile_neon
#define EGT_ISA "neon"
#include "cpu/tile_body.hpp"
