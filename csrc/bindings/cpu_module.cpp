// Pointers in, pointers out: checks that would crash otherwise, GIL release, interrupts, error translation.
//
// Arguments were validated in Python (egtmetrics/_validation.py); what is checked here protects memory only.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <optional>
#include <utility>

#include "cpu/tile.hpp"
#include "egt/ball_counts.hpp"
#include "egt/kernel_sums.hpp"
#include "egt/neighbors.hpp"

namespace py = pybind11;

namespace {

template <class T>
using Array = py::array_t<T, py::array::c_style>;
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

// Run work without the GIL, looking for Ctrl-C in between.
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
Doubles kth_neighbor(const Array<T>& x, const std::optional<Array<T>>& y, std::int64_t k, double sq_limit,
                     int n_threads) {
  const Pair<T> sets(x, y);
  require(k >= 1 && k <= sets.n_other() - (sets.y ? 0 : 1), "n_neighbors is out of range");
  Doubles radii(sets.x.n);
  double* out = radii.mutable_data();
  without_gil(n_threads,
              [&](const egt::Run& run) { egt::neighbor_radii<T>(sets.x, sets.other(), k, sq_limit, out, run); });
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
Doubles soft_ball_product(const Array<T>& x, const Array<T>& y, double radius, int n_threads) {
  const Pair<T> sets(x, y);
  require(radius >= 0.0, "radius must not be negative");
  Doubles product(sets.x.n);
  double* out = product.mutable_data();
  without_gil(n_threads, [&](const egt::Run& run) { egt::soft_ball_product<T>(sets.x, *sets.y, radius, out, run); });
  return product;
}

// noconvert: an array of another dtype or layout is refused, never copied behind the caller's back.
template <class T>
void define(py::module_& m) {
  const auto x = py::arg("x").noconvert();
  const auto y = py::arg("y").noconvert().none(true);
  const auto n_threads = py::arg("n_threads");
  m.def("kth_neighbor", &kth_neighbor<T>, x, y, py::arg("n_neighbors"), py::arg("sq_limit"), n_threads);
  m.def("neighbors", &neighbors<T>, x, y, py::arg("n_neighbors"), n_threads);
  m.def("ball_counts", &ball_counts<T>, x, y, py::arg("x_sq_radii").noconvert().none(true),
        py::arg("y_sq_radii").noconvert().none(true), py::arg("closed"), n_threads);
  m.def("kernel_density", &kernel_density<T>, x, py::arg("y").noconvert(), py::arg("bandwidth"), n_threads);
  m.def("kernel_density_band", &kernel_density_band<T>, x, py::arg("counts").noconvert(), py::arg("bandwidth"),
        n_threads);
  m.def("soft_ball_product", &soft_ball_product<T>, x, py::arg("y").noconvert(), py::arg("radius"), n_threads);
}

}  // namespace

PYBIND11_MODULE(_cpu, m) {
  m.doc() = "CPU kernels of egtmetrics; see egtmetrics.ops.";
  define<float>(m);
  define<double>(m);
  m.def("build_info", [] {
    py::dict info;
    info["isa"] = egt::cpu::tile().isa;
    info["compiler"] = EGT_COMPILER;
    return info;
  });
}
