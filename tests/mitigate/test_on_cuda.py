"""Routes for a GPU, without one: which way an overload would go, by the tables; that calls on CUDA
tensors take it, seen with tensors that have a dispatch key and no memory; and what the ways do, put
before the CPU's kernels."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from remade_network import train
from torch import Tensor
from torch.nn import functional

import nondet_probe
from nondet_probe import ops
from nondet_probe.bits import bit_equal, digest
from nondet_probe.env import deterministic_algorithms
from nondet_probe.env.torch_private import Interception, cpu_overloads
from nondet_probe.mitigate import launch, on_cuda, switches
from nondet_probe.mitigate.cuda_table import BLAS, BREAKING, STRICT, SWITCHED, adds_up
from nondet_probe.mitigate.family import FAMILY
from nondet_probe.mitigate.measured import operator
from nondet_probe.mitigate.on_cuda import BREAKS, KERNEL, MODE, routes_on_cuda
from nondet_probe.mitigate.remade import OF_OTHERS, PAIRS, REMADE
from nondet_probe.ops.registry import Guarantee, variants

# The package has the class by the same name.
module = sys.modules["nondet_probe.mitigate.reproducible"]
aten = torch.ops.aten
RUN, LAUNCH = Guarantee.RUN_TO_RUN, Guarantee.LAUNCH_INVARIANT


def has_own(name: str) -> bool:
    return torch._C._dispatch_has_kernel_for_dispatch_key(name, "CPU")


OVERLOADS = cpu_overloads()
OWN = [name for name in OVERLOADS if has_own(name)]
COMPOSITE = [name for name in OVERLOADS if not has_own(name)]


def everything(op: str, variant: str) -> bool:
    return True


def nothing(op: str, variant: str) -> bool:
    return False


def found(
    guarantee: Guarantee, kernels: Any = everything, workspace: bool = True, watch: bool = False
) -> dict[str, Any]:
    return routes_on_cuda(
        OWN, COMPOSITE, guarantee, has_kernels=kernels, workspace=workspace, watch=watch
    )


class Elsewhere(Tensor):
    """A tensor with the dispatch keys of CUDA, and no memory."""


def elsewhere(*shape: int) -> Tensor:
    made: Tensor = Tensor._make_subclass(
        Elsewhere,
        torch.empty(shape, device="meta"),
        False,
        device_for_backend_keys=torch.device("cuda:0"),
    )
    return made


def test_calls_take_the_function_of_their_device() -> None:
    seen: list[str] = []

    def make(device: str) -> Callable[..., Any]:
        def of(original: Callable[..., Any]) -> Callable[..., Any]:
            def run(x: Tensor, *given: Any, **options: Any) -> Any:
                seen.append(device)
                return torch.zeros(())

            return run

        return of

    routed = Interception()
    try:
        routed.put("aten::sum", {"CPU": make("CPU"), "CUDA": make("CUDA")})
        routed.put("aten::mul.Tensor", {"CUDA": make("CUDA")})
        torch.ones(3).sum()
        elsewhere(3).sum()
        elsewhere(3).requires_grad_().sum()
        elsewhere(3) * torch.ones(())  # a number on the CPU
        assert (torch.ones(3) * 2).tolist() == [2, 2, 2]  # none for the CPU
        assert torch.ones(3, device="meta").sum().device.type == "meta"
    finally:
        routed.remove()
    assert seen == ["CPU", "CUDA", "CUDA", "CUDA"]
    assert torch.ones(3).sum() == 3


def test_what_runs_below_is_the_kernel_of_that_device() -> None:
    """Where there is none here, the dispatcher says for which it looked."""
    routed = Interception()
    try:
        routed.put("aten::histc", {"CUDA": lambda original: original})
        # Or, in a build with CUDA, it looks for a GPU.
        with pytest.raises(RuntimeError, match=r"'CUDA' backend|NVIDIA driver"):
            torch.histc(elsewhere(3))
    finally:
        routed.remove()


FAMILY_AT_LAUNCH = {
    "aten::sum", "aten::sum.dim_IntList", "aten::mean", "aten::var.correction", "aten::cumsum",
    "aten::index_add", "aten::index_add_", "aten::scatter_add_", "aten::index_put_",
    "aten::embedding_dense_backward", "aten::bincount", "aten::native_layer_norm_backward",
    "aten::_softmax_backward_data", "aten::linalg_vector_norm", "aten::nll_loss_forward",
}  # fmt: skip


def way(name: str, guarantee: Guarantee, *given: Any, **options: Any) -> list[str]:
    """How a call of the overload is counted, its kernel replaced."""
    counts: list[str] = []
    route = found(guarantee, **options)[name]
    run = route.make(lambda *args, **kwargs: None, lambda how: lambda: counts.append(how))
    run(*given)
    return counts


ATOMICS = BREAKS + "adds with atomics, in whatever order they come"
SWITCHED_OFF = BREAKS + "torch.use_deterministic_algorithms was switched off inside"


def test_the_family_is_answered_by_variants_that_are_enough() -> None:
    at_launch, at_run = found(LAUNCH), found(RUN)
    for name in FAMILY_AT_LAUNCH:
        assert at_launch[name].guarantee >= LAUNCH, name
    x, at = torch.ones(40, 3), torch.zeros(40, dtype=torch.int64)
    table = torch.zeros(5, 3)
    assert way("aten::sum", LAUNCH, x) == ["sum fixed_order"]  # however small
    assert way("aten::sum", Guarantee.ORDER_INVARIANT, x) == ["sum binned"]
    assert way("aten::sum", Guarantee.NONE, x) == ["sum atomic"]
    assert way("aten::index_add", RUN, table, 0, at, x) == ["index_add ordered"]
    assert way("aten::cumsum", RUN, x, 0) == ["cumsum fixed_order"]
    assert way("aten::bincount", RUN, at, x[:, 0]) == ["bincount ordered"]
    # Torch's own is as good in these, and its calls are not counted.
    assert not {"aten::sum", "aten::mean", "aten::var.correction", "aten::mm"} & set(at_run)
    for guarantee in Guarantee:
        for name in FAMILY:
            chosen = on_cuda.weakest(FAMILY[name].op, min(guarantee, FAMILY[name].most))
            assert chosen is None or chosen.name not in ("kahan", "pairwise")


def test_none_has_atomic_variants_and_nothing_else() -> None:
    some = found(Guarantee.NONE)
    assert "aten::sum" in some
    assert set(some) <= set(FAMILY)
    assert all(route.guarantee is Guarantee.NONE for route in some.values())
    assert not found(Guarantee.NONE, nothing)


def test_without_kernels_others_answer_or_the_mode_does() -> None:
    x, at, table = torch.ones(40, 3), torch.zeros(40, dtype=torch.int64), torch.zeros(5, 3)
    for guarantee in (RUN, LAUNCH):
        assert way("aten::cumsum", guarantee, x, 0, kernels=nothing) == [PAIRS]
        assert way("aten::bincount", guarantee, at, x[:, 0], kernels=nothing) == [OF_OTHERS]
        with deterministic_algorithms():
            assert way("aten::index_add", guarantee, table, 0, at, x, kernels=nothing) == [MODE]
        # Who switched it off inside is told.
        assert way("aten::index_add", guarantee, table, 0, at, x, kernels=nothing) == [SWITCHED_OFF]
    assert way("aten::sum.dim_IntList", LAUNCH, x, [0], kernels=nothing) == [KERNEL]


def test_torchs_own_kernels_are_counted_where_more_was_asked_for() -> None:
    at_run, at_launch = found(RUN, nothing), found(LAUNCH, nothing)
    for name in (
        "aten::mm",
        "aten::native_batch_norm",
        "aten::_log_softmax",
        "aten::bernoulli_.float",
    ):
        assert name not in at_run
        assert name in at_launch
        assert name in found(RUN, nothing, watch=True)
    for name in ("aten::silu", "aten::add_.Tensor", "aten::cat", "aten::index.Tensor",
                 "aten::_foreach_add.List", "aten::gelu.out", "aten::eq_.Tensor"):  # fmt: skip
        assert name not in at_launch, name
    assert "aten::_foreach_norm.Scalar" in COMPOSITE or "aten::_foreach_norm.Scalar" in at_launch
    assert adds_up("aten::_foreach_norm.Scalar")
    assert not any(name.startswith("nondet_probe::") for name in at_launch)


def test_products_need_the_workspace_setting() -> None:
    x = torch.ones(3, 3)
    assert way("aten::mm", LAUNCH, x, x) == [KERNEL]
    (how,) = way("aten::mm", RUN, x, x, workspace=False)
    assert how.startswith(BREAKS)
    assert "CUBLAS_WORKSPACE_CONFIG=:4096:8" in how
    assert "the launcher" in how


NO_ROUTE = {
    "aten::_cudnn_ctc_loss", "aten::_upsample_lanczos2d_aa_backward", "aten::_ctc_loss_backward",
    "aten::index_reduce", "aten::scatter_reduce", "aten::adaptive_avg_pool3d_backward",
    "aten::_scaled_dot_product_cudnn_attention_backward", "aten::_cudnn_attention_backward",
}  # fmt: skip


def test_what_raises_under_the_mode_is_remade_or_told() -> None:
    names = {operator(name) for name in REMADE}
    assert set(BREAKING) - names == NO_ROUTE
    every = {operator(name) for name in torch._C._dispatch_get_all_op_names()}
    for table in (BREAKING, SWITCHED, STRICT, BLAS):
        assert set(table) - {"aten::_upsample_lanczos2d_aa_backward"} <= every  # a new one
    at_run = found(RUN)
    assert set(REMADE) - {"aten::cudnn_grid_sampler_backward"} <= set(at_run)
    for name in OWN:
        if operator(name) in BREAKING or operator(name) in SWITCHED:
            assert name in at_run, name


def test_what_breaks_does_so_in_some_calls_only() -> None:
    x, at = torch.ones(3, 4), torch.zeros(3, 4, dtype=torch.int64)
    two = "aten::scatter_reduce.two"
    assert way(two, RUN, x, 0, at, x, "prod") == [BREAKS + "multiplies with atomics"]
    with deterministic_algorithms():
        assert way(two, RUN, x, 0, at, x, "sum") == [MODE]
    assert way("aten::cumsum", RUN, at, 0, kernels=nothing) == []
    assert way("aten::bincount", RUN, at[0], kernels=nothing) == []
    assert way("aten::median", RUN, x) == []
    (how,) = way("aten::median.dim_values", RUN, x, 1)
    assert how.startswith(BREAKS + "which of several equal ones")
    assert way(two, RUN, x, 0, at, x, "sum") == [SWITCHED_OFF]
    assert way("aten::nll_loss2d_forward", RUN, x, at, None, 0, -100) == []
    assert way("aten::_embedding_bag_dense_backward", RUN, x, at, at, at, at, 3, False, 1) == []
    assert way("aten::histc.out", RUN, x, 3) == [ATOMICS]


def test_other_libraries_are_unknown() -> None:
    counts: list[str] = []
    for guarantee in (RUN, LAUNCH):
        (route,) = routes_on_cuda(
            [], ["somebodys::op"], guarantee, has_kernels=everything, workspace=True
        ).values()
        assert route.make(abs, lambda how: lambda: counts.append(how))(-3) == 3
    assert counts == ["unknown", "unknown"]


@pytest.fixture
def moved(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A GPU is seen, and its routes stand before the CPU's kernels."""
    put = Interception.put

    def moved_put(self: Interception, name: str, makes: dict[str, Any]) -> None:
        put(self, name, {"CPU": makes["CUDA"]})

    monkeypatch.setattr(Interception, "put", moved_put)
    monkeypatch.setattr(module, "cpu_overloads", list)
    monkeypatch.setattr(module, "cuda_overloads", lambda: (OWN, COMPOSITE))
    monkeypatch.setattr(module, "kernels_here", lambda: everything)
    monkeypatch.setattr(module, "why_no_kernels", lambda: None)
    monkeypatch.setattr(switches, "cuda_is_here", lambda: True)
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    before = state()
    yield
    assert state() == before


