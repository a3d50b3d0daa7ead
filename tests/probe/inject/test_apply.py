"""Changing and undoing, for every site that is there between two calls of modules."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
import torch
from torch import nn

from nondet_probe.bits import bit_equal, ulp_distance
from nondet_probe.bits.digest import digest, digests
from nondet_probe.bits.dtypes import dtype_name
from nondet_probe.bits.stored import STORED
from nondet_probe.env.rng import RngState, preserved_rng
from nondet_probe.errors import UnknownNameError, UsageError
from nondet_probe.probe.inject.apply import apply
from nondet_probe.records.fault import Fault


class Net(nn.Module):
    """The stem has the 432 weights of the original's."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3)
        self.bn = nn.BatchNorm2d(16)
        self.fc = nn.Linear(16, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.bn(self.conv1(x)).mean((2, 3)))


def made() -> tuple[Net, torch.optim.Optimizer]:
    """A model with gradients, and an optimizer with a state."""
    torch.manual_seed(0)
    model = Net()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    model(torch.randn(2, 3, 5, 5)).square().mean().backward()
    optimizer.step()
    return model, optimizer


def everything(model: nn.Module, optimizer: torch.optim.Optimizer) -> list[str]:
    tensors = [*model.parameters(), *model.buffers()]
    tensors += [p.grad for p in model.parameters() if p.grad is not None]
    tensors += [v for state in optimizer.state.values() for v in state.values()]
    return [one.hex for one in digests(tensors)]


@pytest.mark.parametrize("dtype", STORED, ids=dtype_name)
def test_flip_and_undo_restore_the_digest_for_every_element_and_bit(dtype: torch.dtype) -> None:
    bytes_ = torch.arange(2 * 3 * dtype.itemsize, dtype=torch.uint8) * 37 + 100
    if dtype is torch.bool:
        bytes_ = bytes_ % 2
    model = nn.Module()
    model.register_buffer("table", bytes_.view(dtype).view(2, 3))
    before = digest(model.table)
    seen = set()
    for index, bit in itertools.product(range(6), range(STORED[dtype].bits)):
        applied = apply(Fault("buffer", "table", index, bit=bit), model)
        seen.add(digest(model.table))
        applied.undo()
        assert digest(model.table) == before
    assert len(seen) == 6 * STORED[dtype].bits
    assert before not in seen


SITES = {
    "weight": Fault("weight", "conv1.weight", 5, bit=30),
    "bias": Fault("bias", "fc.bias", 1, change="ulp down"),
    "buffer": Fault("buffer", "bn.running_var", 3, bit=0),
    "integer buffer": Fault("buffer", "bn.num_batches_tracked", 0, bit=63),
    "gradient": Fault("gradient", "fc.weight", 2, bit=31),
    "optimizer": Fault("optimizer", "bn.weight: exp_avg_sq", 0, change="ulp up"),
}


@pytest.mark.parametrize("fault", SITES.values(), ids=SITES.keys())
def test_one_element_of_the_state_changes_and_comes_back(fault: Fault) -> None:
    model, optimizer = made()
    before = everything(model, optimizer)
    applied = apply(fault, model, optimizer)
    after = everything(model, optimizer)
    assert sum(a != b for a, b in zip(after, before, strict=True)) == 1
    assert (applied.change.name, applied.change.index) == (fault.name, fault.index)
    applied.undo()
    assert everything(model, optimizer) == before
    # The record made once is made again.
    assert apply(fault, model, optimizer).change == applied.change


@pytest.mark.parametrize("name", ["python", "numpy", "torch cpu"])
def test_a_generator_changes_and_comes_back(name: str) -> None:
    with preserved_rng():
        state = RngState.capture()
        applied = apply(Fault("rng", name, 400, bit=7))
        assert not RngState.capture().same_as(state)
        assert applied.change.dtype == "uint32"
        applied.undo()
        assert RngState.capture().same_as(state)
        with pytest.raises(UsageError, match=f"{name} has dtype uint32, whose elements have no"):
            apply(Fault("rng", name, 400, change="ulp up"))
        assert RngState.capture().same_as(state)


