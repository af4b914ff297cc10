// Arrays in, arrays out: the GIL is released, Ctrl-C is seen, errors are translated.
//
// Arguments and their order are those of egtmetrics/ops/_backend.py, and the number of threads. They were checked in
// Python (egtmetrics/_validation.py); what is checked here protects memory, whoever calls. An array of another dtype or
// layout is refused, not copied behind the caller's back.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <exception>
#include <initializer_list>
#include <limits>
#include <optional>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>

#include "bindings/cut_file.hpp"
#include "cpu/parallel.hpp"
#include "cpu/tile.hpp"
#include "egt/ball_counts.hpp"
#include "egt/bootstrap.hpp"
#include "egt/divergence.hpp"
#include "egt/kernel_sums.hpp"
#include "egt/neighbors.hpp"

namespace py = pybind11;

namespace {

using Object = py::object;
template <class V>
using Array = py::array_t<V, py::array::c_style>;
using Doubles = Array<double>;
using Integers = Array<std::int64_t>;

constexpr std::int64_t most_threads = 4096;                            // egtmetrics/ops/_native.py has it too
constexpr std::int64_t most_replicates = (std::int64_t{1} << 32) - 1;  // each has a word of the random counters
constexpr std::int64_t any_length = -1;

std::string text(py::handle value) { return py::str(value).cast<std::string>(); }

// "x is of type list"
std::string given(const std::string& name, py::handle value) {
  if (value.is_none()) return name + " is None";
  if (py::isinstance<py::array>(value)) return name + " has dtype " + text(value.attr("dtype"));
  if (PyLong_Check(value.ptr()) || PyFloat_Check(value.ptr())) return name + " is " + text(value);
  return name + " is of type " + text(py::type::of(value).attr("__name__"));
}

template <class V>
bool has_dtype(const Object& value) {
  return py::isinstance<py::array>(value) &&
         py::detail::npy_api::get().PyArray_EquivTypes_(py::reinterpret_borrow<py::array>(value).dtype().ptr(),
                                                        py::dtype::of<V>().ptr());
}

// The argument as an array whose memory the kernels can read. A length may be any_length.
template <class V>
Array<V> array(const Object& value, const char* name, std::initializer_list<std::int64_t> lengths) {
  const auto but_expected = [&lengths] {
    std::string shape;
    for (const std::int64_t length : lengths) {
      shape += (shape.empty() ? "" : ", ") + (length == any_length ? "any" : std::to_string(length));
    }
    return ", expected an array of " + text(py::dtype::of<V>()) + " of shape (" + shape + ")";
  };
  if (!has_dtype<V>(value)) throw py::type_error(given(name, value) + but_expected());
  const auto found = py::reinterpret_borrow<py::array>(value);
  if (found.ndim() != static_cast<py::ssize_t>(lengths.size()) ||
      !std::equal(lengths.begin(), lengths.end(), found.shape(),
                  [](std::int64_t length, py::ssize_t own) { return length == any_length || length == own; })) {
    throw py::value_error(name + (" has shape " + text(found.attr("shape"))) + but_expected());
  }
  const int needed = py::array::c_style | py::detail::npy_api::NPY_ARRAY_ALIGNED_;
  if ((found.flags() & needed) != needed) {
    throw py::value_error(std::string(name) + " is not contiguous and aligned; pass numpy.require(" + name +
                          ", requirements=['C', 'ALIGNED'])");
  }
  return py::reinterpret_borrow<Array<V>>(value);
}

template <class V>
V number(const Object& value, const char* name, const char* expected) {
  py::detail::make_caster<V> caster;
  const bool convert = !std::is_same_v<V, bool>;  // to which everything can be converted
  if (value.is_none() || !caster.load(value, convert))
    throw py::type_error(given(name, value) + ", expected " + expected);
  return py::detail::cast_op<V>(caster);
}

std::int64_t integer(const Object& value, const char* name, std::int64_t lowest, std::int64_t highest) {
  const auto found = number<std::int64_t>(value, name, "an integer of 64 bits");
  if (found < lowest || found > highest) {
    throw py::value_error(std::string(name) + "=" + std::to_string(found) + ", expected " + std::to_string(lowest) +
                          " to " + std::to_string(highest));
  }
  return found;
}

double not_negative(const Object& value, const char* name) {
  const auto found = number<double>(value, name, "a number");
  if (!(found >= 0.0)) throw py::value_error(given(name, value) + ", expected a number that is not negative");
  return found;
}

double not_nan(const Object& value, const char* name) {
  const auto found = number<double>(value, name, "a number");
  if (std::isnan(found)) throw py::value_error(std::string(name) + " is not a number");
  return found;
}

bool truth(const Object& value, const char* name) { return number<bool>(value, name, "a bool"); }

template <class T>
Array<T> features(const Object& value, const char* name, std::int64_t d = any_length) {
  const Array<T> found = array<T>(value, name, {any_length, d});
  if (found.size() == 0)
    throw py::value_error(std::string(name) + " is empty, expected at least one row and one column");
  return found;
}

template <class T>
egt::Points<T> points(const Array<T>& array) {
  return {array.data(), array.shape(0), array.shape(1)};
}

// The point sets of a call; the second may be missing.
template <class T>
struct Sets {
  Array<T> x_array;
  std::optional<Array<T>> y_array;
  egt::Points<T> x;
  std::optional<egt::Points<T>> y;

