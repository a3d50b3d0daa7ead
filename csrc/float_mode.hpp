// The IEEE default environment while a kernel runs: torch.set_flush_denormal(True) and rounding
// modes set by other libraries must not change the bits that we compute.
#pragma once

#if defined(__SSE2__)
#include <xmmintrin.h>
#endif

namespace ndp {

// Set on construction, put back on destruction; a property of the thread, so each worker makes one.
class DefaultFloatMode {
 public:
#if defined(__SSE2__)
  DefaultFloatMode() : saved_(_mm_getcsr()) { _mm_setcsr(0x1F80); }
  ~DefaultFloatMode() { _mm_setcsr(saved_); }
#else
  // Elsewhere the environment is taken as found.
  DefaultFloatMode() {}
  ~DefaultFloatMode() {}
#endif
  DefaultFloatMode(const DefaultFloatMode&) = delete;
  DefaultFloatMode& operator=(const DefaultFloatMode&) = delete;

#if defined(__SSE2__)
 private:
  unsigned saved_;
#endif
};

}  // namespace ndp
