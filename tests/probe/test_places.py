"""Phase, module and source line of what is found; the offences are planted on known lines."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable
from pathlib import Path

import offences
import pytest
import torch
from offences import line_of, wobble
from torch import nn
from torch.utils.checkpoint import checkpoint

from nondet_probe.probe.places import Place, Places, source_text
from nondet_probe.probe.rerun import Rerun
from nondet_probe.records import OpSite

HERE = __file__


class Inner(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return wobble(x * self.weight).sin()  # planted: forward of the inner module


class Outer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([Inner()])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers[0](x) * 2


def sites(run: Callable[[], object], model: nn.Module | None = None) -> list[OpSite]:
    with Rerun(2, model) as watch:
        run()
    return watch.record().sites


def here(site: OpSite, text: str) -> bool:
    return site.file == HERE and site.line == line_of(text, HERE)


def test_forward() -> None:
    model = Outer()
    (site,) = sites(lambda: model(torch.ones(4)), model)
    assert (site.phase, site.module) == ("forward", "layers.0")
    assert here(site, "# planted: forward of the inner module")
    assert (
        site.code == "return wobble(x * self.weight).sin()  # planted: forward of the inner module"
    )


def test_without_a_model_the_path_starts_with_the_outermost_class() -> None:
    (site,) = sites(lambda: Outer()(torch.ones(4)))
    assert site.module == "Outer.layers.0"


def test_a_module_that_is_not_of_the_model_counts_to_the_one_around_it() -> None:
    class Around(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return Inner()(x)

    around = Around()
    (site,) = sites(lambda: around(torch.ones(4)), around)
    assert site.module == ""
    (site,) = sites(lambda: around(torch.ones(4)), nn.Linear(1, 1))
    assert site.module is None


def test_outside_of_any_module() -> None:
    (site,) = sites(lambda: wobble(torch.ones(4)))  # planted: outside
    assert site.module is None
    assert here(site, "# planted: outside")


class Scaled(torch.autograd.Function):
    """Its backward is an op of torch's own, called from user code."""

    @staticmethod
    def forward(ctx: object, x: torch.Tensor) -> torch.Tensor:
        return x * 1

    @staticmethod
    def backward(ctx: object, gradient: torch.Tensor) -> torch.Tensor:  # type: ignore[override]
        return wobble(gradient)  # planted: in a backward of the user's


def test_backward_code_of_the_users_own_is_named_by_its_line() -> None:
    x = torch.ones(4, requires_grad=True)
    (site,) = sites(lambda: Scaled.apply(x).sum().backward())
    assert site.phase == "backward"
    assert here(site, "# planted: in a backward of the user's")


