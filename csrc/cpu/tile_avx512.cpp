// Compiled with -mavx512f -mavx512dq -mavx512vl -mavx512bw -mfma: 12 x 32, 24 of 32 registers accumulate.
#define EGT_LANES 16
#define EGT_ROWS 12
#define EGT_VECS 2
#define EGT_TILE tile_avx512
#define EGT_ISA "avx512"
#include "cpu/tile_body.hpp"
