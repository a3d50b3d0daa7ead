from __future__ import annotations

import ctypes
import hashlib
import os
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from digest_by_document import KEYS, POINTS, P, digest_of, digest_of_bytes, raw_bytes
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from weak_hashes import FOOLING, WEAK, numbers

from nondet_probe import _C
from nondet_probe.bits import DIGEST_FORMAT, Digest, bit_equal, digest, via_c
from nondet_probe.bits.dtypes import CODES, dtype_name

DOCUMENT = Path(__file__).parents[2] / "docs" / "digest.md"

# What "ndp-digest-1" is. If one of these fails, the format has changed: give it another name.
GOLDEN = [
    ("float32", (0,), "none", "b3268558b9a7431774d8fe463654fadd"),
    ("float32", (0, 3), "none", "8d40a32c9ac5699f78f001c31ab80dcd"),
    ("float32", (), "0000803f", "dc1e471f604c33ac0eac99c4e45671a3"),
    ("float32", (1,), "0000803f", "44e4b36fd1de151426b8a07ea5f7a67d"),
    ("int32", (1,), "0000803f", "c888c90a1e6c3c0062f3264d6badabc8"),
    ("float32", (1,), "00000000", "1bbd58e1f660a04a130f844de0901209"),
    ("float32", (1,), "00000080", "02dc6268dbe0c3a28d51829f5af0b674"),
    ("float32", (1,), "0000c07f", "0494ac340a45684655e5469b9d73c839"),
    ("float32", (1,), "0100c07f", "1679f26b6ae44a81bec034aaac1f435e"),
    ("bool", (3,), "010001", "f20a9669acc520975b2e0de7bb25fb14"),
    ("float16", (2,), "003c00c0", "aa26fcc661f91e5b562577ba05d65e9d"),
    ("bfloat16", (2,), "803f00c0", "794c4c068cc55564c8ed19883ed4b905"),
    ("float8_e4m3fn", (4,), "38c07e80", "84d57083202d712ac8e3e1a0a45c03f9"),
    ("float8_e5m2", (4,), "3cc07b80", "c82293ded755f3a1eceb318d31ecadde"),
    ("complex64", (1,), "0000803f00000040", "dc0f9097def7cebc8e89fc4763da7a65"),
    ("float64", (1,), "010000000000f87f", "aef14c40ac404763f399de209ef63273"),
    ("uint8", (4095,), "squares", "9dbd80635778b8a855e83c1d0dced28c"),
    ("uint8", (4096,), "squares", "0603ad7c9f2558e2cb783a932ac33970"),
    ("uint8", (4097,), "squares", "deb095f959c5958b6cfd9a273824153c"),
    ("float32", (3, 1024), "squares", "58909fd7f5d386fa94d28c29fa433532"),
    ("float32", (1024, 3), "squares", "30757210decd706e2243937651e68f7b"),
    ("int64", (7, 11, 13), "squares", "278e6e5376140d9aa3557e3a828937f3"),
    ("complex128", (1000,), "squares", "043b58c93c59801024bd709a954ed460"),
]


def of_bytes(data: bytes, dtype: torch.dtype, shape: tuple[int, ...]) -> Tensor:
    plain = torch.tensor(list(data), dtype=torch.uint8)  # torch warns when it makes complex32
    return plain.view(dtype).reshape(shape)


def noise(*shape: int, dtype: torch.dtype = torch.float32, seed: int = 0) -> Tensor:
    """Random bits, NaNs and infinities among them; shape in elements of dtype."""
    count = torch.Size(shape).numel() * dtype.itemsize
    source = torch.Generator().manual_seed(seed)
    data = torch.randint(0, 256, (count,), generator=source).to(torch.uint8)
    return data.view(dtype).reshape(shape)


