"""What is known of one switch, and of one class of op calls."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["OpStatus", "Setting"]


@dataclass
class Setting:
    """One switch. requested: what the program asked for; in_force: what held, in words; finding:
    the sentence, without a full stop, that says what is wrong, or None."""

    name: str
    requested: str
    in_force: str
    finding: str | None = None


@dataclass
class OpStatus:
    """One class of op calls: an overload, with dtypes, sizes (rounded up to powers of two) and
    flags of its operands.

    executions, differing: over all calls; a call with differing ones makes the class not
    repeatable. declared: what PyTorch's documentation says of it, None where it is silent. Asked of
    the first call alone: other_threads, the thread counts at which it gives other bits, None where
    that was not asked (not repeatable, or not on the CPU); with_batch: whether row 0 changes when
    there are more rows, None where no batch is known; unwritten: whether the bits change with what
    new memory holds, None where that could not be filled, or the bits change without that.
    switch: what makes the class repeatable at every thread count, verified, or None. error: why a
    question could not be asked.
    """

    op: str
    shapes: str
    dtype: str
    device: str
    calls: int = 0
    executions: int = 0
    differing: int = 0
    declared: str | None = None
    other_threads: list[int] | None = None
    with_batch: bool | None = None
    unwritten: bool | None = None
    switch: str | None = None
    error: str | None = None

    @property
    def repeatable(self) -> bool:
        return self.differing == 0
