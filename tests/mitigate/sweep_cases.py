"""What the sweep runs: torch's own samples of its operators, and layers, losses, indexing and
optimizers of common networks, forward and backward, in sizes that are odd and large enough for
threads.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

__all__ = ["TOO_LARGE", "cases"]

TOO_LARGE = 1 << 22
"""Elements of a tensor that takes too long."""
# Odd, and such that S**3 and M**2 are just above the 32768 elements from which torch uses threads.
SIZES = {"S": 33, "M": 187, "L": 331, "XS": 5}
SAMPLES = 6  # of an operator and dtype


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


def in_place() -> Iterator[tuple[str, Callable[[], Any]]]:
    functions: list[Callable[[Tensor, Tensor], Tensor]] = [
        lambda x, y: torch.add(x, y, alpha=0.3), lambda x, y: torch.sub(x, y, alpha=0.3),
        lambda x, y: x.add_(y, alpha=0.3), lambda x, y: x.add_(0.7), lambda x, y: x.mul_(y),
        lambda x, y: x.sub_(y), lambda x, y: x.div_(y), lambda x, y: x.addcmul_(y, y, value=0.3),
        lambda x, y: x.addcdiv_(y, y + 9, value=0.3), lambda x, y: x.lerp_(y, 0.3),
        lambda x, y: x.sigmoid_(), lambda x, y: x.tanh_(), lambda x, y: x.exp_(),
        lambda x, y: x.sqrt_(), lambda x, y: x.clamp_(-1, 1), lambda x, y: x.pow_(1.3),
        lambda x, y: nn.functional.silu(x, inplace=True), lambda x, y: x.relu_(),
        lambda x, y: nn.functional.elu(x, inplace=True), lambda x, y: x.copy_(y),
        lambda x, y: x.cumsum_(0), lambda x, y: torch.add(x, y, out=torch.empty_like(x)),
        lambda x, y: torch.sigmoid(x, out=torch.empty_like(x)),
    ]  # fmt: skip
    for function in functions:
        for dtype in (torch.float32, torch.float64, torch.bfloat16):
            yield (
                "in place",
                lambda f=function, d=dtype: f(
                    (10 * torch.rand(100_003) - 5).to(d), (torch.rand(100_003) - 0.5).to(d)
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
        lambda x: nn.functional.normalize(x, dim=-1),
        lambda x: nn.functional.cosine_similarity(x, x + 1, dim=-1),
        lambda x: nn.functional.binary_cross_entropy(x.sigmoid(), x.detach().abs()),
        lambda x: nn.functional.soft_margin_loss(x, x.detach().sign()),
        lambda x: torch.var_mean(x, correction=0), lambda x: torch.std_mean(x, dim=-1),
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
    for (m, k, n), dtype in itertools.product(
        (*sizes, (64, 768, 3072), (509, 768, 768), (1, 4097, 1023)),
        (torch.bfloat16, torch.float16),
    ):

        def short(m: int = m, k: int = k, n: int = n, dtype: torch.dtype = dtype) -> None:
            a = (torch.rand(m, k) - 0.5).to(dtype).requires_grad_()
            b = (torch.rand(n, k) - 0.5).to(dtype).requires_grad_()
            backward(nn.functional.linear(a, b, torch.rand(n).to(dtype)))
            backward(a @ b.T)
            backward(a @ b[0])
            backward(torch.dot(a[0], b[0]))

        yield "16-bit product", short


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
            nn.BatchNorm2d(18).eval(), nn.LocalResponseNorm(3), nn.ZeroPad2d(3), nn.Unfold(3),
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
        given = {nn.Bilinear: 2, nn.MultiheadAttention: 3}.get(type(layer), 1)
        yield "layer", case(_Repeated(layer, given), shape)


class _Repeated(nn.Module):
    """A layer that takes the same tensor several times."""

    def __init__(self, layer: nn.Module, times: int) -> None:
        super().__init__()
        self.layer, self.times = layer, times

    def forward(self, x: Tensor) -> Any:
        return self.layer(*[x] * self.times)


def attention() -> Iterator[tuple[str, Callable[[], Any]]]:
    shapes = ((3, 4, 131, 16), (1, 8, 517, 64), (9, 3, 61, 32))
    for shape, dtype, causal in itertools.product(
        shapes, (torch.float32, torch.float64, torch.bfloat16), (False, True)
    ):

        def case(shape: Any = shape, dtype: torch.dtype = dtype, causal: bool = causal) -> None:
            given = [(torch.rand(shape) - 0.5).to(dtype).requires_grad_() for _ in range(3)]
            backward(nn.functional.scaled_dot_product_attention(*given, is_causal=causal))

        yield "attention", case


def short_layers() -> Iterator[tuple[str, Callable[[], Any]]]:
    images = (9, 18, 37, 35)
    for layer, shape in (
        (nn.LayerNorm(129), (33, 67, 129)), (nn.LayerNorm(1003), (301, 1003)),
        (nn.RMSNorm(129), (33, 67, 129)), (nn.BatchNorm2d(18), images),
        (nn.GroupNorm(3, 18), images), (nn.Conv2d(18, 31, 3, padding=1), images),
        (nn.Softmax(dim=0), (301, 1003)), (nn.LogSoftmax(1), images),
        (nn.BatchNorm1d(129), (3001, 129)),
    ):  # fmt: skip

        def case(layer: nn.Module = layer, shape: Any = shape) -> None:
            x = (torch.rand(shape) - 0.5).bfloat16().requires_grad_()
            backward(layer.bfloat16()(x))

        yield "bfloat16 layer", case


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
    yield "range", lambda: torch.linspace(-1, 3, 100_003)
    yield "random", lambda: torch.randperm(100_003)
    yield "random", lambda: torch.multinomial(torch.rand(301, 1003), 3)
    yield "random", lambda: torch.bernoulli(torch.rand(100_003))


def optimizers() -> Iterator[tuple[str, Callable[[], Any]]]:
    for kind in (torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW, torch.optim.RMSprop,
                 torch.optim.Adagrad, torch.optim.Adamax, torch.optim.NAdam):  # fmt: skip
        for options in ({}, {"foreach": False}, {"fused": True}):
            if options.get("fused") and kind.__name__ not in ("SGD", "Adam", "AdamW", "Adagrad"):
                continue

            def run(kind: Any = kind, options: Any = options) -> None:
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
    yield from short_layers()
    yield from attention()
    yield from indexing()
    yield from random()
    yield from optimizers()
    yield from elementwise()
    yield from in_place()
    yield from reductions()
    yield from torch_samples(torch.float32)
    yield from torch_samples(torch.bfloat16)
