"""Routes go in and come out: what is answered how, counted, and put back."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Iterator

import pytest
import torch

import nondet_probe
from nondet_probe import ops
from nondet_probe.bits import bit_equal, digest
from nondet_probe.env import thread_count
from nondet_probe.env.torch_private import cpu_overloads
from nondet_probe.errors import UnknownNameError, UsageError
from nondet_probe.mitigate.convolution import slices_of
from nondet_probe.mitigate.routes import routes
from nondet_probe.mitigate.via_c import each_on_one_thread, on_one_thread
from nondet_probe.ops.registry import Guarantee

silu = torch.nn.functional.silu


def intercepted() -> list[str]:
    """Overloads with a kernel at the gate (those of torch's own factories not counted)."""
    return sorted(set(BEFORE) - set(cpu_overloads()))


BEFORE = cpu_overloads()


def odd(n: int = 100_003) -> torch.Tensor:
    return torch.rand(n, generator=torch.Generator().manual_seed(0)) * 8 - 4


def test_restored_on_exit_and_exception() -> None:
    x = odd()
    with thread_count(2):
        before = silu(x)
        with nondet_probe.reproducible():
            assert intercepted()
        assert not intercepted()
        with pytest.raises(ZeroDivisionError), nondet_probe.reproducible():
            raise ZeroDivisionError
        assert not intercepted()
        assert bit_equal(silu(x), before)
        assert torch.get_num_threads() == 2


def test_nesting_and_reentry() -> None:
    outer = nondet_probe.reproducible()
    with outer:
        inside = intercepted()
        with outer, nondet_probe.reproducible():
            assert intercepted() == inside
        with nondet_probe.reproducible("none") as inner:
            assert intercepted() != inside
            odd().sum()
        assert intercepted() == inside
        odd().sum()
    assert not intercepted()
    assert inner.report().rerouted == {"aten::sum": {"sum atomic": 1}}
    assert outer.report().rerouted["aten::sum"] == {"sum fixed_order": 1}
    assert "an inner reproducible('none') ruled in between" in outer.report().notes
    assert not outer.report().holds


def test_decorator_counts_every_call() -> None:
    run = nondet_probe.reproducible()

    @run
    def total(x: torch.Tensor) -> torch.Tensor:
        return x.sum()

    for _ in range(3):
        assert bit_equal(total(odd()), ops.sum(odd(), variant="fixed_order"))
    assert run.report().rerouted["aten::sum"] == {"sum fixed_order": 3}


def test_decorated_functions_keep_name_result_and_exception() -> None:
    run = nondet_probe.reproducible("order_invariant")

    @run
    def risky(x: torch.Tensor, *, fail: bool = False) -> tuple[torch.Tensor, bool]:
        """Words."""
        if fail:
            raise KeyError("mine")
        return x.sum(), bool(intercepted())

    assert (risky.__name__, risky.__doc__) == ("risky", "Words.")
    with pytest.raises(KeyError, match="mine"):
        risky(odd(), fail=True)
    assert not intercepted()
    total, inside = risky(odd())
    assert inside
    assert bit_equal(total, ops.sum(odd(), variant="binned"))
    assert not intercepted()


def test_recursion_of_a_decorated_function() -> None:
    run = nondet_probe.reproducible()

    @run
    def descend(depth: int) -> int:
        odd().sum()
        return 1 + (descend(depth - 1) if depth else 0)

    assert descend(3) == 4
    assert not intercepted()
    assert run.report().rerouted["aten::sum"] == {"sum fixed_order": 4}


def test_an_exception_inside_an_inner_one_leaves_the_outer_as_it_was() -> None:
    x = odd()
    with nondet_probe.reproducible() as outer:
        before, routed = x.sum(), intercepted()
        inner = nondet_probe.reproducible("correctly_rounded")
        with contextlib.suppress(ZeroDivisionError), inner:
            assert bit_equal(x.sum(), ops.sum(x, variant="exact"))
            raise ZeroDivisionError
        assert intercepted() == routed
        assert bit_equal(x.sum(), before)
    assert not intercepted()
    assert outer.report().rerouted["aten::sum"] == {"sum fixed_order": 2}


def test_an_exception_of_an_overload_restores_the_threads() -> None:
    with thread_count(3):
        with nondet_probe.reproducible():
            with pytest.raises(RuntimeError):
                torch.nn.functional.silu(torch.ones(3, dtype=torch.bool))
            with pytest.raises(RuntimeError):
                torch.var(torch.ones(3, 5, dtype=torch.int64))
            assert torch.get_num_threads() == 3
        assert torch.get_num_threads() == 3


def test_what_cannot_be_entered_leaves_everything_in_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fails(*given: object, **options: object) -> None:
        raise MemoryError

    with nondet_probe.reproducible() as outer:
        routed = intercepted()
        with monkeypatch.context() as patch:
            # The module: the package has the class by the same name.
            patch.setattr(sys.modules["nondet_probe.mitigate.reproducible"], "routes", fails)
            with pytest.raises(MemoryError), nondet_probe.reproducible("run_to_run"):
                pass
        assert intercepted() == routed
        odd().sum()
    assert not intercepted()
    assert outer.report().rerouted["aten::sum"] == {"sum fixed_order": 1}
    with nondet_probe.reproducible("run_to_run"):
        assert intercepted()
    assert not intercepted()


def test_reentry_counts_go_on_and_the_guarantee_is_back() -> None:
    run = nondet_probe.reproducible()
    for times in (1, 2):
        with run:
            odd().sum()
            assert run.report().rerouted["aten::sum"] == {"sum fixed_order": times}
        odd().sum()
        assert run.report().rerouted["aten::sum"] == {"sum fixed_order": times}
    assert run.report().holds


@pytest.fixture
def nothing_compiled() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.mark.usefixtures("nothing_compiled")
def test_code_under_compile_is_told_as_untouched() -> None:
    with nondet_probe.reproducible() as before:
        odd().sum()
    assert before.report().holds
    with nondet_probe.reproducible() as run:
        compiled = torch.compile(lambda x: silu(x).sum(), backend="eager", fullgraph=True)
        total = compiled(odd())
    torch.testing.assert_close(total, silu(odd()).sum())
    report = run.report()
    assert not report.holds
    assert report.notes == ["code under torch.compile runs kernels of its own, which are untouched"]
    assert "note: code under torch.compile" in str(report)
    with nondet_probe.reproducible("none") as free:
        odd().sum()
    assert free.report().holds


@pytest.mark.parametrize("watch", [False, True])
def test_numbers_where_an_overload_has_tensors(watch: bool) -> None:
    """C++ makes tensors of them, Python is handed numbers, and the dtypes stay what they were."""
    whole, short = torch.arange(7), torch.arange(7).bfloat16()
    calls = [
        lambda: whole % 3, lambda: whole % 2.5, lambda: short % 0.3, lambda: short * 0.3,
        lambda: whole + 1.5, lambda: whole & 3, lambda: whole.int()[1] + 1, lambda: short * 1j,
        lambda: torch.xlogy(short, 2.0), lambda: torch.where(whole > 3, 1.0, short),
        lambda: torch.remainder(5, whole + 1), lambda: torch.add(short, short, alpha=0.3),
    ]  # fmt: skip
    expected = [call() for call in calls]
    with nondet_probe.reproducible(watch=watch):
        found = [call() for call in calls]
    for one, other in zip(found, expected, strict=True):
        assert one.dtype is other.dtype
        assert bit_equal(one, other)


def test_run_to_run_leaves_alone_what_does_not_race() -> None:
    with nondet_probe.reproducible("run_to_run", watch=True) as run:
        silu(odd())
        matrix(33, 20_001) @ matrix(20_001, 17)
        odd().sum()
        torch.zeros(211).index_put((odd().mul(25).long().abs() % 211,), odd(), accumulate=True)
    report = run.report()
    assert set(report.rerouted) == {"aten::index_put"}
    assert report.rerouted["aten::index_put"] == {"index_put ordered": 1}
    assert {"aten::silu", "aten::mm", "aten::sum"} <= set(report.untouched)
    assert report.holds


def test_several_threads_come_and_go() -> None:
    barrier, failed = threading.Barrier(3), []

    def work() -> None:
        try:
            for _ in range(3):
                barrier.wait(timeout=60)
                with nondet_probe.reproducible():
                    assert intercepted()
                    silu(odd(70_000))
        except BaseException as error:
            failed.append(error)
            barrier.abort()

    workers = [threading.Thread(target=work) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not failed
    assert not intercepted()


def test_another_thread_cannot_ask_for_something_else() -> None:
    refused = []

    def other() -> None:
        try:
            with nondet_probe.reproducible("none"):
                pass
        except UsageError as error:
            refused.append(str(error))

    with nondet_probe.reproducible():
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
    assert "another thread is inside" in refused[0]
    assert not intercepted()


def test_unknown_guarantee() -> None:
    with pytest.raises(UnknownNameError, match="run_to_run"):
        nondet_probe.reproducible("launch-invariant")


@pytest.mark.parametrize(
    ("guarantee", "variant"),
    [
        ("none", "atomic"),
        ("launch_invariant", "fixed_order"),
        ("order_invariant", "binned"),
        ("correctly_rounded", "exact"),
    ],
)
def test_the_weakest_variant_that_is_enough(guarantee: str, variant: str) -> None:
    x = odd()
    with nondet_probe.reproducible(guarantee) as run:
        total = x.sum()
        product = torch.ones(3, 5) @ torch.ones(5, 2)
    assert run.report().rerouted["aten::sum"] == {f"sum {variant}": 1}
    if variant != "atomic":
        assert bit_equal(total, ops.sum(x, variant=variant))
    assert product.tolist() == [[5.0, 5.0]] * 3
    stronger = guarantee in ("order_invariant", "correctly_rounded")
    assert run.report().weaker == ({"aten::mm": "launch_invariant"} if stronger else {})


def matrix(rows: int, columns: int) -> torch.Tensor:
    return odd(rows * columns).view(rows, columns)


def stack(count: int, rows: int, columns: int) -> torch.Tensor:
    return odd(count * rows * columns).view(count, rows, columns)


CALLS = {
    "silu": lambda: silu(odd()),
    "gelu": lambda: torch.nn.functional.gelu(odd(), approximate="tanh"),
    "mm": lambda: matrix(301, 1003) @ matrix(57, 1003).T,
    "mm, long": lambda: matrix(33, 20_001) @ matrix(20_001, 17),
    "mm, float64": lambda: matrix(477, 107).double() @ matrix(72, 107).double().T,
    "addmm": lambda: torch.addmm(odd(57), matrix(301, 103), matrix(103, 57), beta=0.5, alpha=2),
    "bmm": lambda: stack(2, 14, 126).mT @ stack(2, 14, 109),
    "baddbmm": lambda: torch.baddbmm(odd(31), stack(3, 17, 5003), stack(3, 5003, 31)),
    "bfloat16": lambda: matrix(301, 1003).bfloat16() @ matrix(1003, 57).bfloat16(),
    "dot": lambda: torch.dot(odd(), odd() + 1),
    "sum of columns": lambda: matrix(517, 1031).sum(0),
    "softmax": lambda: matrix(301, 1003).softmax(0),
    "mean": lambda: matrix(9, 70_001).mean(1),
    "gradient of a lookup": lambda: torch.zeros(211).index_put(
        (odd().mul(25).long().abs() % 211,), odd(), accumulate=True
    ),
    "convolution": lambda: torch.conv2d(
        odd(9 * 18 * 37 * 35).view(9, 18, 37, 35), odd(31 * 18 * 9).view(31, 18, 3, 3)
    ),
}


@pytest.mark.parametrize("name", CALLS)
def test_same_bits_on_any_number_of_threads(name: str) -> None:
    with nondet_probe.reproducible():
        found = []
        for threads in (1, 2, 3, 4):
            with thread_count(threads):
                found.append(str(digest(CALLS[name]())))
                assert torch.get_num_threads() == threads
    assert len(set(found)) == 1
    with torch.no_grad():
        torch.testing.assert_close(CALLS[name](), _under(name), rtol=3e-3, atol=3e-3)


def _under(name: str) -> torch.Tensor:
    with nondet_probe.reproducible():
        return CALLS[name]()


def test_a_convolutions_gradients_are_those_of_torch() -> None:
    for transposed in (False, True):
        kind = torch.nn.ConvTranspose2d if transposed else torch.nn.Conv2d
        layer = kind(18, 31, 3, stride=2, padding=1)
        x = odd(9 * 18 * 37 * 35).view(9, 18, 37, 35).requires_grad_()
        inputs = [x, *layer.parameters()]
        expected = torch.autograd.grad(layer(x).square().sum(), inputs)
        with nondet_probe.reproducible():
            found = torch.autograd.grad(layer(x).square().sum(), inputs)
        for a, b in zip(found, expected, strict=True):
            assert a.shape == b.shape
            torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-2)
    assert slices_of(9, 10**9) == [0, 1, 2, 3, 4, 5, 6, 7, 9]


def test_wrong_operands_are_refused_as_ever() -> None:
    a, b = torch.ones(3, 5), torch.ones(4, 2)
    for call in (lambda: a @ b, lambda: torch.addmm(torch.ones(7), a, b), lambda: torch.bmm(a, b)):
        with pytest.raises(RuntimeError), nondet_probe.reproducible():
            call()
    with nondet_probe.reproducible():
        assert torch.addmm(torch.full((2,), torch.nan), a, torch.ones(5, 2), beta=0).sum() == 30
        assert (torch.ones(0, 5) @ torch.ones(5, 2)).shape == (0, 2)
        assert (torch.ones(3, 0) @ torch.ones(0, 2)).tolist() == [[0.0, 0.0]] * 3


def test_what_no_sweep_measured_is_told() -> None:
    @torch.library.custom_op("mitigate_test::twice", mutates_args=())
    def twice(x: torch.Tensor) -> torch.Tensor:
        return x * 2

    with nondet_probe.reproducible(watch=True) as run:
        -twice(odd())
    report = run.report()
    assert report.unknown == {"mitigate_test::twice": 1}
    assert not report.holds
    assert "untouched, not measured, nothing promised:" in str(report)
    assert report.untouched["aten::neg"] >= 1


def test_other_devices_pass() -> None:
    with nondet_probe.reproducible() as run:
        assert torch.ones(3, 5, device="meta").mm(torch.ones(5, 2, device="meta")).shape == (3, 2)
        assert torch.sparse.mm(torch.eye(3).to_sparse(), torch.ones(3, 2)).shape == (3, 2)
    assert "aten::mm" not in run.report().rerouted


def test_one_thread_is_a_matter_of_the_calling_thread() -> None:
    counts, inside, go_on = [], threading.Event(), threading.Event()

    def body() -> None:
        counts.append(torch.get_num_threads())
        inside.set()
        go_on.wait(60)

    with thread_count(3):
        worker = threading.Thread(target=lambda: on_one_thread(body))
        worker.start()
        inside.wait(60)
        here = torch.get_num_threads()
        go_on.set()
        worker.join()
        assert (counts, here, torch.get_num_threads()) == ([1], 3, 3)
        seen = []
        each_on_one_thread(5, lambda item: seen.append((item, torch.get_num_threads())))
        assert sorted(seen) == [(item, 1) for item in range(5)]
        with pytest.raises(ZeroDivisionError):
            each_on_one_thread(5, lambda item: 1 // 0)
        assert torch.get_num_threads() == 3


def test_a_new_relative_needs_a_function_and_a_line() -> None:
    found = routes(["aten::sum", "aten::mm", "aten::neg"], Guarantee.LAUNCH_INVARIANT)
    assert set(found) == {"aten::sum", "aten::mm"}
    assert set(routes(["aten::sum", "aten::mm"], Guarantee.NONE)) == {"aten::sum"}
