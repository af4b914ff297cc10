// Any processor: four lanes, which every 64-bit x86 and Arm has; compilers lower it elsewhere.
#define EGT_LANES 4
#define EGT_ROWS 4
#define EGT_VECS 2
#define EGT_TILE tile_generic
#define EGT_ISA "generic"
#include "cpu/tile_body.hpp"
