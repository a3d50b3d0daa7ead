// NDP_VECTOR_BYTES: width of the x86 vectors that a `*_isa.cpp` may use intrinsics for at the level
// it is being compiled for; 0 at `portable`, whatever the compiler could do.
#pragma once

#define NDP_JOIN_(a, b) a##b
#define NDP_JOIN(a, b) NDP_JOIN_(a, b)
#define NDP_IS_PORTABLE_portable 1

#if NDP_JOIN(NDP_IS_PORTABLE_, NDP_ISA)
#define NDP_VECTOR_BYTES 0
#elif defined(__AVX512F__)
#define NDP_VECTOR_BYTES 64
#elif defined(__AVX2__)
#define NDP_VECTOR_BYTES 32
#elif defined(__SSE2__)
#define NDP_VECTOR_BYTES 16
#else
#define NDP_VECTOR_BYTES 0
#endif

#if NDP_VECTOR_BYTES
#include <immintrin.h>
#endif
