// Compiled with -march=armv8.2-a+dotprod, which multiplies four bytes where a float is multiplied otherwise.
#define EGT_LANES 4
#define EGT_ROWS 12
#define EGT_VECS 2
#define EGT_TILE tile_neon_dot
#define EGT_ISA "neon-dot"
#include "cpu/tile_body.hpp"
