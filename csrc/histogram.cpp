#include "histogram.hpp"

#include <algorithm>
#include <cmath>
#include <limits>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

#include "workers.hpp"

namespace ndp {

namespace {

// Elements whose bins are found before they are counted.
constexpr int64_t kBlock = 4096;
constexpr int64_t kBlocksPerWorker = 16;

// Calls body(first of a type) with double or float.
template <class Body>
void with_type(Dtype dtype, const Body& body) {
  if (dtype == Dtype::float64) return body(double{});
  if (dtype == Dtype::float32) return body(float{});
  throw std::invalid_argument("histogram takes float64 and float32");
}

template <class T>
class Finder {
 public:
  explicit Finder(const Bins& given)
      : edges_(static_cast<const T*>(given.edges)),
        bins_(given.bins),
        low_(edges_[0]),
        high_(edges_[given.bins]),
        per_width_(given.uniform ? static_cast<double>(given.bins) /
                                       (static_cast<double>(high_) - static_cast<double>(low_))
                                 : 0.0) {
    guessing_ = given.uniform && std::isfinite(per_width_);
  }

  int64_t bin(T x) const {
    if (!(x >= low_ && x <= high_)) return bins_;
    if (guessing_) {
      const double place =
          (static_cast<double>(x) - static_cast<double>(low_)) * per_width_;
      const int64_t guess = std::min(static_cast<int64_t>(place), bins_ - 1);
      if (edges_[guess] <= x && x < edges_[guess + 1]) return guess;
    }
    // Of bins without width at one place the last, as where x is the upper edge of all.
    const int64_t found = std::upper_bound(edges_, edges_ + bins_ + 1, x) - edges_ - 1;
    return std::min(found, bins_ - 1);
  }

