// What the kernels are made of, a piece at a time: compiled by nvcc for tests/ptx/test_nvcc.py alone.

extern "C" {

__global__ void double_functions(const double* x, const double* y, int n, double* out) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i >= n) return;
  int exponent = 0;
  out[i] = log(x[i]);
  out[n + i] = pow(x[i], y[i]);
  out[2 * n + i] = exp(y[i]);
  out[3 * n + i] = cos(x[i]);
  out[4 * n + i] = sqrt(x[i]);
  out[5 * n + i] = x[i] / y[i];
  out[6 * n + i] = frexp(x[i], &exponent);
  out[7 * n + i] = exponent;
  out[8 * n + i] = ldexp(y[i], i % 60 - 30);
  out[9 * n + i] = fmax(fmin(x[i], y[i]), fabs(y[i]) - 3.0);
  out[10 * n + i] = fma(x[i], y[i], -x[i]);
  out[11 * n + i] = log1p(x[i]);
}

__global__ void float_functions(const float* x, const float* y, int n, float* out) {
  const int i = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (i >= n) return;
  out[i] = logf(x[i]);
  out[n + i] = powf(x[i], y[i]);
  out[2 * n + i] = expf(y[i]);
  out[3 * n + i] = cosf(x[i]);
  out[4 * n + i] = sqrtf(x[i]);
  out[5 * n + i] = x[i] / y[i];
  out[6 * n + i] = __expf(y[i]);
  out[7 * n + i] = rsqrtf(x[i]);
  out[8 * n + i] = fmaf(x[i], y[i], -x[i]);
  out[9 * n + i] = __int_as_float(__float_as_int(x[i]) ^ 1);
}

__global__ void whole_numbers(const long long* x, const long long* y, int n, long long* out) {
  const int i = static_cast<int>(threadIdx.x);
  if (i >= n) return;
  const auto a = static_cast<unsigned long long>(x[i]), b = static_cast<unsigned long long>(y[i]);
  const auto low_a = static_cast<unsigned>(a), low_b = static_cast<unsigned>(b);
  out[i] = y[i] ? x[i] / y[i] : 0;
  out[n + i] = y[i] ? x[i] % y[i] : 0;
  out[2 * n + i] = b ? static_cast<long long>(a / b) : 0;
  out[3 * n + i] = static_cast<long long>(__umul64hi(a, b));
  out[4 * n + i] = __mul64hi(x[i], y[i]);
  out[5 * n + i] = __umulhi(low_a, low_b);
  out[6 * n + i] = __popcll(a) * 1000000 + __popc(low_a) * 1000 + __clz(static_cast<int>(low_a));
  out[7 * n + i] = __ffsll(x[i]) * 1000 + __clzll(x[i]);
  out[8 * n + i] = __byte_perm(low_a, low_b, 0x3715);
  out[9 * n + i] = __funnelshift_l(low_a, low_b, i);
  out[10 * n + i] = __brev(low_a);
  out[11 * n + i] = low_b ? static_cast<int>(low_a) / static_cast<int>(low_b | 1) : 7;
  out[12 * n + i] = (x[i] >> (i & 63)) + static_cast<long long>(a << (i & 63));
}

__global__ void warp_functions(const double* x, double* out, unsigned* bits) {
  const int i = static_cast<int>(threadIdx.x), n = static_cast<int>(blockDim.x);
  double sum = x[i];
  for (int offset = 16; offset > 0; offset /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, offset);
  out[i] = sum;
  out[n + i] = __shfl_down_sync(0xffffffffu, x[i], 3);
  out[2 * n + i] = __shfl_up_sync(0xffffffffu, x[i], 5, 8);
  out[3 * n + i] = __shfl_sync(0xffffffffu, x[i], (i * 7) % 32);
  bits[i] = __ballot_sync(0xffffffffu, x[i] > 0.0);
  bits[n + i] = __any_sync(0xffffffffu, x[i] > 2.0) * 2u + __all_sync(0xffffffffu, x[i] > -2.0);
  bits[2 * n + i] = __match_any_sync(0xffffffffu, static_cast<int>(x[i] * 2));
  if (i % 32 < 20) {
    // Those that are left act on their own.
    bits[3 * n + i] = __ballot_sync(0xfffffu, x[i] < 0.0);
    __syncwarp(0xfffffu);
  }
}

__global__ void block_functions(const int* x, int* out, unsigned long long* total, double* real_total) {
  extern __shared__ int line[];
  __shared__ int counts[4];
  const int i = static_cast<int>(threadIdx.x), n = static_cast<int>(blockDim.x);
  if (i < 4) counts[i] = 0;
  line[i] = x[blockIdx.x * n + i];
  const int positive = __syncthreads_count(line[i] > 0);
  atomicAdd(&counts[line[i] & 3], 1);
  atomicMax(total, static_cast<unsigned long long>(line[i] > 0 ? line[i] : 0));
  atomicAdd(total + 1, static_cast<unsigned long long>(line[i]));
  atomicAdd(real_total, 0.5);
  __syncthreads();
  out[blockIdx.x * n + i] = line[n - 1 - i] * 1000 + counts[line[i] & 3] + (positive << 20);
}

struct Pair {
  double first;
  int second;
};

__device__ __noinline__ Pair halve(Pair pair, int times) {
  for (int i = 0; i < times; ++i) {
    if (pair.second % 5 == 0) return pair;
    pair.first /= 2;
    pair.second += 1;
  }
  return pair;
}

__global__ void ways(Pair given, const int* x, int n, double* out) {
  const int i = static_cast<int>(threadIdx.x);
  if (i >= n) return;
  int own[8];
  for (int k = 0; k < 8; ++k) own[k] = x[(i + k) % n];
  for (int k = 0; k < x[i] % 6; ++k) own[(x[i] + k) & 7] += own[k] * 3;
  double value = own[i & 7];
  switch (x[i] % 9) {
    case 0:
      value *= 3;
      break;
    case 1:
      value -= 7;
      break;
    case 2:
      value = 1 / value;
      break;
    case 3:
      value = value * value + 5;
      break;
    case 4:
      value = -value;
      [[fallthrough]];
    case 5:
      value += 11;
      break;
    case 6:
      value = own[3];
      break;
    case 7:
      value = x[0] - value;
      break;
    default:
      break;
  }
  given.second += x[i] & 15;
  const Pair pair = halve(given, x[i] & 31);
  out[i] = value;
  out[n + i] = pair.first;
  out[2 * n + i] = pair.second;
}

__global__ void narrow_words(const short* x, const signed char* y, int n, float4* out, unsigned short* halves) {
  const int i = static_cast<int>(threadIdx.x);
  if (i >= n) return;
  const float4 four = out[i];
  out[i] = make_float4(four.w + x[i], four.z * y[i], four.y - static_cast<float>(x[i] * y[i]), four.x);
  halves[i] = static_cast<unsigned short>(x[i] * 3 + y[i]);
}
}
