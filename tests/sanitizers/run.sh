#!/usr/bin/env bash
# The kernels' tests under AddressSanitizer with UBSan, then under ThreadSanitizer: `make sanitize`.
# Each has a build of its own, which first has to report the mistakes planted in it.
set -euo pipefail
cd "$(dirname "$0")/../.."
python=$PWD/${PYTHON:-.venv/bin/python}
cxx=${CXX:-c++}

sanitized() {  # kind, runtime library, planted mistakes
  local kind=$1 runtime=$2
  shift 2
  NONDET_PROBE_SANITIZE=$kind "$python" setup.py --quiet build --build-lib "build/sanitize-$kind"
  # libstdc++ too: the runtimes look for its __cxa_throw when they start.
  under() {
    env PYTHONPATH="build/sanitize-$kind" OMP_NUM_THREADS=2 \
      LD_PRELOAD="$($cxx -print-file-name="$runtime") $($cxx -print-file-name=libstdc++.so.6)" \
      ASAN_OPTIONS=detect_leaks=0 UBSAN_OPTIONS=print_stacktrace=1 \
      TSAN_OPTIONS=halt_on_error=1:suppressions=tests/sanitizers/tsan.supp "$python" -P "$@"
  }
  local mistake report
  for mistake in "$@"; do
    report=$(under -c "import torch; from nondet_probe import _C; _C.planted('$mistake')" 2>&1) && {
      echo "the mistake planted for '$mistake' was not reported" >&2
      return 1
    }
    grep -q "Sanitizer: \|runtime error: " <<<"$report" || { echo "$report" >&2; return 1; }
  done
  echo "$kind: planted mistakes reported ($*)"
  # Left out: tests of whose threads are used, which a sanitized build answers differently. And with
  # ThreadSanitizer those of more than 2^31 elements: races are those of fewer, but each load that it
  # looks at takes tens of nanoseconds, in all as long as a third of the other tests together.
  local left_out=(--ignore tests/ops/test_threads.py)
  [[ $kind != thread ]] || left_out+=(-k "not more_than_2_to_the_31")
  under -m pytest -q -s tests/ops tests/bits "${left_out[@]}"
}

sanitized address,undefined libasan.so address undefined
sanitized thread libtsan.so thread
