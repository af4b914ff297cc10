// The CPU kernels on random cases, against plain loops in double, and the decisions and draws of an instruction set's
// inner loops against those of the generic ones: with sanitizers (make sanitize), or for another processor (make
// aarch64).
//
//   driver [seed [cases]]   every instruction set of this processor, one process each; 0 if all agree
//
// Every array has exactly its size on the heap, so that a read beyond it is seen. Points are hard ones: duplicates,
// integers (all ties exact), squares that underflow or are near overflow, clusters, an outlier; shapes end inside and
// on panels, strips and blocks.
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <iterator>
#include <limits>
#include <memory>
#include <numeric>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "cpu/tile.hpp"
#include "egt/ball_counts.hpp"
#include "egt/bootstrap.hpp"
#include "egt/divergence.hpp"
#include "egt/kernel_sums.hpp"
#include "egt/neighbors.hpp"

namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();

using Index = std::int64_t;
using Rng = std::mt19937_64;

Index between(Rng& rng, Index low, Index high) { return std::uniform_int_distribution<Index>(low, high)(rng); }
double uniform(Rng& rng, double low, double high) { return std::uniform_real_distribution<double>(low, high)(rng); }

// An array without room for more: a vector may have a larger capacity.
template <class V>
class Exact {
 public:
  explicit Exact(Index size) : size_(size), data_(new V[static_cast<std::size_t>(size)]) {}
  Exact(Index size, V value) : Exact(size) { std::fill_n(get(), size, value); }
  V* get() const { return data_.get(); }
  V& operator[](Index i) const { return data_[static_cast<std::size_t>(i)]; }
  Index size() const { return size_; }

 private:
  Index size_;
  std::unique_ptr<V[]> data_;
};

std::string where;  // what is being compared, for the report

[[noreturn]] void fail(const std::string& what, Index i, double found, double expected) {
  std::fprintf(stderr, "%s: %s[%lld] is %.17g, expected %.17g\n", where.c_str(), what.c_str(),
               static_cast<long long>(i), found, expected);
  std::exit(1);
}

bool near(double found, double expected, double relative, double absolute) {
  if (found == expected) return true;
  return std::abs(found - expected) <= relative * std::abs(expected) + absolute;
}

template <class V, class W>
void compare(const std::string& what, const V* found, const W* expected, Index n, double relative = 0.0,
             double absolute = 0.0) {
  for (Index i = 0; i < n; ++i) {
    const auto a = static_cast<double>(found[i]), b = static_cast<double>(expected[i]);
    if (!near(a, b, relative, absolute)) fail(what, i, a, b);
  }
}

enum class Kind { normal, integers, few_values, equal, far_clusters, outlier, tiny, vanishing, huge, count };

template <class T>
Exact<T> points(Rng& rng, Kind kind, Index n, Index d) {
  Exact<T> out(n * d);
  std::normal_distribution<double> normal;
  // Squares of these are exact in double, down to its smallest number; those of "vanishing" are 0.
  const int tiny = sizeof(T) == 4 ? -149 : -537, huge = sizeof(T) == 4 ? 115 : 490;
  for (Index i = 0; i < n; ++i) {
    const double cluster = 1e5 * static_cast<double>(between(rng, 0, 2));
    for (Index k = 0; k < d; ++k) {
      const auto whole = static_cast<double>(between(rng, -20, 20));
      double value = 0.1;
      if (kind == Kind::normal) value = normal(rng);
      if (kind == Kind::integers) value = whole;
      if (kind == Kind::few_values) value = static_cast<double>(between(rng, 0, 1));
      if (kind == Kind::far_clusters) value = normal(rng) + cluster;
      if (kind == Kind::outlier) value = i == 0 ? 1e7 : normal(rng);
      if (kind == Kind::tiny) value = std::ldexp(whole, tiny);
      if (kind == Kind::vanishing) value = std::ldexp(whole, sizeof(T) == 4 ? tiny : -1070);
      if (kind == Kind::huge) value = std::ldexp(whole, huge);
      out[i * d + k] = static_cast<T>(value);
    }
  }
  return out;
}

bool exact(Kind kind) {
  return kind != Kind::normal && kind != Kind::far_clusters && kind != Kind::outlier && kind != Kind::equal;
}

