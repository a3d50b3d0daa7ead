// The ISA levels that this build holds, and how a file that is compiled once picks one of them.
#pragma once

#include "dtypes.hpp"
#include "isa.hpp"

// NDP_EACH_LEVEL(X) expands to X(level) for every level compiled in, NDP_EACH_LEVEL_OF(X, ...) to
// X(level, ...); only for files compiled once.
#if defined(NDP_HAVE_SSE2)
#define NDP_EACH_LEVEL(X) X(portable) X(sse2) X(avx2) X(avx512)
#define NDP_EACH_LEVEL_OF(X, ...) \
  X(portable, __VA_ARGS__) X(sse2, __VA_ARGS__) X(avx2, __VA_ARGS__) X(avx512, __VA_ARGS__)
#else
#define NDP_EACH_LEVEL(X) X(portable)
#define NDP_EACH_LEVEL_OF(X, ...) X(portable, __VA_ARGS__)
#endif

// In namespace ndp: declares `Kernels name(Dtype)` of every level and defines
// `Kernels name(Isa, Dtype)`, which calls that of the level given.
#define NDP_KERNELS(Kernels, name)                      \
  NDP_EACH_LEVEL_OF(NDP_DECLARE_KERNELS, Kernels, name) \
  static inline Kernels name(Isa isa, Dtype dtype) {    \
    switch (isa) {                                      \
      NDP_EACH_LEVEL_OF(NDP_PICK_KERNELS, name)         \
      default:                                          \
        return portable::name(dtype);                   \
    }                                                   \
  }
#define NDP_DECLARE_KERNELS(level, Kernels, name) \
  namespace level {                               \
  Kernels name(Dtype dtype);                      \
  }
#define NDP_PICK_KERNELS(level, name) \
  case Isa::level:                    \
    return level::name(dtype);
