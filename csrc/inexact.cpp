#include "inexact.hpp"

#include "float_mode.hpp"

namespace ndp {

bool inexact_is_kept() {
  static const bool kept = [] {
    const DefaultFloatMode mode;
    volatile double one = 1.0, tiny = 0x1p-60, sum;
    clear_inexact();
    sum = one + one;
    const bool quiet = !inexact_after(const_cast<double*>(&sum));
    sum = one + tiny;
    return quiet && inexact_after(const_cast<double*>(&sum));
  }();
  return kept;
}

}  // namespace ndp