// Squared distances as the definition has them.
template <class T>
void fill_distances(const T* x, Index n, const T* y, Index m, Index d, bool self, double* out) {
  for (Index i = 0; i < n; ++i) {
    for (Index j = 0; j < m; ++j) {
      double sum = 0.0;
      for (Index k = 0; k < d; ++k) {
        const double difference = static_cast<double>(x[i * d + k]) - static_cast<double>(y[j * d + k]);
        sum += difference * difference;
      }
      out[i * m + j] = self && i == j ? -1.0 : sum;  // -1: no pair
    }
  }
}

struct Distances {
  Index n, m;
  std::vector<double> values;
  double at(Index i, Index j) const { return values[static_cast<std::size_t>(i * m + j)]; }

  // Ascending, with their rows; those of columns that `wanted` rejects left out.
  template <class Wanted>
  std::vector<std::pair<double, Index>> row(Index i, Wanted wanted) const {
    std::vector<std::pair<double, Index>> found;
    for (Index j = 0; j < m; ++j) {
      if (at(i, j) >= 0.0 && wanted(j)) found.emplace_back(at(i, j), j);
    }
    std::sort(found.begin(), found.end());
    return found;
  }
};

template <class T>
class Case {
 public:
  Case(Rng& rng, Kind kind, Index n, Index m, Index d, int n_threads)
      : rng_(rng),
        kind_(kind),
        d_(d),
        x_values_(points<T>(rng, kind, n, d)),
        y_values_(points<T>(rng, kind, m, d)),
        x_{x_values_.get(), n, d},
        y_{y_values_.get(), m, d},
        across_(distances(x_, y_, false)),
        within_(distances(x_, x_, true)) {
    run_.n_threads = n_threads;
    if (!exact(kind)) relative_ = 1e-13;
  }

  void operator()() {
    for (const bool self : {false, true}) {
      if (self && x_.n < 2) continue;
      neighbours(self);
      balls(self);
    }
    grouped();
    splits();
    if (kind_ != Kind::vanishing) kernel_sums();  // of points that coincide in the oracle, but not in the kernels
  }

 private:
  Distances distances(egt::Points<T> a, egt::Points<T> b, bool self) {
    Distances found{a.n, b.n, std::vector<double>(static_cast<std::size_t>(a.n * b.n))};
    fill_distances(a.data, a.n, b.data, b.n, d_, self, found.values.data());
    return found;
  }

  // One of the numbers of neighbours that are special, or any.
  Index some_k(Index most) {
    const Index choices[] = {1, std::min<Index>(2, most), most, between(rng_, 1, most)};
    return choices[between(rng_, 0, 3)];
  }

  void neighbours(bool self) {
    const Distances& all = self ? within_ : across_;
    const egt::Points<T>* other = self ? nullptr : &y_;
    const Index n = x_.n, k = some_k(self ? n - 1 : y_.n);
    Exact<double> radii(n), ranged(n), expected(n), found(n * k);
    Exact<Index> rows(n * k);
    egt::neighbor_radii<T>(x_, other, k, {}, radii.get(), run_);
    egt::neighbors<T>(x_, other, k, found.get(), rows.get(), run_);
    for (Index i = 0; i < n; ++i) {
      const auto sorted = all.row(i, [](Index) { return true; });
      expected[i] = sorted[static_cast<std::size_t>(k - 1)].first;
      for (Index c = 0; c < k; ++c) {
        const auto& [distance, row] = sorted[static_cast<std::size_t>(c)];
        const Index place = i * k + c;
        if (!near(found[place], distance, relative_, 0.0)) fail("neighbors", place, found[place], distance);
        if (exact(kind_) && rows[place] != row) {
          fail("rows", place, static_cast<double>(rows[place]), static_cast<double>(row));
        }
        if (rows[place] < 0 || rows[place] >= all.m || !near(all.at(i, rows[place]), distance, relative_, 0.0)) {
          fail("distance of row", place, static_cast<double>(rows[place]), distance);
        }
      }
    }
    compare("radii", radii.get(), expected.get(), n, relative_);
    // The range's ends are radii of the kernels, so that no rounding decides.
    const double a = radii[between(rng_, 0, n - 1)], b = radii[between(rng_, 0, n - 1)];
    const egt::SqRange range{std::min(a, b), std::max(a, b)};
    egt::neighbor_radii<T>(x_, other, k, range, ranged.get(), run_);
    for (Index i = 0; i < n; ++i) {
      const double in_range = radii[i] <= range.floor ? 0.0 : radii[i] > range.limit ? infinity : radii[i];
      if (ranged[i] != in_range) fail("radii in a range", i, ranged[i], in_range);
    }
  }

