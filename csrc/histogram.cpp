#include "histogram.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <limits>
#include <stdexcept>
#include <vector>

#include "float_mode.hpp"
#include "parallel.hpp"

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

template <class Body>
void each_block(int64_t n, int workers, const Body& body) {
  std::atomic<int64_t> next{0};
  parallel_run(workers, [&](int worker) {
    const DefaultFloatMode mode;
    for (;;) {
      const int64_t first = next.fetch_add(kBlock, std::memory_order_relaxed);
      if (first >= n) return;
      body(worker, first, std::min(kBlock, n - first));
    }
  });
}

int workers_for(int64_t n, int threads) {
  return static_cast<int>(std::clamp<int64_t>(n / (kBlock * kBlocksPerWorker), 1, threads));
}

}  // namespace

void bin_edges(Dtype dtype, double low, double high, int64_t bins, void* edges) {
  with_type(dtype, [&](auto zero) {
    using T = decltype(zero);
    const DefaultFloatMode mode;
    T* edge = static_cast<T*>(edges);
    const T first = static_cast<T>(low), last = static_cast<T>(high);
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

void find_bins(const Bins& bins, const void* x, int64_t n, int threads, int64_t* index) {
  with_type(bins.dtype, [&](auto zero) {
    using T = decltype(zero);
    const T* element = static_cast<const T*>(x);
    const Finder<T> finder(bins);
    each_block(n, workers_for(n, threads), [&](int, int64_t first, int64_t count) {
      for (int64_t i = first; i < first + count; ++i) index[i] = finder.bin(element[i]);
    });
  });
}

void count_bins(const Bins& bins, const void* x, int64_t n, int threads, int64_t* counts) {
  with_type(bins.dtype, [&](auto zero) {
    using T = decltype(zero);
    const T* element = static_cast<const T*>(x);
    const Finder<T> finder(bins);
    // One more for elements in no bin.
    const int64_t size = bins.bins + 1;
    const int workers = workers_for(n / std::max<int64_t>(size / kBlock, 1), threads);
    std::vector<int64_t> tables(workers * size);
    each_block(n, workers, [&](int worker, int64_t first, int64_t count) {
      int64_t index[kBlock];
      for (int64_t i = 0; i < count; ++i) index[i] = finder.bin(element[first + i]);
      int64_t* table = &tables[worker * size];
      for (int64_t i = 0; i < count; ++i) ++table[index[i]];
    });
    std::copy_n(tables.begin(), bins.bins, counts);
    for (int worker = 1; worker < workers; ++worker)
      for (int64_t bin = 0; bin < bins.bins; ++bin) counts[bin] += tables[worker * size + bin];
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
