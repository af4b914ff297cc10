// How many points lie in how many balls, both ways, in one pass over the pairs.
#pragma once

#include "egt/run.hpp"

namespace egt {

// Memberships of all pairs (x_i, y_j), decided on float64 squared distances of the inputs: |x_i - y_j|^2 < r, or <= r
// when closed. y == nullptr: pairs within x, (i, i) left out; y_sq_radii is then ignored.
//
//   x_sq_radii (x.n)   may be null: then x_sizes and y_in_x are not written
//   y_sq_radii (y.n)   may be null: then y_sizes and x_in_y are not written
//   x_sizes[i] = #{j : y_j in ball of x_i}      y_in_x[j] = #{i : y_j in ball of x_i}
//   y_sizes[j] = #{i : x_i in ball of y_j}      x_in_y[i] = #{j : x_i in ball of y_j}
template <class T>
void ball_counts(Points<T> x, const Points<T>* y, const double* x_sq_radii, const double* y_sq_radii, bool closed,
                 std::int64_t* x_sizes, std::int64_t* y_in_x, std::int64_t* y_sizes, std::int64_t* x_in_y,
                 const Run& run);

// Memberships under many splits of both sets at once. Replicate b puts x_i on side x_sides[i, b] and y_j on side
// y_sides[j, b], gives x_i the squared radius x_sq_radii[i, b], and counts the pairs on one side only:
//
//   x_sizes[i, b] = #{j : x_sides[i, b] == y_sides[j, b], |x_i - y_j|^2 < x_sq_radii[i, b]}, or <= when closed
//   y_in_x[j, b]  = #{i : the same}
//
// All arrays (n, n_replicates). Memory: O(block * n_replicates) per thread. A negative radius holds nothing.
template <class T>
void split_ball_counts(Points<T> x, Points<T> y, const double* x_sq_radii, const std::uint8_t* x_sides,
                       const std::uint8_t* y_sides, std::int64_t n_replicates, bool closed, std::int32_t* x_sizes,
                       std::int32_t* y_in_x, const Run& run);

// ball_counts on a GPU.
template <class T>
void ball_counts(Points<T> x, const Points<T>* y, const double* x_sq_radii, const double* y_sq_radii, bool closed,
                 std::int64_t* x_sizes, std::int64_t* y_in_x, std::int64_t* y_sizes, std::int64_t* x_in_y,
                 const Queue& queue);

}  // namespace egt