  // A squared radius around what is there: a distance (a tie, where sums are exact), 0, or anything near.
  double some_radius(const Distances& all) {
    const double one = std::max(all.at(between(rng_, 0, all.n - 1), between(rng_, 0, all.m - 1)), 0.0);
    const Index choice = between(rng_, 0, 5);
    if (choice == 0) return exact(kind_) || kind_ == Kind::equal ? 0.0 : uniform(rng_, 0.5, 2.0);
    if (choice == 1) return -1.0;
    if (exact(kind_) && choice < 4) return one;
    return one * uniform(rng_, 0.2, 1.5);
  }

  void balls(bool self) {
    const Distances& all = self ? within_ : across_;
    const Index n = all.n, m = all.m;
    const Index which = self ? 0 : between(rng_, 0, 2);  // balls of x, of both, of y
    const bool closed = between(rng_, 0, 1) != 0;
    Exact<double> x_radii(n), y_radii(m);
    for (Index i = 0; i < n; ++i) x_radii[i] = some_radius(all);
    for (Index j = 0; j < m; ++j) y_radii[j] = some_radius(all);
    Exact<Index> counts[4] = {Exact<Index>(n, -1), Exact<Index>(m, -1), Exact<Index>(m, -1), Exact<Index>(n, -1)};
    Exact<Index> expected[4] = {Exact<Index>(n, 0), Exact<Index>(m, 0), Exact<Index>(m, 0), Exact<Index>(n, 0)};
    const auto inside = [closed](double distance, double radius) {
      return distance >= 0.0 && (closed ? distance <= radius : distance < radius);
    };
    for (Index i = 0; i < n; ++i) {
      for (Index j = 0; j < m; ++j) {
        if (inside(all.at(i, j), x_radii[i])) ++expected[0][i], ++expected[1][j];
        if (inside(all.at(i, j), y_radii[j])) ++expected[2][j], ++expected[3][i];
      }
    }
    const bool of_x = which < 2, of_y = which > 0;
    egt::ball_counts<T>(x_, self ? nullptr : &y_, of_x ? x_radii.get() : nullptr, of_y ? y_radii.get() : nullptr,
                        closed, of_x ? counts[0].get() : nullptr, of_x ? counts[1].get() : nullptr,
                        of_y ? counts[2].get() : nullptr, of_y ? counts[3].get() : nullptr, run_);
    for (int side = 0; side < 4; ++side) {
      if (side < 2 ? of_x : of_y) {
        compare("ball counts", counts[side].get(), expected[side].get(), counts[side].size());
      }
    }
  }

  Exact<Index> offsets(Index n, Index n_groups, Index smallest) {
    Exact<Index> found(n_groups + 1, smallest);
    found[0] = 0;
    for (Index left = n - smallest * n_groups; left > 0; --left) ++found[between(rng_, 1, n_groups)];
    std::partial_sum(found.get(), found.get() + n_groups + 1, found.get());
    return found;
  }

  void grouped() {
    const Index k = between(rng_, 1, 3), most = std::min(x_.n, y_.n) / (k + 1);
    if (most < 1) return;
    const Index n_groups = between(rng_, 1, std::min<Index>(most, 30));
    const Exact<Index> x_offsets = offsets(x_.n, n_groups, k + 1), y_offsets = offsets(y_.n, n_groups, k);
    for (const bool self : {false, true}) {
      const Exact<Index>& ranges = self ? x_offsets : y_offsets;
      Exact<double> radii(x_.n), expected(x_.n);
      egt::grouped_neighbor_radii<T>(x_, self ? nullptr : &y_, n_groups, x_offsets.get(), ranges.get(), k, radii.get(),
                                     run_);
      for (Index g = 0; g < n_groups; ++g) {
        for (Index i = x_offsets[g]; i < x_offsets[g + 1]; ++i) {
          const auto sorted =
              (self ? within_ : across_).row(i, [&](Index j) { return ranges[g] <= j && j < ranges[g + 1]; });
          expected[i] = sorted[static_cast<std::size_t>(k - 1)].first;
        }
      }
      compare("grouped radii", radii.get(), expected.get(), x_.n, relative_);
    }
  }

