"""The only file that touches private names of torch, each with what is lost without it.

Written for torch 2.11 to 2.14. `TorchDispatchMode` is private by module name only; it is the
documented way to see every op.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from types import CodeType, FrameType
from typing import Any, NamedTuple

import torch
from torch._ops import OpOverload
from torch.autograd import forward_ad as _forward_mode
from torch.utils import _python_dispatch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.data import dataloader as _dataloader

from nondet_probe.env.tensor_arguments import with_tensors

__all__ = [
    "FRAME_MARKS",
    "Interception",
    "LoaderMethods",
    "OpOverload",
    "TorchDispatchMode",
    "below_autograd",
    "call_keywords",
    "calls_are_watched",
    "cpu_overloads",
    "cuda_overloads",
    "current_autograd_node",
    "forward_mode_is_on",
    "frame_mark",
    "has_compiled_code",
    "hidden_from_modes",
    "hooks_of",
    "is_elementwise",
    "is_pointwise",
    "last_sequence_number",
    "loader_methods",
    "modes_on",
    "pop_mode",
    "push_mode",
    "transforms_are_on",
    "without_vmap_loops",
]

# Without it a call that needs no gradient passes through autograd, which costs it 4 us.
below_autograd: type[AbstractContextManager[Any]] = getattr(
    torch._C, "_AutoDispatchBelowAutograd", nullcontext
)
_transforms_active = getattr(torch._C, "_are_functorch_transforms_active", None)
_current_node = getattr(torch._C, "_current_autograd_node", None)
_disable_modes = getattr(_python_dispatch, "_disable_current_modes", None)
_modes_on = getattr(torch._C, "_len_torch_dispatch_stack", int)
# Without them a mode that was entered stays on the stack of modes until it is left.
modes_on: Callable[[], int] = _modes_on
push_mode: Callable[[TorchDispatchMode], None] | None = getattr(
    _python_dispatch, "_push_mode", None
)
pop_mode: Callable[[], TorchDispatchMode] | None = getattr(_python_dispatch, "_pop_mode", None)
_next_sequence = getattr(getattr(torch._C, "_autograd", None), "_get_sequence_nr", None)


def _always() -> bool:
    return True


# Each tells whether something is on that may watch calls: a dispatch mode, a mode of
# `__torch_function__`, a transform of torch.func, torch.jit.trace, a profiler. Without one of them
# every call of an op goes through the dispatcher, which takes some microseconds.
_dispatch_modes_on = getattr(torch._C, "_len_torch_dispatch_stack", _always)
_function_modes_on = getattr(torch._C, "_is_torch_function_mode_enabled", _always)
_transforms_on = _transforms_active or _always
_tracer_on = getattr(torch._C, "_is_tracing", _always)
_profiler_on = getattr(torch.autograd, "_profiler_enabled", _always)
_functorch = getattr(torch._C, "_functorch", None)
_loops_allowed = getattr(_functorch, "_is_vmap_fallback_enabled", _always)
_allow_loops = getattr(_functorch, "_set_vmap_fallback_enabled", bool)
_intercepted: Counter[str] = Counter()


def current_autograd_node() -> Any | None:
    """The autograd node whose backward runs on this thread; None outside of a backward pass.

    Without the private name it is always None: a probe then reports backward ops under the line
    that called `backward()`.
    """
    return _current_node() if _current_node is not None else None


def forward_mode_is_on() -> bool:
    """Whether a dual level of forward-mode differentiation is open, or it cannot be told."""
    return getattr(_forward_mode, "_current_level", 0) >= 0


def transforms_are_on() -> bool:
    """Whether a transform of torch.func (grad, vmap, ...) is at work, or it cannot be told."""
    return _transforms_active is None or bool(_transforms_active())


def calls_are_watched(name: str) -> bool:
    """Whether anything but autograd in reverse mode may see a call of an overload with plain
    tensors: a mode of either kind, a transform of torch.func, forward mode, a tracer, a profiler or
    an `Interception`; or it cannot be told."""
    watched: bool = (
        _dispatch_modes_on()
        or _function_modes_on()
        or _transforms_on()
        or _tracer_on()
        or _profiler_on()
        or forward_mode_is_on()
        or name in _intercepted
    )
    return watched


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


def call_keywords(hook: FrameType) -> dict[str, Any] | None:
    """Of the module call that runs a global forward hook, or pre-hook: its keyword arguments. hook:
    the frame of the hook itself. None where they are not found.

    The public `with_kwargs=True` is for forward hooks only, which come too late, and torch never
    takes such a hook off one of its lists again, so that it goes on warning of global hooks.
    """
    caller = hook.f_back
    if caller is None or caller.f_code.co_name not in ("inner", "_call_impl"):
        return None
    found = caller.f_locals.get("kwargs")
    return found if isinstance(found, dict) else None


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


@contextmanager
def without_vmap_loops() -> Iterator[None]:
    """Inside, an op without a batching rule raises under vmap instead of being called once for each
    member. Without the private names it is called so, which is right and slow."""
    before = _loops_allowed()
    _allow_loops(False)
    try:
        yield
    finally:
        _allow_loops(before)


def hooks_of(owner: object) -> list[str]:
    """The kinds of hooks on a module, tensor or optimizer; none without the private names."""
    kinds = ("forward_pre", "forward", "backward_pre", "backward", "post_accumulate_grad")
    names = [f"{kind}_hooks" for kind in (*kinds, "optimizer_step_pre", "optimizer_step_post")]
    return [name.replace("_", " ") for name in names if getattr(owner, f"_{name}", None)]


class LoaderMethods(NamedTuple):
    """Where a batch comes from, as (class, name of a method). make: of a loader, gives an iterator.
    draw: of an iterator, gives a batch. indices: gives those of the next batch to be fetched.
    fetched: is handed a batch and the number of its worker, when it is its turn."""

    make: tuple[type, str]
    draw: tuple[type, str]
    indices: tuple[type, str]
    fetched: tuple[type, str]

    @staticmethod
    def base_seed(iterator: Any) -> int | None:
        """What the seeds of the workers of an iterator are made of."""
        return getattr(iterator, "_base_seed", None)

    @staticmethod
    def next_task(iterator: Any) -> int:
        """The number that the batch gets of which the indices are drawn next; 0 without workers."""
        return getattr(iterator, "_send_idx", 0)

    @staticmethod
    def open_tasks(iterator: Any) -> Any:
        """Container of the numbers of batches that were asked for and have not had their turn."""
        return getattr(iterator, "_task_info", ())


def loader_methods() -> LoaderMethods | None:
    """None without the private names: a probe then does not see batches, nor workers' seeds."""
    base = getattr(_dataloader, "_BaseDataLoaderIter", None)
    multi = getattr(_dataloader, "_MultiProcessingDataLoaderIter", None)
    found = LoaderMethods(
        (_dataloader.DataLoader, "_get_iterator"),
        (base, "__next__"),  # type: ignore[arg-type]  # None is looked for below
        (base, "_next_index"),  # type: ignore[arg-type]
        (multi, "_process_data"),  # type: ignore[arg-type]
    )
    return found if all(name in vars(kind or object) for kind, name in found) else None