def state() -> list[bool]:
    cudnn = torch.backends.cudnn
    return [
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        torch.utils.deterministic.fill_uninitialized_memory,
        cudnn.deterministic,
        cudnn.benchmark,
        torch.backends.cuda.cudnn_sdp_enabled(),
        torch.backends.cuda.matmul.allow_tf32,
        cudnn.allow_tf32,
    ]


SET = [True, True, False, True, False, False]


@pytest.mark.usefixtures("moved")
def test_the_switches_are_set_inside_and_put_back() -> None:
    before = state()
    run = nondet_probe.reproducible("run_to_run")
    with run:
        assert state() == SET + before[6:]
        with run, nondet_probe.reproducible("run_to_run"):
            assert state()[:6] == SET
        with nondet_probe.reproducible("none"):
            assert state() == before
        assert state()[:6] == SET
        with pytest.raises(ZeroDivisionError), nondet_probe.reproducible("launch_invariant"):
            raise ZeroDivisionError
        assert state()[:6] == SET
    assert state() == before
    with pytest.raises(ZeroDivisionError), run:
        raise ZeroDivisionError
    assert state() == before
    with run:
        assert state()[:6] == SET
    assert state() == before


@pytest.mark.usefixtures("moved")
def test_a_mode_that_raises_stays_one() -> None:
    with deterministic_algorithms(fill=True):
        before = state()
        with nondet_probe.reproducible("run_to_run"):
            assert state()[:3] == [True, False, True]
        assert state() == before


