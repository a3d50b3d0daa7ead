// The loops of `matmul`, compiled once for each ISA level.
//
// Every element of the result is a chain of fused multiply-adds along k, in blocks
// (docs/ops/matmul.md). Vectors lie across elements of the result, never along k, so that neither
// their width nor the way the result is cut into tiles changes a bit; and as a fused multiply-add
// has its factors in either order, a and b may change places.
#include <cstdint>
#include <cstring>

#include "matmul.hpp"
#include "sum.hpp"
#pragma GCC diagnostic push
// gcc 12 takes the deliberately undefined registers of its own AVX-512 header for a mistake.
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#include "simd.hpp"
#pragma GCC diagnostic pop

#pragma GCC diagnostic ignored "-Wpsabi"  // the vectors never cross a call that is not inlined

namespace ndp::NDP_ISA {

#include "sum_lanes.hpp"

#include "matmul_tiles.hpp"
#include "matmul_few_rows.hpp"

namespace {

template <class T>
int64_t room(int64_t rows, int64_t columns, int64_t k) {
  using Sum = typename Traits<T>::Partial;
  const int64_t packed = rows * kPackedLine +
                         panels<Sum>(columns) * kLinesOfB<Sum> * less(k, kMatmulBlock);
  return packed > rows * columns ? packed : rows * columns;
}

template <class T>
void product(const Factor& a, const Factor& b, int64_t rows, int64_t columns, int64_t k, void* sums,
             int64_t sums_stride, void* room) {
  using Sum = typename Traits<T>::Partial;
  Sum* to = static_cast<Sum*>(sums);
  Sum* free = static_cast<Sum*>(room);
  if (rows <= kDottedRows && a.k_stride == 1 && b.k_stride == 1)
    product_dotted<T>(a, b, rows, columns, k, to, sums_stride);
  else if (rows <= kStreamedRows && b.line_stride == 1)
    switch (rows) {
      case 1:
        return product_streamed<1, T>(a, b, columns, k, to, sums_stride, free);
      case 2:
        return product_streamed<2, T>(a, b, columns, k, to, sums_stride, free);
      case 3:
        return product_streamed<3, T>(a, b, columns, k, to, sums_stride, free);
      default:
        return product_streamed<4, T>(a, b, columns, k, to, sums_stride, free);
    }
  else
    product_packed<T>(a, b, rows, columns, k, to, sums_stride, free);
}

template <class T>
void add(void* sums, const void* other, int64_t count) {
  using Sum = typename Traits<T>::Partial;
  Sum* to = static_cast<Sum*>(sums);
  const Sum* from = static_cast<const Sum*>(other);
  for (int64_t i = 0; i < count; ++i) to[i] += from[i];
}

// To nearest even; NaN to the positive quiet one without payload.
NDP_INLINE void round_one(double sum, double& to) { to = sum == sum ? sum : __builtin_nan(""); }
NDP_INLINE void round_one(float sum, float& to) { to = sum == sum ? sum : __builtin_nanf(""); }
NDP_INLINE void round_one(float sum, Bfloat16& to) {
  const uint32_t bits = __builtin_bit_cast(uint32_t, sum);
  const uint32_t rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
  to.bits = static_cast<uint16_t>(sum == sum ? rounded : 0x7fc0);
}
NDP_INLINE void round_one(float sum, Float16& to) {
  const uint32_t bits = __builtin_bit_cast(uint32_t, sum);
  const uint32_t sign = bits >> 16 & 0x8000;
  const uint32_t magnitude = bits & 0x7fffffff;
  uint32_t rounded;
  if (magnitude >= 0x477ff000) {  // 65520 and above: infinity
    rounded = 0x7c00;
  } else if (magnitude < 0x38800000) {  // below 2^-14: in units of 2^-24
    const float moved = __builtin_bit_cast(float, magnitude) + 0.5f;
    rounded = __builtin_bit_cast(uint32_t, moved) - 0x3f000000;
  } else {
    rounded = (magnitude + 0xfff + (magnitude >> 13 & 1) - 0x38000000) >> 13;
  }
  to.bits = static_cast<uint16_t>(sum == sum ? rounded | sign : 0x7e00);
}

template <class T>
void round(const void* sums, int64_t sums_stride, int64_t rows, int64_t columns, void* to,
           int64_t row_stride, int64_t column_stride) {
  using Sum = typename Traits<T>::Partial;
  for (int64_t i = 0; i < rows; ++i) {
    const Sum* row = static_cast<const Sum*>(sums) + i * sums_stride;
    T* result = static_cast<T*>(to) + i * row_stride;
    if (column_stride == 1)
      for (int64_t j = 0; j < columns; ++j) round_one(row[j], result[j]);
    else
      for (int64_t j = 0; j < columns; ++j) round_one(row[j], result[j * column_stride]);
  }
}

template <class T>
constexpr MatmulKernels kKernels{kLinesOfA,  kLinesOfB<typename Traits<T>::Partial>,
                                 room<T>,    product<T>,
                                 add<T>,     round<T>};

}  // namespace

MatmulKernels matmul_kernels(Dtype dtype) {
  switch (dtype) {
    case Dtype::float64:
      return kKernels<double>;
    case Dtype::float32:
      return kKernels<float>;
    case Dtype::bfloat16:
      return kKernels<Bfloat16>;
    default:
      return kKernels<Float16>;
  }
}

}  // namespace ndp::NDP_ISA
