"""A sketch of all parameters, as every step left them."""

from __future__ import annotations

from types import TracebackType

from torch import Tensor

from nondet_probe.bits import SKETCH_FORMAT, sketch, via_c
from nondet_probe.bits.dtypes import dtype_name
from nondet_probe.bits.sketch import SKETCHED
from nondet_probe.probe.recorder.sink import Sink
from nondet_probe.probe.recorder.state import State

__all__ = ["Sketches"]


class Sketches:
    """The part of a recording that sketches, at the end of each step that is recorded: one sketch
    of the parameters that `state` knows. Those that cannot be sketched are not covered, under a
    reason that begins with "sketch: "; their names are then missing from the sketch."""

    def __init__(self, sink: Sink, state: State) -> None:
        self._sink = sink
        self._state = state
        sink.at_step_end(self._left)

    def __enter__(self) -> Sketches:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """There is nothing to remove: the sink calls, and only while it records."""

    def _left(self) -> None:
        tensors: dict[str, Tensor] = {}
        for name, parameter in self._state.parameters():
            reason = _why_not(parameter)
            if reason is None:
                tensors[name] = parameter
            else:
                self._sink.not_covered(f"sketch: {reason}")
        if tensors:
            shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
            buckets = sketch(tensors).numpy().astype("<f8", copy=False).tobytes()
            self._sink.sketch(SKETCH_FORMAT, shapes, buckets)


def _why_not(parameter: Tensor) -> str | None:
    try:
        via_c.dtype_code(parameter)
    except TypeError as error:
        return f"a parameter that cannot be read ({str(error).split(':')[0]})"
    if parameter.dtype not in SKETCHED:
        return f"a parameter of dtype {dtype_name(parameter.dtype)}"
    return None