def test_without_a_gpu_no_switch_is_touched() -> None:
    before = state()
    for guarantee in Guarantee:
        with nondet_probe.reproducible(str(guarantee)) as run:
            assert state() == before
        assert not run.report().breaking


@pytest.mark.usefixtures("moved")
def test_what_is_switched_back_inside_is_told() -> None:
    with nondet_probe.reproducible("run_to_run") as run:
        torch.backends.cudnn.benchmark = True
    assert run.report().notes == ["torch.backends.cudnn.benchmark was changed inside"]
    with nondet_probe.reproducible("run_to_run") as run:
        torch.use_deterministic_algorithms(False)
        torch.zeros(3).index_copy_(0, torch.tensor([1]), torch.ones(1))
    report = run.report()
    assert report.breaking == {"aten::index_copy_ on cuda": 1}
    assert "switched off inside" in report.reasons["aten::index_copy_ on cuda"]
    assert "known to differ between runs:" in str(report)
    assert not report.holds


@pytest.mark.usefixtures("moved")
def test_a_training_of_all_that_raises() -> None:
    expected = train()
    with nondet_probe.reproducible("run_to_run") as run:
        parameters = train()
    report = run.report()
    assert report.holds, report
    for name, how in {
        "upsample_bilinear2d_backward": PAIRS, "upsample_bicubic2d_backward": PAIRS,
        "reflection_pad2d_backward": PAIRS, "replication_pad2d_backward": PAIRS,
        "_adaptive_avg_pool2d_backward": PAIRS, "adaptive_max_pool2d_backward": OF_OTHERS,
        "max_unpool2d": OF_OTHERS, "grid_sampler_2d_backward": OF_OTHERS,
        "_embedding_bag_dense_backward": OF_OTHERS, "nll_loss2d_forward": OF_OTHERS,
        "median.dim": OF_OTHERS, "cumsum": "cumsum fixed_order",
        "scatter_add": "scatter_add ordered", "index_add": "index_add ordered",
        "_index_put_impl_": "index_put ordered", "scatter.src": MODE, "convolution_backward": MODE,
    }.items():  # fmt: skip
        assert how in report.rerouted[f"aten::{name} on cuda"], name
    for one, other in zip(parameters, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    with nondet_probe.reproducible("run_to_run"):
        assert [str(digest(x)) for x in train()] == [str(digest(x)) for x in parameters]


@pytest.mark.usefixtures("moved")
def test_beyond_run_to_run_what_stays_there_is_listed() -> None:
    x = torch.rand(50, 30)
    with nondet_probe.reproducible() as run:
        assert bit_equal(x.sum(), ops.sum(x, variant="fixed_order"))
        torch.log_softmax(x @ x.T, 1)
        functional.interpolate(x[None, None].requires_grad_(), 9, mode="bicubic").sum().backward()
    report = run.report()
    assert report.rerouted["aten::sum on cuda"] == {"sum fixed_order": 2}
    assert report.weaker["aten::mm on cuda"] == "run_to_run"
    assert report.left["aten::mm on cuda"] == 1
    assert "aten::upsample_bicubic2d_backward on cuda" not in report.weaker
    assert "aten::sum on cuda" not in report.weaker
    assert "left to torch's kernels" in str(report)
    assert report.as_dict()["left"]["aten::_log_softmax on cuda"] == 1
    assert not report.holds


@pytest.mark.usefixtures("moved")
def test_what_has_no_way_is_told_with_its_reason() -> None:
    log_p = torch.rand(9, 2, 5).log_softmax(2).requires_grad_()
    with nondet_probe.reproducible("run_to_run") as run:
        functional.ctc_loss(
            log_p, torch.tensor([[1, 2], [3, 4]]), torch.tensor([9, 9]), torch.tensor([2, 2])
        ).backward()
    report = run.report()
    (name,) = report.breaking
    assert name.startswith("aten::_ctc_loss_backward")
    assert report.reasons == {name: "adds with atomics, in whatever order they come"}
    assert "adds with atomics" in str(report)
    assert not report.holds


@pytest.mark.usefixtures("moved")
def test_without_kernels_the_report_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "kernels_here", on_cuda.kernels_here)
    monkeypatch.setattr(module, "why_no_kernels", on_cuda.why_no_kernels)
    assert not any(
        on_cuda.kernels_here()(op, variant.name)
        for op in ops.registry.ops()
        for variant in variants(op)
    )
    where, values = torch.tensor([0, 2, 2]), torch.rand(3)
    for guarantee in ("run_to_run", "launch_invariant"):
        with nondet_probe.reproducible(guarantee) as run:
            torch.zeros(5).index_add_(0, where, values)
        report = run.report()
        assert report.rerouted == {"aten::index_add_ on cuda": {MODE: 1}}
        said = [note for note in report.notes if "no kernels of this library's ops" in note]
        # Under run_to_run torch's is enough.
        assert bool(said) == (guarantee == "launch_invariant")
        assert report.holds == (guarantee == "run_to_run")
    assert "CUDA" in said[0]


