// Which way rows are added, on how many threads.
#include "scatter.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <stdexcept>
#include <thread>
#include <vector>

#include "float_mode.hpp"
#include "isa.hpp"
#include "parallel.hpp"

namespace ndp {

namespace {

struct Bf16 { uint16_t bits; };
struct F16 { uint16_t bits; };

template <class T> struct Of;
template <> struct Of<double> { using Acc = double; using Bits = uint64_t; static constexpr const Format& format = kFormat64; };
template <> struct Of<float> { using Acc = float; using Bits = uint32_t; static constexpr const Format& format = kFormat32; };
template <> struct Of<Bf16> { using Acc = float; using Bits = uint16_t; static constexpr const Format& format = kFormatBf16; };
template <> struct Of<F16> { using Acc = float; using Bits = uint16_t; static constexpr const Format& format = kFormat16; };

double value(double x) { return x; }
double value(float x) { return x; }
double value(Bf16 x) { return __builtin_bit_cast(float, static_cast<uint32_t>(x.bits) << 16); }
double value(F16 x) {
  const double sign = x.bits & 0x8000 ? -1.0 : 1.0;
  const int exponent = x.bits >> 10 & 31;
  const int fraction = x.bits & 1023;
  if (exponent == 31) return fraction ? __builtin_nan("") : sign * __builtin_inf();
  return sign * std::ldexp(exponent ? fraction + 1024 : fraction, (exponent ? exponent : 1) - 25);
}

template <class T>
T rounded(double x) {
  Superacc acc;
  clear(acc);
  make_room(acc, 1);
  deposit(acc, x);
  const auto bits = static_cast<typename Of<T>::Bits>(round_to(acc, Of<T>::format, std::signbit(x)));
  return __builtin_bit_cast(T, bits);
}

template <class T>
void one_nan(T* out, int64_t count) {
  for (int64_t i = 0; i < count; ++i)
    if (const double x = value(out[i]); x != x) out[i] = rounded<T>(x);
}

template <class T>
void ordered(const Scatter& job) {
  const DefaultFloatMode mode;
  using Acc = typename Of<T>::Acc;
  T* out = static_cast<T*>(job.out);
  const T* source = static_cast<const T*>(job.source);
  const int64_t cells = job.destinations * job.columns;
  std::vector<Acc> sums(cells);
  for (int64_t i = 0; i < cells; ++i) sums[i] = static_cast<Acc>(value(out[i]));
  for (int64_t i = 0; i < job.n; ++i)
    for (int64_t c = 0; c < job.columns; ++c)
      sums[job.index[i] * job.columns + c] += static_cast<Acc>(value(source[i * job.columns + c]));
  for (int64_t i = 0; i < cells; ++i) out[i] = rounded<T>(sums[i]);
}

template <class T>
void add_atomically(T& cell, T x) {
  if constexpr (sizeof(T) > 2) {
    std::atomic_ref<T>(cell).fetch_add(x, std::memory_order_relaxed);
  } else {
    std::atomic_ref<uint16_t> shared(cell.bits);
    uint16_t seen = shared.load(std::memory_order_relaxed);
    while (!shared.compare_exchange_weak(
        seen, rounded<T>(static_cast<float>(value(T{seen})) + static_cast<float>(value(x))).bits,
        std::memory_order_relaxed)) {
    }
  }
}

template <class T>
void atomic(const Scatter& job, int threads) {
  T* out = static_cast<T*>(job.out);
  const T* source = static_cast<const T*>(job.source);
  const int64_t total = job.n * job.columns;
  const int workers = static_cast<int>(std::clamp<int64_t>(total / 16384, 1, threads));
  std::atomic<int> waiting{workers};
  parallel_run(workers, [&](int worker) {
    const DefaultFloatMode mode;
    --waiting;
    const auto patience = std::chrono::steady_clock::now() + std::chrono::microseconds(200);
    while (waiting.load() > 0 && std::chrono::steady_clock::now() < patience)
      std::this_thread::yield();
    const int64_t end = job.n * (worker + 1) / workers;
    for (int64_t i = job.n * worker / workers; i < end; ++i)
      for (int64_t c = 0; c < job.columns; ++c)
        add_atomically(out[job.index[i] * job.columns + c], source[i * job.columns + c]);
  });
  one_nan(out, job.destinations * job.columns);
}

template <class T, class Body>
void each_destination(const Scatter& job, const Body& body) {
  std::vector<int64_t> start(job.destinations + 1), place(job.n);
  for (int64_t i = 0; i < job.n; ++i) ++start[job.index[i] + 1];
  for (int64_t d = 0; d < job.destinations; ++d) start[d + 1] += start[d];
  std::vector<int64_t> next(start.begin(), start.end() - 1);
  for (int64_t i = 0; i < job.n; ++i) place[next[job.index[i]]++] = i;
  for (int64_t d = 0; d < job.destinations; ++d)
    for (int64_t c = 0; c < job.columns; ++c) body(d, c, &place[start[d]], start[d + 1] - start[d]);
}

template <class T>
void exact(const Scatter& job) {
  const DefaultFloatMode mode;
  T* out = static_cast<T*>(job.out);
  const T* source = static_cast<const T*>(job.source);
  Superacc acc;
  each_destination<T>(job, [&](int64_t d, int64_t c, const int64_t* place, int64_t count) {
    T& cell = out[d * job.columns + c];
    clear(acc);
    make_room(acc, count + 1);
    deposit(acc, value(cell));
    bool negative_zero = value(cell) == 0.0 && std::signbit(value(cell));
    for (int64_t i = 0; i < count; ++i) {
      const double x = value(source[place[i] * job.columns + c]);
      deposit(acc, x);
      negative_zero &= x == 0.0 && std::signbit(x);
    }
    const auto bits = static_cast<typename Of<T>::Bits>(round_to(acc, Of<T>::format, negative_zero));
    cell = __builtin_bit_cast(T, bits);
  });
}

template <class T>
void fixed_point(const Scatter& job) {
  const DefaultFloatMode mode;
  T* out = static_cast<T*>(job.out);
  const T* source = static_cast<const T*>(job.source);
  double most = 0.0;
  const auto look = [&](T x) {
    const double magnitude = std::fabs(value(x));
    if (magnitude < __builtin_inf() && magnitude > most) most = magnitude;
  };
  for (int64_t i = 0; i < job.destinations * job.columns; ++i) look(out[i]);
  for (int64_t i = 0; i < job.n * job.columns; ++i) look(source[i]);
  int exponent = 0;
  std::frexp(most, &exponent);
  const int shift = 62 - (64 - __builtin_clzll(job.n + 1)) - exponent;
  Superacc acc;
  each_destination<T>(job, [&](int64_t d, int64_t c, const int64_t* place, int64_t count) {
    T& cell = out[d * job.columns + c];
    clear(acc);
    int64_t total = 0;
    bool negative_zero = true;
    const auto add = [&](double x) {
      negative_zero &= x == 0.0 && std::signbit(x);
      if (std::isfinite(x))
        total += std::llrint(std::ldexp(x, shift));
      else
        deposit(acc, x);
    };
    add(value(cell));
    for (int64_t i = 0; i < count; ++i) add(value(source[place[i] * job.columns + c]));
    make_room(acc, 1);
    const auto magnitude = static_cast<unsigned __int128>(total < 0 ? -total : total);
    if (total != 0) deposit_magnitude(acc, magnitude, -shift, total < 0);
    const auto bits = static_cast<typename Of<T>::Bits>(round_to(acc, Of<T>::format, negative_zero));
    cell = __builtin_bit_cast(T, bits);
  });
}

template <class T>
void run(ScatterVariant variant, const Scatter& job, int threads) {
  switch (variant) {
    case ScatterVariant::atomic:
      return atomic<T>(job, threads);
    case ScatterVariant::ordered:
      return ordered<T>(job);
    case ScatterVariant::fixed_point:
      return fixed_point<T>(job);
    default:
      return exact<T>(job);
  }
}

}  // namespace

ScatterVariant scatter_variant(const std::string& name) {
  if (name == "atomic") return ScatterVariant::atomic;
  if (name == "ordered") return ScatterVariant::ordered;
  if (name == "fixed_point") return ScatterVariant::fixed_point;
  if (name == "exact") return ScatterVariant::exact;
  throw std::invalid_argument("scatter has no variant " + name);
}

int64_t scatter(ScatterVariant variant, const Scatter& job, int threads, const std::string& isa) {
  choose_isa(isa);
  if (const int64_t bad = check_indices(job.index, job.n, 0, job.destinations, nullptr); bad >= 0)
    return bad;
  switch (job.dtype) {
    case Dtype::float64:
      run<double>(variant, job, threads);
      break;
    case Dtype::float32:
      run<float>(variant, job, threads);
      break;
    case Dtype::bfloat16:
      run<Bf16>(variant, job, threads);
      break;
    case Dtype::float16:
      run<F16>(variant, job, threads);
      break;
    default:
      throw std::invalid_argument("scatter takes float64, float32, bfloat16 and float16");
  }
  return -1;
}

int64_t check_indices(const int64_t* index, int64_t n, int64_t low, int64_t high,
                      int64_t* wrapped) {
  for (int64_t i = 0; i < n; ++i) {
    if (index[i] < low || index[i] >= high) return i;
    if (wrapped != nullptr) wrapped[i] = index[i] < 0 ? index[i] + high : index[i];
  }
  return -1;
}

}  // namespace ndp
