# What csrc/device_bindings.cpp defines. Addresses are integers (Tensor.data_ptr()); blocks: the
# size of the launch, 0 fills the device; stream: a cudaStream_t.

# nondet_probe.ops: x is contiguous [outer, n, inner], the results [outer, inner].
def sum_workspace(
    variant: str, dtype: int, outer: int, n: int, inner: int, blocks: int, /
) -> int: ...
def sum(
    variant: str,
    dtype: int,
    mean: bool,
    x: int,
    outer: int,
    n: int,
    inner: int,
    results: int,
    workspace: int,
    blocks: int,
    stream: int,
    /,
) -> None: ...

# layer_norm, rms_norm: rows * columns elements; null addresses are 0.
def layer_norm(
    centred: bool,
    dtype: int,
    x: int,
    rows: int,
    columns: int,
    weight: int,
    bias: int,
    eps: float,
    y: int,
    statistics: int,
    blocks: int,
    stream: int,
    /,
) -> None: ...
def layer_norm_workspace(
    centred: bool, variant: str, dtype: int, rows: int, columns: int, blocks: int, /
) -> int: ...
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
    dx: int,
    dgamma: int,
    dbeta: int,
    workspace: int,
    blocks: int,
    stream: int,
    /,
) -> None: ...
