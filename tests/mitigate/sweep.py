"""Which overloads of torch change their bits with the number of threads: regenerates the table.

    python tests/mitigate/sweep.py nondet_probe/mitigate/thread_sweep.json [--seconds 600]

Takes torch's own samples of every operator (OpInfo) with its size constants replaced by odd ones
that are large enough for threads, and cases of our own for the layers of common networks; runs
them forward and backward under a dispatch mode, which executes every overload that arrives there
again on 1, 2, 3 and 4 threads and compares the bits. A result for a version of torch is added to
those of other versions in the file.
"""

from __future__ import annotations

import argparse
import itertools
import json
import resource
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from nondet_probe.bits import bit_equal

THREADS = (1, 2, 3, 4)
# torch starts threads from 32768 elements up, for most kernels.
LARGE = 1 << 15
TOO_LARGE = 1 << 22
# Odd, and such that S**3 and M**2 are just above LARGE.
SIZES = {"S": 33, "M": 187, "L": 331, "XS": 5}
MEMORY = 5 << 30
# Elements that no vector loop takes, and how many such pieces are tried.
PIECE, PIECES = 15, 400
SAMPLES = 6  # of an operator and dtype
SKIPPED = {
    "empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "empty_permuted",
    "resize_", "set_", "_local_scalar_dense", "item", "rand_like",
}  # fmt: skip


