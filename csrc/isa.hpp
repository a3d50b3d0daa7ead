// Which instruction set the kernels run on: asked of the processor once, or forced by the caller.
#pragma once

#include <string>
#include <vector>

namespace ndp {

enum class Isa { portable = 0, sse2 = 1, avx2 = 2, avx512 = 3 };

// Every level that was built and that this processor can run, slowest first.
std::vector<Isa> available_isas();

const char* isa_name(Isa isa);

// "" takes the environment variable NONDET_PROBE_ISA, else the fastest level.
// Throws std::invalid_argument naming the available levels.
Isa choose_isa(const std::string& requested);

}  // namespace ndp
