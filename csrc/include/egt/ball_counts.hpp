// How many points lie in how many balls, both ways, in one pass over the pairs.
#pragma once

#include "egt/run.hpp"

namespace egt {

// Memberships of all pairs (x_i, y_j), decided on float64 squared distances of the inputs: |x_i - y_j|^2 < r, or <= r
// when closed. y == nullptr: pairs within x, (i, i) left out; only x_sq_radii is then looked at.
//
//   x_sq_radii (x.n)   may be null: then x_sizes and y_in_x are not written
//   y_sq_radii (y.n)   may be null: then y_sizes and x_in_y are not written
//   x_sizes[i] = #{j : y_j in ball of x_i}      y_in_x[j] = #{i : y_j in ball of x_i}
//   y_sizes[j] = #{i : x_i in ball of y_j}      x_in_y[i] = #{j : x_i in ball of y_j}
template <class T>
void ball_counts(Points<T> x, const Points<T>* y, const double* x_sq_radii, const double* y_sq_radii, bool closed,
                 std::int64_t* x_sizes, std::int64_t* y_in_x, std::int64_t* y_sizes, std::int64_t* x_in_y,
                 const Run& run);

// The same on a GPU.
template <class T>
void ball_counts(Points<T> x, const Points<T>* y, const double* x_sq_radii, const double* y_sq_radii, bool closed,
                 std::int64_t* x_sizes, std::int64_t* y_in_x, std::int64_t* y_sizes, std::int64_t* x_in_y,
                 const Queue& queue);

}  // namespace egt