def test_a_batch_by_the_places_in_it() -> None:
    batch = [torch.zeros(4), {"mask": torch.ones(3, dtype=torch.bool), "more": (torch.ones(2),)}]
    apply(Fault("batch", "0", 3, change="ulp up"), batch=batch)
    apply(Fault("batch", "1.mask", 1, bit=0), batch=batch)
    applied = apply(Fault("batch", "loader 0: 1.more.0", 0, bit=31), batch=batch)
    assert batch[0].nonzero().tolist() == [[3]]
    assert batch[1]["mask"].tolist() == [True, False, True]
    assert batch[1]["more"][0].tolist() == [-1.0, 1.0]
    assert applied.change.name == "loader 0: 1.more.0"


def test_draws_reach_every_element_of_the_chosen_tensors_once() -> None:
    model, _ = made()
    fault = Fault("weight", "[fb]*.weight", seed=4, bit=0)
    total = model.bn.weight.numel() + model.fc.weight.numel()
    found = set()
    for number in range(total):
        applied = apply(dataclasses.replace(fault, number=number), model)
        found.add((applied.change.name, applied.change.index))
        applied.undo()
    assert found == {
        (name, index)
        for name in ("bn.weight", "fc.weight")
        for index in range(model.get_parameter(name).numel())
    }
    with pytest.raises(UsageError, match=f"have {total} elements, and none is drawn twice"):
        apply(dataclasses.replace(fault, number=total), model)


def test_a_draw_does_not_depend_on_the_order_of_registration() -> None:
    def model(names: str) -> nn.Module:
        return nn.ModuleDict({name: nn.Linear(3, 3) for name in names})

    for number in range(5):
        fault = Fault("weight", seed=1, number=number, bit=0)
        one, other = apply(fault, model("abc")).change, apply(fault, model("cba")).change
        assert (one.name, one.index) == (other.name, other.index)


def test_the_papers_draw_gives_six_bit_identical_pairs_in_a_hundred() -> None:
    model = made()[0]
    plain = model.conv1.weight.detach().clone()
    models: dict[str, list[int]] = {}
    up = 0
    for seed in range(1, 101):
        applied = apply(Fault("weight", seed=seed, change="paper_stem"), model)
        assert applied.change.name == "conv1.weight"
        assert int(ulp_distance(plain, model.conv1.weight.detach()).sum()) == 1
        changed = model.conv1.weight.detach().flatten()[applied.change.index]
        before = plain.flatten()[applied.change.index]
        risen = bool(changed > before)
        up += risen
        assert bit_equal(changed, torch.nextafter(before, before + (1 if risen else -1)))
        models.setdefault(digest(model.conv1.weight).hex, []).append(seed)
        applied.undo()
    assert bit_equal(plain, model.conv1.weight)
    assert sorted(tuple(same) for same in models.values() if len(same) > 1) == [
        (5, 20),
        (12, 94),
        (22, 26),
        (28, 59),
        (32, 47),
        (37, 68),
    ]
    assert (len(models), up) == (94, 45)


def test_the_papers_step_leaves_zero_as_nextafter_does() -> None:
    for seed, zero in itertools.product(range(1, 9), (0.0, -0.0)):
        model = nn.Linear(1, 1, bias=False)
        nn.init.constant_(model.weight, zero)
        before = model.weight.detach().clone()
        applied = apply(Fault("weight", "weight", seed=seed, change="paper_stem"), model)
        after = model.weight.detach().clone()
        assert bit_equal(after, torch.nextafter(before, torch.sign(after)))
        assert float(after) != 0.0
        applied.undo()
        assert bit_equal(model.weight, before)


def test_a_backward_pass_goes_on_with_the_new_bits() -> None:
    model = nn.Linear(2, 1, bias=False)
    nn.init.constant_(model.weight, 1.0)
    x = torch.ones(1, 2, requires_grad=True)
    loss = model(x).sum()
    apply(Fault("weight", "weight", 1, bit=31), model)
    loss.backward()
    assert x.grad is not None
    assert x.grad.tolist() == [[1.0, -1.0]]