  Exact<std::uint8_t> sides(Index size) {
    Exact<std::uint8_t> found(size);
    for (Index e = 0; e < size; ++e) found[e] = static_cast<std::uint8_t>(between(rng_, 0, 2));
    return found;
  }

  void splits() {
    const Index n = x_.n, m = y_.n, n_splits = between(rng_, 0, 9);
    const Exact<std::uint8_t> x_sides = sides(n * n_splits), y_sides = sides(m * n_splits);
    if (n >= 2) {
      const Index depth = some_k(n - 1);
      Exact<Index> wanted(n_splits);
      for (Index b = 0; b < n_splits; ++b) {
        const Index choices[] = {1, depth, depth + 1, (Index{1} << 32) + 1, between(rng_, 1, depth)};
        wanted[b] = choices[between(rng_, 0, 4)];
      }
      Exact<double> radii(n * n_splits);
      egt::split_neighbor_radii<T>(x_, x_sides.get(), n_splits, wanted.get(), depth, radii.get(), run_);
      for (Index i = 0; i < n; ++i) {
        auto sorted = within_.row(i, [](Index) { return true; });
        sorted.resize(static_cast<std::size_t>(depth));
        for (Index b = 0; b < n_splits; ++b) {
          double expected = infinity;
          Index seen = 0;
          for (const auto& [distance, j] : sorted) {
            if (x_sides[j * n_splits + b] != x_sides[i * n_splits + b]) continue;
            if (++seen == wanted[b]) expected = distance;
          }
          const Index place = i * n_splits + b;
          if (!near(radii[place], expected, relative_, 0.0)) fail("split radii", place, radii[place], expected);
        }
      }
    }
    const bool closed = between(rng_, 0, 1) != 0;
    Exact<double> radii(n * n_splits);
    for (Index e = 0; e < n * n_splits; ++e) radii[e] = some_radius(across_);
    Exact<std::int32_t> sizes(n * n_splits, -1), memberships(m * n_splits, -1);
    Exact<std::int32_t> expected_sizes(n * n_splits, 0), expected_memberships(m * n_splits, 0);
    egt::split_ball_counts<T>(x_, y_, radii.get(), x_sides.get(), y_sides.get(), n_splits, closed, sizes.get(),
                              memberships.get(), run_);
    for (Index i = 0; i < n; ++i) {
      for (Index j = 0; j < m; ++j) {
        for (Index b = 0; b < n_splits; ++b) {
          const double distance = across_.at(i, j), radius = radii[i * n_splits + b];
          if (x_sides[i * n_splits + b] != y_sides[j * n_splits + b]) continue;
          if (!(closed ? distance <= radius : distance < radius)) continue;
          ++expected_sizes[i * n_splits + b];
          ++expected_memberships[j * n_splits + b];
        }
      }
    }
    compare("split sizes", sizes.get(), expected_sizes.get(), n * n_splits);
    compare("split memberships", memberships.get(), expected_memberships.get(), m * n_splits);
  }

