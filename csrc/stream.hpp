// Reading memory and doing as little as can be done with it: what other kernels are measured by.
#pragma once

#include <cstdint>
#include <string>

namespace ndp {

// What a worker takes at a time, read as runs side by side, for the reason given in sum.hpp.
constexpr int64_t kStreamPiece = int64_t{4} << 20;
constexpr int kStreamRuns = 4;

// The exclusive or of the 64-bit words of `data`, the last one filled up with zero bytes. The same
// for every level and thread count.
uint64_t read_stream(const void* data, int64_t bytes, int threads, const std::string& isa);

}  // namespace ndp
