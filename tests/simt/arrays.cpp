// Memory of NumPy's arrays, of which the checked build must know where they end. The first checked module of a process
// makes NumPy allocate through it, for all of them.
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#define NPY_NO_DEPRECATED_API NPY_1_22_API_VERSION
#define NPY_TARGET_VERSION NPY_1_22_API_VERSION
#include <numpy/arrayobject.h>

#include <cstdlib>
#include <cstring>

#include "runtime.hpp"

namespace simt {
namespace checker {
namespace {

constexpr std::size_t margin = 64;  // on both sides of an array, where nothing else lies

void* with_margin(void* block, std::size_t size) {
  if (block == nullptr) return nullptr;
  char* const array = static_cast<char*>(block) + margin;
  array_regions->add({reinterpret_cast<std::uintptr_t>(array), size, -1, false, true, true, 0});
  return array;
}

void* allocate(void*, std::size_t size) { return with_margin(std::malloc(size + 2 * margin), size); }
void* allocate_zeros(void*, std::size_t count, std::size_t size) {
  return with_margin(std::calloc(count * size + 2 * margin, 1), count * size);
}
void release_array(void*, void* array, std::size_t) {
  if (array == nullptr) return;
  array_regions->remove(reinterpret_cast<std::uintptr_t>(array));
  std::free(static_cast<char*>(array) - margin);
}
void* reallocate(void* context, void* array, std::size_t size) {
  void* const other = allocate(context, size);
  Region region{};
  if (other != nullptr && array != nullptr && array_regions->find(reinterpret_cast<std::uintptr_t>(array), &region)) {
    std::memcpy(other, array, region.size < size ? region.size : size);
    release_array(context, array, region.size);
  }
  return other;
}

PyDataMem_Handler handler{"simt", 1, {nullptr, &allocate, &allocate_zeros, &reallocate, &release_array}};

bool replace_allocator() {
  if (PyArray_ImportNumPyAPI() != 0) return false;
  PyObject* const capsule = PyCapsule_New(&handler, "mem_handler", nullptr);
  PyObject* const before = capsule ? PyDataMem_SetHandler(capsule) : nullptr;
  Py_XDECREF(capsule);
  Py_XDECREF(before);
  return before != nullptr;
}

}  // namespace

bool know_arrays() {
  const char* const name = "_egtmetrics_simt_arrays";  // in sys
  if (PyObject* const shared = PySys_GetObject(name)) {
    array_regions = static_cast<Registry*>(PyCapsule_GetPointer(shared, name));
    return array_regions != nullptr;
  }
  array_regions = new Registry;
  PyObject* const capsule = PyCapsule_New(array_regions, name, nullptr);
  const bool shared = capsule && PySys_SetObject(name, capsule) == 0;
  Py_XDECREF(capsule);
  return shared && replace_allocator();
}

}  // namespace checker
}  // namespace simt