_CPU, _CUDA = torch._C.DispatchKey.CPU, torch._C.DispatchKey.CUDA
# The key just above the kernels of a device and below autograd, modes and autocast, through which
# every call passes. A kernel put there can be taken away again; those of the devices stay in place.
_GATE = "BackendSelect"
# Not the key that is on while torch.compile traces: kernels are looked up in Python then.
_BELOW_GATE = torch._C._dispatch_keyset_full_after(torch._C.DispatchKey.BackendSelect).remove(
    torch._C.DispatchKey.PythonDispatcher
)
_DEVICES = {"CPU": _CPU, "CUDA": _CUDA}
_has_kernel = torch._C._dispatch_has_kernel_for_dispatch_key


def cpu_overloads() -> list[str]:
    """Every overload (`aten::add.Tensor`, `aten::silu`) that may run a kernel of its own on dense
    CPU tensors and can be intercepted: not those made of others, factories, and views."""
    keys = ("CPU", "CompositeExplicitAutograd", "CompositeExplicitAutogradNonFunctional")
    return _with_kernel(*keys)


def cuda_overloads() -> tuple[list[str], list[str]]:
    """The same for dense CUDA tensors: those with a kernel of their own there, and those made of
    others in a way that autograd does not see (their parts show as well). A build of torch without
    CUDA has few of the first."""
    own = _with_kernel("CUDA")
    composite = _with_kernel("CompositeExplicitAutograd", "CompositeExplicitAutogradNonFunctional")
    return own, sorted(set(composite) - set(own))


def _with_kernel(*keys: str) -> list[str]:
    views = _views()
    return [
        name
        for name in torch._C._dispatch_get_all_op_names()
        if name not in views
        and not _has_kernel(name, _GATE)
        and any(_has_kernel(name, key) for key in keys)
    ]