# ---- the format ---------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "shape", "data", "expected"), GOLDEN)
def test_golden_values(name: str, shape: tuple[int, ...], data: str, expected: str) -> None:
    dtype = getattr(torch, name)
    size = torch.Size(shape).numel() * dtype.itemsize
    squares = bytes((i * i + i // 256) % 256 for i in range(size))
    raw = {"none": b"", "squares": squares}.get(data) if data in ("none", "squares") else None
    raw = bytes.fromhex(data) if raw is None else raw
    assert digest(of_bytes(raw, dtype, shape)) == Digest(expected)
    assert digest_of_bytes(name, shape, raw) == expected
    assert f"| {name} | {shape} | {data} | {expected} |" in DOCUMENT.read_text()


def test_the_document_names_the_format_its_codes_and_its_constants() -> None:
    text = DOCUMENT.read_text()
    assert f"`{DIGEST_FORMAT}`" in text
    for dtype, code in CODES.items():
        assert f"| {code} | {dtype_name(dtype)} |" in text
    for number in (KEYS[0], KEYS[1], KEYS[1039], POINTS[0]):
        assert f"{number:#x}" in text
    assert f"0x{POINTS[1]:016x}" in text


def test_no_key_makes_a_product_vanish() -> None:
    assert 0 not in KEYS
    assert len(set(KEYS)) == len(KEYS)
    assert all(1 < point < P for point in POINTS)


# One more and one less than a 64-byte line, a block of 4096 bytes and several blocks hold.
@pytest.mark.parametrize("count", [0, 1, 2, 3, 15, 16, 17, 1023, 1024, 1025, 2047, 2048, 4097])
@pytest.mark.parametrize("dtype", list(CODES), ids=dtype_name)
def test_every_dtype_and_boundary_as_the_document_says(dtype: torch.dtype, count: int) -> None:
    tensor = noise(count, dtype=dtype, seed=count)
    assert digest(tensor).hex == digest_of(tensor)


@settings(max_examples=60, deadline=None)
@given(
    data=st.binary(max_size=9000),
    dtype=st.sampled_from([d for d in CODES if d.itemsize <= 4]),
    threads=st.integers(1, 8),
)
def test_any_bytes_as_the_document_says(data: bytes, dtype: torch.dtype, threads: int) -> None:
    data = data[: len(data) // dtype.itemsize * dtype.itemsize]
    tensor = of_bytes(data, dtype, (len(data) // dtype.itemsize,))
    assert digest(tensor, threads=threads).hex == digest_of(tensor)


# ---- what it does not depend on -----------------------------------------------------------------


@pytest.mark.parametrize("isa", _C.available_isas())
@pytest.mark.parametrize("threads", range(1, 9))
def test_instruction_set_and_threads_do_not_enter(isa: str, threads: int) -> None:
    # 3 bytes: less than a block. 70,001: 17 blocks and a piece, uneven among most thread counts.
    for count in (3, 70_001):
        tensor = noise(count, dtype=torch.uint8)
        expected = via_c.digest(2, tensor, 1, "portable")
        assert via_c.digest(2, tensor, threads, isa) == expected
        strided = torch.stack([tensor, tensor], 1)[:, 0]
        assert via_c.digest(2, strided, threads, isa) == expected


def test_the_environment_variable_forces_an_instruction_set() -> None:
    code = (
        "import torch; from nondet_probe import _C; from nondet_probe.bits import digest;"
        "print(_C.chosen_isa(), digest(torch.arange(3000)))"
    )
    environment = {**os.environ, "NONDET_PROBE_ISA": "portable"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["portable", digest(torch.arange(3000)).hex]


def test_an_unknown_instruction_set_is_named() -> None:
    with pytest.raises(ValueError, match="isa=avx9: this build on this machine has portable"):
        via_c.digest(17, torch.zeros(3), 1, "avx9")


VIEWS: dict[str, Callable[[], Tensor]] = {
    "transposed": lambda: noise(70, 130).t(),
    "transposed, larger than the gathered blocks": lambda: noise(300, 700).t(),
    "transposed bfloat16": lambda: noise(513, 257, dtype=torch.bfloat16).t(),
    "every second": lambda: noise(9000)[::2],
    "offset": lambda: noise(9000)[1:],
    "columns": lambda: noise(40, 300)[:, 3:200],
    "columns with steps": lambda: noise(40, 300)[:, 3:200:3],
    "rows with steps": lambda: noise(40, 300)[::3],
    "expanded rows": lambda: noise(1, 70).expand(200, 70),
    "expanded columns": lambda: noise(200, 1).expand(200, 70),
    "expanded everywhere": lambda: noise(1, 1).expand(300, 70),
    "expanded and repeated": lambda: noise(20, 1, 30).expand(20, 50, 30),
    "channels_last": lambda: noise(4, 5, 16, 17).to(memory_format=torch.channels_last),
    "channels_last_3d": lambda: noise(2, 3, 5, 6, 7).to(memory_format=torch.channels_last_3d),
    "permuted": lambda: noise(6, 7, 8, 9).permute(2, 0, 3, 1),
    "permuted complex128": lambda: noise(6, 7, 8, dtype=torch.complex128).permute(2, 0, 1),
    "diagonal": lambda: noise(80, 80).diagonal(),
    "overlapping windows": lambda: noise(500).unfold(0, 100, 7),
    "as_strided": lambda: noise(5000).as_strided((13, 11, 5), (3, 40, 17), 2),
    "one column": lambda: noise(70, 5)[:, 2:3],
    "0-d of a row": lambda: noise(70)[11],
    "empty slice": lambda: noise(70, 5)[:, 2:2],
    "bool columns": lambda: (noise(60, 60) > 0)[:, 1::2],
    "conj": lambda: noise(700, dtype=torch.complex64).conj(),
    "imag of conj, which is negated lazily": lambda: noise(700, dtype=torch.complex64).conj().imag,
    "half of complex": lambda: noise(700, dtype=torch.complex64).real,
}


@pytest.mark.parametrize("make", VIEWS.values(), ids=VIEWS.keys())
@pytest.mark.parametrize("threads", [1, 3])
def test_a_view_digests_like_its_contiguous_copy(make: Callable[[], Tensor], threads: int) -> None:
    view = make()
    copy = torch.empty(view.shape, dtype=view.dtype)
    if view.is_complex() or view.is_neg():
        copy = view.resolve_conj().resolve_neg().clone(memory_format=torch.contiguous_format)
    else:
        copy.copy_(view)
    assert copy.is_contiguous()
    assert digest(view, threads=threads) == digest(copy)
    assert digest(view).hex == digest_of(view)


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_any_strides(data: st.DataObject) -> None:
    shape = data.draw(st.lists(st.integers(0, 9), max_size=5))
    strides = [data.draw(st.integers(0, 60)) for _ in shape]
    offset = data.draw(st.integers(0, 5))
    view = noise(3000, dtype=torch.int16).as_strided(shape, strides, offset)
    assert digest(view) == digest(view.clone(memory_format=torch.contiguous_format))


def test_threads_by_default_and_on_request() -> None:
    large = noise(1 << 20).repeat(2)
    assert via_c.threads_for(100, None) == 1
    assert via_c.threads_for(large.nbytes, None) == min(torch.get_num_threads(), 8)
    assert via_c.threads_for(100, 5) == 5
    assert digest(large) == digest(large, threads=1)
    with pytest.raises(ValueError, match="threads must be at least 1, got 0"):
        digest(large, threads=0)


# ---- what it depends on -------------------------------------------------------------------------


@pytest.mark.parametrize("name", FOOLING)
def test_structured_changes_are_seen(name: str) -> None:
    a, b = FOOLING[name][1]()
    assert digest(a) != digest(b)
    assert digest(a) == digest(a.clone())


@pytest.mark.parametrize(
    ("name", "weak"), [(name, weak) for name, (fooled, _) in FOOLING.items() for weak in fooled]
)
def test_meta_the_structured_changes_do_fool_weak_hashes(name: str, weak: str) -> None:
    a, b = FOOLING[name][1]()
    assert not bit_equal(a, b)
    assert WEAK[weak](a) == WEAK[weak](b)


def test_nan_equals_itself() -> None:
    nans = torch.full((1000,), float("nan"))
    assert digest(nans) == digest(nans.clone())


def digests_are_distinct(tensors: list[Tensor]) -> bool:
    return len({digest(tensor) for tensor in tensors}) == len(tensors)


def test_every_single_bit_counts_and_changes_half_of_the_digest() -> None:
    tensor = noise(600)  # one block, partly filled
    before = int(digest(tensor).hex, 16)
    bits = tensor.view(torch.int32)
    seen = {before}
    flipped_bits = [0] * 128
    for index in range(600):
        for bit in range(32):
            mask = -(2**31) if bit == 31 else 1 << bit
            bits[index] ^= mask
            after = int(digest(tensor).hex, 16)
            bits[index] ^= mask
            seen.add(after)
            for place in range(128):
                flipped_bits[place] += ((before ^ after) >> place) & 1
    trials = 600 * 32
    assert len(seen) == trials + 1
    # 6 standard deviations of a fair coin: 128 places all pass with probability 1 - 3e-7.
    bound = 6 * (trials / 4) ** 0.5
    assert all(abs(count - trials / 2) < bound for count in flipped_bits)


def test_all_pairs_of_signs_all_swaps_all_rolls() -> None:
    x = numbers(60)
    family = [x]
    for i in range(60):
        for j in range(i):
            signs = x.clone()
            signs[[i, j]] *= -1
            swap = x.clone()
            swap[[i, j]] = swap[[j, i]]
            family += [signs, swap]
    y = numbers(1500)
    family += [y.roll(i) for i in range(1500)]
    assert digests_are_distinct(family)


def test_all_lengths_shapes_and_dtypes_of_zeros() -> None:
    family = [of_bytes(bytes(n * d.itemsize), d, (n,)) for n in range(70) for d in CODES]
    family += [torch.zeros(a, b) for a in range(1, 25) for b in range(1, 25)]
    assert digests_are_distinct(family)


def test_meta_distinctness_can_fail() -> None:
    x = numbers(60)
    assert not digests_are_distinct([x, x.clone()])
    assert not digests_are_distinct([x, x.roll(1), x.roll(60)])


def test_scalars_of_one_word_never_collide_before_the_finish() -> None:
    values = torch.arange(20000, dtype=torch.int32)
    assert digests_are_distinct([values[i] for i in range(20000)])


# ---- what it takes, what it leaves alone --------------------------------------------------------


class Subclass(torch.Tensor):
    pass


REFUSED: dict[str, tuple[Callable[[], object], str]] = {
    "subclass": (lambda: torch.zeros(3).as_subclass(Subclass), "Subclass is a tensor subclass"),
    "sparse": (lambda: torch.eye(3).to_sparse(), "layout torch.sparse_coo is not taken"),
    "csr": (lambda: sparse_csr(), "layout torch.sparse_csr is not taken"),
    "mkldnn": (lambda: torch.eye(3).to_mkldnn(), "layout torch._mkldnn is not taken"),
    "quantized": (lambda: quantized(), r"dtype qint8 is not taken; taken are bool, .*int_repr"),
    "meta": (lambda: torch.zeros(3, device="meta"), "meta device has no elements"),
    "list": (lambda: [1.0], "expected a torch.Tensor, got list"),
}


def sparse_csr() -> Tensor:
    indices = torch.arange(3)
    return torch.sparse_csr_tensor(torch.arange(4), indices, torch.ones(3))


def quantized() -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch 2.13 says that it will go
        return torch._empty_affine_quantized([3], scale=1.0, zero_point=0, dtype=torch.qint8)


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support is in beta:UserWarning")
@pytest.mark.filterwarnings("ignore:Sparse invariant checks are implicitly disabled:UserWarning")
@pytest.mark.parametrize("kind", REFUSED)
def test_tensors_without_plain_bits_are_refused(kind: str) -> None:
    make, message = REFUSED[kind]
    with pytest.raises(TypeError, match=message):
        digest(make())  # type: ignore[arg-type]


def test_parameters_are_taken() -> None:
    values = numbers(10)
    assert digest(torch.nn.Parameter(values)) == digest(values)


def state_of(tensor: Tensor) -> tuple[object, ...]:
    """All that a look at a tensor must not change."""
    return (
        hashlib.sha256(raw_bytes(tensor)).hexdigest(),
        tensor._version,
        tensor.stride(),
        tensor.requires_grad,
        tensor.grad is None,
        tensor.grad_fn is None,
        torch.get_rng_state().tolist(),
        torch.is_grad_enabled(),
        torch.get_num_threads(),
        torch.are_deterministic_algorithms_enabled(),
    )


def test_nothing_is_changed_by_looking() -> None:
    for tensor in (numbers(3000), numbers(3000).requires_grad_(), noise(60, 70).t()):
        before = state_of(tensor)
        digest(tensor)
        digest(tensor, threads=3)
        assert state_of(tensor) == before
    leaf = numbers(30).requires_grad_()
    loss = (leaf * 2).sum()
    digest(leaf)
    digest(loss)
    loss.backward()
    assert bit_equal(leaf.grad, torch.full((30,), 2.0))


def test_meta_a_change_would_be_noticed() -> None:
    tensor = numbers(3000)
    before = state_of(tensor)
    tensor[5] += 0
    assert state_of(tensor) != before
    before = state_of(tensor)
    torch.rand(1)
    assert state_of(tensor) != before


def others_run_during(call: Callable[[], object], seconds: float) -> bool:
    """Whether Python on this thread gets on while another is inside a `call` of so many seconds.

    A held lock shows as one gap as long as the call, every time. A busy machine can make gaps too,
    so one attempt without is enough.
    """
    for _ in range(20):
        start = threading.Event()
        done = threading.Event()

        def work(start: threading.Event = start, done: threading.Event = done) -> None:
            start.wait()
            call()
            done.set()

        worker = threading.Thread(target=work)
        worker.start()
        last = time.perf_counter()
        longest = 0.0
        start.set()
        while not done.is_set():
            now = time.perf_counter()
            longest = max(longest, now - last)
            last = now
        longest = max(longest, time.perf_counter() - last)
        worker.join()
        if longest < seconds / 2:
            return True
    return False


def test_the_interpreter_lock_is_let_go() -> None:
    tensor = torch.zeros(1 << 25)

    def call() -> str:
        return via_c.digest(17, tensor, 1, "portable")

    start = time.perf_counter()
    call()
    assert others_run_during(call, time.perf_counter() - start)


def test_meta_a_held_lock_is_noticed() -> None:
    sleep_holding_the_lock = ctypes.PyDLL(None).usleep
    assert not others_run_during(lambda: sleep_holding_the_lock(20_000), 0.02)


def test_a_digest_is_a_value() -> None:
    one, same = digest(torch.ones(3)), digest(torch.ones(3))
    assert one == same
    assert hash(one) == hash(same)
    assert str(one) == one.hex
    assert len(one.hex) == 32
    with pytest.raises(AttributeError):
        one.hex = "0"  # type: ignore[misc]
