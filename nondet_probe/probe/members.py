"""Many copies of one training as members of one model: all of its state stacked, one call a step.

Every parameter, buffer and state of the optimizer is a tensor with one dimension more, the members'
first. `torch.vmap` gives the losses of all members in one forward pass on one batch, every member
with the same random draws; one backward pass and one step of the optimizer do the rest. What the
optimizers of `nondet_probe.probe.stackable` do acts on each element alone, so a stacked step is the
step of each member.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.func import functional_call

from nondet_probe.env.torch_private import without_vmap_loops
from nondet_probe.workload import Workload

__all__ = ["Members"]

# The optimizers' state that counts steps is one number for all elements, so for all members.
_SHARED = "step"
_BELOW = "model."


class Members:
    """count: how many; all begin as `workload` is. From then on the workload's optimizer steps the
    members and not its model, whose own tensors are never written to.

    parameters, buffers: by name, [count, ...] each, written in place; the members are slices of
    them. gradients of parameters: as torch keeps them, in `.grad`.
    """

    def __init__(self, workload: Workload, count: int) -> None:
        assert workload.optimizer is not None, "refused elsewhere"
        self.count = count
        self._workload, self._optimizer = workload, workload.optimizer
        self._loss = _Loss(workload)
        given = dict(workload.model.named_parameters())
        self.parameters = {
            name: _stack(value, count).requires_grad_(value.requires_grad)
            for name, value in given.items()
        }
        self.buffers = {
            name: _stack(value, count) for name, value in workload.model.named_buffers()
        }
        self._own = {id(value): self.parameters[name] for name, value in given.items()}
        self._take_over(given)

    def _take_over(self, given: Mapping[str, Tensor]) -> None:
        """Make the optimizer's parameters and its state those of all members."""
        optimizer = self._optimizer
        for group in optimizer.param_groups:
            group["params"] = [self._own[id(value)] for value in group["params"]]
        before = optimizer.state
        optimizer.state = defaultdict(dict)
        for name, value in given.items():
            if value in before:
                optimizer.state[self.parameters[name]] = {
                    key: _stack(one, self.count) if _has_members(key, one) else one
                    for key, one in before[value].items()
                }

    def step(self, batch: Any) -> Tensor:
        """One step of all members on `batch`; their losses, [count], detached. Raises as
        `backward`."""
        losses = self.backward(batch)
        self.update()
        return losses

    def update(self) -> None:
        """The optimizer's step. It may use up the gradients: some write into them."""
        self._optimizer.step()

    def backward(self, batch: Any) -> Tensor:
        """All of a step but the optimizer's: losses, [count], detached, and gradients.

        Raises whatever the user's code and torch raise, and ValueError where the loss is not one
        floating-point number; an op that torch cannot do for many members at once is refused too.
        """
        self._optimizer.zero_grad(set_to_none=True)

        def losses_of(own: dict[str, Tensor], buffers: dict[str, Tensor]) -> Any:
            state = {_BELOW + name: value for name, value in (own | buffers).items()}
            loss = functional_call(self._loss, state, (batch,))
            # What a module assigns anew to the name of a buffer is in `state` then.
            return _one_number(loss), {name: state[_BELOW + name] for name in buffers}

        with without_vmap_loops():
            losses, kept = torch.vmap(losses_of, randomness="same")(self.parameters, self.buffers)
        # Ones, so that a member whose loss is NaN leaves the gradients of the others alone.
        losses.backward(torch.ones_like(losses))
        with torch.no_grad():
            for name, value in kept.items():
                if value.data_ptr() != self.buffers[name].data_ptr():
                    self.buffers[name].copy_(value)
        return cast(Tensor, losses.detach())

    def member(self, number: int) -> Workload:
        """One member as it is now: for `probe.state`, `probe.distance` and whoever reads its
        parameters, buffers, gradients and the state of its optimizer, all of them views.

        Its model cannot be called and its optimizer cannot step; see `model`.
        """
        own: dict[str, Tensor] = {
            name: value.detach()[number] for name, value in self.parameters.items()
        }
        for name, value in self.parameters.items():
            own[name].grad = None if value.grad is None else value.grad[number]
        buffers = {name: value[number] for name, value in self.buffers.items()}
        return Workload(
            _Views(own, buffers),
            cast(torch.optim.Optimizer, self._optimizer_of(number, own)),
            (),
            self._workload.loss,
        )

    def _optimizer_of(self, number: int, own: Mapping[str, Tensor]) -> _Settings:
        of = {id(self.parameters[name]): value for name, value in own.items()}
        groups = [
            group | {"params": [of[id(value)] for value in group["params"]]}
            for group in self._optimizer.param_groups
        ]
        state = {
            of[id(value)]: {
                key: one[number] if _has_members(key, one) else one for key, one in known.items()
            }
            for value, known in self._optimizer.state.items()
        }
        return _Settings(groups, state)

    def model(self, number: int) -> nn.Module:
        """A model that can be called, with the values of one member: the one of the workload, which
        has them until the next call of this."""
        model = self._workload.model
        with torch.no_grad():
            for name, value in model.named_parameters():
                value.copy_(self.parameters[name][number])
            for name, buffer in model.named_buffers():
                buffer.copy_(self.buffers[name][number])
        return model


class _Loss(nn.Module):
    """The loss of a workload as a module, which is what torch can call with other parameters."""

    def __init__(self, workload: Workload) -> None:
        super().__init__()
        self.model = workload.model
        self._of = workload.loss

    def forward(self, batch: Any) -> Any:
        return self._of(self.model, batch)


class _Views(nn.Module):
    """Tensors under the names that a model has for them."""

    def __init__(self, own: Mapping[str, Tensor], buffers: Mapping[str, Tensor]) -> None:
        super().__init__()
        self._own, self._kept = own, buffers

    def named_parameters(self, *_: Any, **__: Any) -> Iterator[tuple[str, nn.Parameter]]:
        yield from cast(Mapping[str, nn.Parameter], self._own).items()

    def named_buffers(self, *_: Any, **__: Any) -> Iterator[tuple[str, Tensor]]:
        yield from self._kept.items()


class _Settings:
    """What an optimizer remembers."""

    def __init__(self, groups: list[dict[str, Any]], state: dict[Tensor, dict[str, Any]]) -> None:
        self.param_groups, self.state = groups, state


def _stack(value: Tensor, count: int) -> Tensor:
    return value.detach().expand(count, *value.shape).clone(memory_format=torch.contiguous_format)


def _has_members(key: str, value: Any) -> bool:
    return isinstance(value, Tensor) and key != _SHARED


def _one_number(loss: Any) -> Tensor:
    if not isinstance(loss, Tensor) or loss.numel() != 1 or not loss.is_floating_point():
        told = f"shape {tuple(loss.shape)}, {loss.dtype}" if isinstance(loss, Tensor) else loss
        raise ValueError(f"the loss is not one floating-point number: {told!r:.100}")
    return loss.reshape(())