def quantized() -> nn.Module:
    model = nn.Module()
    empty = torch.ops.aten._empty_affine_quantized
    model.register_buffer("table", empty([3], scale=1.0, zero_point=0, dtype=torch.qint8))
    return model


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        (Fault("weight", "conv1.wieght", 0, bit=0), "did you mean 'conv1.weight'"),
        (Fault("weight", "conv[3-9].weight", 0, bit=0), "unknown weight 'conv"),
        (Fault("weight", "fc.bias", 0, bit=0), "unknown weight 'fc.bias'; .* Known: bn.weight, co"),
        (Fault("buffer", "bn.running", 0, bit=0), "did you mean 'bn.running_"),
        (Fault("weight", "conv1.weight", 432, bit=0), "index 432 is out of range .* 0 to 431"),
        (Fault("weight", "conv1.weight", 0, bit=32), "bit 32 is out of range .* bits 0 to 31"),
        (Fault("weight", "*", 0, bit=0), "3 tensors are called '\\*', and one is needed: bn.we"),
        (Fault("weight", None, 0, bit=0), "3 tensors are called 'anything'"),
        (Fault("buffer", "bn.num*", 0, change="ulp up"), "dtype int64, whose elements have no ulp"),
        (Fault("buffer", None, seed=0, change="ulp up"), "bn.num_batches_tracked has dtype int64"),
        (Fault("gradient", "bn.bias", 0, bit=0), "bn.bias has no gradient at that moment"),
        (Fault("optimizer", "fc.weight: exp_av", 0, bit=0), "did you mean 'fc.weight: exp_avg'"),
        (Fault("output", "fc", 0, bit=0), "while a module runs"),
        (Fault("batch", "0", 0, bit=0), "there is no tensor in the batch"),
        (Fault("rng", "torch", 0, bit=0), "unknown random generator 'torch'; did you mean 'torch"),
        (Fault("rng", "numpy", 624, bit=0), "index 624 is out of range for numpy"),
        (Fault("rng", "python", 0, bit=32), "uint32 has bits 0 to 31"),
    ],
    ids=str,
)
def test_what_is_not_there_is_refused_and_nothing_changes(fault: Fault, reason: str) -> None:
    model, optimizer = made()
    model.bn.bias.grad = None
    before, state = everything(model, optimizer), RngState.capture()
    with pytest.raises(UsageError, match=reason):
        apply(fault, model, optimizer)
    assert everything(model, optimizer) == before
    assert RngState.capture().same_as(state)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: torch.zeros(3, dtype=torch.complex64), "complex64 is none of which bits can"),
        (lambda: torch.zeros(()).expand(3), "elements of this tensor share memory"),
        (lambda: torch.eye(3).to_sparse(), "only strided tensors"),
        (lambda: torch.full((3,), float("nan")), "is NaN"),
        (lambda: torch.zeros(3, device="meta"), "no meta device"),
    ],
)
def test_what_cannot_be_changed_is_refused(make: object, reason: str) -> None:
    model = nn.Module()
    model.register_buffer("table", make())  # type: ignore[operator]
    with pytest.raises(UsageError, match=reason):
        apply(Fault("buffer", "table", 0, change="ulp up"), model)


def test_a_quantized_tensor_is_refused() -> None:
    with pytest.raises(UsageError, match="table is quantized: dtype qint8"):
        apply(Fault("buffer", "table", 0, bit=0), quantized())


def test_a_lazy_module_has_nothing_to_change() -> None:
    with pytest.raises(UsageError, match="weight has no values yet"):
        apply(Fault("weight", "weight", 0, bit=0), nn.LazyLinear(2))


def test_an_unknown_name_is_a_lookup_that_failed() -> None:
    with pytest.raises(UnknownNameError):
        apply(Fault("weight", "w", 0, bit=0), nn.Linear(2, 2))


def test_undo_refuses_where_something_else_stands() -> None:
    model = nn.Linear(2, 2)
    applied = apply(Fault("weight", "weight", 0, bit=0), model)
    np.copyto(model.weight.detach().numpy(), 3.0)
    with pytest.raises(UsageError, match="this is not the tensor, or not the moment"):
        applied.undo()
