// Linear maps of points, row by row in one order of addition, so that equal rows stay equal.
#pragma once

#include "egt/run.hpp"

namespace egt {

// out (x.n, n_rows) = x matrix^T, matrix (n_rows, x.d); float64 sums in the order of the columns. On a GPU only: the
// other backends have NumPy's einsum.
template <class T>
void project(Points<T> x, const double* matrix, std::int64_t n_rows, double* out, const Queue& queue);

}  // namespace egt
