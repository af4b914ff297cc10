// Addresses in, addresses out: the kernels for CUDA devices, without torch, so that no wheel is tied to one torch.
//
// Arguments and their order are those of egtmetrics/ops/_backend.py; egtmetrics/ops/_device.py says how each is passed,
// checks it, keeps its memory alive and allocates the results. Calls queue their work on the given stream and return.
// The current device is the same before and after.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "cuda/device.hpp"
#include "egt/ball_counts.hpp"
#include "egt/bootstrap.hpp"
#include "egt/divergence.hpp"
#include "egt/kernel_sums.hpp"
#include "egt/neighbors.hpp"
#include "egt/projection.hpp"

#ifndef EGT_MODULE
#define EGT_MODULE _cuda
#endif

namespace py = pybind11;

namespace {

using Address = std::uintptr_t;

template <class V>
V* at(Address address) {
  return reinterpret_cast<V*>(address);
}

void require(bool condition, const char* message) {
  if (!condition) throw py::value_error(message);
}

// Indices of rows and columns are 32 bits wide in the kernels, indices of pairs 64.
constexpr std::int64_t most_rows = (std::int64_t{1} << 31) - 1024;
constexpr std::int64_t most_replicates = (std::int64_t{1} << 32) - 1;  // each has a word of the random counters

template <class T>
egt::Points<T> points(Address data, std::int64_t n, std::int64_t d) {
  require(data != 0 && n >= 1 && d >= 1, "expected a non-empty (n, d) array");
  require(n <= most_rows && d <= most_rows, "an array has more rows or columns than 2**31 - 1024");
  return {at<const T>(data), n, d};
}

template <class T>
struct Pair {
  egt::Points<T> x;
  std::optional<egt::Points<T>> y;
  Pair(Address first, std::int64_t n, Address second, std::int64_t m, std::int64_t d) : x(points<T>(first, n, d)) {
    if (second != 0) y = points<T>(second, m, d);
  }
  const egt::Points<T>* other() const { return y ? &*y : nullptr; }
  const egt::Points<T>& second() const {
    require(y.has_value(), "a second array is needed");
    return *y;
  }
  void require_neighbors(std::int64_t k) const {
    require(k >= 1 && k <= (y ? y->n : x.n - 1), "n_neighbors is out of range");
  }
};

// Calls work with a zero of the type that dtype names.
template <class Work>
void with_type(const std::string& dtype, Work work) {
  require(dtype == "float32" || dtype == "float64", "dtype must be float32 or float64");
  if (dtype == "float32") {
    work(float{});
  } else {
    work(double{});
  }
}

egt::Queue queue_of(int device, Address stream) { return {device, at<void>(stream)}; }

void kth_neighbor(const std::string& dtype, Address x, std::int64_t n, Address y, std::int64_t m, std::int64_t d,
                  std::int64_t k, double sq_floor, double sq_limit, Address sq_radii, int device, Address stream) {
  with_type(dtype, [&](auto zero) {
    using T = decltype(zero);
    const Pair<T> sets(x, n, y, m, d);
    sets.require_neighbors(k);
    const py::gil_scoped_release release;
    egt::neighbor_radii<T>(sets.x, sets.other(), k, {sq_floor, sq_limit}, at<double>(sq_radii),
                           queue_of(device, stream));
  });
}

void check_offsets(const std::vector<std::int64_t>& offsets, std::int64_t n_rows, std::int64_t smallest_group) {
  require(offsets.size() >= 2 && offsets.front() == 0, "offsets must start at 0");
  for (std::size_t g = 0; g + 1 < offsets.size(); ++g) {
    require(offsets[g + 1] - offsets[g] >= smallest_group, "a group has too few rows");
  }
  require(offsets.back() == n_rows, "offsets must end at the number of rows");
}

void grouped_kth_neighbor(const std::string& dtype, Address x, std::int64_t n, Address y, std::int64_t m,
                          std::int64_t d, const std::vector<std::int64_t>& x_offsets,
                          const std::optional<std::vector<std::int64_t>>& y_offsets, std::int64_t k, Address sq_radii,
                          int device, Address stream) {
  with_type(dtype, [&](auto zero) {
    using T = decltype(zero);
    const Pair<T> sets(x, n, y, m, d);
    require(k >= 1, "n_neighbors is out of range");
    require(sets.y.has_value() == y_offsets.has_value(), "y and y_offsets go together");
    require(!y_offsets || y_offsets->size() == x_offsets.size(), "both sides need the same number of groups");
    check_offsets(x_offsets, n, sets.y ? 0 : k + 1);
    if (sets.y) check_offsets(*y_offsets, m, k);
    const py::gil_scoped_release release;
    egt::grouped_neighbor_radii<T>(sets.x, sets.other(), static_cast<std::int64_t>(x_offsets.size()) - 1,
                                   x_offsets.data(), sets.y ? y_offsets->data() : x_offsets.data(), k,
                                   at<double>(sq_radii), queue_of(device, stream));
  });
}

void neighbors(const std::string& dtype, Address x, std::int64_t n, Address y, std::int64_t m, std::int64_t d,
               std::int64_t k, Address sq_dists, Address rows, int device, Address stream) {
  with_type(dtype, [&](auto zero) {
    using T = decltype(zero);
    const Pair<T> sets(x, n, y, m, d);
    sets.require_neighbors(k);
    const py::gil_scoped_release release;
    egt::neighbors<T>(sets.x, sets.other(), k, at<double>(sq_dists), at<std::int64_t>(rows), queue_of(device, stream));
  });
}

void ball_counts(const std::string& dtype, Address x, std::int64_t n, Address y, std::int64_t m, std::int64_t d,
                 Address x_sq_radii, Address y_sq_radii, bool closed, Address x_sizes, Address y_in_x, Address y_sizes,
                 Address x_in_y, int device, Address stream) {
  with_type(dtype, [&](auto zero) {
    using T = decltype(zero);
    const Pair<T> sets(x, n, y, m, d);
    require(x_sq_radii != 0 || y_sq_radii != 0, "at least one array of radii is needed");
    require(sets.y || y_sq_radii == 0, "within one set only x_sq_radii is used");
    require((x_sq_radii != 0) == (x_sizes != 0) && (x_sq_radii != 0) == (y_in_x != 0) &&
                (y_sq_radii != 0) == (y_sizes != 0) && (y_sq_radii != 0) == (x_in_y != 0),
            "counts and radii go together");
    const py::gil_scoped_release release;
    egt::ball_counts<T>(sets.x, sets.other(), at<const double>(x_sq_radii), at<const double>(y_sq_radii), closed,
                        at<std::int64_t>(x_sizes), at<std::int64_t>(y_in_x), at<std::int64_t>(y_sizes),
                        at<std::int64_t>(x_in_y), queue_of(device, stream));
  });
}

void kernel_density(const std::string& dtype, Address x, std::int64_t n, Address y, std::int64_t m, std::int64_t d,
                    double bandwidth, Address density, int device, Address stream) {
  with_type(dtype, [&](auto zero) {
    using T = decltype(zero);
    const Pair<T> sets(x, n, y, m, d);
    const egt::Points<T> second = sets.second();
    require(bandwidth >= 0.0, "bandwidth must not be negative");
    const py::gil_scoped_release release;
    egt::kernel_density<T>(sets.x, second, bandwidth, nullptr, 0, at<double>(density), nullptr,
                           queue_of(device, stream));
  });
}

void kernel_density_band(const std::string& dtype, Address x, std::int64_t n, std::int64_t d, Address counts,
                         std::int64_t n_replicates, double bandwidth, Address density, Address deviation, int device,
                         Address stream) {
  with_type(dtype, [&](auto zero) {
    using T = decltype(zero);
    const egt::Points<T> own = points<T>(x, n, d);
    require(counts != 0 && n_replicates >= 1, "expected non-empty (n, n_replicates) counts");
    // 64 of them for each of the 65,535 blocks that a grid has along its second axis.
    require(n_replicates <= 64 * 65535, "counts has more than 4,194,240 replicates; pass them in parts");
    require(bandwidth >= 0.0, "bandwidth must not be negative");
    const py::gil_scoped_release release;
    egt::kernel_density<T>(own, own, bandwidth, at<const std::uint16_t>(counts), n_replicates, at<double>(density),
                           at<double>(deviation), queue_of(device, stream));
  });
}

void soft_ball_product(const std::string& dtype, Address x, std::int64_t n, Address y, std::int64_t m, std::int64_t d,
                       double radius, Address product, int device, Address stream) {
  with_type(dtype, [&](auto zero) {
    using T = decltype(zero);
    const Pair<T> sets(x, n, y, m, d);
    const egt::Points<T> second = sets.second();
    require(radius >= 0.0, "radius must not be negative");
    const py::gil_scoped_release release;
    egt::soft_ball_product<T>(sets.x, second, radius, at<double>(product), queue_of(device, stream));
  });
}

void project(const std::string& dtype, Address x, std::int64_t n, std::int64_t d, Address matrix, std::int64_t n_rows,
             Address out, int device, Address stream) {
  with_type(dtype, [&](auto zero) {
    using T = decltype(zero);
    const egt::Points<T> own = points<T>(x, n, d);
    require(matrix != 0 && n_rows >= 1 && n_rows <= most_rows, "expected a non-empty matrix");
    const py::gil_scoped_release release;
    egt::project<T>(own, at<const double>(matrix), n_rows, at<double>(out), queue_of(device, stream));
  });
}

void bootstrap_counts(std::int64_t n_rows, std::int64_t n_replicates, std::uint64_t seed, Address counts, int device,
                      Address stream) {
  require(n_rows >= 1 && n_rows <= most_rows, "n_rows is out of range");
  require(n_replicates >= 0 && n_replicates <= most_replicates, "n_replicates is out of range");
  const py::gil_scoped_release release;
  egt::bootstrap_counts(n_rows, n_replicates, seed, at<std::uint16_t>(counts), queue_of(device, stream));
}

void divergence_bootstrap(Address p_counts, std::int64_t n_groups, std::int64_t n_bins, Address q_counts,
                          const std::vector<std::int32_t>& divergences, const std::vector<double>& parameters,
                          double smoothing, std::int64_t n_replicates, std::uint64_t seed, Address values,
                          Address replicates, int device, Address stream) {
  require(p_counts != 0 && q_counts != 0 && n_groups >= 1 && n_bins >= 1, "expected (n_groups, n_bins) counts");
  require(n_groups <= most_rows && n_bins <= most_rows, "there are more groups or bins than 2**31 - 1024");
  require(!divergences.empty() && divergences.size() == parameters.size(), "one parameter per divergence is needed");
  require(n_replicates >= 0 && n_replicates <= most_replicates, "n_replicates is out of range");
  for (const std::int32_t code : divergences) {
    require(code >= 0 && code <= static_cast<int>(egt::Divergence::precision_recall), "unknown divergence");
  }
  const egt::DivergenceBootstrap in{at<const std::int64_t>(p_counts),
                                    at<const std::int64_t>(q_counts),
                                    n_groups,
                                    n_bins,
                                    divergences.data(),
                                    parameters.data(),
                                    static_cast<std::int64_t>(divergences.size()),
                                    smoothing,
                                    n_replicates,
                                    seed,
                                    at<double>(values),
                                    at<double>(replicates)};
  const py::gil_scoped_release release;
  egt::divergence_bootstrap(in, queue_of(device, stream));
}

// 0 with no device or no driver; device_error() says which.
int device_count() {
  int count = 0;
  if (cudaGetDeviceCount(&count) != cudaSuccess) {
    cudaGetLastError();
    return 0;
  }
  return count;
}

std::string device_error() {
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  cudaGetLastError();
  if (status == cudaErrorInsufficientDriver) {
    int driver = 0, runtime = 0;
    cudaDriverGetVersion(&driver);
    cudaRuntimeGetVersion(&runtime);
    if (driver == 0) return "no CUDA driver is installed";
    const auto version = [](int number) {
      return std::to_string(number / 1000) + "." + std::to_string(number % 1000 / 10);
    };
    return std::string(cudaGetErrorName(status)) + ": the driver is made for CUDA " + version(driver) +
           " and the kernels were built with CUDA " + version(runtime) +
           "; update the driver, or build egtmetrics with an older CUDA toolkit";
  }
  if (status != cudaSuccess) return std::string(cudaGetErrorName(status)) + ": " + cudaGetErrorString(status);
  return count == 0 ? "the driver reports no device" : "";
}

py::dict device_info(int device) {
  cudaDeviceProp properties;
  egt::cuda::check(cudaGetDeviceProperties(&properties, device), "cudaGetDeviceProperties");
  py::dict info;
  info["name"] = std::string(properties.name);
  info["capability"] = py::make_tuple(properties.major, properties.minor);
  info["memory"] = properties.totalGlobalMem;
  return info;
}

int device_of(Address address) {
  cudaPointerAttributes attributes{};
  egt::cuda::check(cudaPointerGetAttributes(&attributes, at<const void>(address)), "cudaPointerGetAttributes");
  require(attributes.type != cudaMemoryTypeUnregistered,
          "the address in __cuda_array_interface__ is not in CUDA memory; pass an array whose memory exists");
  return attributes.device;
}

}  // namespace

