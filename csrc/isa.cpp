#include "isa.hpp"

#include <cstdlib>
#include <stdexcept>

namespace ndp {

namespace {

bool can_run(Isa isa) {
  switch (isa) {
    case Isa::portable:
      return true;
#ifdef NDP_HAVE_SSE2
    case Isa::sse2:
      return __builtin_cpu_supports("sse2");
    case Isa::avx2:
      // F16C and FMA came before AVX2 or with it on nearly every processor, but have flags of
      // their own.
      return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("f16c") &&
             __builtin_cpu_supports("fma");
    case Isa::avx512:
      return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
             __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512cd") &&
             __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("f16c") &&
             __builtin_cpu_supports("fma");
#endif
    default:
      return false;
  }
}

}  // namespace

const char* isa_name(Isa isa) {
  switch (isa) {
    case Isa::sse2:
      return "sse2";
    case Isa::avx2:
      return "avx2";
    case Isa::avx512:
      return "avx512";
    default:
      return "portable";
  }
}

std::vector<Isa> available_isas() {
  std::vector<Isa> found;
  for (Isa isa : {Isa::portable, Isa::sse2, Isa::avx2, Isa::avx512})
    if (can_run(isa)) found.push_back(isa);
  return found;
}

Isa choose_isa(const std::string& requested) {
  std::string name = requested;
  std::string origin = "isa";
  if (name.empty()) {
    const char* variable = std::getenv("NONDET_PROBE_ISA");
    if (variable != nullptr) name = variable;
    origin = "NONDET_PROBE_ISA";
  }
  const std::vector<Isa> found = available_isas();
  if (name.empty()) return found.back();
  std::string known;
  for (Isa isa : found) {
    if (name == isa_name(isa)) return isa;
    known += (known.empty() ? "" : ", ") + std::string(isa_name(isa));
  }
  throw std::invalid_argument(origin + "=" + name + ": this build on this machine has " + known);
}

}  // namespace ndp