def _views() -> set[str]:
    """Overloads whose result is, or may be, memory of an operand, unless they write there."""
    found = {"aten::lift_fresh", "aten::lift"}
    for schema in torch._C._jit_get_all_schemas():
        for result in schema.returns:
            alias = result.alias_info
            if alias is not None and not alias.is_write:
                overload = f".{schema.overload_name}" if schema.overload_name else ""
                found.add(schema.name + overload)
    return found


def _overload(name: str) -> OpOverload:
    namespace, _, rest = name.partition("::")
    operator, _, kind = rest.partition(".")
    found: OpOverload = getattr(getattr(getattr(torch.ops, namespace), operator), kind or "default")
    return found


def is_pointwise(name: str) -> bool:
    """Whether an overload (`aten::silu`) returns a new tensor, each element of which comes from
    those in the same place."""
    overload = _overload(name)
    return torch.Tag.pointwise in overload.tags and not overload._schema.is_mutable


def is_elementwise(name: str) -> bool:
    """Whether an operator, in any of its overloads, makes each element of those in the same place;
    what writes to an output is not tagged itself."""
    packet = _overload(name).overloadpacket
    return any(
        torch.Tag.pointwise in getattr(packet, overload).tags for overload in packet.overloads()
    )


def _below_gate(name: str) -> Callable[..., Any]:
    """function(key, *args, **kwargs): an overload's kernel for a dispatch key.

    Both ways let the interpreter lock go; calling a kernel of `torch.library.get_kernel` does not.
    The first crashes for a kernel that is not the key's own.
    """
    overload = _overload(name)
    at_key, redispatch = overload._op_dk, overload._handle.redispatch_boxed
    arguments = overload._schema.arguments
    places = [place for place, given in enumerate(arguments) if str(given.type) == "Tensor"]

    def below(key: Any, *args: Any, **kwargs: Any) -> Any:
        given = with_tensors(args, places, computed=key in (_CPU, _CUDA))
        return redispatch(torch._C.DispatchKeySet(key), *given, **kwargs)

    own = [key for key in (_CPU, _CUDA) if _has_kernel(name, key.name)]
    if not own:
        return below

    def at(key: Any, *args: Any, **kwargs: Any) -> Any:
        if key not in own:
            return below(key, *args, **kwargs)
        try:
            return at_key(key, *args, **kwargs)
        except RuntimeError:
            given = with_tensors(args, places)
            if given is args:
                raise
        # Nothing has run: it takes numbers for the tensors of the four basic operations only.
        return at_key(key, *given, **kwargs)

    return at


class Interception:
    """Functions in the place of the kernels of overloads, for the process, until `remove`."""

    def __init__(self) -> None:
        self._libraries: dict[str, Any] = {}
        self._names: list[str] = []

    def put(self, name: str, makes: Mapping[str, Callable[[Callable[..., Any]], Any]]) -> None:
        """From now on `makes["CPU"](original)` answers calls of overload `name` on dense CPU
        tensors, and that of "CUDA" those on dense CUDA tensors, also where some operands (indices,
        numbers) are on the CPU; original(*args, **kwargs) runs that device's kernel as it was.
        Calls that involve a device not given, or another layout, pass."""
        found: list[Any] = []
        answers: dict[int, Callable[..., Any]] = {}

        def run(key: Any, *args: Any, **kwargs: Any) -> Any:
            # Looked up at the first call: thousands of overloads are put and never called.
            if not found:
                found.append(_below_gate(name))
            return found[0](key, *args, **kwargs)

        functions = {device: make(partial(run, _DEVICES[device])) for device, make in makes.items()}

        def kernel(keys: Any, *args: Any, **kwargs: Any) -> Any:
            answer = answers.get(keys.raw_repr())
            if answer is None:
                key = (keys & _BELOW_GATE).highestPriorityTypeId()
                answer = functions.get(key.name) or partial(run, key)
                answers[keys.raw_repr()] = answer
            return answer(*args, **kwargs)

        namespace, _, rest = name.partition("::")
        if namespace not in self._libraries:
            self._libraries[namespace] = torch._C._dispatch_library("IMPL", namespace, "")
        self._libraries[namespace].impl(rest, _GATE, kernel, True)
        self._names.append(name)
        _intercepted[name] += 1

    def remove(self) -> None:
        """Every kernel as it was before."""
        for library in self._libraries.values():
            library.reset()
        self._libraries.clear()
        for name in self._names:
            _intercepted[name] -= 1
            if not _intercepted[name]:
                del _intercepted[name]
        self._names.clear()
