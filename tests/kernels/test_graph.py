"""What a compiler for graphs sees of the operators in Triton: the kernels, forward and backward.

A stub stands for the driver of a GPU, which is asked for nothing but its kind; nothing is run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch

triton = pytest.importorskip("triton", reason="triton is not installed (requirements-dev.txt)")

from torch import Tensor
from torch._dynamo.backends.common import aot_autograd
from torch._functorch.aot_autograd import make_boxed_func

from nondet_probe.ops import via_triton

pytestmark = [
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),  # torch's own, on compiling
    pytest.mark.filterwarnings("ignore::UserWarning"),
]
OPERATORS = torch.ops.nondet_probe


class Driver:
    """Of a GPU that is not there."""

    def get_current_target(self) -> Any:
        from triton.backends.compiler import GPUTarget

        return GPUTarget("cuda", 90, 32)


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """The graphs that were compiled: forward, then backward."""
    monkeypatch.setattr(triton.runtime.driver, "_active", Driver())
    torch._dynamo.reset()
    yield []
    torch._dynamo.reset()


def compiled(function: Callable[..., Tensor], graphs: list[Any]) -> Callable[..., Tensor]:
    def keep(graph: Any, inputs: Any) -> Any:
        graphs.append(graph)
        (output,) = (node for node in graph.graph.nodes if node.op == "output")
        made = [None if node is None else node.meta["val"] for node in output.args[0]]

        def run(*given: Any) -> list[Any]:
            return [
                torch.empty_strided(x.shape, x.stride(), dtype=x.dtype)
                if isinstance(x, Tensor)
                else x
                for x in made
            ]

        return make_boxed_func(run)

    backend = aot_autograd(fw_compiler=keep, bw_compiler=keep)
    return torch.compile(function, backend=backend, fullgraph=True)


TARGET, INDEX = torch.tensor([0, 1, 2]), torch.tensor([0, 1, 1])

# operator: its call, and how many kernels it launches forward and backward
CASES: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], int, int]] = {
    "softmax": (lambda x, w: OPERATORS.softmax_triton(x, False), 1, 1),
    "layer_norm": (
        lambda x, w: OPERATORS.layer_norm_triton(x, 5, w, w, 1e-5, True, "fixed_order")[0],
        1,
        4,
    ),
    "cross_entropy": (
        lambda x, w: OPERATORS.cross_entropy_triton(x, TARGET, None, -100, 1, 0.1, "fixed_order")[
            0
        ],
        4,
        1,
    ),
    "index_add": (lambda x, w: OPERATORS.scatter_rows_triton(x, INDEX, x, "fixed_point"), 4, 0),
    "matmul": (lambda x, w: OPERATORS.matmul_triton(x, w.view(5, 1), "splitk_ordered"), 2, 4),
    "attention": (
        lambda x, w: OPERATORS.attention_triton(
            x.view(1, 3, 5), x.view(1, 3, 5), x.view(1, 3, 5), True, 0.5, "split_buffers"
        )[0],
        1,
        3,
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_graphs_hold_the_kernels(name: str, graphs: list[Any]) -> None:
    call, forward, backward = CASES[name]
    x, w = torch.randn(3, 5, requires_grad=True), torch.randn(5, requires_grad=True)
    compiled(call, graphs)(x, w).sum().backward()
    targets = [[str(node.target) for node in graph.graph.nodes] for graph in graphs]
    seen = [sum("triton_kernel_wrapper" in target for target in of_one) for of_one in targets]
    assert seen == [forward, backward]
    assert not any("nondet_probe" in target for of_one in targets for target in of_one)


def test_every_function_has_its_operator() -> None:
    assert {*CASES, "scatter_add"} == set(via_triton.__all__)
