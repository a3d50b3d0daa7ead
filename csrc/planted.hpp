// Mistakes made on purpose, in sanitized builds only: `make sanitize` first sees that it is told of
// them. Each of them ends the process there.
#pragma once

#include <climits>
#include <cstdint>
#include <memory>
#include <string>

#include "parallel.hpp"

namespace ndp {

inline int64_t planted(const std::string& mistake) {
  volatile int64_t many = 8;
  if (mistake == "address") {
    const std::unique_ptr<volatile int64_t[]> array(new volatile int64_t[many]{});
    return array[many];
  }
  if (mistake == "undefined") {
    volatile int most = INT_MAX;
    return most + 1;
  }
  if (mistake == "thread") {
    volatile int64_t shared = 0;
    // Workers enough that one thread cannot have done them all before another has started.
    parallel_run(100, [&](int) {
      for (int i = 0; i < 100000; ++i) shared = shared + 1;
    });
    return shared;
  }
  return 0;
}

}  // namespace ndp
