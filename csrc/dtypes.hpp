// The dtypes that the bit functions take. The numbers are part of the digest format
// (docs/digest.md): they are never reused or changed, new dtypes take new numbers.
#pragma once

#include <cstdint>

namespace ndp {

enum class Dtype : int32_t {
  boolean = 1,
  uint8 = 2,
  int8 = 3,
  uint16 = 4,
  int16 = 5,
  uint32 = 6,
  int32 = 7,
  uint64 = 8,
  int64 = 9,
  float8_e4m3fn = 10,
  float8_e5m2 = 11,
  float8_e4m3fnuz = 12,
  float8_e5m2fnuz = 13,
  float8_e8m0fnu = 14,
  float16 = 15,
  bfloat16 = 16,
  float32 = 17,
  float64 = 18,
  complex32 = 19,
  complex64 = 20,
  complex128 = 21,
};

// Bytes of one element; 0 for a number that is no dtype.
constexpr int64_t element_bytes(Dtype dtype) {
  switch (dtype) {
    case Dtype::boolean:
    case Dtype::uint8:
    case Dtype::int8:
    case Dtype::float8_e4m3fn:
    case Dtype::float8_e5m2:
    case Dtype::float8_e4m3fnuz:
    case Dtype::float8_e5m2fnuz:
    case Dtype::float8_e8m0fnu:
      return 1;
    case Dtype::uint16:
    case Dtype::int16:
    case Dtype::float16:
    case Dtype::bfloat16:
      return 2;
    case Dtype::uint32:
    case Dtype::int32:
    case Dtype::float32:
    case Dtype::complex32:
      return 4;
    case Dtype::uint64:
    case Dtype::int64:
    case Dtype::float64:
    case Dtype::complex64:
      return 8;
    case Dtype::complex128:
      return 16;
  }
  return 0;
}

}  // namespace ndp
