#include "embedding.hpp"

#include <stdexcept>

#include "float_mode.hpp"
#include "narrow.hpp"

namespace ndp {

namespace {

double widened(float x, const Format&) { return x; }
double widened(double x, const Format&) { return x; }

template <class T>
void divide(T* table, const Format& format, const int64_t* counts, int64_t rows, int64_t columns) {
  for (int64_t row = 0; row < rows; ++row) {
    if (counts[row] <= 1) continue;
    const double count = static_cast<double>(counts[row]);
    for (T* cell = table + row * columns; cell < table + (row + 1) * columns; ++cell) {
      // A quotient that is no tie differs from every tie of a format of p bits by 2^-(p + 1) / count
      // at least, relatively: below 2^28 elements fp64 sees it, and the second rounding is the only
      // one in effect.
      const uint64_t bits = round_double(widened(*cell, format) / count, format);
      std::memcpy(cell, &bits, sizeof *cell);
    }
  }
}

}  // namespace

void divide_rows(Dtype dtype, void* table, const int64_t* counts, int64_t rows, int64_t columns) {
  const DefaultFloatMode mode;
  switch (dtype) {
    case Dtype::float64:
      return divide(static_cast<double*>(table), kFormat64, counts, rows, columns);
    case Dtype::float32:
      return divide(static_cast<float*>(table), kFormat32, counts, rows, columns);
    case Dtype::bfloat16:
      return divide(static_cast<uint16_t*>(table), kFormatBf16, counts, rows, columns);
    case Dtype::float16:
      return divide(static_cast<uint16_t*>(table), kFormat16, counts, rows, columns);
    default:
      throw std::invalid_argument("embedding takes float64, float32, bfloat16 and float16");
  }
}

}  // namespace ndp
