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