 private:
  const T* edges_;
  int64_t bins_;
  T low_, high_;
  double per_width_;
  bool guessing_;
};

int histogram_workers(int64_t n, int threads) {
  return workers_for(n / (kBlock * kBlocksPerWorker), threads);
}

}  // namespace

Range range_of(Dtype dtype, const void* x, int64_t n) {
  Range range{0.0, 1.0};
  if (n == 0) return range;
  with_type(dtype, [&](auto zero) {
    using T = decltype(zero);
    using Bits = std::conditional_t<sizeof(T) == 8, int64_t, int32_t>;
    const DefaultFloatMode mode;
    // Bit patterns in the order of the numbers; NaNs lie beyond the infinities.
    const auto key = [](Bits bits) {
      return bits ^ (bits >> (8 * sizeof(Bits) - 1) & std::numeric_limits<Bits>::max());
    };
    const T* element = static_cast<const T*>(x);
    Bits least = std::numeric_limits<Bits>::max(), most = std::numeric_limits<Bits>::min();
    for (int64_t i = 0; i < n; ++i) {
      const Bits found = key(__builtin_bit_cast(Bits, element[i]));
      least = std::min(least, found);
      most = std::max(most, found);
    }
    const T low = __builtin_bit_cast(T, key(least)), high = __builtin_bit_cast(T, key(most));
    range = {low + 0.0, high + 0.0};  // -0.0 becomes 0.0
    if (low != low || high != high) range = {__builtin_nan(""), __builtin_nan("")};
  });
  return range;
}

void bin_edges(Dtype dtype, Range range, int64_t bins, void* edges) {
  with_type(dtype, [&](auto zero) {
    using T = decltype(zero);
    const DefaultFloatMode mode;
    T* edge = static_cast<T*>(edges);
    T first = static_cast<T>(range.low), last = static_cast<T>(range.high);
    const auto told = [&] {
      return std::to_string(range.low) + " to " + std::to_string(range.high);
    };
    if (!std::isfinite(first) || !std::isfinite(last))
      throw std::invalid_argument("the range of the bins is not finite: " + told());
    if (first > last)
      throw std::invalid_argument("the range of the bins ends before it begins: " + told());
    if (first == last) {
      first -= T{0.5};
      last += T{0.5};
    }
    const T count = static_cast<T>(bins);
    const T width = last - first;
    const T step = std::isfinite(width) ? width / count : last / count - first / count;
    // From both ends, so that both are met.
    for (int64_t i = 0; i <= bins; ++i)
      edge[i] = i < (bins + 1) / 2 ? first + step * static_cast<T>(i)
                                   : last - step * static_cast<T>(bins - i);
    // Where bins are as narrow as the numbers lie, rounding could let the halves overlap.
    for (int64_t i = 1; i <= bins; ++i) edge[i] = std::max(edge[i], edge[i - 1]);
  });
}

int64_t falling_edge(Dtype dtype, const void* edges, int64_t n) {
  int64_t found = -1;
  with_type(dtype, [&](auto zero) {
    const DefaultFloatMode mode;
    const auto* edge = static_cast<const decltype(zero)*>(edges);
    for (int64_t i = 1; i < n && found < 0; ++i)
      if (!(edge[i - 1] <= edge[i])) found = i;
  });
  return found;
}

void find_bins(const Bins& bins, const void* x, int64_t n, int threads, int64_t* index) {
  with_type(bins.dtype, [&](auto zero) {
    using T = decltype(zero);
    const T* element = static_cast<const T*>(x);
    const Finder<T> finder(bins);
    share_out(n, kBlock, histogram_workers(n, threads), [&](int, int64_t first, int64_t count) {
      for (int64_t i = first; i < first + count; ++i) index[i] = finder.bin(element[i]);
    });
  });
}

void count_bins(const Bins& bins, const void* x, int64_t n, int threads, int64_t* counts,
                void* hist) {
  with_type(bins.dtype, [&](auto zero) {
    using T = decltype(zero);
    const T* element = static_cast<const T*>(x);
    const Finder<T> finder(bins);
    // One more for elements in no bin.
    const int64_t size = bins.bins + 1;
    const int workers = histogram_workers(n / std::max<int64_t>(size / kBlock, 1), threads);
    std::vector<int64_t> tables(workers * size);
    share_out(n, kBlock, workers, [&](int worker, int64_t first, int64_t count) {
      int64_t index[kBlock];
      for (int64_t i = 0; i < count; ++i) index[i] = finder.bin(element[first + i]);
      int64_t* table = &tables[worker * size];
      for (int64_t i = 0; i < count; ++i) ++table[index[i]];
    });
    std::copy_n(tables.begin(), bins.bins, counts);
    for (int worker = 1; worker < workers; ++worker)
      for (int64_t bin = 0; bin < bins.bins; ++bin) counts[bin] += tables[worker * size + bin];
    const DefaultFloatMode mode;
    for (int64_t bin = 0; bin < bins.bins; ++bin)
      static_cast<T*>(hist)[bin] = static_cast<T>(counts[bin]);
  });
}

void normalise(const Bins& bins, void* hist) {
  with_type(bins.dtype, [&](auto zero) {
    using T = decltype(zero);
    const DefaultFloatMode mode;
    const T* edge = static_cast<const T*>(bins.edges);
    T* value = static_cast<T*>(hist);
    double total = 0.0;
    for (int64_t bin = 0; bin < bins.bins; ++bin) total += value[bin];
    for (int64_t bin = 0; bin < bins.bins; ++bin) {
      const double width = static_cast<double>(edge[bin + 1]) - static_cast<double>(edge[bin]);
      const double density = static_cast<double>(value[bin]) / total / width;
      value[bin] = density == density ? static_cast<T>(density)
                                      : std::numeric_limits<T>::quiet_NaN();
    }
  });
}

void bin_sums(Dtype dtype, const int64_t* index, const void* weights, int64_t n, int64_t bins,
              int64_t* digits, uint8_t* specials) {
  with_type(dtype, [&](auto zero) {
    using T = decltype(zero);
    const DefaultFloatMode mode;
    const T* weight = static_cast<const T*>(weights);
    std::vector<Superacc> sums(bins);
    for (Superacc& sum : sums) clear(sum);
    for (int64_t i = 0; i < n; ++i) {
      if (index[i] == bins) continue;
      make_room(sums[index[i]], 1);
      deposit(sums[index[i]], weight[i]);
    }
    for (int64_t bin = 0; bin < bins; ++bin) {
      carry(sums[bin]);
      std::copy_n(sums[bin].digit, kDigits, digits + bin * kDigits);
      const Specials& found = sums[bin].specials;
      specials[bin] = static_cast<uint8_t>(found.positive_infinity | found.negative_infinity << 1 |
                                           found.nan << 2);
    }
  });
}

}  // namespace ndp
