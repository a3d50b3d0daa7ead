"""The only file that touches private names of torch, each with what is lost without it.

Written for torch 2.11 to 2.14. `TorchDispatchMode` is private by module name only; it is the
documented way to see every op.
"""

from __future__ import annotations

import sys
from contextlib import AbstractContextManager, nullcontext
from types import CodeType
from typing import Any

import torch
from torch._ops import OpOverload
from torch.utils import _python_dispatch
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = [
    "FRAME_MARKS",
    "OpOverload",
    "TorchDispatchMode",
    "below_autograd",
    "current_autograd_node",
    "forward_mode_is_on",
    "frame_mark",
    "has_compiled_code",
    "hidden_from_modes",
    "last_sequence_number",
    "transforms_are_on",
]

# Without it a call that needs no gradient passes through autograd, which costs it 4 us.
below_autograd: type[AbstractContextManager[Any]] = getattr(
    torch._C, "_AutoDispatchBelowAutograd", nullcontext
)
_transforms_active = getattr(torch._C, "_are_functorch_transforms_active", None)
_current_node = getattr(torch._C, "_current_autograd_node", None)
_disable_modes = getattr(_python_dispatch, "_disable_current_modes", None)
_modes_on = getattr(torch._C, "_len_torch_dispatch_stack", int)
_next_sequence = getattr(getattr(torch._C, "_autograd", None), "_get_sequence_nr", None)


def current_autograd_node() -> Any | None:
    """The autograd node whose backward runs on this thread; None outside of a backward pass.

    Without the private name it is always None: a probe then reports backward ops under the line
    that called `backward()`.
    """
    return _current_node() if _current_node is not None else None


def forward_mode_is_on() -> bool:
    """Whether a dual level of forward-mode differentiation is open, or it cannot be told."""
    return getattr(torch.autograd.forward_ad, "_current_level", 0) >= 0


def transforms_are_on() -> bool:
    """Whether a transform of torch.func (grad, vmap, ...) is at work, or it cannot be told."""
    return _transforms_active is None or bool(_transforms_active())


def last_sequence_number() -> int | None:
    """Sequence number of the autograd node made last on this thread; None where it is not known.

    autograd makes a forward op's node before it dispatches the op below autograd, so inside a
    dispatch mode this is the number of the op's own node, if the op has one.
    """
    return int(_next_sequence()) - 1 if _next_sequence is not None else None


FRAME_MARKS = {
    ("torch/autograd/graph.py", "_engine_run_backward"): "engine",
    ("torch/nn/modules/module.py", "Module._call_impl"): "module",
    ("torch/optim/optimizer.py", "Optimizer.profile_hook_step.<locals>.wrapper"): "optimizer",
}
"""Functions of torch that tell what a Python stack is doing: (end of file name, qualified name)."""


def frame_mark(code: CodeType) -> str | None:
    """ "engine" where a frame runs a backward pass, "module" where it calls a module (whose local
    `self` is the module), "optimizer" where it steps an optimizer; None for any other code.

    Read from the stack instead of with hooks: hooks on modules make `torch.compile` compile again
    and otherwise. Without these names ops have no module path and the phase "forward".
    """
    file = code.co_filename.replace("\\", "/")
    for (end, name), mark in FRAME_MARKS.items():
        if code.co_qualname == name and file.endswith(end):
            return mark
    return None


def hidden_from_modes() -> AbstractContextManager[object]:
    """A context to run the body unseen by every dispatch mode that is on.

    Without the private name the modes outside of ours see what the body does.
    """
    return _disable_modes() if _disable_modes is not None and _modes_on() else nullcontext()


def has_compiled_code() -> bool:
    """Whether torch.compile has compiled anything in this process since it was reset.

    Without the private name it is always False: a probe then does not warn of code it cannot see.
    """
    dynamo = sys.modules.get("torch._dynamo.eval_frame")
    backends = getattr(dynamo, "cached_backends", {})
    return any(backend is not None for backend in backends.values())
