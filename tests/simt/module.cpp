// What the tests may ask of the harness.
#include <dlfcn.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "runtime.hpp"

namespace py = pybind11;

namespace {

void fail(const std::string& call, int after, int error, int times) {
  const std::set<std::string> calls{"malloc", "launch", "memset", "memcpy", "synchronize", "info"};
  if (calls.count(call) == 0) throw py::value_error("unknown call: " + call);
  if (error == 0) error = call == "malloc" ? cudaErrorMemoryAllocation : cudaErrorLaunchFailure;
  simt::fail_call(call, after, times, error);
}

void add_memory(std::uintptr_t address, std::size_t size, bool writable, bool initialised, int device) {
  simt::own_regions->add({address, size, device, false, writable, initialised, 0});
}

void remove_memory(std::uintptr_t address) {
  simt::Region region{};
  if (!simt::own_regions->find(address, &region) || region.address != address || region.scratch) {
    throw py::value_error("nothing is registered at this address");
  }
  simt::own_regions->remove(address);
}

// callable(function, grid, block, dynamic bytes, arguments, memory, done), before (not done) and after each launch:
// the function's address within the shared object, and (address, size) of all memory that is not of NumPy.
void set_trace(py::object callable) {
  if (callable.is_none()) {
    simt::set_trace({});
    return;
  }
  simt::set_trace([callable](const simt::Launch& launch, bool done) {
    const py::gil_scoped_acquire acquire;
    Dl_info info{};
    if (dladdr(launch.kernel, &info) == 0) throw simt::Error{"a kernel outside of every library"};
    const auto function = static_cast<const char*>(launch.kernel) - static_cast<const char*>(info.dli_fbase);
    const std::vector<unsigned char> bytes = launch.packed(launch.parameters);
    py::list memory;
    for (const simt::Region& region : simt::own_regions->all())
      memory.append(py::make_tuple(region.address, region.size));
    const auto tuple_of = [](const dim3& size) { return py::make_tuple(size.x, size.y, size.z); };
    callable(function, tuple_of(launch.grid), tuple_of(launch.block), launch.dynamic_bytes,
             py::bytes(reinterpret_cast<const char*>(bytes.data()), bytes.size()), memory, done);
  });
}

}  // namespace

void define_simt(py::module_& m) {
  m.def("simt_seed", &simt::set_seed, py::arg("seed"), "Order of blocks and threads; 0: the natural one.");
  m.def("simt_allocated", &simt::allocated, "Bytes allocated and not freed.");
  m.def("simt_memory", &simt::set_memory, py::arg("size"), "Memory of the devices together, in bytes.");
  m.def("simt_capturing", &simt::set_capturing, py::arg("capturing"), "Whether every stream records a graph.");
  m.def("simt_devices", &simt::set_devices, py::arg("count"), py::arg("error") = static_cast<int>(cudaErrorNoDevice),
        py::arg("driver") = 11080, "Number of devices; with 0 every call returns the error.");
  m.def("simt_device", &simt::device_now, "The device that is current on this thread.");
  m.def("simt_fail", &fail, py::arg("call"), py::arg("after") = 1, py::arg("error") = 0, py::arg("times") = 1,
        "From the after-th one on, calls of this kind fail, `times` of them.");
  m.def("simt_queues", &simt::queues_used, "(device, stream) of all calls since the last time this was asked.");
  m.def(
      "simt_counts",
      [] {
        const simt::Counts counts = simt::take_counts();
        return std::map<std::string, std::int64_t>{
            {"launches", counts.launches},
            {"to_device", counts.to_device},
            {"bytes_to_device", counts.bytes_to_device},
            {"to_host", counts.to_host},
            {"bytes_to_host", counts.bytes_to_host},
            {"waits", counts.waits},
        };
      },
      "What was asked of the devices since the last time this was asked.");
  m.def("simt_trace", &set_trace, py::arg("callable"), "Called before and after every launch; None: no more.");
  m.def("simt_register", &add_memory, py::arg("address"), py::arg("size"), py::arg("writable") = true,
        py::arg("initialised") = true, py::arg("device") = -1, "Memory of the host that kernels may use.");
  m.def("simt_unregister", &remove_memory, py::arg("address"));

  if (!simt::know_arrays()) throw py::error_already_set();
  static py::handle error_type = py::exception<simt::Error>(m, "SimtError", PyExc_RuntimeError).release();
  py::register_local_exception_translator([](std::exception_ptr pointer) {
    try {
      if (pointer) std::rethrow_exception(pointer);
    } catch (const simt::Error& error) {
      py::set_error(error_type, error.message.c_str());
    }
  });
}
