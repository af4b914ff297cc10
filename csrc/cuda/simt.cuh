// What kernel sources include instead of the CUDA runtime: macros for the two constructs that only nvcc can read.
//
// tests/simt compiles the same sources with a host compiler, against its own cuda_runtime.h, and defines EGT_SIMT.
#pragma once

#include <cuda_runtime.h>

#ifndef EGT_SIMT
// EGT_LAUNCH((kernel<T, 4>), grid, block, bytes, stream, arguments...): `bytes` of dynamic shared memory.
#define EGT_LAUNCH(kernel, grid, block, bytes, stream, ...)          \
  do {                                                               \
    auto* egt_kernel = kernel;                                       \
    egt_kernel<<<(grid), (block), (bytes), (stream)>>>(__VA_ARGS__); \
    ::egt::cuda::check(cudaGetLastError(), #kernel);                 \
  } while (false)

// Declares `type* name`, the dynamic shared memory of the block.
#define EGT_DYNAMIC_SHARED(type, name)                               \
  extern __shared__ __align__(16) unsigned char egt_dynamic_bytes[]; \
  type* const name = reinterpret_cast<type*>(egt_dynamic_bytes)
#endif
