#include "bincount.hpp"

#include <algorithm>
#include <stdexcept>
#include <vector>

#include "float_mode.hpp"
#include "narrow.hpp"
#include "parallel.hpp"

namespace ndp {

namespace {

// What a worker is started for.
constexpr int64_t kLeast = 1 << 16;

}  // namespace

void count(const int64_t* index, int64_t n, int64_t bins, int threads, int64_t* counts) {
  std::fill_n(counts, bins, 0);
  // Every worker but the first has a table of its own, which has to be filled and added.
  const int workers =
      static_cast<int>(std::clamp<int64_t>(n / std::max(kLeast, 4 * bins), 1, threads));
  std::vector<int64_t> tables((workers - 1) * bins);
  parallel_run(workers, [&](int worker) {
    int64_t* table = worker == 0 ? counts : &tables[(worker - 1) * bins];
    const int64_t end = n * (worker + 1) / workers;
    for (int64_t i = n * worker / workers; i < end; ++i) ++table[index[i]];
  });
  for (int worker = 1; worker < workers; ++worker)
    for (int64_t bin = 0; bin < bins; ++bin) counts[bin] += tables[(worker - 1) * bins + bin];
}

void widen(Dtype dtype, const void* x, int64_t n, double* wide) {
  const DefaultFloatMode mode;
  if (dtype == Dtype::int64) {
    const int64_t* number = static_cast<const int64_t*>(x);
    for (int64_t i = 0; i < n; ++i) wide[i] = static_cast<double>(number[i]);
  } else if (dtype == Dtype::bfloat16 || dtype == Dtype::float16) {
    const Format& format = dtype == Dtype::bfloat16 ? kFormatBf16 : kFormat16;
    const uint16_t* bits = static_cast<const uint16_t*>(x);
    for (int64_t i = 0; i < n; ++i) wide[i] = widened(bits[i], format);
  } else {
    throw std::invalid_argument("widen takes bfloat16, float16 and int64");
  }
}

}  // namespace ndp
