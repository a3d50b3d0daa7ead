# What csrc/bindings.cpp defines. Addresses are integers (Tensor.data_ptr()).

from collections.abc import Sequence

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
    variant: str, dtype: int, x: int, n: int, threads: int, isa: str, result: int, /
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