class Compare(TorchDispatchMode):
    """Executes every overload on each thread count. found: overload to [calls, of them large,
    varied on float32 and float64, varied on narrower floats, varied on complex operands]; examples:
    overload to the operands of one that varied.
    """

    def __init__(self, deadline: float) -> None:
        super().__init__()
        self.found: dict[str, list[int]] = {}
        self.examples: dict[str, str] = {}
        self.seen: set[Any] = set()
        self.deadline = deadline

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        kwargs = dict(kwargs or {})
        name = str(func)
        operands = [x for x in pytree.tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        packet = name.split(".")[1]
        if packet in SKIPPED or func.is_view or not self._comparable(operands):
            return func(*args, **kwargs)
        signature = (
            name,
            *((x.shape, x.stride(), x.dtype) for x in operands),
            repr(pytree.tree_map_only(Tensor, lambda x: None, (args, kwargs))),
        )
        if signature in self.seen or time.monotonic() > self.deadline:
            return func(*args, **kwargs)
        self.seen.add(signature)
        state = torch.get_rng_state()
        results = []
        for threads in THREADS:
            torch.set_num_threads(threads)
            torch.set_rng_state(state)
            copied, copied_kwargs = pytree.tree_map_only(Tensor, _copy, (args, kwargs))
            try:
                output = func(*copied, **copied_kwargs)
            except Exception:
                break
            results.append([x for x in pytree.tree_leaves((output, copied)) if _dense(x)])
        torch.set_num_threads(THREADS[0])
        torch.set_rng_state(state)
        output = func(*args, **kwargs)
        if len(results) < len(THREADS):
            return output
        sizes = [x.numel() for x in operands]
        sizes += [x.numel() for x in pytree.tree_leaves(output) if isinstance(x, Tensor)]
        row = self.found.setdefault(name, [0, 0, 0, 0, 0])
        row[0] += 1
        row[1] += max(sizes, default=0) >= LARGE
        same = all(
            len(other) == len(results[0]) and all(map(bit_equal, results[0], other))
            for other in results[1:]
        ) and not self._vectors_differ(func, args, kwargs, output)
        if not same:
            narrow = any(x.dtype in (torch.bfloat16, torch.float16) for x in operands)
            row[4 if any(x.is_complex() for x in operands) else 3 if narrow else 2] += 1
            self.examples.setdefault(
                name, ", ".join(f"{str(x.dtype)[6:]}{list(x.shape)}" for x in operands)
            )
        return output

    @staticmethod
    def _vectors_differ(func: Any, args: Any, kwargs: Any, output: Any) -> bool:
        """Whether an elementwise kernel gives other bits in its vector loop than at its end.

        A thread's share ends with a few elements beside the vectors, too few to count on seeing a
        difference that one value in a thousand makes. So pieces that are nothing but such an end.
        """
        if not isinstance(output, Tensor) or not _dense(output) or output.numel() < PIECES:
            return False
        if func._schema.is_mutable:  # its operands are not what they were
            return False
        whole = [x for x in pytree.tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        whole = [x for x in whole if x.dim()]
        if not whole or any(
            x.shape != output.shape or not x.is_contiguous() for x in (*whole, output)
        ):
            return False
        flat = output.flatten()[: PIECES * PIECE]
        pieces = []
        try:
            for start in range(0, len(flat), PIECE):
                part, part_kwargs = pytree.tree_map_only(
                    Tensor,
                    lambda x, s=start: x.flatten()[s : s + PIECE].clone() if x.dim() else x,
                    (args, kwargs),
                )
                pieces.append(func(*part, **part_kwargs))
            together = torch.cat(pieces)
            # A function of the element alone comes out alike, whatever stands beside it.
            alike = together.shape == flat.shape and torch.allclose(
                together.double(), flat.double(), rtol=0.02, atol=1e-6, equal_nan=True
            )
        except Exception:
            return False
        return alike and not bit_equal(together.to(flat.dtype), flat.contiguous())

    @staticmethod
    def _comparable(operands: list[Tensor]) -> bool:
        return all(_dense(x) and x.numel() < TOO_LARGE for x in operands)


def _dense(x: Any) -> bool:
    return isinstance(x, Tensor) and x.layout is torch.strided and x.is_cpu and not x.is_quantized


def _copy(x: Tensor) -> Tensor:
    """With the same strides: they decide which kernel runs."""
    if not x.numel():
        return x.clone()
    span = 1 + sum((n - 1) * s for n, s in zip(x.shape, x.stride(), strict=True))
    memory = torch.empty(span, dtype=x.dtype)
    memory.copy_(x.as_strided((span,), (1,)))
    return memory.as_strided(x.shape, x.stride())


def backward(output: Any) -> None:
    tensors = [x for x in pytree.tree_leaves(output) if isinstance(x, Tensor) and x.requires_grad]
    if tensors:
        # Values all over the range: a gradient of ones hides the order of the additions.
        torch.autograd.backward(tensors, [torch.rand_like(x) - 0.5 for x in tensors])


def torch_samples(dtype: torch.dtype) -> Iterator[tuple[str, Callable[[], Any]]]:
    from torch.testing._internal import common_methods_invocations as samples
    from torch.testing._internal.opinfo import core

    for module in [core, samples, *_definitions()]:
        for constant, value in SIZES.items():
            if hasattr(module, constant):
                setattr(module, constant, value)
    for op in samples.op_db:
        if dtype not in op.supported_dtypes("cpu"):
            continue
        yield op.name, lambda op=op: _run_samples(op, dtype)


def _definitions() -> list[Any]:
    prefix = "torch.testing._internal.opinfo.definitions."
    return [module for name, module in list(sys.modules.items()) if name.startswith(prefix)]


def _run_samples(op: Any, dtype: torch.dtype) -> None:
    grad = dtype in op.supported_backward_dtypes("cpu")
    for sample in itertools.islice(op.sample_inputs("cpu", dtype, requires_grad=grad), SAMPLES):
        total = sum(x.numel() for x in pytree.tree_leaves(sample.input) if isinstance(x, Tensor))
        if total < TOO_LARGE:
            backward(op(sample.input, *sample.args, **sample.kwargs))


def elementwise() -> Iterator[tuple[str, Callable[[], Any]]]:
    functions: list[Callable[[Tensor], Tensor]] = [
        torch.sigmoid, torch.tanh, torch.exp, torch.log1p, torch.erf, torch.sin, torch.cos,
        torch.expm1, torch.rsqrt, torch.sqrt, torch.sinh, torch.atan, torch.erfinv, torch.lgamma,
        torch.digamma, nn.functional.silu, nn.functional.elu, nn.functional.softplus,
        nn.functional.mish, nn.functional.gelu, nn.functional.hardswish, nn.functional.celu,
        nn.functional.logsigmoid, nn.functional.selu, nn.functional.relu6, nn.functional.hardtanh,
        nn.functional.leaky_relu, nn.functional.tanhshrink, nn.functional.softsign, torch.relu,
        lambda x: nn.functional.gelu(x, approximate="tanh"), lambda x: x.abs() ** 1.3,
        lambda x: x**3, lambda x: torch.pow(x.abs(), x), lambda x: torch.atan2(x, x + 1),
        lambda x: torch.logaddexp(x, 2 * x), lambda x: torch.hypot(x, x + 1), lambda x: x / (x + 3),
        lambda x: torch.fmod(x, 0.3), lambda x: torch.lerp(x, x * 2, 0.3), lambda x: x.clamp(-1, 1),
        lambda x: torch.addcmul(x, x, x, value=0.3), lambda x: torch.where(x > 0, x, x * 0.1),
        lambda x: torch.addcdiv(x, x, x + 2, value=0.3), nn.functional.dropout,
        lambda x: torch.xlogy(x, x.abs() + 1), lambda x: torch.special.i0(x), torch.clone,
    ]  # fmt: skip
    for number, function in enumerate(functions):
        for n, dtype in itertools.product((100_003, 131_075), (torch.float32, torch.bfloat16)):
            yield (
                f"elementwise {number}",
                lambda f=function, n=n, d=dtype: backward(
                    f((10 * torch.rand(n) - 5).to(d).requires_grad_())
                ),
            )


def reductions() -> Iterator[tuple[str, Callable[[], Any]]]:
    functions: list[Callable[[Tensor], Tensor]] = [
        torch.sum, torch.mean, torch.prod, torch.var, torch.std, torch.norm, torch.amax, torch.amin,
        lambda x: torch.linalg.vector_norm(x, 1), lambda x: torch.linalg.vector_norm(x, 3),
        *(
            lambda x, f=f, d=d: f(x, dim=d)
            for f in (torch.sum, torch.mean, torch.var, torch.logsumexp, torch.softmax,
                      torch.cumsum, torch.log_softmax, torch.prod, torch.cumprod, torch.amax)
            for d in (0, -1)
        ),
        lambda x: torch.linalg.vector_norm(x, 2, dim=0),
        lambda x: x.flatten(1)[:500].cov() if x.ndim > 1 else x.cov(),
        lambda x: torch.logcumsumexp(x, 0),
        lambda x: nn.functional.mse_loss(x, x.detach() * 0.3),
        lambda x: nn.functional.l1_loss(x, x.detach() * 0.3),
        lambda x: nn.functional.smooth_l1_loss(x, x.detach() * 0.3),
        lambda x: nn.functional.huber_loss(x, x.detach() * 0.3),
        lambda x: nn.functional.binary_cross_entropy_with_logits(x, x.detach().sigmoid()),
        lambda x: nn.functional.kl_div(x, x.detach().exp()),
        lambda x: nn.functional.normalize(x),
        lambda x: nn.functional.cosine_similarity(x, x + 1),
    ]  # fmt: skip
    for function in functions:
        for shape in ((517, 1031), (100_003,), (9, 70_001), (70_001, 9), (37, 41, 67)):
            for dtype in (torch.float32, torch.float64, torch.bfloat16):
                yield (
                    "reduction",
                    lambda f=function, s=shape, d=dtype: backward(
                        f((torch.rand(s) - 0.5).to(d).requires_grad_())
                    ),
                )


def products() -> Iterator[tuple[str, Callable[[], Any]]]:
    sizes = ((513, 511, 515), (7, 3001, 513), (33, 20_001, 17), (1001, 65, 999), (301, 40_003, 31))
    for (m, k, n), dtype in itertools.product(sizes, (torch.float32, torch.float64)):

        def case(m: int = m, k: int = k, n: int = n, dtype: torch.dtype = dtype) -> None:
            a = (torch.rand(m, k, dtype=dtype) - 0.5).requires_grad_()
            b = (torch.rand(n, k, dtype=dtype) - 0.5).requires_grad_()
            bias = torch.rand(n, dtype=dtype, requires_grad=True)
            backward(a @ b.T)
            backward(nn.functional.linear(a, b, bias))
            backward(a @ b[0])
            backward(torch.dot(a[0], b[0]))
            backward(torch.addmv(a.detach()[:, 0].clone(), a, b[0]))
            backward(torch.outer(a[0], b[0]) if k < 2000 else a[0] @ b[0])

        yield "product", case
    for b, m, k, n in ((16, 101, 333, 77), (3, 501, 3333, 77), (64, 1, 1025, 65)):
        for dtype in (torch.float32, torch.float64, torch.bfloat16):

            def batched(b: int = b, m: int = m, k: int = k, n: int = n, dtype: Any = dtype) -> None:
                x = (torch.rand(b, m, k) - 0.5).to(dtype).requires_grad_()
                y = (torch.rand(b, k, n) - 0.5).to(dtype).requires_grad_()
                backward(x @ y)
                backward(torch.baddbmm(torch.rand(b, m, n).to(dtype), x, y))
                backward(torch.einsum("bmk,bkn->mn", x, y))

            yield "batched product", batched


def layers() -> Iterator[tuple[str, Callable[[], Any]]]:
    def case(layer: nn.Module, shape: Sequence[int], **options: Any) -> Callable[[], None]:
        def run() -> None:
            x = torch.rand(tuple(shape)) - 0.5
            if options.get("last"):
                x = x.contiguous(memory_format=torch.channels_last)
            backward(layer(x.requires_grad_()))

        return run

    images = (9, 18, 37, 35)
    for last in (False, True):
        for layer in (
            nn.Conv2d(18, 31, 3, padding=1), nn.Conv2d(18, 31, 5, stride=2), nn.Conv2d(18, 18, 1),
            nn.Conv2d(18, 18, 3, padding=1, groups=18), nn.Conv2d(18, 36, 3, groups=6),
            nn.Conv2d(18, 31, 7, padding=3, dilation=2), nn.ConvTranspose2d(18, 31, 3, stride=2),
            nn.ConvTranspose2d(18, 18, 3, groups=18), nn.BatchNorm2d(18), nn.GroupNorm(3, 18),
            nn.InstanceNorm2d(18, affine=True), nn.MaxPool2d(2), nn.AvgPool2d(3, 2),
            nn.AdaptiveAvgPool2d(1), nn.AdaptiveAvgPool2d(5), nn.AdaptiveMaxPool2d(5),
            nn.Upsample(scale_factor=2), nn.Upsample(scale_factor=2, mode="bilinear"),
            nn.Upsample(scale_factor=2, mode="bicubic"), nn.PixelShuffle(3), nn.Dropout2d(),
            nn.ReflectionPad2d(2), nn.ReplicationPad2d(2), nn.PReLU(), nn.PReLU(18),
            nn.BatchNorm2d(18).eval(), nn.LocalResponseNorm(3), nn.ZeroPad2d(3), nn.Fold((9, 1), 1)
            if False else nn.Unfold(3),
        ):  # fmt: skip
            for shape in (images, (33, 18, 17, 19), (2, 18, 131, 129)):
                yield "layer", case(layer, shape, last=last)
    for layer, shape in (
        (nn.Conv1d(18, 31, 5), (9, 18, 1003)), (nn.Conv3d(5, 7, 3), (3, 5, 17, 19, 21)),
        (nn.LayerNorm(129), (33, 67, 129)), (nn.LayerNorm(1003), (301, 1003)),
        (nn.RMSNorm(129), (33, 67, 129)), (nn.LSTM(33, 65, batch_first=True), (17, 29, 33)),
        (nn.GRU(33, 65), (29, 17, 33)), (nn.RNN(33, 65), (29, 17, 33)),
        (nn.TransformerEncoderLayer(96, 3, 257, batch_first=True, dropout=0.1), (9, 61, 96)),
        (nn.TransformerEncoderLayer(96, 3, 257, activation="gelu"), (61, 9, 96)),
        (nn.BatchNorm1d(129), (3001, 129)), (nn.BatchNorm1d(129), (33, 129, 61)),
        (nn.GroupNorm(3, 129), (33, 129, 61)), (nn.Bilinear(96, 96, 31), (501, 96)),
        (nn.MultiheadAttention(96, 3), (61, 9, 96)), (nn.GLU(), (501, 130)),
        (nn.Softmax(dim=0), (301, 1003)), (nn.Softmax2d(), images), (nn.LogSoftmax(1), images),
    ):  # fmt: skip
        if isinstance(layer, nn.Bilinear | nn.MultiheadAttention):
            if isinstance(layer, nn.Bilinear):
                yield "layer", case(_Twice(layer), shape)
            else:
                yield "layer", case(_Thrice(layer), shape)
        else:
            yield "layer", case(layer, shape)


class _Twice(nn.Module):
    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Any:
        return self.layer(x, x)


class _Thrice(_Twice):
    def forward(self, x: Tensor) -> Any:
        return self.layer(x, x, x)


def indexing() -> Iterator[tuple[str, Callable[[], Any]]]:
    def rows() -> Tensor:
        return torch.randint(0, 211, (5003,))

    def table() -> Tensor:
        return (torch.rand(211, 33) - 0.5).requires_grad_()

    def loss() -> None:
        logits = (torch.rand(5003, 211) - 0.5).requires_grad_()
        backward(nn.functional.cross_entropy(logits, rows()))
        backward(nn.functional.cross_entropy(logits, rows(), label_smoothing=0.1))
        backward(nn.functional.cross_entropy(logits, logits.detach().softmax(1)))
        backward(nn.functional.nll_loss(logits.log_softmax(1), rows(), torch.rand(211)))

    values = torch.rand(5003, 33) - 0.5
    yield "indexing", lambda: backward(table()[rows()])
    yield "indexing", lambda: backward(nn.functional.embedding(rows(), table()))
    yield (
        "indexing",
        lambda: backward(
            nn.functional.embedding_bag(rows(), table(), torch.arange(0, 5003, 17), mode="sum")
        ),
    )
    yield (
        "indexing",
        lambda: backward(
            nn.functional.embedding_bag(rows(), table(), torch.arange(0, 5003, 17), mode="mean")
        ),
    )
    yield "indexing", lambda: backward(table().index_select(0, rows()))
    yield "indexing", lambda: backward(table().gather(0, rows()[:, None].expand(-1, 33)))
    yield "indexing", lambda: backward(table().take(rows()))
    yield "indexing", lambda: torch.zeros(211, 33).index_add(0, rows(), values)
    yield "indexing", lambda: torch.zeros(211, 33).index_put((rows(),), values, accumulate=True)
    yield "indexing", lambda: torch.zeros(211, 33).index_put((rows(),), values)
    yield (
        "indexing",
        lambda: torch.zeros(211).index_put(
            (rows().repeat(20),), values.flatten()[:100_060], accumulate=True
        ),
    )
    yield (
        "indexing",
        lambda: torch.zeros(211).put(
            rows().repeat(20), values.flatten()[:100_060], accumulate=True
        ),
    )
    yield "indexing", lambda: torch.zeros(211, 33).index_copy(0, rows(), values)
    yield (
        "indexing",
        lambda: torch.zeros(211, 33).scatter_add(0, rows()[:, None].expand(-1, 33), values),
    )
    yield (
        "indexing",
        lambda: torch.zeros(211, 33).scatter_reduce(
            0, rows()[:, None].expand(-1, 33), values, "mean"
        ),
    )
    yield "indexing", lambda: torch.zeros(211, 33).index_reduce(0, rows(), values, "mean")
    yield "indexing", lambda: torch.bincount(rows(), torch.rand(5003))
    yield "indexing", lambda: torch.bincount(rows().repeat(20), torch.rand(100_060))
    yield "indexing", lambda: torch.histc(torch.rand(100_003), 31)
    yield "indexing", lambda: torch.histogram(torch.rand(100_003), 31, weight=torch.rand(100_003))
    yield "indexing", lambda: torch.sort(torch.rand(301, 1003))
    yield "indexing", lambda: torch.topk(torch.rand(301, 1003), 5)
    yield "losses", loss


def random() -> Iterator[tuple[str, Callable[[], Any]]]:
    for fill in ("normal_", "uniform_", "exponential_", "bernoulli_", "log_normal_", "cauchy_",
                 "geometric_", "random_"):  # fmt: skip
        given = (0.3,) if fill in ("geometric_", "bernoulli_") else ()
        for dtype in (torch.float32, torch.float64, torch.bfloat16):
            yield (
                "random",
                lambda f=fill, g=given, d=dtype: getattr(torch.zeros(100_003, dtype=d), f)(*g),
            )
    yield "random", lambda: torch.randperm(100_003)
    yield "random", lambda: torch.multinomial(torch.rand(301, 1003), 3)
    yield "random", lambda: torch.bernoulli(torch.rand(100_003))


def optimizers() -> Iterator[tuple[str, Callable[[], Any]]]:
    for kind in (torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW, torch.optim.RMSprop,
                 torch.optim.Adagrad, torch.optim.Adamax, torch.optim.NAdam):  # fmt: skip
        for options in ({}, {"foreach": False}, {"fused": True}):

            def run(kind: Any = kind, options: Any = options) -> None:
                if options.get("fused") and kind.__name__ not in (
                    "SGD",
                    "Adam",
                    "AdamW",
                    "Adagrad",
                ):
                    return
                weights = [nn.Parameter(torch.rand(331, 401)), nn.Parameter(torch.rand(50_021))]
                extra = {"momentum": 0.9} if kind is torch.optim.SGD else {}
                optimizer = kind(weights, lr=0.1, weight_decay=0.01, **options, **extra)
                for _ in range(2):
                    for weight in weights:
                        weight.grad = torch.rand_like(weight) - 0.5
                    torch.nn.utils.clip_grad_norm_(weights, 0.1)
                    optimizer.step()

            yield "optimizer", run


def cases() -> Iterable[tuple[str, Callable[[], Any]]]:
    yield from products()
    yield from layers()
    yield from indexing()
    yield from random()
    yield from optimizers()
    yield from elementwise()
    yield from reductions()
    yield from torch_samples(torch.float32)
    yield from torch_samples(torch.bfloat16)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("table", type=Path)
    options.add_argument("--seconds", type=float, default=900)
    given = options.parse_args()
    warnings.simplefilter("ignore")
    start = time.monotonic()
    mode = Compare(start + given.seconds)
    torch.set_num_threads(THREADS[0])
    # An outsize sample then fails alone.
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    failed = 0
    for name, case in cases():
        if time.monotonic() > mode.deadline:
            print(f"stopped at {name}: out of time", file=sys.stderr)
            break
        torch.manual_seed(0)
        began = time.monotonic()
        print(name, flush=True)
        try:
            with mode:
                case()
        except Exception as error:
            failed += 1
            print(f"{name}: {type(error).__name__}: {str(error)[:100]}", file=sys.stderr)
        if time.monotonic() - began > 20:
            print(f"{name}: {time.monotonic() - began:.0f} s", file=sys.stderr)
    table = json.loads(given.table.read_text()) if given.table.exists() else {}
    table[torch.__version__.split("+")[0]] = {
        "threads": THREADS,
        "cpu": torch.backends.cpu.get_cpu_capability(),
        "overloads": dict(sorted(mode.found.items())),
        "examples": dict(sorted(mode.examples.items())),
    }
    # A line for each overload, so that a change can be read.
    given.table.write_text(json.dumps(table, indent=0).replace(",\n", ", ").replace("], ", "],\n"))
    varied = sorted(name for name, row in mode.found.items() if any(row[2:]))
    print(f"{len(mode.found)} overloads, {len(varied)} varied, {failed} cases failed")
    print("\n".join(varied))


if __name__ == "__main__":
    main()