  void kernel_sums() {
    const Index n = x_.n, m = y_.n,
                n_replicates = between(rng_, 0, 1) != 0 ? between(rng_, 1, n * m > 50000 ? 5 : 70) : 0;
    const double one = std::sqrt(across_.at(between(rng_, 0, n - 1), between(rng_, 0, m - 1)));
    const double h = between(rng_, 0, 4) == 0 ? 0.0 : one * uniform(rng_, 0.2, 3.0);
    Exact<std::uint16_t> counts(m * n_replicates);
    for (Index e = 0; e < counts.size(); ++e) counts[e] = static_cast<std::uint16_t>(between(rng_, 0, 3));
    Exact<double> density(n), again(n), deviation(n * n_replicates), product(n), expected(n), expected_product(n);
    Exact<double> expected_deviation(n * n_replicates, 0.0);
    egt::kernel_density<T>(x_, y_, h, nullptr, 0, density.get(), nullptr, run_);
    egt::resampled_density<T>(x_, y_, h, counts.get(), n_replicates, again.get(), deviation.get(), run_);
    egt::soft_ball_product<T>(x_, y_, h, product.get(), run_);
    for (Index i = 0; i < n; ++i) {
      expected[i] = 0.0;
      expected_product[i] = 1.0;
      for (Index j = 0; j < m; ++j) {
        const double distance = std::sqrt(across_.at(i, j));
        const double u = h > 0.0 ? distance / h : distance > 0.0 ? 1.0 : 0.0;
        const double value = u < 1.0 ? std::cos(1.5707963267948966 * u) : 0.0;
        expected[i] += value / static_cast<double>(m);
        expected_product[i] *= std::min(u, 1.0);
        for (Index b = 0; b < n_replicates; ++b) {
          expected_deviation[i * n_replicates + b] +=
              value * (counts[j * n_replicates + b] - 1.0) / static_cast<double>(m);
        }
      }
    }
    compare("density", density.get(), expected.get(), n, 1e-5, 2e-6);
    compare("density again", again.get(), density.get(), n);
    compare("deviation", deviation.get(), expected_deviation.get(), n * n_replicates, 2e-5, 5e-6);
    compare("soft ball product", product.get(), expected_product.get(), n, 2e-4, 2e-6);
    if (n_replicates == 0) return;
    // The band of y itself: the largest of the deviations at its own points.
    Exact<double> own(m), band(n_replicates), own_again(m), own_deviation(m * n_replicates);
    egt::kernel_density<T>(y_, y_, h, counts.get(), n_replicates, own.get(), band.get(), run_);
    egt::resampled_density<T>(y_, y_, h, counts.get(), n_replicates, own_again.get(), own_deviation.get(), run_);
    Exact<double> largest(n_replicates, 0.0);
    for (Index e = 0; e < own_deviation.size(); ++e) {
      largest[e % n_replicates] = std::max(largest[e % n_replicates], std::abs(own_deviation[e]));
    }
    compare("own density", own.get(), own_again.get(), m);
    compare("band", band.get(), largest.get(), n_replicates, 1e-12);
  }

  Rng& rng_;
  Kind kind_;
  Index d_;
  Exact<T> x_values_, y_values_;
  egt::Points<T> x_, y_;
  Distances across_, within_;
  egt::Run run_;
  double relative_ = 0.0;
};

// q f(p / q) of the first nine divergences, where both have mass.
double term(int code, double p, double q) {
  const double t = p / q, mean = 0.5 * (p + q);
  switch (code) {
    case 0:
      return p * std::log(t);
    case 1:
      return -q * std::log(t);
    case 2:
      return p * std::log(p / mean) + q * std::log(q / mean);
    case 3:
      return (p - q) * std::log(t);
    case 4:
      return 0.5 * std::abs(p - q);
    case 5:
      return (p - q) * (p - q) / q;
    case 6:
      return (p - q) * (p - q) / p;
    case 7:
      return std::pow(std::sqrt(p) - std::sqrt(q), 2.0);
    default:
      return 0.5 * (p - q) * (p - q) / (p + q);
  }
}

