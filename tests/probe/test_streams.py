from __future__ import annotations

import random

import numpy as np
import torch

from nondet_probe.probe.streams import Streams


def test_the_default_stream_is_put_back_as_often_as_asked() -> None:
    streams = Streams(())
    first = torch.rand(3)
    for _ in range(2):
        streams.put_back()
        assert torch.equal(torch.rand(3), first)


def test_an_explicit_generator_is_put_back() -> None:
    generator = torch.Generator().manual_seed(5)
    streams = Streams((3, generator))
    first = torch.rand(3, generator=generator)
    streams.put_back()
    assert torch.equal(torch.rand(3, generator=generator), first)


def test_python_and_numpy_are_put_back_for_foreign_code_only() -> None:
    def draws() -> list[float]:
        return [random.random(), float(np.random.rand())]

    streams = Streams((), everything=True)
    first = draws()
    streams.put_back()
    assert draws() == first
    streams = Streams(())
    first = draws()
    streams.put_back()
    assert draws() != first


def test_read_takes_the_present_state() -> None:
    streams = Streams(())
    torch.rand(3)
    streams.read()
    first = torch.rand(3)
    streams.put_back()
    assert torch.equal(torch.rand(3), first)
