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
def read_stream(data: int, bytes: int, threads: int, isa: str, /) -> int: ...
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
