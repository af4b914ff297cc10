// Centring and scaling: the centre of the points, the factor by which they are scaled, and their norms after both. All
// of it is computed and stays on the device, so that nothing waits for it.
#pragma once

#include <cstdint>

#include "cuda/tile.cuh"

namespace egt::cuda {
namespace centring_kernels {

inline constexpr int threads = 256;
inline constexpr int column_lanes = 8;  // threads that share the rows of one column

// Near the mean of the rows, from about a thousand of them.
template <class T>
__global__ void find_centre(const T* points, std::int64_t n, int d, T* out) {
  __shared__ double sums[column_lanes][threads / column_lanes];
  __shared__ int counts[column_lanes][threads / column_lanes];
  const int column = static_cast<int>(threadIdx.x) % (threads / column_lanes);
  const int lane = static_cast<int>(threadIdx.x) / (threads / column_lanes);
  const std::int64_t k = static_cast<std::int64_t>(blockIdx.x) * (threads / column_lanes) + column;
  const std::int64_t stride = n / 1024 + 1;
  double sum = 0.0;
  int count = 0;
  if (k < d) {
    for (std::int64_t i = lane * stride; i < n; i += column_lanes * stride, ++count) {
      sum += static_cast<double>(points[i * d + k]);
    }
  }
  sums[lane][column] = sum;
  counts[lane][column] = count;
  __syncthreads();
  if (lane > 0 || k >= d) return;
  for (int other = 1; other < column_lanes; ++other) {
    sum += sums[other][column];
    count += counts[other][column];
  }
  out[k] = static_cast<T>(sum / count);
}

// Largest |coordinate - centre|, as the bits of a double: those of non-negative doubles are in order.
template <class T>
__global__ void find_largest(const T* points, std::int64_t n, int d, const T* centre, unsigned long long* out) {
  double own = 0.0;
  const std::int64_t size = n * d, step = static_cast<std::int64_t>(gridDim.x) * blockDim.x;
  for (std::int64_t e = static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; e < size; e += step) {
    own = fmax(own, fabs(static_cast<double>(points[e]) - static_cast<double>(centre[e % d])));
  }
  for (int offset = warp_size / 2; offset > 0; offset /= 2) own = fmax(own, __shfl_xor_sync(full_warp, own, offset));
  if (threadIdx.x % warp_size == 0) atomicMax(out, static_cast<unsigned long long>(__double_as_longlong(own)));
}

// The power of two that brings coordinates up to the largest to at most 1.
template <class T>
__global__ void choose_scale(const unsigned long long* largest, double* out) {
  const double value = __longlong_as_double(static_cast<long long>(*largest));
  int exponent = 0;
  if (value > 0.0) frexp(value, &exponent);
  // The tiles multiply by it in T.
  const double greatest = sizeof(T) == sizeof(float) ? 0x1p120 : 0x1p1000;
  *out = fmax(1.0 / greatest, fmin(greatest, ldexp(1.0, -exponent)));
}

template <class T>
__global__ void find_norms(const T* points, std::int64_t n, int d, const T* centre, const double* scale, float* out) {
  const std::int64_t i = (static_cast<std::int64_t>(blockIdx.x) * blockDim.x + threadIdx.x) / warp_size;
  if (i >= n) return;
  const T factor = static_cast<T>(*scale);
  double sum = 0.0;
  for (int k = static_cast<int>(threadIdx.x) % warp_size; k < d; k += warp_size) {
    const double value = Tile<64>::centred_and_scaled(points[i * d + k], centre[k], factor);
    sum += value * value;
  }
  sum = warp_sum(sum);
  if (threadIdx.x % warp_size == 0) out[i] = static_cast<float>(sum);
}

}  // namespace centring_kernels

template <class T>
class CentredAndScaled {
 public:
  // y == nullptr: x alone.
  CentredAndScaled(Points<T> x, const Points<T>* y, const Queue& queue)
      : centre_(queue, x.d),
        scale_(queue, 1),
        x_norms_(queue, x.n),
        y_norms_(queue, y ? y->n : 0),
        x_(x),
        y_(y ? *y : x),
        self_(y == nullptr) {
    using namespace centring_kernels;
    const cudaStream_t stream = stream_of(queue);
    const int d = static_cast<int>(x.d);
    EGT_LAUNCH((find_centre<T>), blocks_of(d, threads / column_lanes), threads, 0, stream, y_.data, y_.n, d,
               centre_.get());
    const Buffer<unsigned long long> bits(queue, 1);
    check(cudaMemsetAsync(bits.get(), 0, sizeof(unsigned long long), stream), "cudaMemsetAsync");
    for (const Points<T>& points : {x_, y_}) {
      const int grid = blocks_of(points.n * points.d, 64 * threads);
      EGT_LAUNCH((find_largest<T>), grid < 1024 ? grid : 1024, threads, 0, stream, points.data, points.n, d,
                 centre_.get(), bits.get());
      if (self_) break;
    }
    EGT_LAUNCH((choose_scale<T>), 1, 1, 0, stream, bits.get(), scale_.get());
    norms(x_, x_norms_.get(), stream);
    if (!self_) norms(y_, y_norms_.get(), stream);
  }

  PointsAndNorms<T> x() const { return {x_.data, x_.n, x_norms_.get()}; }
  PointsAndNorms<T> y() const { return self_ ? x() : PointsAndNorms<T>{y_.data, y_.n, y_norms_.get()}; }
  const T* centre() const { return centre_.get(); }
  const double* scale() const { return scale_.get(); }

 private:
  void norms(Points<T> points, float* out, cudaStream_t stream) {
    using namespace centring_kernels;
    EGT_LAUNCH((find_norms<T>), blocks_of(points.n, threads / warp_size), threads, 0, stream, points.data, points.n,
               static_cast<int>(points.d), centre_.get(), scale_.get(), out);
  }

  Buffer<T> centre_;
  Buffer<double> scale_;
  Buffer<float> x_norms_, y_norms_;
  Points<T> x_, y_;
  bool self_;
};

}  // namespace egt::cuda
