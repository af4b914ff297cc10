// Arrays in, arrays out: the GIL is released, Ctrl-C is seen, errors are translated.
//
// Arguments and their order are those of egtmetrics/ops/_backend.py, and the number of threads. They were checked in
// Python (egtmetrics/_validation.py); what is checked here protects memory only.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <cstdint>
#include <optional>
#include <utility>

#include "cpu/tile.hpp"
#include "egt/ball_counts.hpp"
#include "egt/divergence.hpp"
#include "egt/kernel_sums.hpp"
#include "egt/neighbors.hpp"

namespace py = pybind11;

namespace {

// An argument of this dtype and layout. pybind11 would convert another to a py::array_t, and never does to a class of
// one's own: what does not fit is refused, not copied behind the caller's back.
template <class T>
struct Array : py::array_t<T, py::array::c_style> {
  using py::array_t<T, py::array::c_style>::array_t;
};
using Doubles = Array<double>;
using Integers = Array<std::int64_t>;

void require(bool condition, const char* message) {
  if (!condition) throw py::value_error(message);
}

template <class T>
egt::Points<T> points(const Array<T>& array) {
  require(array.ndim() == 2 && array.shape(0) > 0 && array.shape(1) > 0, "expected a non-empty (n, d) array");
  return {array.data(), array.shape(0), array.shape(1)};
}

// The two point sets of a call; the second may be missing.
template <class T>
struct Pair {
  egt::Points<T> x;
  std::optional<egt::Points<T>> y;
  Pair(const Array<T>& first, const std::optional<Array<T>>& second) : x(points(first)) {
    if (second) {
      y = points(*second);
      require(y->d == x.d, "both arrays need the same number of columns");
    }
  }
  const egt::Points<T>* other() const { return y ? &*y : nullptr; }
  std::int64_t n_other() const { return y ? y->n : x.n; }
};

// Runs the work without the GIL, and looks for Ctrl-C now and then.
template <class Work>
void without_gil(int n_threads, Work work) {
  egt::Run run;
  run.n_threads = n_threads;
  bool raised = false;
  run.interrupted = [&raised] {
    const py::gil_scoped_acquire gil;
    raised = PyErr_CheckSignals() != 0;
    return raised;
  };
  try {
    const py::gil_scoped_release release;
    work(run);
  } catch (const egt::Interrupted&) {
    throw py::error_already_set();
  }
}

template <class T>
Doubles kth_neighbor(const Array<T>& x, const std::optional<Array<T>>& y, std::int64_t k, double sq_floor,
                     double sq_limit, int n_threads) {
  const Pair<T> sets(x, y);
  require(k >= 1 && k <= sets.n_other() - (sets.y ? 0 : 1), "n_neighbors is out of range");
  Doubles radii(sets.x.n);
  double* out = radii.mutable_data();
  without_gil(n_threads, [&](const egt::Run& run) {
    egt::neighbor_radii<T>(sets.x, sets.other(), k, {sq_floor, sq_limit}, out, run);
  });
  return radii;
}

// Offsets from 0 to n_rows, not decreasing, every group of y large enough for k.
const std::int64_t* checked_offsets(const Integers& offsets, std::int64_t n_rows, std::int64_t smallest_group) {
  require(offsets.ndim() == 1 && offsets.shape(0) >= 2 && offsets.data()[0] == 0, "offsets must start at 0");
  for (std::int64_t g = 0; g + 1 < offsets.shape(0); ++g) {
    require(offsets.data()[g + 1] - offsets.data()[g] >= smallest_group, "a group has too few rows");
  }
  require(offsets.data()[offsets.shape(0) - 1] == n_rows, "offsets must end at the number of rows");
  return offsets.data();
}

template <class T>
Doubles grouped_kth_neighbor(const Array<T>& x, const std::optional<Array<T>>& y, const Integers& x_offsets,
                             const std::optional<Integers>& y_offsets, std::int64_t k, int n_threads) {
  const Pair<T> sets(x, y);
  require(k >= 1, "n_neighbors is out of range");
  require(sets.y.has_value() == y_offsets.has_value(), "y and y_offsets go together");
  require(!y_offsets || y_offsets->size() == x_offsets.size(), "both sides need the same number of groups");
  const std::int64_t* x_starts = checked_offsets(x_offsets, sets.x.n, sets.y ? 0 : k + 1);
  const std::int64_t* y_starts = sets.y ? checked_offsets(*y_offsets, sets.n_other(), k) : x_starts;
  Doubles radii(sets.x.n);
  double* out = radii.mutable_data();
  without_gil(n_threads, [&](const egt::Run& run) {
    egt::grouped_neighbor_radii<T>(sets.x, sets.other(), x_offsets.shape(0) - 1, x_starts, y_starts, k, out, run);
  });
  return radii;
}

template <class T>
std::pair<Doubles, Integers> neighbors(const Array<T>& x, const std::optional<Array<T>>& y, std::int64_t k,
                                       int n_threads) {
  const Pair<T> sets(x, y);
  require(k >= 1 && k <= sets.n_other() - (sets.y ? 0 : 1), "n_neighbors is out of range");
  Doubles distances({sets.x.n, k});
  Integers rows({sets.x.n, k});
  double* out_distances = distances.mutable_data();
  std::int64_t* out_rows = rows.mutable_data();
  without_gil(n_threads,
              [&](const egt::Run& run) { egt::neighbors<T>(sets.x, sets.other(), k, out_distances, out_rows, run); });
  return {distances, rows};
}

const double* radii_of(const std::optional<Doubles>& radii, std::int64_t n) {
  if (!radii) return nullptr;
  require(radii->ndim() == 1 && radii->shape(0) == n, "radii need one value per row");
  return radii->data();
}

template <class T>
py::tuple ball_counts(const Array<T>& x, const std::optional<Array<T>>& y, const std::optional<Doubles>& x_sq_radii,
                      const std::optional<Doubles>& y_sq_radii, bool closed, int n_threads) {
  const Pair<T> sets(x, y);
  const std::int64_t n = sets.x.n, m = sets.n_other();
  const double* x_radii = radii_of(x_sq_radii, n);
  const double* y_radii = sets.y ? radii_of(y_sq_radii, m) : nullptr;
  require(x_radii || y_radii, "at least one array of radii is needed");
  require(sets.y || !y_sq_radii, "within one set only x_sq_radii is used");
  Integers counts[4];
  std::int64_t* out[4] = {};
  const std::int64_t sizes[4] = {n, m, m, n};
  for (int side = 0; side < 4; ++side) {
    if (side < 2 ? !x_radii : !y_radii) continue;
    counts[side] = Integers(sizes[side]);
    out[side] = counts[side].mutable_data();
  }
  without_gil(n_threads, [&](const egt::Run& run) {
    egt::ball_counts<T>(sets.x, sets.other(), x_radii, y_radii, closed, out[0], out[1], out[2], out[3], run);
  });
  return py::make_tuple(counts[0], counts[1], counts[2], counts[3]);
}

template <class T>
Doubles split_kth_neighbor(const Array<T>& x, const Array<std::uint8_t>& parts, const Array<std::int64_t>& n_neighbors,
                           std::int64_t depth, int n_threads) {
  const auto own = points(x);
  require(parts.ndim() == 2 && parts.shape(0) == own.n, "parts need one row per point");
  const std::int64_t n_splits = parts.shape(1);
  require(n_neighbors.ndim() == 1 && n_neighbors.shape(0) == n_splits,
          "n_neighbors needs one entry per column of parts");
  const std::int64_t* wanted = n_neighbors.data();
  require(std::all_of(wanted, wanted + n_splits, [](std::int64_t k) { return k >= 1; }),
          "n_neighbors must be positive");
  require(1 <= depth && depth < own.n, "depth must be at least 1 and less than the number of points");
  Doubles sq_radii({own.n, n_splits});
  double* out = sq_radii.mutable_data();
  const std::uint8_t* in = parts.data();
  without_gil(n_threads,
              [&](const egt::Run& run) { egt::split_neighbor_radii<T>(own, in, n_splits, wanted, depth, out, run); });
  return sq_radii;
}

template <class T>
py::tuple split_ball_counts(const Array<T>& x, const Array<T>& y, const Doubles& x_sq_radii,
                            const Array<std::uint8_t>& x_sides, const Array<std::uint8_t>& y_sides, bool closed,
                            int n_threads) {
  const Pair<T> sets(x, y);
  const std::int64_t n = sets.x.n, m = sets.n_other();
  require(x_sq_radii.ndim() == 2 && x_sq_radii.shape(0) == n, "x_sq_radii need one row per point of x");
  const std::int64_t n_replicates = x_sq_radii.shape(1);
  require(x_sides.ndim() == 2 && x_sides.shape(0) == n && x_sides.shape(1) == n_replicates,
          "x_sides need the shape of x_sq_radii");
  require(y_sides.ndim() == 2 && y_sides.shape(0) == m && y_sides.shape(1) == n_replicates,
          "y_sides need one row per point of y, and a column per replicate");
  Array<std::int32_t> x_sizes({n, n_replicates}), y_in_x({m, n_replicates});
  std::int32_t *out_sizes = x_sizes.mutable_data(), *out_memberships = y_in_x.mutable_data();
  const double* radii = x_sq_radii.data();
  const std::uint8_t *of_x = x_sides.data(), *of_y = y_sides.data();
  without_gil(n_threads, [&](const egt::Run& run) {
    egt::split_ball_counts<T>(sets.x, *sets.y, radii, of_x, of_y, n_replicates, closed, out_sizes, out_memberships,
                              run);
  });
  return py::make_tuple(x_sizes, y_in_x);
}

template <class T>
Doubles kernel_density(const Array<T>& x, const Array<T>& y, double bandwidth, int n_threads) {
  const Pair<T> sets(x, y);
  require(bandwidth >= 0.0, "bandwidth must not be negative");
  Doubles density(sets.x.n);
  double* out = density.mutable_data();
  without_gil(n_threads, [&](const egt::Run& run) {
    egt::kernel_density<T>(sets.x, *sets.y, bandwidth, nullptr, 0, out, nullptr, run);
  });
  return density;
}

template <class T>
std::pair<Doubles, Doubles> kernel_density_band(const Array<T>& x, const Array<std::uint16_t>& counts, double bandwidth,
                                                int n_threads) {
  const auto own = points(x);
  require(bandwidth >= 0.0, "bandwidth must not be negative");
  require(counts.ndim() == 2 && counts.shape(0) == own.n, "counts need one row per point");
  Doubles density(own.n), deviation(counts.shape(1));
  double *out_density = density.mutable_data(), *out_deviation = deviation.mutable_data();
  const std::uint16_t* in = counts.data();
  const std::int64_t n_replicates = counts.shape(1);
  without_gil(n_threads, [&](const egt::Run& run) {
    egt::kernel_density<T>(own, own, bandwidth, in, n_replicates, out_density, out_deviation, run);
  });
  return {density, deviation};
}

template <class T>
std::pair<Doubles, Doubles> resampled_density(const Array<T>& x, const Array<T>& y, const Array<std::uint16_t>& counts,
                                              double bandwidth, int n_threads) {
  const Pair<T> sets(x, y);
  require(bandwidth >= 0.0, "bandwidth must not be negative");
  require(counts.ndim() == 2 && counts.shape(0) == sets.n_other(), "counts need one row per point of y");
  const std::int64_t n_replicates = counts.shape(1);
  Doubles density(sets.x.n), deviation({sets.x.n, n_replicates});
  double *out_density = density.mutable_data(), *out_deviation = deviation.mutable_data();
  const std::uint16_t* in = counts.data();
  without_gil(n_threads, [&](const egt::Run& run) {
    egt::resampled_density<T>(sets.x, *sets.y, bandwidth, in, n_replicates, out_density, out_deviation, run);
  });
  return {density, deviation};
}

template <class T>
Doubles soft_ball_product(const Array<T>& x, const Array<T>& y, double radius, int n_threads) {
  const Pair<T> sets(x, y);
  require(radius >= 0.0, "radius must not be negative");
  Doubles product(sets.x.n);
  double* out = product.mutable_data();
  without_gil(n_threads, [&](const egt::Run& run) { egt::soft_ball_product<T>(sets.x, *sets.y, radius, out, run); });
  return product;
}

py::tuple divergence_bootstrap(const Integers& p_counts, const Integers& q_counts,
                               const Array<std::int32_t>& divergences, const Doubles& parameters, double smoothing,
                               std::int64_t n_replicates, std::uint64_t seed, int n_threads) {
  require(p_counts.ndim() == 2 && p_counts.shape(0) > 0 && p_counts.shape(1) > 0, "expected (n_groups, n_bins) counts");
  require(q_counts.ndim() == 2 && q_counts.shape(0) == p_counts.shape(0) && q_counts.shape(1) == p_counts.shape(1),
          "both arrays of counts need one shape");
  require(divergences.ndim() == 1 && parameters.ndim() == 1 && parameters.shape(0) == divergences.shape(0),
          "one parameter per divergence is needed");
  require(n_replicates >= 0 && n_replicates < (std::int64_t{1} << 32), "n_replicates is out of range");
  const std::int64_t n_groups = p_counts.shape(0), n_bins = p_counts.shape(1), n_divergences = divergences.shape(0);
  for (const Integers* counts : {&p_counts, &q_counts}) {
    for (std::int64_t group = 0; group < n_groups; ++group) {
      std::int64_t total = 0;
      for (std::int64_t k = 0; k < n_bins; ++k) {
        const std::int64_t count = counts->data()[group * n_bins + k];
        require(count >= 0 && count < (std::int64_t{1} << 31), "counts are out of range");
        total += count;
      }
      require(total > 0 && total < (std::int64_t{1} << 31), "every group needs a positive total below 2**31");
    }
  }
  for (std::int64_t f = 0; f < n_divergences; ++f) {
    require(divergences.data()[f] >= 0 && divergences.data()[f] <= static_cast<int>(egt::Divergence::precision_recall),
            "unknown divergence");
  }
  Doubles values({n_groups, n_divergences}), replicates({n_groups, n_divergences, n_replicates});
  const egt::DivergenceBootstrap in{
      p_counts.data(), q_counts.data(), n_groups,     n_bins, divergences.data(),    parameters.data(),
      n_divergences,   smoothing,       n_replicates, seed,   values.mutable_data(), replicates.mutable_data()};
  without_gil(n_threads, [&](const egt::Run& run) { egt::divergence_bootstrap(in, run); });
  return py::make_tuple(values, replicates);
}

template <class T>
void define(py::module_& m) {
  m.def("kth_neighbor", &kth_neighbor<T>);
  m.def("grouped_kth_neighbor", &grouped_kth_neighbor<T>);
  m.def("neighbors", &neighbors<T>);
  m.def("ball_counts", &ball_counts<T>);
  m.def("split_kth_neighbor", &split_kth_neighbor<T>);
  m.def("split_ball_counts", &split_ball_counts<T>);
  m.def("kernel_density", &kernel_density<T>);
  m.def("kernel_density_band", &kernel_density_band<T>);
  m.def("resampled_density", &resampled_density<T>);
  m.def("soft_ball_product", &soft_ball_product<T>);
}

}  // namespace

PYBIND11_MODULE(_cpu, m) {
  m.doc() = "CPU kernels of egtmetrics; see egtmetrics.ops.";
  define<float>(m);
  define<double>(m);
  m.def("divergence_bootstrap", &divergence_bootstrap);
  m.def("build_info", [] {
    py::dict info;
    info["isa"] = egt::cpu::tile().isa;
    info["compiler"] = EGT_COMPILER;
    return info;
  });
}
