"""A dispatch mode that steps aside while there is nothing to see."""

from __future__ import annotations

from nondet_probe.env.torch_private import TorchDispatchMode, modes_on, pop_mode, push_mode

__all__ = ["StepAside"]


class StepAside:
    """Takes an entered dispatch mode off the stack of modes, and puts it back.

    A mode that does nothing still costs every op the way through Python. depth: how many modes lay
    below it; it comes back to its place, below those that the program has entered since, so that
    each of them still leaves from the top. Without the private names it stays where it is.
    """

    def __init__(self, mode: TorchDispatchMode) -> None:
        self._mode = mode
        self._depth = max(modes_on() - 1, 0)
        self._aside = False

    def follow(self, wanted: bool) -> None:
        """The mode is on the stack from now on, or not."""
        if push_mode is None or pop_mode is None or wanted is not self._aside:
            return
        above: list[TorchDispatchMode] = []
        if wanted:
            while modes_on() > self._depth:
                above.append(pop_mode())
            push_mode(self._mode)
            self._aside = False
        else:
            while modes_on() and not self._aside:
                above.append(pop_mode())
                self._aside = above[-1] is self._mode
            if self._aside:
                del above[-1]
        for mode in reversed(above):
            push_mode(mode)
