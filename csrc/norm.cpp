// A norm is the root of a dot product, rounded together with it.
#include "norm.hpp"

namespace ndp {

void norm(Dtype dtype, DotVariant variant, const void* x, int64_t n, int threads,
          const std::string& isa, void* result) {
  dot(dtype, variant, true, x, x, n, threads, isa, result);
}

}  // namespace ndp
