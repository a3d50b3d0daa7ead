"""A twin of a run that does not repeat: under `reproducible` its control stays with the run."""

from __future__ import annotations

from contextlib import AbstractContextManager

import pytest

from nondet_probe import reproducible
from nondet_probe.env import available_cpus, thread_count
from nondet_probe.errors import RunFailedError
from nondet_probe.probe.twin import twin
from nondet_probe.records import RunRecord
from nondet_probe.report import verdict
from nondet_probe.workload import Workload
from nondet_probe.workloads.digits_cnn import digits_cnn
from nondet_probe.workloads.snippets_hashed import snippets_hashed

STEPS = 6


@pytest.mark.skipif(available_cpus() < 2, reason="a race needs two processors")
def test_the_racing_workload_gets_a_flat_control() -> None:
    run = reproducible()
    with thread_count(2):
        alone = twin(snippets_hashed, steps=STEPS)
        held = twin(snippets_hashed, steps=STEPS, under=run)
    assert (alone.under, alone.control_identical, alone.growth) == ("", False, None)
    assert alone.control_differs_name == "table"
    assert alone.series["control"].any()
    assert held.under == "reproducible('launch_invariant')"
    assert held.control_identical
    assert held.steps == STEPS
    assert not held.series["control"].any()
    assert held.series["distance"].all(), "the changed bit is still followed"
    # Every step of all three copies took the other way.
    assert run.report().rerouted["aten::_index_put_impl_"] == {"index_put ordered": 3 * STEPS}


def test_the_verdict_names_the_way_out_and_what_it_ran_under() -> None:
    record = twin(digits_cnn, steps=2)
    record.control_identical, record.control_differs_step = False, 1
    record.control_differs_name = "table"
    found = RunRecord("twin", "mine", seed=0, created="", environment={}, twin=record)
    assert verdict(found).endswith(
        "left the run's bits at step 1 (first in table); `nondet-probe rerun` looks for the op, "
        "and `nondet-probe twin --reproducible` follows the bit alone."
    )
    record.under = "reproducible('launch_invariant')"
    assert verdict(found).startswith(
        "mine under reproducible('launch_invariant') is nondeterministic: "
    )
    assert "--reproducible" not in verdict(found)


def test_a_context_holds_for_all_of_it_and_is_left_when_the_run_fails() -> None:
    seen: list[str] = []

    class Watched(AbstractContextManager[None]):
        def __str__(self) -> str:
            return "a watched context"

        def __enter__(self) -> None:
            seen.append("in")

        def __exit__(self, *error: object) -> None:
            seen.append("out")

    def failing(seed: int) -> Workload:
        seen.append("built")
        workload = digits_cnn(seed)
        workload.batches = []
        return workload

    with pytest.raises(RunFailedError) as failure:
        twin(failing, steps=1, under=Watched())
    assert seen == ["in", "built", "built", "built", "out"]
    assert failure.value.partial.under == "a watched context"


def test_reproducible_says_what_it_is() -> None:
    assert str(reproducible()) == "reproducible('launch_invariant')"
    assert str(reproducible("run_to_run", watch=True)) == "reproducible('run_to_run', watch=True)"
