// Products of float32, bfloat16 and float16 are exact in fp64 and go through the kernel of
// `sum exact`. Products of float64 have 106 bits and reach below 2^-1074: they are made of integers.
#include "matmul_exact.hpp"

#include <algorithm>
#include <cstring>
#include <stdexcept>

#include "formats.hpp"
#include "levels.hpp"
#include "superacc.hpp"

namespace ndp {

NDP_KERNELS(SumKernels, sum_kernels)

namespace {

constexpr int64_t kTerms = 4096;  // converted at a time
constexpr int64_t kElements = ExactDots::kSide * ExactDots::kSide;

double half_value(uint16_t bits) {
  const int biased = bits >> 10 & 0x1f;
  const int fraction = bits & 0x3ff;
  double magnitude;
  if (biased == 0x1f)
    magnitude = fraction != 0 ? __builtin_nan("") : __builtin_inf();
  else if (biased == 0)
    magnitude = fraction * 0x1p-24;
  else
    magnitude = (1024 + fraction) * 0x1p-25 * static_cast<double>(uint64_t{1} << biased);
  return bits >> 15 ? -magnitude : magnitude;
}

double element(Dtype dtype, const Factor& factor, int64_t line, int64_t k) {
  const int64_t place = line * factor.line_stride + k * factor.k_stride;
  switch (dtype) {
    case Dtype::float64:
      return static_cast<const double*>(factor.data)[place];
    case Dtype::float32:
      return static_cast<const float*>(factor.data)[place];
    case Dtype::bfloat16: {
      const uint32_t bits = uint32_t{static_cast<const uint16_t*>(factor.data)[place]} << 16;
      float value;
      std::memcpy(&value, &bits, sizeof value);
      return value;
    }
    default:
      return half_value(static_cast<const uint16_t*>(factor.data)[place]);
  }
}

void convert(Dtype dtype, const Factor& factor, int64_t lines, int64_t first, int64_t count,
             double* to) {
  for (int64_t line = 0; line < lines; ++line)
    for (int64_t p = 0; p < count; ++p)
      to[line * kTerms + p] = element(dtype, factor, line, first + p);
}

struct Room {
  union {
    ExactSum sum[kElements];
    WideAcc wide[kElements];
  };
  double a[ExactDots::kSide * kTerms], b[ExactDots::kSide * kTerms];
  double products[kTerms];
  ExponentBins bins;  // of one element at a time: emptied into its digits
};

}  // namespace

ExactDots::ExactDots(Dtype dtype, Isa isa)
    : dtype_(dtype), format_(format_of(dtype, "matmul")), sum_(sum_kernels(isa, Dtype::float64).exact) {}

int64_t ExactDots::room() const { return sizeof(Room); }

void ExactDots::tile(const Factor& a, int64_t rows, const Factor& b, int64_t columns, int64_t k,
                     void* result, int64_t row_stride, void* memory) const {
  Room& room = *static_cast<Room*>(memory);
  const bool wide = dtype_ == Dtype::float64;
  for (int64_t i = 0; i < rows * columns; ++i) {
    if (wide) {
      clear(room.wide[i]);
    } else {
      clear(room.sum[i].acc);
      room.sum[i].bins = &room.bins;
      room.sum[i].bins_used = false;
      room.sum[i].base_level = room.sum[i].level = 1;  // sums of fp64 start with a split
      room.sum[i].since_base = room.sum[i].exponent = 0;
    }
  }
  for (int64_t first = 0; first < k; first += kTerms) {
    const int64_t count = std::min(kTerms, k - first);
    convert(dtype_, a, rows, first, count, room.a);
    convert(dtype_, b, columns, first, count, room.b);
    for (int64_t i = 0; i < rows; ++i)
      for (int64_t j = 0; j < columns; ++j) {
        const double* x = room.a + i * kTerms;
        const double* y = room.b + j * kTerms;
        if (wide) {
          WideAcc& sum = room.wide[i * columns + j];
          make_room(sum, count);
          for (int64_t p = 0; p < count; ++p) deposit_product(sum, x[p], y[p]);
        } else {
          for (int64_t p = 0; p < count; ++p) room.products[p] = x[p] * y[p];
          ExactSum& sum = room.sum[i * columns + j];
          sum_(room.products, count, sum);
          if (sum.bins_used) add_bins(room.bins, sum.acc);
          sum.bins_used = false;
        }
      }
  }
  const int64_t bytes = element_bytes(dtype_);
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t j = 0; j < columns; ++j) {
      const int64_t place = i * columns + j;
      uint64_t bits = wide ? round_to(room.wide[place], format_, false)
                           : round_to(room.sum[place].acc, format_, false);
      if (bits == 0 && k > 0) {
        // -0 only where every product is: the sums cannot know.
        bool negative_zeros = true;
        for (int64_t p = 0; p < k && negative_zeros; ++p) {
          const double x = element(dtype_, a, i, p), y = element(dtype_, b, j, p);
          negative_zeros = (x == 0 || y == 0) && __builtin_signbit(x) != __builtin_signbit(y);
        }
        if (negative_zeros) bits = format_.sign;
      }
      // Little-endian, like all that is built for.
      std::memcpy(static_cast<char*>(result) + (i * row_stride + j) * bytes, &bits, bytes);
    }
}

}  // namespace ndp
