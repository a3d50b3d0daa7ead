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

# The scatter core. added: dtype, out, index, source, n, columns, destinations; meant: wrap, strict
# and the grid (size, inner, span); state: two int64.
_Added = tuple[int, int, int, int, int, int, int]
_Meant = tuple[bool, bool, tuple[int, int, int]]

def scatter_workspace(variant: str, added: _Added, meant: _Meant, /) -> int: ...
def scatter(
    variant: str,
    added: _Added,
    meant: _Meant,
    state: int,
    workspace: int,
    blocks: int,
    stream: int,
    /,
) -> None: ...
def scatter_keys(
    added: _Added, meant: _Meant, state: int, keys: int, blocks: int, stream: int, /
) -> None: ...
def scatter_ordered_workspace(added: _Added, meant: _Meant, /) -> int: ...
def scatter_ordered(
    added: _Added,
    meant: _Meant,
    keys: int,
    rows: int,
    workspace: int,
    blocks: int,
    stream: int,
    /,
) -> None: ...
def scatter_spilled(
    added: _Added,
    meant: _Meant,
    keys: int,
    rows: int,
    workspace: int,
    blocks: int,
    stream: int,
    /,
) -> None: ...

# segment_sum; offsets: int64, one more than segments; state: two int64.
def segment_sum_workspace(
    variant: str, dtype: int, rows: int, columns: int, segments: int, /
) -> int: ...
def segment_sum(
    variant: str,
    dtype: int,
    data: int,
    rows: int,
    columns: int,
    offsets: int,
    segments: int,
    result: int,
    state: int,
    workspace: int,
    blocks: int,
    stream: int,
    /,
) -> None: ...

# bincount, histogram, embedding
def count(index: int, n: int, bins: int, counts: int, blocks: int, stream: int, /) -> None: ...
def check_indices(
    index: int,
    n: int,
    low: int,
    high: int,
    wrapped: int,
    bad: int,
    blocks: int,
    stream: int,
    /,
) -> None: ...
def divide_rows(
    dtype: int, table: int, counts: int, rows: int, columns: int, blocks: int, stream: int, /
) -> None: ...
def find_bins(
    dtype: int,
    edges: int,
    bins: int,
    uniform: bool,
    x: int,
    n: int,
    index: int,
    blocks: int,
    stream: int,
    /,
) -> None: ...
def count_bins(
    dtype: int,
    edges: int,
    bins: int,
    uniform: bool,
    x: int,
    n: int,
    counts: int,
    blocks: int,
    stream: int,
    /,
) -> None: ...
def bin_sums_workspace(bins: int, /) -> int: ...
def bin_sums(
    dtype: int,
    index: int,
    weights: int,
    n: int,
    bins: int,
    workspace: int,
    digits: int,
    specials: int,
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

# softmax, log_softmax, cross_entropy (reduction: 0 none, 1 mean, 2 sum; first_bad: one int64).
def softmax(
    log: bool, dtype: int, x: int, rows: int, columns: int, y: int, blocks: int, stream: int, /
) -> None: ...
def softmax_backward(
    log: bool,
    dtype: int,
    gradient: int,
    y: int,
    rows: int,
    columns: int,
    dx: int,
    blocks: int,
    stream: int,
    /,
) -> None: ...
def cross_entropy_workspace(variant: str, dtype: int, rows: int, blocks: int, /) -> int: ...
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
    result: int,
    statistics: int,
    weights: int,
    first_bad: int,
    workspace: int,
    blocks: int,
    stream: int,
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
    dx: int,
    blocks: int,
    stream: int,
    /,
) -> None: ...

# var, var_mean: rows of n > 0 elements.
def var_mean_workspace(variant: str, dtype: int, rows: int, n: int, blocks: int, /) -> int: ...
def var_mean(
    variant: str,
    dtype: int,
    x: int,
    rows: int,
    n: int,
    correction: int,
    var: int,
    mean: int,
    workspace: int,
    blocks: int,
    stream: int,
    /,
) -> None: ...
