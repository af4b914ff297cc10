// Compiled with -mavx2 -mfma: 6 x 16, twelve of sixteen registers accumulate.
#define EGT_LANES 8
#define EGT_ROWS 6
#define EGT_VECS 2
#define EGT_TILE tile_avx2
#define EGT_ISA "avx2"
#include "cpu/tile_body.hpp"
