// The format in which an op rounds its results.
#pragma once

#include <stdexcept>
#include <string>

#include "dtypes.hpp"
#include "superacc.hpp"

namespace ndp {

// Throws std::invalid_argument in the name of `op` for a dtype that the ops do not take.
inline const Format& format_of(Dtype dtype, const char* op) {
  switch (dtype) {
    case Dtype::float64:
      return kFormat64;
    case Dtype::float32:
      return kFormat32;
    case Dtype::bfloat16:
      return kFormatBf16;
    case Dtype::float16:
      return kFormat16;
    default:
      throw std::invalid_argument(std::string(op) + " takes float64, float32, bfloat16 and float16");
  }
}

}  // namespace ndp