void divergences(Rng& rng, int n_threads) {
  const Index n_groups = between(rng, 1, 6), n_bins = between(rng, 1, 40), n_replicates = between(rng, 0, 70);
  const Index n_divergences = between(rng, 1, 14);
  const double smoothing = uniform(rng, 0.1, 1.0);
  Exact<Index> p(n_groups * n_bins), q(n_groups * n_bins);
  const bool many = between(rng, 0, 39) == 0;  // more than are drawn without a look at the stop
  for (Exact<Index>* counts : {&p, &q}) {
    const Index most = between(rng, 0, 3) == 0 ? 2000 : 30;
    for (Index e = 0; e < counts->size(); ++e) (*counts)[e] = between(rng, e % n_bins == 0 ? 1 : 0, most);
    if (many) (*counts)[0] = 1 << 22;
  }
  Exact<std::int32_t> codes(n_divergences);
  Exact<double> parameters(n_divergences, 0.5);
  for (Index f = 0; f < n_divergences; ++f) codes[f] = static_cast<std::int32_t>(between(rng, 0, 11));
  Exact<double> values(n_groups * n_divergences), replicates(n_groups * n_divergences * n_replicates);
  Exact<double> values_of_one(values.size()), replicates_of_one(replicates.size());
  egt::DivergenceBootstrap in{p.get(),       q.get(),   n_groups,     n_bins, codes.get(),  parameters.get(),
                              n_divergences, smoothing, n_replicates, rng(),  values.get(), replicates.get()};
  egt::Run run;
  run.n_threads = n_threads;
  egt::divergence_bootstrap(in, run);
  in.values = values_of_one.get();
  in.replicates = replicates_of_one.get();
  egt::divergence_bootstrap(in, egt::Run{});
  compare("divergences on one thread", values.get(), values_of_one.get(), values.size());
  compare("replicates on one thread", replicates.get(), replicates_of_one.get(), replicates.size());
  for (Index e = 0; e < replicates.size(); ++e) {
    if (!std::isfinite(replicates[e])) fail("replicates", e, replicates[e], 0.0);
  }
  for (Index group = 0; group < n_groups; ++group) {
    double totals[2] = {};
    for (Index k = 0; k < n_bins; ++k) {
      totals[0] += static_cast<double>(p[group * n_bins + k]) + smoothing;
      totals[1] += static_cast<double>(q[group * n_bins + k]) + smoothing;
    }
    for (Index f = 0; f < n_divergences; ++f) {
      if (codes[f] > 8) continue;
      double expected = 0.0;
      for (Index k = 0; k < n_bins; ++k) {
        expected += term(codes[f], (static_cast<double>(p[group * n_bins + k]) + smoothing) / totals[0],
                         (static_cast<double>(q[group * n_bins + k]) + smoothing) / totals[1]);
      }
      const Index place = group * n_divergences + f;
      if (!near(values[place], expected, 1e-9, 1e-12)) fail("divergences", place, values[place], expected);
    }
  }
}

void bootstraps(Rng& rng, int n_threads) {
  const Index n_rows = between(rng, 1, 300), n_replicates = between(rng, 0, 70);
  const std::uint64_t seed = rng();
  Exact<std::uint16_t> counts(n_rows * n_replicates), of_one(counts.size());
  egt::Run run;
  run.n_threads = n_threads;
  egt::bootstrap_counts(n_rows, n_replicates, seed, counts.get(), run);
  egt::bootstrap_counts(n_rows, n_replicates, seed, of_one.get(), egt::Run{});
  compare("bootstrap counts on one thread", counts.get(), of_one.get(), counts.size());
  for (Index b = 0; b < n_replicates; ++b) {
    Index total = 0;
    for (Index row = 0; row < n_rows; ++row) total += counts[row * n_replicates + b];
    if (total != n_rows) fail("draws", b, static_cast<double>(total), static_cast<double>(n_rows));
  }
}

// Work that is stopped while threads are in it. The first question comes after 50 milliseconds.
void interrupted(Rng& rng) {
  const Index n = 20000, d = 24;
  const Exact<float> x = points<float>(rng, Kind::normal, n, d);
  const egt::Points<float> all{x.get(), n, d};
  const Exact<Index> counts(4000, 1000);
  const Exact<std::int32_t> codes(9, 0);
  const Exact<double> parameters(9, 0.0);
  Exact<double> out(n), values(9), replicates(9 * 40000);
  Exact<std::uint16_t> draws(200000 * 2000);
  egt::Run run;
  run.n_threads = 3;
  run.interrupted = [] { return true; };
  const std::function<void()> calls[] = {
      [&] { egt::neighbor_radii<float>(all, nullptr, 5, {}, out.get(), run); },
      [&] { egt::kernel_density<float>(all, all, 3.0, nullptr, 0, out.get(), nullptr, run); },
      [&] {
        egt::divergence_bootstrap({counts.get(), counts.get(), 1, 4000, codes.get(), parameters.get(), 9, 0.5, 40000, 1,
                                   values.get(), replicates.get()},
                                  run);
      },
      [&] { egt::bootstrap_counts(200000, 2000, 1, draws.get(), run); },
  };
  Index number = 0;
  for (const auto& call : calls) {
    try {
      call();
      fail("interrupted call", number, 0.0, 1.0);
    } catch (const egt::Interrupted&) {
    }
    ++number;
  }
}

