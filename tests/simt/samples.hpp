// The samples of samples.cu, for their binding.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "egt/run.hpp"

namespace egt::samples {

// wrong: with the mistake it is named after, else without.
struct Sample {
  const char* name;
  void (*run)(bool wrong, const float* in, int n, float* out, const Queue& queue);
};
const Sample* find(const std::string& name);
std::vector<std::string> names();

constexpr int n_collectives = 7;
void run_collectives(unsigned mask, int width, const int* arguments, const double* values, double* out);
void run_built_ins(const unsigned (&grid)[3], const unsigned (&block)[3], int* out);
void run_atomics(int blocks, int* signed_out, unsigned* out, unsigned long long* wide);
void run_arithmetic(long long a, long long b, unsigned long long* out);
void run_dynamic(std::size_t bytes, bool allowed, int* out);
std::uintptr_t leak(std::size_t bytes);
void give_back(std::uintptr_t address);

}  // namespace egt::samples
