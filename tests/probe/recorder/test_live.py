"""A recording that is compared with a trace while it is made."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import offences  # noqa: F401  # registers its ops
import pytest
import torch
from safetensors.torch import load_file

import nondet_probe as ndp
from nondet_probe.bits import digest
from nondet_probe.env.rng import preserved_rng
from nondet_probe.probe.recorder import ops
from nondet_probe.probe.recorder.digester import Digester
from nondet_probe.probe.recorder.keeping import TENSORS_FILE
from nondet_probe.probe.recorder.live import KEPT
from nondet_probe.probe.recorder.pending import OnDevice, Pending
from nondet_probe.probe.recorder.sink import Sink
from nondet_probe.records.difference import TraceDifference
from nondet_probe.records.trace import SETUP
from nondet_probe.records.trace_reader import open_trace

pytestmark = pytest.mark.usefixtures("one_thread")

Change = Callable[[int, Any], object]


def nothing(step: int, optimizer: Any) -> None:
    pass


def training(change: Change = nothing, steps: int = 4, seed: int = 0) -> str:
    """change: called in each step before the forward. Returns the digest of the last weights."""
    with preserved_rng():
        torch.manual_seed(seed)
        model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.Dropout(0.5))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        for step in range(steps):
            batch = torch.randn(3, 4)
            change(step, optimizer)
            optimizer.zero_grad()
            model(batch).sum().backward()
            optimizer.step()
        return digest(model[0].weight.detach()).hex


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path


def reference(folder: Path, *given: Any, level: str = "op", **options: Any) -> None:
    with ndp.record(folder / "a", level=level, **options):
        training(*given)


def against(folder: Path, *given: Any, level: str = "op", **options: Any) -> TraceDifference:
    """Of a recording that comes to its end, equal or not; or is stopped."""
    rec = ndp.record(folder / "b", level=level, against=folder / "a", **options)
    with pytest.raises(ndp.DifferenceError) as caught, rec:
        training(*given)
    assert caught.value.difference is rec.difference
    assert rec.difference is not None
    assert not rec.difference.equal
    return rec.difference


def equal(folder: Path, *given: Any, level: str = "op", **options: Any) -> TraceDifference:
    with ndp.record(folder / "b", level=level, against=folder / "a", **options) as rec:
        training(*given)
    assert rec.difference is not None
    assert rec.difference.equal
    assert rec.meta.status == "complete"
    return rec.difference


def other_rate(step: int, optimizer: Any) -> None:
    if step == 1:
        optimizer.param_groups[0]["lr"] = 0.2


@pytest.mark.parametrize("level", ["step", "module", "op"])
def test_an_equal_run_goes_to_its_end_and_its_bits_are_its_own(level: str, folder: Path) -> None:
    reference(folder, level=level)
    with ndp.record(folder / "b", level=level, against=folder / "a") as rec:
        bits = training()
    assert bits == training()
    assert rec.difference is not None
    assert rec.difference.equal
    assert rec.difference.compared == len(open_trace(folder / "b"))
    assert not (folder / "b" / KEPT).exists()


@pytest.mark.parametrize("level", ["step", "module", "op"])
def test_another_rate_stops_it_when_its_step_is_over(level: str, folder: Path) -> None:
    reference(folder, level=level)
    found = against(folder, other_rate, level=level)
    assert (found.step, found.phase, found.op) == (1, "optimizer", "optimizer 0, group 0: lr")
    run = open_trace(folder / "b")
    assert run.meta.status == "stopped"
    assert int(run.arrays.step.max()) == 1
    # The step is whole: what is behind the difference has its name in it.
    assert {"Sequential.0.weight", "Sequential.0.bias"} <= {
        r.site.name for r in run.records(1) if r.site.phase == "state"
    }
    assert not found.not_aligned_a
    assert any(text.startswith("run b ends in step 1: ") for text in found.warnings)


def test_other_weights_stop_it_when_the_setup_is_over(folder: Path) -> None:
    reached: list[int] = []

    def note(step: int, optimizer: Any) -> None:
        # Drawn by the setup, which has not ended when this is called for step 0.
        reached.append(step)

    reference(folder)
    found = against(folder, note, 4, 1)
    assert (found.step, found.phase, found.kind) == (SETUP, "setup", "rng")
    assert reached == [0]


def wobbling(reached: list[str], times: int = 1) -> Change:
    x = torch.arange(8.0)

    def change(step: int, optimizer: Any) -> None:
        if step == 1:
            for _ in range(times):
                reached.append("before")
                torch.ops.ndp_test.wobble_(x.clone())
                reached.append("after")

    return change


def test_a_racing_op_stops_it_at_once_with_its_tensors_and_its_cause(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    not_counted: list[float] = []
    monkeypatch.setattr(Sink, "not_counted", lambda sink, seconds: not_counted.append(seconds))
    reached: list[str] = []
    reference(folder, wobbling([]))
    found = against(folder, wobbling(reached))
    assert reached == ["before"]
    assert (found.step, found.op, found.inputs_equal) == (1, "ndp_test.wobble_.default", True)
    assert (found.propagated, found.not_aligned_a, found.not_aligned_b) == (0, {}, {})
    cause = found.cause
    assert cause is not None
    assert cause.differing > 0
    assert cause.kept == str(folder / "b" / KEPT)
    kept = load_file(folder / "b" / KEPT / TENSORS_FILE)
    assert kept["input.0"].tolist() == list(range(8))
    assert kept["output.0"].tolist()[1:] == list(range(1, 8))
    assert kept["output.0"][0] != 0
    meta = open_trace(folder / "b").meta
    assert meta.holds_tensors
    # No step is said to have taken what looking at the op took.
    assert meta.cost is not None
    assert 0 < not_counted[0] < meta.cost.seconds


def test_without_inputs_it_is_stopped_at_the_same_op(folder: Path) -> None:
    reached: list[str] = []
    reference(folder, wobbling([]), outputs_only=True)
    found = against(folder, wobbling(reached), outputs_only=True)
    assert reached == ["before"]
    assert (found.op, found.roots[0].inferred) == ("ndp_test.wobble_.default", True)
    assert found.cause is not None
    assert found.cause.kept is not None


def test_a_racing_op_behind_another_difference_is_not_blamed(folder: Path) -> None:
    reached: list[str] = []

    def change(step: int, optimizer: Any) -> None:
        if step == 1:
            torch.ops.ndp_test.steady(torch.ones(2) + len(reached))
        wobbling(reached)(step, optimizer)

    reference(folder, change)
    found = against(folder, change)
    assert (found.step, found.op, found.inputs_equal) == (1, "aten.add.Tensor", False)
    assert found.cause is None
    # The second time the step goes on to its end.
    assert reached == ["before", "after", "before", "after"]


def test_what_the_run_has_not_come_to_yet_is_not_missing(folder: Path) -> None:
    reached: list[str] = []

    def later(step: int, optimizer: Any) -> None:
        branches("1")(step, optimizer)
        wobbling([])(step, optimizer)

    def sooner(step: int, optimizer: Any) -> None:
        wobbling(reached)(step, optimizer)
        branches("1")(step, optimizer)

    reference(folder, later, outputs_only=True)
    found = against(folder, sooner, outputs_only=True)
    assert reached == ["before"]
    assert found.op == "ndp_test.wobble_.default"


def test_what_caught_the_error_meets_it_again_at_its_next_step(folder: Path) -> None:
    reached = 0

    def change(step: int, optimizer: Any) -> None:
        nonlocal reached
        reached = step
        with contextlib.suppress(ndp.DifferenceError):
            wobbling([])(step, optimizer)

    reference(folder, wobbling([]))
    against(folder, change)
    assert reached == 1


def test_one_that_is_caught_for_good_is_raised_at_the_end(folder: Path) -> None:
    reference(folder, wobbling([]))
    rec = ndp.record(folder / "b", level="op", against=folder / "a")
    told = r"b differs from .*a: step 1, forward: ndp_test\.wobble_"
    caught = contextlib.suppress(ndp.DifferenceError)
    with pytest.raises(ndp.DifferenceError, match=told), rec, caught:
        training(wobbling([]))


def test_what_the_program_raises_is_its_own(folder: Path) -> None:
    def fail(step: int, optimizer: Any) -> None:
        if step == 2:
            raise KeyError("own")

    reference(folder)
    rec = ndp.record(folder / "b", level="op", against=folder / "a")
    with pytest.raises(KeyError, match="own"), rec:
        training(fail)
    assert rec.difference is not None
    # Nothing differs, and what broke off is not called equal.
    assert (rec.difference.equal, rec.difference.unfinished) == (False, True)
    assert rec.difference.roots == []
    assert any(text.startswith("run b ends in step 2: ") for text in rec.difference.warnings)


def branches(order: str, damaged: int = 0) -> Change:
    """Two calls of one op in one place, in this order."""
    x = {"1": torch.full((4,), 2.0), "2": torch.full((4,), 3.0)}

    def change(step: int, optimizer: Any) -> None:
        for name in order:
            torch.ops.ndp_test.steady(x[name] + damaged * (step == 1))

    return change


@pytest.mark.parametrize("outputs_only", [False, True])
def test_another_order_of_calls_of_one_op_is_no_difference(
    outputs_only: bool, folder: Path
) -> None:
    reference(folder, branches("12"), outputs_only=outputs_only)
    equal(folder, branches("21"), outputs_only=outputs_only)


def test_in_another_order_a_difference_is_found_all_the_same(folder: Path) -> None:
    reference(folder, branches("12"))
    found = against(folder, branches("21", damaged=1))
    assert (found.step, found.op) == (1, "aten.add.Tensor")
    assert found.inputs_equal is False


@pytest.mark.parametrize(("mine", "theirs"), [("121", "12"), ("12", "121")])
def test_calls_that_only_one_has_are_counted_and_stop_nothing(
    mine: str, theirs: str, folder: Path
) -> None:
    reference(folder, branches(theirs))
    found = against(folder, branches(mine))
    assert not found.equal
    assert found.kind == "order"
    only = found.not_aligned_b if mine == "121" else found.not_aligned_a
    # The op that draws has a record of its generator too.
    assert sum(only.values()) == 12
    assert open_trace(folder / "b").meta.status == "complete"


def test_a_generator_that_nobody_draws_from_may_be_in_another_state(folder: Path) -> None:
    with preserved_rng():
        random.seed(1)
        reference(folder)
        random.seed(2)
        found = equal(folder)
    assert any("the generator python was in other states" in text for text in found.warnings)


def test_one_that_is_drawn_from_may_where_nothing_comes_of_it(folder: Path) -> None:
    def draw(step: int, optimizer: Any) -> None:
        random.random()

    with preserved_rng():
        random.seed(1)
        reference(folder, draw)
        random.seed(2)
        found = equal(folder, draw)
    assert any("nothing that was recorded came of it" in text for text in found.warnings)


def test_it_is_named_where_something_comes_of_it(folder: Path) -> None:
    reached: list[int] = []

    def draw(step: int, optimizer: Any) -> None:
        reached.append(step)
        if step == 1:
            torch.ops.ndp_test.steady(torch.ones(2) * random.random())

    with preserved_rng():
        random.seed(1)
        reference(folder, draw)
        random.seed(2)
        reached.clear()
        found = against(folder, draw)
    assert (found.kind, found.op, found.step) == ("rng", "python", 0)
    assert reached == [0, 1]


def test_one_that_only_this_run_draws_from_is_named_too(folder: Path) -> None:
    def use(step: int, optimizer: Any) -> None:
        torch.ops.ndp_test.steady(torch.ones(2) * 0.5)

    def draw(step: int, optimizer: Any) -> None:
        torch.ops.ndp_test.steady(torch.ones(2) * (random.random() if step == 1 else 0.5))

    with preserved_rng():
        random.seed(1)
        reference(folder, use)
        random.seed(2)
        found = against(folder, draw)
    assert (found.kind, found.op, found.step) == ("rng", "python", 0)
    assert int(open_trace(folder / "b").arrays.step.max()) == 1


def test_a_generator_that_leaves_its_stream_is_a_difference(folder: Path) -> None:
    reached: list[int] = []

    def draw(step: int, optimizer: Any) -> None:
        reached.append(step)
        if step == 1:
            random.random()

    for run, given in ((reference, ()), (against, (draw,))):
        with preserved_rng():
            random.seed(1)
            found = run(folder, *given)
    assert (found.kind, found.op, found.step) == ("rng", "python", 2)
    assert reached == [0, 1, 2]


def test_a_reference_that_runs_out_is_told(folder: Path) -> None:
    reference(folder, nothing, 2)
    found = equal(folder, nothing, 4)
    assert any("run a ends in step 2: " in text for text in found.warnings)


def test_a_run_that_ends_before_its_reference_is_not_equal(folder: Path) -> None:
    reference(folder, nothing, 4)
    assert against(folder, nothing, 2).kind == "order"


def test_steps_and_names_of_either_side_are_what_is_compared(folder: Path) -> None:
    reference(folder, names="0$", level="module")
    found = equal(folder, level="module")
    assert found.compared == len(open_trace(folder / "a"))
    assert any("for names like" in text for text in found.warnings)


def test_a_call_whose_digest_is_on_a_device_is_compared_when_the_step_is_over(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Later(Digester):
        def words(self, given: Any, what: str = "") -> Any:
            found = super().words(given, what)
            assert isinstance(found, tuple)
            return Pending([OnDevice(torch.tensor([found]), 0)])

    monkeypatch.setattr(ops, "Digester", Later)
    reached: list[str] = []
    reference(folder, wobbling([]))
    found = against(folder, wobbling(reached))
    assert reached == ["before", "after"]
    assert (found.step, found.op, found.inputs_equal) == (1, "ndp_test.wobble_.default", True)
    assert found.cause is not None
    assert "diff --replay executes it again" in found.cause.missing[0]
    assert int(open_trace(folder / "b").arrays.step.max()) == 1


@pytest.mark.parametrize(
    ("given", "why"),
    [
        ({"level": "module"}, "was recorded at level op, inputs and outputs, and this would be at"),
        ({"level": "op", "outputs_only": True}, "at level op, outputs only"),
    ],
)
def test_a_reference_of_another_kind_is_refused_before_anything_is_made(
    given: dict[str, Any], why: str, folder: Path
) -> None:
    reference(folder)
    with pytest.raises(ndp.UsageError, match=why):
        ndp.record(folder / "b", against=folder / "a", **given)
    assert not (folder / "b").exists()


def test_a_reference_that_is_none_is_refused(folder: Path) -> None:
    with pytest.raises(ndp.UsageError, match=r"against: .*a does not exist"):
        ndp.record(folder / "b", against=folder / "a")
    (folder / "a").mkdir()
    with pytest.raises(ndp.UsageError, match="is not a trace's folder"):
        ndp.record(folder / "b", against=folder / "a")
    (folder / "a" / "rank_00000.sqlite").write_bytes(b"what a stranger wrote")
    (folder / "a" / "meta.json").write_text("{}")
    with pytest.raises(ndp.UsageError, match="is not of format"):
        ndp.record(folder / "b", against=folder / "a")