  explicit Sets(const Object& first) : x_array(features<T>(first, "x")), x(points(x_array)) {}
  Sets(const Object& first, const Object& second, bool optional) : Sets(first) {
    if (optional && second.is_none()) return;
    y_array = features<T>(second, "y", x.d);
    y = points(*y_array);
  }
  const egt::Points<T>* other() const { return y ? &*y : nullptr; }
  std::int64_t n_other() const { return y ? y->n : x.n; }
  std::int64_t n_candidates() const { return y ? y->n : x.n - 1; }
};

// Calls work with a zero of the type of the features x.
template <class Work>
auto with_type(const Object& x, Work work) {
  if (has_dtype<float>(x)) return work(float{});
  if (has_dtype<double>(x)) return work(double{});
  throw py::type_error(given("x", x) + ", expected an array of float32 or float64");
}

bool finalizing() {
#if PY_VERSION_HEX >= 0x030D0000
  return Py_IsFinalizing() != 0;
#else
  return _Py_IsFinalizing() != 0;
#endif
}

// Runs the work without the GIL. Ctrl-C is Python's main thread's to see; the others do without the GIL until the end,
// because a thread that asks for it while the interpreter ends is torn down where it stands.
template <class Work>
void without_gil(const Object& n_threads, Work work) {
  egt::Run run;
  run.n_threads = static_cast<int>(integer(n_threads, "n_threads", 1, most_threads));
  const py::object main_thread = py::module_::import("threading").attr("main_thread")();
  if (main_thread.attr("ident").cast<unsigned long>() == PyThread_get_thread_ident()) {
    run.interrupted = [] {
      const py::gil_scoped_acquire gil;
      return PyErr_CheckSignals() != 0;
    };
  }
  std::exception_ptr failure;
  PyThreadState* const state = PyEval_SaveThread();
  try {
    work(run);
  } catch (...) {
    failure = std::current_exception();
  }
  while (finalizing()) pause();  // until the process ends
  PyEval_RestoreThread(state);
  if (!failure) return;
  try {
    std::rethrow_exception(failure);
  } catch (const egt::Interrupted&) {
    throw py::error_already_set();
  }
}

template <class T>
void require_finite(egt::Points<T> points, const char* name, const egt::Run& run) {
  egt::cpu::for_each_part(points.n, points.d, run, [&](std::int64_t first, std::int64_t last) {
    const T* const values = points.row(first);
    int wrong = 0;
    for (std::int64_t e = 0; e < (last - first) * points.d; ++e) {
      wrong |= !(std::abs(values[e]) <= std::numeric_limits<T>::max());
    }
    if (wrong) throw std::invalid_argument(std::string(name) + " holds NaN or infinity, expected finite numbers");
  });
}

// The same once the points are known to be finite: what is decided on a distance that is not a number is no result.
template <class T, class Work>
void on_finite(const Object& n_threads, const Sets<T>& sets, Work work) {
  without_gil(n_threads, [&](const egt::Run& run) {
    require_finite(sets.x, "x", run);
    if (sets.y) require_finite(*sets.y, "y", run);
    work(run);
  });
}

Object kth_neighbor(const Object& x, const Object& y, const Object& n_neighbors, const Object& sq_floor,
                    const Object& sq_limit, const Object& n_threads) {
  return with_type(x, [&](auto zero) -> Object {
    using T = decltype(zero);
    const Sets<T> sets(x, y, true);
    const std::int64_t k = integer(n_neighbors, "n_neighbors", 1, sets.n_candidates());
    const egt::SqRange range{not_nan(sq_floor, "sq_range[0]"), not_nan(sq_limit, "sq_range[1]")};
    Doubles radii(sets.x.n);
    double* out = radii.mutable_data();
    on_finite(n_threads, sets,
              [&](const egt::Run& run) { egt::neighbor_radii<T>(sets.x, sets.other(), k, range, out, run); });
    return std::move(radii);
  });
}

// Offsets from 0 to n_rows, not decreasing, every group large enough.
Integers checked_offsets(const Object& value, const char* name, std::int64_t n_rows, std::int64_t smallest_group) {
  const Integers offsets = array<std::int64_t>(value, name, {any_length});
  const std::int64_t *const first = offsets.data(), *const last = first + offsets.size();
  if (offsets.size() < 2 || *first != 0 || last[-1] != n_rows || !std::is_sorted(first, last)) {
    throw py::value_error(std::string(name) + " must rise from 0 to " + std::to_string(n_rows) +
                          ", the number of rows");
  }
  for (const std::int64_t* offset = first; offset + 1 < last; ++offset) {
    if (offset[1] - offset[0] < smallest_group) {
      throw py::value_error(std::string(name) + " gives a group " + std::to_string(offset[1] - offset[0]) +
                            " rows, expected at least " + std::to_string(smallest_group));
    }
  }
  return offsets;
}

Object grouped_kth_neighbor(const Object& x, const Object& y, const Object& x_offsets, const Object& y_offsets,
                            const Object& n_neighbors, const Object& n_threads) {
  return with_type(x, [&](auto zero) -> Object {
    using T = decltype(zero);
    const Sets<T> sets(x, y, true);
    const std::int64_t k = integer(n_neighbors, "n_neighbors", 1, sets.n_candidates());
    if (sets.y.has_value() == y_offsets.is_none()) throw py::value_error("y and y_offsets go together");
    const Integers x_starts = checked_offsets(x_offsets, "x_offsets", sets.x.n, sets.y ? 0 : k + 1);
    const Integers y_starts = sets.y ? checked_offsets(y_offsets, "y_offsets", sets.n_other(), k) : x_starts;
    if (x_starts.size() != y_starts.size()) {
      throw py::value_error("y_offsets has " + std::to_string(y_starts.size()) + " entries, expected " +
                            std::to_string(x_starts.size()) + ", as x_offsets has");
    }
    Doubles radii(sets.x.n);
    double* out = radii.mutable_data();
    on_finite(n_threads, sets, [&](const egt::Run& run) {
      egt::grouped_neighbor_radii<T>(sets.x, sets.other(), x_starts.size() - 1, x_starts.data(), y_starts.data(), k,
                                     out, run);
    });
    return std::move(radii);
  });
}

py::tuple neighbors(const Object& x, const Object& y, const Object& n_neighbors, const Object& n_threads) {
  return with_type(x, [&](auto zero) {
    using T = decltype(zero);
    const Sets<T> sets(x, y, true);
    const std::int64_t k = integer(n_neighbors, "n_neighbors", 1, sets.n_candidates());
    Doubles distances({sets.x.n, k});
    Integers rows({sets.x.n, k});
    double* out_distances = distances.mutable_data();
    std::int64_t* out_rows = rows.mutable_data();
    on_finite(n_threads, sets,
              [&](const egt::Run& run) { egt::neighbors<T>(sets.x, sets.other(), k, out_distances, out_rows, run); });
    return py::make_tuple(distances, rows);
  });
}

py::tuple ball_counts(const Object& x, const Object& y, const Object& x_sq_radii, const Object& y_sq_radii,
                      const Object& closed, const Object& n_threads) {
  return with_type(x, [&](auto zero) {
    using T = decltype(zero);
    const Sets<T> sets(x, y, true);
    const std::int64_t n = sets.x.n, m = sets.n_other();
    std::optional<Doubles> x_radii, y_radii;
    if (!x_sq_radii.is_none()) x_radii = array<double>(x_sq_radii, "x_sq_radii", {n});
    if (!y_sq_radii.is_none()) y_radii = array<double>(y_sq_radii, "y_sq_radii", {m});
    if (!x_radii && !y_radii) throw py::value_error("x_sq_radii and y_sq_radii are None, expected at least one");
    if (y_radii && !sets.y) throw py::value_error("y_sq_radii needs y: within one set only x_sq_radii is used");
    const bool with_border = truth(closed, "closed");
    Integers counts[4];
    std::int64_t* out[4] = {};
    const std::int64_t sizes[4] = {n, m, m, n};
    for (int side = 0; side < 4; ++side) {
      if (side < 2 ? !x_radii : !y_radii) continue;
      counts[side] = Integers(sizes[side]);
      out[side] = counts[side].mutable_data();
    }
    on_finite(n_threads, sets, [&](const egt::Run& run) {
      egt::ball_counts<T>(sets.x, sets.other(), x_radii ? x_radii->data() : nullptr,
                          y_radii ? y_radii->data() : nullptr, with_border, out[0], out[1], out[2], out[3], run);
    });
    return py::make_tuple(counts[0], counts[1], counts[2], counts[3]);
  });
}

Object split_kth_neighbor(const Object& x, const Object& parts, const Object& n_neighbors, const Object& depth,
                          const Object& n_threads) {
  return with_type(x, [&](auto zero) -> Object {
    using T = decltype(zero);
    const Sets<T> sets(x);
    const auto of_rows = array<std::uint8_t>(parts, "parts", {sets.x.n, any_length});
    const std::int64_t n_splits = of_rows.shape(1);
    const Integers wanted = array<std::int64_t>(n_neighbors, "n_neighbors", {n_splits});
    const std::int64_t *const first = wanted.data(), *const last = first + n_splits;
    if (std::any_of(first, last, [](std::int64_t k) { return k < 1; })) {
      throw py::value_error("n_neighbors holds " + std::to_string(*std::min_element(first, last)) +
                            ", expected positive numbers");
    }
    constexpr std::int64_t most = std::numeric_limits<std::int32_t>::max() - 1;
    const std::int64_t searched = integer(depth, "depth", 1, std::min(sets.x.n - 1, most));
    Doubles sq_radii({sets.x.n, n_splits});
    double* out = sq_radii.mutable_data();
    on_finite(n_threads, sets, [&](const egt::Run& run) {
      egt::split_neighbor_radii<T>(sets.x, of_rows.data(), n_splits, first, searched, out, run);
    });
    return std::move(sq_radii);
  });
}

py::tuple split_ball_counts(const Object& x, const Object& y, const Object& x_sq_radii, const Object& x_sides,
                            const Object& y_sides, const Object& closed, const Object& n_threads) {
  return with_type(x, [&](auto zero) {
    using T = decltype(zero);
    const Sets<T> sets(x, y, false);
    const std::int64_t n = sets.x.n, m = sets.n_other();
    const Doubles radii = array<double>(x_sq_radii, "x_sq_radii", {n, any_length});
    const std::int64_t n_replicates = radii.shape(1);
    const auto of_x = array<std::uint8_t>(x_sides, "x_sides", {n, n_replicates});
    const auto of_y = array<std::uint8_t>(y_sides, "y_sides", {m, n_replicates});
    const bool with_border = truth(closed, "closed");
    Array<std::int32_t> x_sizes({n, n_replicates}), y_in_x({m, n_replicates});
    std::int32_t *out_sizes = x_sizes.mutable_data(), *out_memberships = y_in_x.mutable_data();
    on_finite(n_threads, sets, [&](const egt::Run& run) {
      egt::split_ball_counts<T>(sets.x, *sets.y, radii.data(), of_x.data(), of_y.data(), n_replicates, with_border,
                                out_sizes, out_memberships, run);
    });
    return py::make_tuple(x_sizes, y_in_x);
  });
}

Object kernel_density(const Object& x, const Object& y, const Object& bandwidth, const Object& n_threads) {
  return with_type(x, [&](auto zero) -> Object {
    using T = decltype(zero);
    const Sets<T> sets(x, y, false);
    const double h = not_negative(bandwidth, "bandwidth");
    Doubles density(sets.x.n);
    double* out = density.mutable_data();
    on_finite(n_threads, sets,
              [&](const egt::Run& run) { egt::kernel_density<T>(sets.x, *sets.y, h, nullptr, 0, out, nullptr, run); });
    return std::move(density);
  });
}

py::tuple kernel_density_band(const Object& x, const Object& counts, const Object& bandwidth, const Object& n_threads) {
  return with_type(x, [&](auto zero) {
    using T = decltype(zero);
    const Sets<T> sets(x);
    const auto draws = array<std::uint16_t>(counts, "counts", {sets.x.n, any_length});
    const double h = not_negative(bandwidth, "bandwidth");
    const std::int64_t n_replicates = draws.shape(1);
    Doubles density(sets.x.n), deviation(n_replicates);
    double *out_density = density.mutable_data(), *out_deviation = deviation.mutable_data();
    on_finite(n_threads, sets, [&](const egt::Run& run) {
      egt::kernel_density<T>(sets.x, sets.x, h, draws.data(), n_replicates, out_density, out_deviation, run);
    });
    return py::make_tuple(density, deviation);
  });
}

py::tuple resampled_density(const Object& x, const Object& y, const Object& counts, const Object& bandwidth,
                            const Object& n_threads) {
  return with_type(x, [&](auto zero) {
    using T = decltype(zero);
    const Sets<T> sets(x, y, false);
    const auto draws = array<std::uint16_t>(counts, "counts", {sets.n_other(), any_length});
    const double h = not_negative(bandwidth, "bandwidth");
    const std::int64_t n_replicates = draws.shape(1);
    Doubles density(sets.x.n), deviation({sets.x.n, n_replicates});
    double *out_density = density.mutable_data(), *out_deviation = deviation.mutable_data();
    on_finite(n_threads, sets, [&](const egt::Run& run) {
      egt::resampled_density<T>(sets.x, *sets.y, h, draws.data(), n_replicates, out_density, out_deviation, run);
    });
    return py::make_tuple(density, deviation);
  });
}

Object soft_ball_product(const Object& x, const Object& y, const Object& radius, const Object& n_threads) {
  return with_type(x, [&](auto zero) -> Object {
    using T = decltype(zero);
    const Sets<T> sets(x, y, false);
    const double r = not_negative(radius, "radius");
    Doubles product(sets.x.n);
    double* out = product.mutable_data();
    on_finite(n_threads, sets, [&](const egt::Run& run) { egt::soft_ball_product<T>(sets.x, *sets.y, r, out, run); });
    return std::move(product);
  });
}

Object bootstrap_counts(const Object& n_rows, const Object& n_replicates, const Object& seed, const Object& n_threads) {
  const std::int64_t n = integer(n_rows, "n_rows", 1, std::numeric_limits<std::int32_t>::max());
  const std::int64_t wanted = integer(n_replicates, "n_replicates", 0, most_replicates);
  const auto key = number<std::uint64_t>(seed, "seed", "an integer from 0 to 2**64 - 1");
  Array<std::uint16_t> counts({n, wanted});
  std::uint16_t* out = counts.mutable_data();
  without_gil(n_threads, [&](const egt::Run& run) { egt::bootstrap_counts(n, wanted, key, out, run); });
  return std::move(counts);
}

void require_histograms(const Integers& counts, const std::string& name, const egt::Run& run) {
  constexpr std::int64_t most = std::numeric_limits<std::int32_t>::max();
  const std::int64_t n_bins = counts.shape(1);
  const std::int64_t* const all = counts.data();
  for (std::int64_t group = 0; group < counts.shape(0); ++group) {
    std::int64_t total = 0;
    egt::cpu::for_each_part(n_bins, 1, run, [&](std::int64_t first, std::int64_t last) {
      for (const std::int64_t* k = all + group * n_bins + first; k < all + group * n_bins + last; ++k) {
        if (*k < 0 || *k > most) {
          throw std::invalid_argument(name + " holds the count " + std::to_string(*k) + ", expected 0 to 2**31 - 1");
        }
        total += *k;
      }
    });
    if (total < 1 || total > most) {
      throw std::invalid_argument(name + " has a group of " + std::to_string(total) +
                                  " counts in all, expected 1 to 2**31 - 1");
    }
  }
}

py::tuple divergence_bootstrap(const Object& p_counts, const Object& q_counts, const Object& codes,
                               const Object& parameters, const Object& smoothing, const Object& n_replicates,
                               const Object& seed, const Object& n_threads) {
  const Integers p = array<std::int64_t>(p_counts, "p_counts", {any_length, any_length});
  if (p.size() == 0) throw py::value_error("p_counts is empty, expected at least one group and one bin");
  const Integers q = array<std::int64_t>(q_counts, "q_counts", {p.shape(0), p.shape(1)});
  const auto which = array<std::int32_t>(codes, "codes", {any_length});
  const auto a = array<double>(parameters, "parameters", {which.size()});
  for (std::int64_t f = 0; f < which.size(); ++f) {
    const std::int32_t code = which.data()[f];
    if (code < 0 || code > static_cast<int>(egt::Divergence::precision_recall)) {
      throw py::value_error("codes holds " + std::to_string(code) + ", which is no divergence");
    }
  }
  const double added = not_negative(smoothing, "smoothing");
  const std::int64_t wanted = integer(n_replicates, "n_replicates", 0, most_replicates);
  const auto key = number<std::uint64_t>(seed, "seed", "an integer from 0 to 2**64 - 1");
  // Of one type: that of shapes is another one of 64 bits on macOS.
  const std::int64_t n_groups = p.shape(0), n_divergences = which.size();
  Doubles values({n_groups, n_divergences}), replicates({n_groups, n_divergences, wanted});
  const egt::DivergenceBootstrap in{
      p.data(),      q.data(), n_groups, p.shape(1), which.data(),          a.data(),
      n_divergences, added,    wanted,   key,        values.mutable_data(), replicates.mutable_data()};
  without_gil(n_threads, [&](const egt::Run& run) {
    require_histograms(p, "p_counts", run);
    require_histograms(q, "q_counts", run);
    egt::divergence_bootstrap(in, run);
  });
  return py::make_tuple(values, replicates);
}

}  // namespace

