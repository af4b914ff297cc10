// Exact k nearest neighbours under the Euclidean distance.
#pragma once

#include <limits>

#include "egt/run.hpp"

namespace egt {

// Only squared radii in (floor, limit] are computed. By default all.
struct SqRange {
  double floor = -1.0;
  double limit = std::numeric_limits<double>::infinity();
};

// Neighbours of every row of x among the rows of y, by squared distances that are float64 sums of squared differences
// of the inputs. y == nullptr: neighbours within x, the row itself left out; the CPU then computes each pair once.
// Required: 1 <= n_neighbors <= number of candidates. Memory: O(x.n * n_neighbors) and the tiles.
//
//   sq_radii   (x.n)                the n_neighbors-th smallest squared distance of each row; 0 where it is not above
//                                   range.floor, infinity where it is above range.limit. A narrow range saves most of
//                                   the selection.
template <class T>
void neighbor_radii(Points<T> x, const Points<T>* y, std::int64_t n_neighbors, SqRange range, double* sq_radii,
                    const Run& run);

//   sq_dists   (x.n, n_neighbors)   the n_neighbors smallest squared distances, ascending, ties by lower row
//   rows       (x.n, n_neighbors)   the rows of y they belong to
template <class T>
void neighbors(Points<T> x, const Points<T>* y, std::int64_t n_neighbors, double* sq_dists, std::int64_t* rows,
               const Run& run);

// neighbor_radii for many groups at once: rows x_offsets[g] ... x_offsets[g + 1] - 1 of x have their neighbours among
// rows y_offsets[g] ... y_offsets[g + 1] - 1 of y (y == nullptr: among the rows of their own group, themselves left
// out). Both offsets have n_groups + 1 entries, from 0 to the number of rows. Groups run in parallel, each on one
// thread, where there are enough of them.
template <class T>
void grouped_neighbor_radii(Points<T> x, const Points<T>* y, std::int64_t n_groups, const std::int64_t* x_offsets,
                            const std::int64_t* y_offsets, std::int64_t n_neighbors, double* sq_radii, const Run& run);

// Radii under many splits of x into parts. Split b puts x_i into part parts[i, b]; sq_radii[i, b] is the squared
// distance of x_i to the n_neighbors[b]-th nearest other row of its own part. Only the depth nearest of all rows are
// searched; it is infinity where those do not contain it. Arrays (x.n, n_splits); n_neighbors (n_splits). Memory: O(x.n
// * depth).
template <class T>
void split_neighbor_radii(Points<T> x, const std::uint8_t* parts, std::int64_t n_splits,
                          const std::int64_t* n_neighbors, std::int64_t depth, double* sq_radii, const Run& run);

// The same on a GPU, without splits; the offsets are read on the host.
template <class T>
void neighbor_radii(Points<T> x, const Points<T>* y, std::int64_t n_neighbors, SqRange range, double* sq_radii,
                    const Queue& queue);
template <class T>
void neighbors(Points<T> x, const Points<T>* y, std::int64_t n_neighbors, double* sq_dists, std::int64_t* rows,
               const Queue& queue);
template <class T>
void grouped_neighbor_radii(Points<T> x, const Points<T>* y, std::int64_t n_groups, const std::int64_t* x_offsets,
                            const std::int64_t* y_offsets, std::int64_t n_neighbors, double* sq_radii,
                            const Queue& queue);

}  // namespace egt