@pytest.mark.usefixtures("moved")
def test_the_missing_workspace_setting_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":0:0")
    with nondet_probe.reproducible("run_to_run") as run:
        torch.ones(2, 3) @ torch.ones(3, 2)
    assert run.report().breaking == {"aten::mm on cuda": 1}
    assert "CUBLAS_WORKSPACE_CONFIG" in run.report().reasons["aten::mm on cuda"]


def test_the_launcher_sets_it_where_there_is_a_gpu(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    script = tmp_path / "train.py"
    script.write_text("")
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    given: list[dict[str, str]] = []
    monkeypatch.setattr(os, "execve", lambda path, command, environment: given.append(environment))
    options: dict[str, Any] = {"module": False, "watch": False, "report": None}
    for here in (True, False):
        monkeypatch.setattr(switches, "cuda_is_here", lambda here=here: here)
        launch.relaunch([str(script)], "run_to_run", **options)
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":16:8")
    monkeypatch.setattr(switches, "cuda_is_here", lambda: True)
    launch.relaunch([str(script)], "run_to_run", **options)
    assert [one.get("CUBLAS_WORKSPACE_CONFIG") for one in given] == [":4096:8", None, ":16:8"]


def test_attention_runs_in_a_moment_that_does_not_just_warn() -> None:
    modes: list[list[bool]] = []
    name = "aten::_scaled_dot_product_flash_attention_backward"
    route = routes_on_cuda([name], [], RUN, has_kernels=everything, workspace=True)[name]
    run = route.make(lambda: modes.append(state()[:3]), lambda how: lambda: None)
    before = state()
    with switches.deterministic_cuda():
        run()
        assert state()[:6] == SET
    assert modes == [[True, False, False]]
    assert state() == before