PYBIND11_MODULE(_cpu, m) {
  m.doc() = "CPU kernels of egtmetrics; see egtmetrics.ops.";
  m.def("kth_neighbor", &kth_neighbor);
  m.def("grouped_kth_neighbor", &grouped_kth_neighbor);
  m.def("neighbors", &neighbors);
  m.def("ball_counts", &ball_counts);
  m.def("split_kth_neighbor", &split_kth_neighbor);
  m.def("split_ball_counts", &split_ball_counts);
  m.def("kernel_density", &kernel_density);
  m.def("kernel_density_band", &kernel_density_band);
  m.def("resampled_density", &resampled_density);
  m.def("soft_ball_product", &soft_ball_product);
  m.def("bootstrap_counts", &bootstrap_counts);
  m.def("divergence_bootstrap", &divergence_bootstrap);
  m.def("end_on_cut_file", &egt::bindings::end_on_cut_file);
  m.def("restore_bus_error", &egt::bindings::restore_bus_error);
  m.def("build_info", [] {
    py::dict info;
    info["isa"] = egt::cpu::tile().isa;
    std::string isas;
    for (const egt::cpu::Tile* const* tile = egt::cpu::compiled_tiles(); *tile; ++tile) {
      isas += (isas.empty() ? "" : " ") + std::string((*tile)->isa);
    }
    info["isas"] = isas;
    info["compiler"] = EGT_COMPILER;
    return info;
  });
}
