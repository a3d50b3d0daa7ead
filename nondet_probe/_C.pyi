# What csrc/bindings.cpp defines. Addresses are integers (Tensor.data_ptr()).

from collections.abc import Callable, Sequence
from typing import Any

def available_isas() -> list[str]: ...
def chosen_isa() -> str: ...
def thread_pool() -> str: ...

# nondet_probe.bits
def bytes_equal(a: int, b: int, bytes: int, /) -> bool: ...
def compare(
    dtype: int, a: int, b: int, elements: int, threads: int, isa: str, /
) -> tuple[int, int, int, float, float, float, float, tuple[int, ...]]: ...
def digest(
    dtype: int, data: int, shape: Sequence[int], strides: Sequence[int], threads: int, isa: str, /
) -> str: ...

class OperandReader:
    def __init__(
        self,
        codes: dict[Any, int],
        tensors: Sequence[type],
        told: Sequence[type],
        silent: Sequence[type],
        strided: object,
        any_tensor: type,
        /,
    ) -> None: ...
    def digests(
        self, given: object, tensors: bool, threads: int, alone: int, /
    ) -> tuple[bytes, str, list[type] | None] | None: ...
    def surely_equal(self, one: object, other: object, threads: int, alone: int, /) -> bool: ...

def read_stream(data: int, bytes: int, threads: int, isa: str, /) -> int: ...
def sketch(
    given: Sequence[tuple[int, int, Sequence[int], Sequence[int], int]],
    threads: int,
    isa: str,
    buckets: int,
    /,
) -> None: ...
def ulp_distance(
    dtype: int, a: int, b: int, elements: int, distances: int, isa: str, /
) -> None: ...

# nondet_probe.ops: 0 for arguments that do not fit, 1 for those that do, 2 where one requires grad
class Arguments:
    def __init__(
        self,
        kinds: Sequence[tuple[Sequence[type], Sequence[type]]],
        tensors: Sequence[type],
        strided: object,
        /,
    ) -> None: ...
    def look(self, given: tuple[object, ...], /) -> int: ...

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
    dims: Sequence[int],
    threads: int,
    isa: str,
    results: int,
    /,
) -> None: ...

# nondet_probe.ops.matmul
def matmul(
    variant: str,
    dtype: int,
    a: int,
    b: int,
    result: int,
    m: int,
    n: int,
    k: int,
    a_row_stride: int,
    a_k_stride: int,
    b_k_stride: int,
    b_column_stride: int,
    batch: Sequence[int],
    a_batch_strides: Sequence[int],
    b_batch_strides: Sequence[int],
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
    size: int,
    inner: int,
    span: int,
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
def extremes(index: int, n: int, /) -> tuple[int, int]: ...
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

# nondet_probe.ops, rows
def layer_norm(
    centred: bool,
    dtype: int,
    x: int,
    rows: int,
    columns: int,
    weight: int,
    bias: int,
    eps: float,
    threads: int,
    isa: str,
    y: int,
    statistics: int,
    /,
) -> None: ...
def layer_norm_backward(
    centred: bool,
    variant: str,
    dtype: int,
    gradient: int,
    x: int,
    rows: int,
    columns: int,
    weight: int,
    statistics: int,
    threads: int,
    isa: str,
    dx: int,
    dgamma: int,
    dbeta: int,
    /,
) -> None: ...
def softmax(
    log: bool, dtype: int, x: int, rows: int, columns: int, threads: int, isa: str, y: int, /
) -> None: ...
def softmax_backward(
    log: bool,
    dtype: int,
    gradient: int,
    y: int,
    rows: int,
    columns: int,
    threads: int,
    isa: str,
    dx: int,
    /,
) -> None: ...
def cross_entropy(
    variant: str,
    dtype: int,
    x: int,
    target: int,
    rows: int,
    columns: int,
    weight: int,
    ignored: int,
    reduction: int,
    smoothing: float,
    threads: int,
    isa: str,
    result: int,
    statistics: int,
    weights: int,
    /,
) -> None: ...
def cross_entropy_backward(
    dtype: int,
    gradient: int,
    x: int,
    target: int,
    rows: int,
    columns: int,
    weight: int,
    ignored: int,
    reduction: int,
    smoothing: float,
    statistics: int,
    weights: int,
    threads: int,
    isa: str,
    dx: int,
    /,
) -> None: ...
def exp(dtype: int, x: int, n: int, isa: str, result: int, /) -> None: ...
def log(x: int, n: int, result: int, /) -> None: ...

# nondet_probe.mitigate
def set_one_thread() -> int: ...
def restore_threads(saved: int, /) -> None: ...
def each_on_one_thread(
    workers: int, items: int, prepare: Callable[[], object], body: Callable[[int], None], /
) -> None: ...
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