PYBIND11_MODULE(EGT_MODULE, m) {
  m.doc() = "CUDA kernels of egtmetrics; see egtmetrics.ops.";
  m.def("kth_neighbor", &kth_neighbor);
  m.def("grouped_kth_neighbor", &grouped_kth_neighbor);
  m.def("neighbors", &neighbors);
  m.def("ball_counts", &ball_counts);
  m.def("kernel_density", &kernel_density);
  m.def("kernel_density_band", &kernel_density_band);
  m.def("soft_ball_product", &soft_ball_product);
  m.def("project", &project);
  m.def("bootstrap_counts", &bootstrap_counts);
  m.def("divergence_bootstrap", &divergence_bootstrap);
  m.def("device_count", &device_count);
  m.def("device_error", &device_error);
  m.def("device_info", &device_info);
  m.def("device_of", &device_of);
  m.def("build_info", [] {
    py::dict info;
    info["compiler"] = EGT_CUDA_COMPILER;
    info["architectures"] = EGT_CUDA_ARCHITECTURES;
    return info;
  });

  static py::handle device_error_type = py::exception<egt::DeviceError>(m, "DeviceError", PyExc_RuntimeError).release();
  const py::tuple bases = py::make_tuple(device_error_type, py::handle(PyExc_MemoryError));
  static py::handle memory_error_type =
      PyErr_NewException((m.attr("__name__").cast<std::string>() + ".DeviceMemoryError").c_str(), bases.ptr(), nullptr);
  m.attr("DeviceMemoryError") = memory_error_type;
  py::register_local_exception_translator([](std::exception_ptr pointer) {
    try {
      if (pointer) std::rethrow_exception(pointer);
    } catch (const egt::DeviceError& error) {
      py::set_error(error.out_of_memory ? memory_error_type : device_error_type, error.message.c_str());
    }
  });
#ifdef EGT_SIMT
  define_simt(m);
#endif
}