def test_what_would_raise_waits_for_a_strict_moment_to_end() -> None:
    seen: list[bool] = []
    inside, go_on = threading.Event(), threading.Event()

    def attention() -> None:
        with switches.strictly():
            inside.set()
            go_on.wait(30)

    def breaks(*given: Any) -> None:
        seen.append(torch.is_deterministic_algorithms_warn_only_enabled())

    route = found(RUN)["aten::_ctc_loss_backward"]
    run = route.make(breaks, lambda how: lambda: None)
    with switches.deterministic_cuda():
        first = threading.Thread(target=attention)
        first.start()
        assert inside.wait(30)
        second = threading.Thread(target=run)
        second.start()
        second.join(0.2)
        assert not seen  # it waits
        go_on.set()
        first.join()
        second.join()
    assert seen == [True]


def test_put_warns_on_the_cpu_under_the_mode() -> None:
    """What raises under the mode does so before its kernel is asked for: remade, it is not."""
    x, at = torch.zeros(5), torch.tensor([1, 2])
    with switches.deterministic_cuda():
        with pytest.raises(UserWarning, match="put_"):
            x.put_(at, torch.ones(2))
        remade = REMADE["aten::put_"][1]
        assert remade(None, x, at, torch.ones(2)) is x
    assert x.tolist() == [0, 1, 1, 0, 0]
