# What csrc/bindings.cpp defines. Addresses are integers (Tensor.data_ptr()).

from collections.abc import Callable, Sequence

def available_isas() -> list[str]: ...
def chosen_isa() -> str: ...
def thread_pool() -> str: ...

# nondet_probe.bits
def bytes_equal(a: int, b: int, bytes: int, /) -> bool: ...
def compare(
    dtype: int, a: int, b: int, elements: int, threads: int, isa: str, /
) -> tuple[int, int, int, float, float]: ...
def digest(
    dtype: int, data: int, shape: Sequence[int], strides: Sequence[int], threads: int, isa: str, /
) -> str: ...
def ulp_distance(
    dtype: int, a: int, b: int, elements: int, distances: int, isa: str, /
) -> None: ...

# nondet_probe.ops
def sum(
    variant: str, mean: bool, dtype: int, x: int, n: int, threads: int, isa: str, result: int, /
) -> None: ...
def sum_over(
    variant: str,
    mean: bool,
    dtype: int,
    x: int,
    shape: Sequence[int],
    strides: Sequence[int],
    reduced: Sequence[bool],
    threads: int,
    isa: str,
    results: int,
    /,
) -> None: ...

# nondet_probe.ops.matmul; sizes: m, n, k
def matmul(
    variant: str,
    dtype: int,
    a: int,
    b: int,
    result: int,
    batch: Sequence[int],
    a_batch_strides: Sequence[int],
    b_batch_strides: Sequence[int],
    sizes: tuple[int, int, int],
    a_strides: tuple[int, int],
    b_strides: tuple[int, int],
    threads: int,
    isa: str,
    /,
) -> None: ...

# scatter; -1 or the position of the first bad index
def scatter(
    variant: str,
    dtype: int,
    out: int,
    index: int,
    source: int,
    n: int,
    columns: int,
    destinations: int,
    threads: int,
    isa: str,
    wrap: bool,
    strict: bool,
    /,
) -> int: ...
def check_indices(index: int, n: int, low: int, high: int, wrapped: int, /) -> int: ...

# dot and norm
def dot(
    variant: str, dtype: int, a: int, b: int, n: int, threads: int, isa: str, result: int, /
) -> None: ...
def norm(
    variant: str, dtype: int, x: int, n: int, threads: int, isa: str, result: int, /
) -> None: ...

# var
def var_mean(
    variant: str,
    dtype: int,
    x: int,
    rows: int,
    n: int,
    correction: int,
    threads: int,
    isa: str,
    var: int,
    mean: int,
    /,
) -> None: ...

# cumsum
def cumsum(
    variant: str, dtype: int, x: int, rows: int, n: int, threads: int, isa: str, sums: int, /
) -> None: ...

# segment_sum, embedding, bincount, histogram
def segment_sum(
    variant: str,
    dtype: int,
    data: int,
    rows: int,
    columns: int,
    sizes: int,
    segments: int,
    are_offsets: bool,
    threads: int,
    isa: str,
    result: int,
    /,
) -> None: ...
def count(index: int, n: int, bins: int, threads: int, counts: int, /) -> None: ...
def widen(dtype: int, x: int, n: int, wide: int, /) -> None: ...
def divide_rows(dtype: int, table: int, counts: int, rows: int, columns: int, /) -> None: ...
def range_of(dtype: int, x: int, n: int, /) -> tuple[float, float]: ...
def bin_edges(dtype: int, low: float, high: float, bins: int, edges: int, /) -> None: ...
def falling_edge(dtype: int, edges: int, n: int, /) -> int: ...
def find_bins(
    dtype: int,
    edges: int,
    bins: int,
    uniform: bool,
    x: int,
    n: int,
    threads: int,
    index: int,
    /,
) -> None: ...
def count_bins(
    dtype: int,
    edges: int,
    bins: int,
    uniform: bool,
    x: int,
    n: int,
    threads: int,
    counts: int,
    hist: int,
    /,
) -> None: ...
def normalise(dtype: int, edges: int, bins: int, hist: int, /) -> None: ...
def bin_sums(
    dtype: int,
    index: int,
    weights: int,
    n: int,
    bins: int,
    digits: int,
    specials: int,
    /,
) -> None: ...

# nondet_probe.mitigate
def set_one_thread() -> int: ...
def restore_threads(saved: int, /) -> None: ...
def each_on_one_thread(workers: int, items: int, body: Callable[[int], None], /) -> None: ...
def cut_product(batch: int, m: int, k: int, n: int, /) -> tuple[int, int, int]: ...
def product(
    doubles: bool,
    sizes: tuple[int, int, int, int],
    a: tuple[int, int, int, int],
    b: tuple[int, int, int, int],
    c: tuple[int, int, int, int],
    alpha: float,
    beta: float,
    threads: int,
    /,
) -> bool: ...
