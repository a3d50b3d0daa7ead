// How often each number occurs.
#pragma once

#include <cstdint>

namespace ndp {

// counts[b] becomes the number of i < n with index[i] == b. 0 <= index[i] < bins is not checked.
void count(const int64_t* index, int64_t n, int64_t bins, int threads, int64_t* counts);

}  // namespace ndp
