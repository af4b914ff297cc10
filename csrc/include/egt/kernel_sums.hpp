// Sums and products of a radial kernel over all pairs, and the bootstrap of the sums.
#pragma once

#include "egt/run.hpp"

namespace egt {

// density[i] = mean_j K(|x_i - y_j| / bandwidth), K(u) = cos(pi u / 2) for u <= 1, else 0; at bandwidth 0 K is [u = 0].
//
// With counts (y.n, n_replicates), x and y the same points: deviation[b] = max_i |density[i] - p_b[i]|, where p_b[i] =
// sum_j counts[j, b] K_ij / y.n. One pass over the pairs serves all replicates; no n x n matrix exists. Without
// replicates counts may be null.
//
// float32 products, float64 sums of some hundred of them: relative error of about 1e-5, absolute of 2e-7 (of a
// density). Memory: the points in float32, a byte for each count, some MB per thread.
template <class T>
void kernel_density(Points<T> x, Points<T> y, double bandwidth, const std::uint16_t* counts, std::int64_t n_replicates,
                    double* density, double* deviation, const Run& run);

// The densities themselves under every resampling, for any x: deviation[i, b] = sum_j (counts[j, b] - 1) K_ij / y.n,
// that is p_b - p at x_i, shape (x.n, n_replicates).
template <class T>
void resampled_density(Points<T> x, Points<T> y, double bandwidth, const std::uint16_t* counts,
                       std::int64_t n_replicates, double* density, double* deviation, const Run& run);

// product[i] = prod_j min(1, |x_i - y_j| / radius); at radius 0 it is [no y_j equals x_i].
template <class T>
void soft_ball_product(Points<T> x, Points<T> y, double radius, double* product, const Run& run);

// The same on a GPU, where sums are taken in float32 over some hundred columns and in fixed point beyond, not in
// float64: exact in any order.
template <class T>
void kernel_density(Points<T> x, Points<T> y, double bandwidth, const std::uint16_t* counts, std::int64_t n_replicates,
                    double* density, double* deviation, const Queue& queue);
template <class T>
void soft_ball_product(Points<T> x, Points<T> y, double radius, double* product, const Queue& queue);

}  // namespace egt
