// The ISA levels that this build holds, for files that declare or pick one function per level.
#pragma once

// NDP_EACH_LEVEL(X) expands to X(level) for every level compiled in; only for files compiled once.
#if defined(NDP_HAVE_SSE2)
#define NDP_EACH_LEVEL(X) X(portable) X(sse2) X(avx2) X(avx512)
#else
#define NDP_EACH_LEVEL(X) X(portable)
#endif
