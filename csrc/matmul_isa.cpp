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

namespace {

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