// What is an integer is the same with every instruction set.
void inner_loops(Rng& rng) {
  using egt::cpu::strip_width;
  using egt::cpu::tile_generic;
  const egt::cpu::Tile& own = egt::cpu::tile();
  const Index n_rows = between(rng, 1, 12), n_cols = between(rng, 1, strip_width);
  const float few[] = {0.0f,
                       -0.0f,
                       0.5f,
                       1.0f,
                       std::nextafter(1.0f, 2.0f),
                       static_cast<float>(infinity),
                       static_cast<float>(-infinity),
                       std::nanf("")};
  const auto any_float = [&] {
    return between(rng, 0, 1) != 0 ? few[between(rng, 0, std::size(few) - 1)]
                                   : static_cast<float>(uniform(rng, -1.0, 2.0));
  };
  const Exact<float> strip(n_rows * strip_width), row_limit(n_rows), col_limit(n_cols);
  for (const Exact<float>* values : {&strip, &row_limit, &col_limit}) {
    for (Index e = 0; e < values->size(); ++e) (*values)[e] = any_float();
  }
  for (const float* limits : {static_cast<const float*>(nullptr), static_cast<const float*>(col_limit.get())}) {
    const Exact<std::int32_t> found(n_rows * n_cols), expected(n_rows * n_cols);
    const Index n = own.select(strip.get(), n_rows, n_cols, row_limit.get(), limits, found.get());
    const Index n_expected = tile_generic.select(strip.get(), n_rows, n_cols, row_limit.get(), limits, expected.get());
    compare("number selected", &n, &n_expected, 1);
    compare("selected", found.get(), expected.get(), n);
  }
  {
    const Exact<float> values(n_cols), expected_values(n_cols);
    const Exact<std::int32_t> columns(n_cols), expected_columns(n_cols);
    for (Index c = 0; c < n_cols; ++c) strip[c] = static_cast<float>(uniform(rng, -1.0, 3.0));
    const Index n = own.within(strip.get(), n_cols, 7, values.get(), columns.get());
    const Index n_expected = tile_generic.within(strip.get(), n_cols, 7, expected_values.get(), expected_columns.get());
    compare("number within", &n, &n_expected, 1);
    compare("values within", values.get(), expected_values.get(), n);
    compare("columns within", columns.get(), expected_columns.get(), n);
  }
  {
    const Exact<double> radii(n_cols);
    const Exact<std::uint8_t> a_sides(n_cols), c_sides(n_cols);
    for (Index b = 0; b < n_cols; ++b) {
      radii[b] = 0.25 * static_cast<double>(between(rng, 0, 4));
      a_sides[b] = static_cast<std::uint8_t>(between(rng, 0, 1));
      c_sides[b] = static_cast<std::uint8_t>(between(rng, 0, 1));
    }
    const Index n = own.between(radii.get(), n_cols, 0.25, 0.75);
    const Index n_expected = tile_generic.between(radii.get(), n_cols, 0.25, 0.75);
    compare("between", &n, &n_expected, 1);
    const Exact<std::int32_t> a(n_cols, 0), c(n_cols, 0), expected_a(n_cols, 0), expected_c(n_cols, 0);
    for (const bool closed : {false, true}) {
      own.count_inside(0.5, closed, radii.get(), a_sides.get(), c_sides.get(), n_cols, a.get(), c.get());
      tile_generic.count_inside(0.5, closed, radii.get(), a_sides.get(), c_sides.get(), n_cols, expected_a.get(),
                                expected_c.get());
    }
    compare("inside a", a.get(), expected_a.get(), n_cols);
    compare("inside c", c.get(), expected_c.get(), n_cols);
  }
  // A multiple of both numbers of replicates that are drawn at once.
  const Index n_replicates = std::lcm(own.n_lanes, tile_generic.n_lanes), n_bins = between(rng, 1, 40);
  const std::uint64_t seed = rng();
  Exact<Index> cumulative(n_bins + 1, 0);
  for (Index k = 0; k < n_bins; ++k) {
    cumulative[k + 1] = cumulative[k] + between(rng, k == 0 ? 1 : 0, between(rng, 0, 1) != 0 ? 30 : 5000);
  }
  const egt::cpu::Stop never;
  const auto draws = [&](const egt::cpu::Tile& tile, Index* of_bins, std::uint16_t* of_rows) {
    for (Index first = 0; first < n_replicates; first += tile.n_lanes) {
      const Exact<Index> bins(n_bins * tile.n_lanes);
      const Exact<std::uint16_t> rows(n_cols * tile.n_lanes, 0);
      tile.multinomial(cumulative.get(), n_bins, static_cast<std::uint32_t>(first), 3, 1, seed, bins.get(), never);
      tile.draw_rows(n_cols, static_cast<std::uint32_t>(first), seed, rows.get(), never);
      for (Index e = 0; e < bins.size(); ++e) {
        of_bins[e / tile.n_lanes * n_replicates + first + e % tile.n_lanes] = bins[e];
      }
      for (Index e = 0; e < rows.size(); ++e) {
        of_rows[e / tile.n_lanes * n_replicates + first + e % tile.n_lanes] = rows[e];
      }
    }
  };
  const Exact<Index> bins(n_bins * n_replicates), expected_bins(bins.size());
  const Exact<std::uint16_t> rows(n_cols * n_replicates), expected_rows(rows.size());
  draws(own, bins.get(), rows.get());
  draws(tile_generic, expected_bins.get(), expected_rows.get());
  compare("draws of bins", bins.get(), expected_bins.get(), bins.size());
  compare("draws of rows", rows.get(), expected_rows.get(), rows.size());
}

