// Exact k nearest neighbours under the Euclidean distance.
#pragma once

#include "egt/run.hpp"

namespace egt {

// The n_neighbors smallest squared distances of every row of x to the rows of y, as float64 sums of squared
// differences of the inputs. y == nullptr: neighbours within x, the row itself left out; each pair is then computed
// once. Wanted: 1 <= n_neighbors <= number of candidates.
//
//   sq_limit   (radii only)         rows whose n_neighbors-th smallest exceeds it are not worked out, which saves most
//                                   of the selection where a good limit is known; infinity for none
//   sq_radii   (x.n)                the n_neighbors-th smallest; infinity where it exceeds sq_limit
//   sq_dists   (x.n, n_neighbors)   all of them, ascending, ties by lower row
//   rows       (x.n, n_neighbors)   the rows of y they belong to
//
// Memory: O(x.n * n_neighbors) besides the tiles.
template <class T>
void neighbor_radii(Points<T> x, const Points<T>* y, std::int64_t n_neighbors, double sq_limit, double* sq_radii,
                    const Run& run);

template <class T>
void neighbors(Points<T> x, const Points<T>* y, std::int64_t n_neighbors, double* sq_dists, std::int64_t* rows,
               const Run& run);

}  // namespace egt
