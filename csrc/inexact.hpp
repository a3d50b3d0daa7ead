// The processor's own record of whether an addition was rounded: IEEE 754's sticky inexact flag.
// It costs nothing while adding, and it is exact: cleared before and clear after means that not one
// addition in between lost a bit.
//
// The compiler does not know that additions set it. `clear_inexact` and `inexact_after(memory)`
// are barriers: operands must be read from memory after the first, and results must lie in
// `memory` before the second.
#pragma once

#if defined(__SSE2__)
#include <xmmintrin.h>
#else
#include <cfenv>
#endif

namespace ndp {

static inline void clear_inexact() {
#if defined(__SSE2__)
  _mm_setcsr(0x1F80);  // the default mode of float_mode.hpp, all flags clear
#else
  std::feclearexcept(FE_INEXACT);
#endif
  asm volatile("" ::: "memory");
}

static inline bool inexact_after(const void* memory) {
  asm volatile("" ::"r"(memory) : "memory");
#if defined(__SSE2__)
  return (_mm_getcsr() & 0x20) != 0;
#else
  return std::fetestexcept(FE_INEXACT) != 0;
#endif
}

// Whether the processor keeps the flag: emulators may not (valgrind is one).
bool inexact_is_kept();

}  // namespace ndp