int check(std::uint64_t seed, Index n_cases) {
  Rng rng(seed);
  const Index edges[] = {1, 2, 3, 4, 5, 6, 7, 8, 12, 13, 16, 17, 31, 33, 64, 255, 256, 257, 511, 767, 768, 769};
  const Index widths[] = {1, 1, 2, 3, 4, 7, 8, 9, 15, 16, 17, 31, 33, 63, 64, 65, 130};
  const auto some_rows = [&] {
    return between(rng, 0, 2) == 0 ? between(rng, 1, 60) : edges[between(rng, 0, std::size(edges) - 1)];
  };
  for (Index number = 0; number < n_cases; ++number) {
    const auto kind = static_cast<Kind>(between(rng, 0, static_cast<Index>(Kind::count) - 1));
    Index n = some_rows(), m = some_rows(), d = widths[between(rng, 0, std::size(widths) - 1)];
    if (number % 16 == 15) {  // blocks enough for several threads
      n = between(rng, 769, 1600), m = between(rng, 769, 800), d = between(rng, 1, 5);
    } else if (number % 16 == 7) {  // rows enough on both sides, and wide enough, for tiles of bytes
      n = between(rng, 128, 170), m = between(rng, 128, 170), d = between(rng, 24, 130);
    } else if (n * m > 30000) {
      m = between(rng, 1, 40);
    }
    if (kind == Kind::vanishing) d = 1;
    const auto n_threads = static_cast<int>(between(rng, 1, 5));
    const bool narrow = between(rng, 0, 1) != 0;
    where = std::string(egt::cpu::tile().isa) + ", seed " + std::to_string(seed) + ", case " + std::to_string(number) +
            ", kind " + std::to_string(static_cast<int>(kind)) + ", " + std::to_string(n) + " x " + std::to_string(m) +
            " x " + std::to_string(d) + (narrow ? " float" : " double") + ", " + std::to_string(n_threads) + " threads";
    if (narrow) {
      Case<float>(rng, kind, n, m, d, n_threads)();
    } else {
      Case<double>(rng, kind, n, m, d, n_threads)();
    }
    divergences(rng, n_threads);
    bootstraps(rng, n_threads);
    inner_loops(rng);
  }
  where = std::string(egt::cpu::tile().isa) + ", interrupted";
  interrupted(rng);
  std::printf("%s: %lld cases from seed %llu agree\n", egt::cpu::tile().isa, static_cast<long long>(n_cases),
              static_cast<unsigned long long>(seed));
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  const char* seed = argc > 1 ? argv[1] : "1";
  const char* n_cases = argc > 2 ? argv[2] : "100";
  const auto check_one = [&] { return check(std::strtoull(seed, nullptr, 10), std::atoll(n_cases)); };
  if (std::getenv("EGTMETRICS_ISA")) return check_one();
  int failures = 0;
  for (const egt::cpu::Tile* const* tile = egt::cpu::available_tiles(); *tile; ++tile) {
    const pid_t child = fork();
    if (child == 0) {
      setenv("EGTMETRICS_ISA", (*tile)->isa, 1);
      std::exit(check_one());
    }
    int status = 1;
    if (child < 0 || waitpid(child, &status, 0) != child || status != 0) {
      std::fprintf(stderr, "%s: failed\n", (*tile)->isa);
      ++failures;
    }
  }
  return failures == 0 ? 0 : 1;
}