def test_backward_of_an_op_is_named_by_the_forward_line(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Outer()
    found = watched_backward(model, monkeypatch)
    # The gradients of the multiplication and of the sine; the one of wobble is a copy.
    assert found["aten.mul.Tensor"] == ("backward", "layers.0")
    assert found["aten.cos.default"] == ("backward", "layers.0")


def watched_backward(
    model: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> dict[str, tuple[str, str | None]]:
    """Every place of a backward op of `Inner`'s line, by op."""
    seen: list[tuple[str, Place]] = []
    with Rerun(2, model) as watch:
        tally = watch._mode.tally
        add = tally.add
        monkeypatch.setattr(
            tally, "add", lambda p, k, f, c: (seen.append((c.plan.name, p)), add(p, k, f, c))
        )
        model(torch.ones(4)).sum().backward()
    line = line_of("# planted: forward of the inner module", HERE)
    return {
        op: (place.phase, place.module)
        for op, place in seen
        if place.phase == "backward" and place.line == line
    }


def test_the_gradient_of_a_parameter_is_named_by_the_parameter() -> None:
    model = Inner()
    places = Places(model)
    note = places._of_gradient(model.weight)
    assert note == Place("backward", "", None, None, "gradient of weight")
    assert source_text(note) == "gradient of weight"
    other = places._of_gradient(torch.ones(2, 3, requires_grad=True))
    assert other.note == "gradient of a leaf tensor [2x3]"


def test_accumulating_a_gradient_has_the_name_of_its_parameter(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = nn.Linear(3, 2)
    seen: list[Place] = []
    with Rerun(2, model) as watch:
        tally = watch._mode.tally
        add = tally.add
        monkeypatch.setattr(tally, "add", lambda p, k, f, c: (seen.append(p), add(p, k, f, c)))
        for _ in range(2):  # the second backward adds to the first one's gradients
            model(torch.ones(1, 3)).sum().backward()
    notes = {place.note for place in seen if place.note}
    assert notes == {"gradient of weight", "gradient of bias"}


class WobblySGD(torch.optim.SGD):
    """The ordinary one, followed by an offence."""

    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        super().step(closure)
        for group in self.param_groups:
            offences.wobble_(group["params"][0])  # planted: in an optimizer


def test_optimizer() -> None:
    model = nn.Linear(3, 2)
    optimizer = WobblySGD(model.parameters(), lr=0.1)

    def step() -> None:
        model(torch.ones(1, 3)).sum().backward()
        with torch.no_grad():
            optimizer.step()

    (site,) = sites(step, model)
    assert (site.phase, site.module) == ("optimizer", None)
    assert here(site, "# planted: in an optimizer")


@pytest.mark.parametrize("known", [True, False])
def test_the_closure_of_an_optimizer_is_forward_and_backward_again(known: bool) -> None:
    """Also where the module that it calls is not one of the model."""
    model = Outer()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def closure() -> float:
        optimizer.zero_grad()
        loss = Scaled.apply(model(torch.ones(4))).sum()
        loss.backward()
        return float(loss.detach())

    found = sites(lambda: optimizer.step(closure), model if known else nn.Linear(1, 1))
    assert {(site.phase, site.module) for site in found} == {
        ("forward", "layers.0" if known else None),
        ("backward", None),
    }


def test_an_optimizer_that_steps_inside_of_the_backward_pass() -> None:
    model = nn.Linear(3, 2)
    optimizer = WobblySGD([model.weight], lr=0.1)

    def step(_: torch.Tensor) -> None:
        with torch.no_grad():
            optimizer.step()

    handle = model.weight.register_post_accumulate_grad_hook(step)
    (site,) = sites(lambda: model(torch.ones(1, 3)).sum().backward(), model)
    handle.remove()
    assert site.phase == "optimizer"


@pytest.mark.parametrize("use_reentrant", [False, True])
def test_recomputed_ops_are_backward_and_have_the_line_that_ran_again(use_reentrant: bool) -> None:
    model = Outer()

    def step() -> None:
        x = torch.ones(4, requires_grad=True)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            y = checkpoint(model, x, use_reentrant=use_reentrant)
        y.sum().backward()

    found = sites(step, model)
    assert sorted((site.phase, site.module, site.calls) for site in found) == [
        ("backward", "layers.0", 1),
        ("forward", "layers.0", 1),
    ]
    assert all(here(site, "# planted: forward of the inner module") for site in found)


def test_second_derivatives_keep_the_forward_line() -> None:
    x = torch.ones(4, requires_grad=True)

    def run() -> None:
        y = Scaled.apply(x).pow(3).sum()
        (gradient,) = torch.autograd.grad(y, x, create_graph=True)
        gradient.sum().backward()

    assert {site.phase for site in sites(run)} == {"backward"}


def test_a_node_that_was_made_before_the_watch_has_no_line() -> None:
    table = torch.ones(3, 2, requires_grad=True)
    y = table.sin()
    places = Places()
    place = places._of_node(y.grad_fn)
    assert place == Place("backward", None, None, None, "backward node SinBackward0")


def test_without_the_private_names_of_torch_the_line_is_that_of_backward(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("nondet_probe.env.torch_private._current_node", None)
    monkeypatch.setattr("nondet_probe.env.torch_private._next_sequence", None)
    seen: list[Place] = []
    x = torch.ones(4, requires_grad=True)
    with Rerun(2) as watch:
        monkeypatch.setattr(watch._mode.tally, "add", lambda p, k, f, c: seen.append(p))
        y = x.sin().sum()
        y.backward()  # planted: the call of backward
    line = line_of("# planted: the call of backward", HERE)
    # The first gradient is made before the engine starts.
    assert {(p.phase, p.line) for p in seen if p.line == line} == {
        ("forward", line),
        ("backward", line),
    }


def test_two_threads_with_nodes_of_one_number_give_no_wrong_line() -> None:
    places = Places()
    number = 2**40
    places._remember(number, Place("forward", None, "a.py", 1))

    def other() -> None:
        places._remember(number, Place("forward", None, "b.py", 2))

    class Node:
        def name(self) -> str:
            return "X"

        def _sequence_nr(self) -> int:
            return number

    assert places._of_node(Node()).file == "a.py"
    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    assert places._of_node(Node()).file is None


def test_lines_kept_for_the_backward_pass_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nondet_probe.probe.places._KEPT_NODES", 3)
    places = Places()
    for number in range(10):
        places._remember(number, Place("forward", None, "a.py", number))
    (made,) = places._made.values()
    assert list(made) == [7, 8, 9]


def test_code_of_the_library_itself_is_passed_over_but_workloads_are_not() -> None:
    from nondet_probe.probe import places

    package = Path(places.__file__).parents[1]

    def kind(file: Path | str) -> str:
        return places._kind(compile("pass", str(file), "exec"))

    assert kind(package / "probe" / "mode.py") == ""
    assert kind(package / "workloads" / "digits_cnn.py") == "user"
    assert kind(package / "ops" / "sum.py") == ""
    assert kind(Path(torch.__file__).parent / "nn" / "functional.py") == ""
    assert kind(Path(threading.__file__)) == ""
    assert kind("<eval_with_key>.3") == ""
    assert kind("<stdin>") == "user"
    assert kind("/somewhere/site-packages/torchvision/ops.py") == "user"
