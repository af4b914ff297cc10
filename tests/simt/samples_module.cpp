#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <array>

#include "cuda/device.hpp"
#include "samples.hpp"

namespace py = pybind11;
using egt::samples::Sample;

namespace {

using Address = std::uintptr_t;
template <class V>
V* at(Address address) {
  return reinterpret_cast<V*>(address);
}

void run(const std::string& name, bool wrong, Address in, int n, Address out) {
  const Sample* sample = egt::samples::find(name);
  if (sample == nullptr) throw py::value_error("no such sample");
  sample->run(wrong, at<const float>(in), n, at<float>(out), {0, nullptr});
}

void built_ins(const std::array<unsigned, 3>& grid, const std::array<unsigned, 3>& block, Address out) {
  egt::samples::run_built_ins({grid[0], grid[1], grid[2]}, {block[0], block[1], block[2]}, at<int>(out));
}

py::dict device() {
  int count = 0, value = 0;
  cudaDeviceProp properties;
  std::size_t available = 0, total = 0;
  egt::cuda::check(cudaGetDeviceCount(&count), "cudaGetDeviceCount");
  egt::cuda::check(cudaGetDeviceProperties(&properties, count - 1), "cudaGetDeviceProperties");
  egt::cuda::check(cudaDeviceGetAttribute(&value, cudaDevAttrMaxThreadsPerBlock, 0), "cudaDeviceGetAttribute");
  egt::cuda::check(cudaMemGetInfo(&available, &total), "cudaMemGetInfo");
  py::dict info;
  info["count"] = count;
  info["threads"] = value;
  info["memory"] = properties.totalGlobalMem;
  info["available"] = available;
  return info;
}

}  // namespace

PYBIND11_MODULE(EGT_MODULE, m) {
  m.def("names", &egt::samples::names);
  m.def("run", &run);
  m.def("collectives", [](unsigned mask, int width, Address arguments, Address values, Address out) {
    egt::samples::run_collectives(mask, width, at<const int>(arguments), at<const double>(values), at<double>(out));
  });
  m.def("built_ins", &built_ins);
  m.def("atomics", [](int blocks, Address signed_out, Address out, Address wide) {
    egt::samples::run_atomics(blocks, at<int>(signed_out), at<unsigned>(out), at<unsigned long long>(wide));
  });
  m.def("arithmetic",
        [](long long a, long long b, Address out) { egt::samples::run_arithmetic(a, b, at<unsigned long long>(out)); });
  m.def("dynamic",
        [](std::size_t bytes, bool allowed, Address out) { egt::samples::run_dynamic(bytes, allowed, at<int>(out)); });
  m.def("leak", &egt::samples::leak);
  m.def("give_back", &egt::samples::give_back);
  m.def("use_device", [](int device) { egt::cuda::check(cudaSetDevice(device), "cudaSetDevice"); });
  m.def("device", &device);

  py::register_local_exception_translator([](std::exception_ptr pointer) {
    try {
      if (pointer) std::rethrow_exception(pointer);
    } catch (const egt::DeviceError& error) {
      py::set_error(error.out_of_memory ? PyExc_MemoryError : PyExc_OSError, error.message.c_str());
    }
  });
  define_simt(m);
}
