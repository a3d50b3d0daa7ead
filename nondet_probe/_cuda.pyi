# What csrc/device_bindings.cpp defines. Addresses are integers (Tensor.data_ptr()); blocks: the
# size of the launch, 0 fills the device; stream: a cudaStream_t.

from collections.abc import Sequence

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

# nondet_probe.bits: contiguous tensors. digests: 2 words for each of them.
def digest_workspace() -> int: ...
def digest(
    dtypes: Sequence[int],
    addresses: Sequence[int],
    shapes: Sequence[Sequence[int]],
    workspace: int,
    digests: int,
    blocks: int,
    stream: int,
    /,
) -> None: ...

# Contiguous a and b, of n elements; root: of the product of a with itself.
def dot_workspace(variant: str, dtype: int, n: int, blocks: int, /) -> int: ...
def dot(
    variant: str,
    dtype: int,
    root: bool,
    a: int,
    b: int,
    n: int,
    result: int,
    workspace: int,
    blocks: int,
    stream: int,
    /,
) -> None: ...

# Contiguous x and sums, [rows, n].
def cumsum_workspace(variant: str, dtype: int, rows: int, n: int, blocks: int, /) -> int: ...
def cumsum(
    variant: str,
    dtype: int,
    x: int,
    rows: int,
    n: int,
    sums: int,
    workspace: int,
    blocks: int,
    stream: int,
    /,
) -> None: ...

# Strides in elements, 0 where a batch dimension is repeated; the result is contiguous.
def matmul_workspace(
    variant: str, dtype: int, rows: int, columns: int, k: int, batches: int, /
) -> int: ...
def matmul(
    variant: str,
    dtype: int,
    a: int,
    b: int,
    result: int,
    rows: int,
    columns: int,
    k: int,
    a_row_stride: int,
    a_k_stride: int,
    b_k_stride: int,
    b_column_stride: int,
    batch: Sequence[int],
    a_batch_strides: Sequence[int],
    b_batch_strides: Sequence[int],
    workspace: int,
    blocks: int,
    stream: int,
    /,
) -> None: ...
