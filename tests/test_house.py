"""The house rules, each a function over a source tree, each seen to fire on a planted offence."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# Lower first. Rooms on one floor never import each other.
FLOORS = [
    {"errors", "workload", "kernels"},
    {"bits", "env"},
    {"ops", "records"},
    {"probe", "metrics", "workloads", "mitigate"},
    {"protocol"},
    {"report"},
    {"cli", "callbacks", "pytest_plugin"},
]
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
# What a room may not use although it stands lower (the house's table of rooms).
FORBIDDEN = {
    "report": {"probe", "workloads", "ops"},
    "records": {"ops"},
    "workloads": {"records"},
}
# The package's own face and its `-m` entry stand outside of the floors.
ABOVE_ALL = {"__init__", "__main__"}

MAX_LINES = 400
# Modules that may load the extensions: the one for the host one a room, the one for GPUs one alone;
# and those that may load kernels in Triton.
EXTENSION_DOORS = {"bits/device.py", "bits/via_c.py", "mitigate/via_c.py", "ops/via_c/"}
TRITON_DOOR = "ops/via_triton/"
# What these may load, besides each other.
OF_KERNELS = {"__future__", "torch", "triton", ""}
PRIVATE_TORCH = "env/torch_private.py"


def modules(package: Path) -> Iterator[tuple[str, Path, ast.Module]]:
    """(path below the package, file, tree) of every module."""
    for path in sorted(package.rglob("*.py")):
        yield path.relative_to(package).as_posix(), path, ast.parse(path.read_text("utf-8"))


def imported(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """(line, dotted name) of every import, also inside functions; relative ones as they stand."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            base = "." * node.level + (node.module or "")
            for alias in node.names:
                yield node.lineno, f"{base}.{alias.name}" if base else alias.name


def room_of(name: str) -> str:
    return name.split("/")[0].removesuffix(".py")


def upward_imports(package: Path) -> list[str]:
    found = []
    for name, _, tree in modules(package):
        room = room_of(name)
        if room in ABOVE_ALL:
            continue
        if room not in FLOOR:
            found.append(f"{name}: room {room!r} has no floor")
            continue
        for line, target in imported(tree):
            parts = target.split(".")
            if parts[0] != "nondet_probe" or len(parts) < 2 or parts[1] not in FLOOR:
                continue
            other = parts[1]
            if other == room:
                continue
            if FLOOR[other] >= FLOOR[room] or other in FORBIDDEN.get(room, ()):
                found.append(f"{name}:{line}: {room} imports {other}")
    return found


def relative_imports(package: Path) -> list[str]:
    return [
        f"{name}:{line}: relative import"
        for name, _, tree in modules(package)
        for line, target in imported(tree)
        if target.startswith(".")
    ]


def extension_elsewhere(package: Path) -> list[str]:
    return [
        f"{name}:{line}: imports the extension"
        for name, _, tree in modules(package)
        if not name.startswith(tuple(EXTENSION_DOORS))
        for line, target in imported(tree)
        if target.startswith(("nondet_probe._C", "nondet_probe._cuda"))
    ]


def private_torch_elsewhere(package: Path) -> list[str]:
    """Private names of torch outside their one file, imported or reached by attribute."""
    found = []
    for name, _, tree in modules(package):
        if name == PRIVATE_TORCH:
            continue
        for line, target in imported(tree):
            parts = target.split(".")
            if parts[0] == "torch" and any(p.startswith("_") for p in parts[1:]):
                found.append(f"{name}:{line}: imports {target}")
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and node.attr.startswith("_"):
                text = ast.unparse(node)
                if text.startswith("torch.") and not node.attr.startswith("__"):
                    found.append(f"{name}:{node.lineno}: {text}")
    return found


def top_level_kernels(package: Path) -> list[str]:
    return [
        f"{name}:{line}: import kernels"
        for name, _, tree in modules(package)
        for line, target in imported(tree)
        if target.split(".")[0] == "kernels"
    ]


def too_long(package: Path) -> list[str]:
    counts = {name: len(path.read_text("utf-8").splitlines()) for name, path, _ in modules(package)}
    return [f"{name}: {lines} lines" for name, lines in counts.items() if lines > MAX_LINES]


def triton_elsewhere(package: Path) -> list[str]:
    """Triton, or the kernels written in it, loaded by another than their door."""
    return [
        f"{name}:{line}: imports {target}"
        for name, _, tree in modules(package)
        if not name.startswith(TRITON_DOOR)
        for line, target in imported(tree)
        if target.startswith("nondet_probe.kernels") or target.split(".")[0] == "triton"
    ]


def pickle_loads(package: Path) -> list[str]:
    """Loads that would run code from a file."""
    found = []
    for name, _, tree in modules(package):
        found += [
            f"{name}:{line}: imports {target}"
            for line, target in imported(tree)
            if target.split(".")[0] in {"pickle", "dill", "cloudpickle", "joblib", "shelve"}
        ]
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in {"torch.load", "np.load"}:
                given = {item.arg: ast.unparse(item.value) for item in node.keywords}
                if given.get("weights_only") != "True":
                    found.append(f"{name}:{node.lineno}: {ast.unparse(node.func)}")
    return found


def without_all(package: Path) -> list[str]:
    """Modules that do not say what is public."""
    found = []
    for name, path, tree in modules(package):
        if not path.read_text("utf-8").strip() or name == "__main__.py":
            continue
        names = [
            target.id
            for node in tree.body
            if isinstance(node, ast.Assign | ast.AnnAssign)
            for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
            if isinstance(target, ast.Name)
        ]
        if "__all__" not in names:
            found.append(f"{name}: no __all__")
    return found


def full_backward_hooks(package: Path) -> list[str]:
    """`register_full_backward_hook` changes gradient bits: no probe may use it."""
    return [
        f"{name}:{node.lineno}"
        for name, _, tree in modules(package)
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and "full_backward" in node.attr
    ]


PACKAGE_RULES: dict[Callable[[Path], list[str]], tuple[str, str]] = {
    # rule: (file of the planted offence, its text)
    upward_imports: ("bits/x.py", "from nondet_probe.probe.rerun import rerun"),
    relative_imports: ("bits/x.py", "from . import digest"),
    extension_elsewhere: ("probe/x.py", "from nondet_probe import _C"),
    private_torch_elsewhere: ("probe/x.py", "import torch\nnode = torch._C"),
    top_level_kernels: ("ops/x.py", "import kernels.sum"),
    triton_elsewhere: ("ops/x.py", "from nondet_probe.kernels import softmax"),
    too_long: ("bits/x.py", "x = 1\n" * (MAX_LINES + 1)),
    pickle_loads: ("records/x.py", "import torch\ntorch.load('run.pt')"),
    without_all: ("bits/x.py", "x = 1"),
    full_backward_hooks: ("probe/x.py", "m.register_full_backward_hook(f)"),
}


@pytest.mark.parametrize("rule", PACKAGE_RULES, ids=lambda rule: rule.__name__)
def test_package_keeps_the_rule(rule: Callable[[Path], list[str]]) -> None:
    assert rule(ROOT / "nondet_probe") == []


@pytest.mark.parametrize("rule", PACKAGE_RULES, ids=lambda rule: rule.__name__)
def test_rule_fires_on_a_planted_offence(rule: Callable[[Path], list[str]], tmp_path: Path) -> None:
    name, text = PACKAGE_RULES[rule]
    assert rule(tmp_path) == []
    (tmp_path / name).parent.mkdir()
    (tmp_path / name).write_text(text)
    assert len(rule(tmp_path)) == 1


@pytest.mark.parametrize(
    ("arguments", "found"), [("", 1), (", weights_only=safe", 1), (", weights_only=True", 0)]
)
def test_only_weights_are_ever_loaded(arguments: str, found: int, tmp_path: Path) -> None:
    (tmp_path / "x.py").write_text(f"import torch\ntorch.load('run.pt'{arguments})")
    assert len(pickle_loads(tmp_path)) == found


def foreign_to_kernels(kernels: Path) -> list[str]:
    """Kernels stand on the lowest floor: torch, triton, and each other by relative imports."""
    return [
        f"{name}:{line}: imports {target}"
        for name, _, tree in modules(kernels)
        for line, target in imported(tree)
        if target.split(".")[0] not in OF_KERNELS
    ]


KERNEL_RULES = {
    foreign_to_kernels: "from nondet_probe.ops import sum",
    too_long: "x = 1\n" * (MAX_LINES + 1),
    without_all: "x = 1",
    top_level_kernels: "import kernels.softmax",
}


@pytest.mark.parametrize("rule", KERNEL_RULES, ids=lambda rule: rule.__name__)
def test_kernels_keep_the_rule(rule: Callable[[Path], list[str]], tmp_path: Path) -> None:
    assert rule(ROOT / "kernels") == []
    (tmp_path / "x.py").write_text(KERNEL_RULES[rule])
    assert len(rule(tmp_path)) == 1


def test_importing_kernels_does_nothing() -> None:
    """Some libraries import whatever is called `kernels`."""
    (_, _, tree), *_ = modules(ROOT / "kernels")
    assert [type(node).__name__ for node in tree.body] == ["Expr", "AnnAssign"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("bits/x.py", "import nondet_probe.env.rng"),  # sideways
        ("report/x.py", "def f():\n    from nondet_probe.probe import twin"),  # lower but forbidden
        ("cellar/x.py", ""),  # a room without a floor
    ],
)
def test_floors_hold_sideways_and_inside_functions(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / name).parent.mkdir()
    (tmp_path / name).write_text(text)
    assert len(upward_imports(tmp_path)) == 1


# What would hide nondeterminism from the tests. A growth rate is a statistic, not a claim on bits.
HIDING: dict[str, set[str]] = {
    r"\ballclose\b|\bassert_close\b|\bapprox\(": {"test_growth.py"},
    r"mark\.(flaky|xfail)|\breruns\b|pytest\.xfail": set(),
}


def hidden(tests: Path, pattern: str, excused: set[str]) -> list[str]:
    return [
        f"{path.relative_to(tests)}:{number}"
        for path in sorted(tests.rglob("*.py"))
        if path.name not in excused
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1)
        if re.search(pattern, line)
    ]


@pytest.mark.parametrize("pattern", HIDING)
@pytest.mark.parametrize("room", ["bits", "ops", "probe"])
def test_no_test_of_bits_uses_a_tolerance_or_a_rerun(pattern: str, room: str) -> None:
    assert hidden(ROOT / "tests" / room, pattern, HIDING[pattern]) == []


@pytest.mark.parametrize("text", ["assert torch.allclose(a, b)", "@pytest.mark.flaky(reruns=3)"])
def test_a_planted_tolerance_is_found(text: str, tmp_path: Path) -> None:
    (tmp_path / "test_x.py").write_text(text)
    assert sum(len(hidden(tmp_path, pattern, set())) for pattern in HIDING) == 1


SWITCHING_ON = r"use_deterministic_algorithms|deterministic_algorithms\(|\.deterministic\s*="


def switching_conftests(tests: Path) -> list[str]:
    return [
        path.relative_to(tests).as_posix()
        for path in sorted(tests.rglob("conftest.py"))
        if re.search(SWITCHING_ON, path.read_text("utf-8"))
    ]


def test_nothing_deterministic_in_conftest() -> None:
    assert switching_conftests(ROOT / "tests") == []


def test_a_deterministic_conftest_is_found(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text("torch.use_deterministic_algorithms(True)")
    assert switching_conftests(tmp_path) == ["conftest.py"]


# Ops that are one computation under several names share its stem.
STEM_OF_OP = {
    **dict.fromkeys(["index", "index_add", "index_put", "scatter_add"], "scatter"),
    **dict.fromkeys(["cross_entropy", "log_softmax"], "softmax"),
    "attention": "matmul",  # on CPU, products and a softmax
    "rms_norm": "layer_norm",
    "mean": "sum",
}


def stems_of_ops() -> list[str]:
    from nondet_probe.ops import registry

    return sorted({STEM_OF_OP.get(op, op) for op in registry.ops()})


def missing_places(root: Path, stem: str) -> list[str]:
    """The places of an op that are not there; `kernels/` holds only what Triton serves better."""
    places = [
        f"csrc/{stem}.cpp",
        f"nondet_probe/ops/{stem}.py",
        f"tests/ops/test_{stem}.py",
        f"benchmarks/bench_{stem}.py",
    ]
    return [place for place in places if not (root / place).exists()]


def shared_names(tests: Path) -> list[str]:
    """pytest imports the files of all folders by their names alone: of two, it takes one."""
    of: dict[str, list[str]] = {}
    for path in sorted(tests.rglob("*.py")):
        if path.name != "conftest.py":
            of.setdefault(path.name, []).append(str(path.relative_to(tests)))
    return [" and ".join(paths) for paths in of.values() if len(paths) > 1]


def test_no_two_files_of_tests_have_one_name() -> None:
    assert shared_names(ROOT / "tests") == []


def test_a_name_of_two_files_is_found(tmp_path: Path) -> None:
    for folder in ("cli", "probe"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "test_same.py").touch()
        (tmp_path / folder / "conftest.py").touch()
    assert shared_names(tmp_path) == ["cli/test_same.py and probe/test_same.py"]


def test_every_op_has_its_places() -> None:
    stems = stems_of_ops()
    assert stems
    assert {stem: missing_places(ROOT, stem) for stem in stems} == {stem: [] for stem in stems}


def test_a_missing_place_is_found() -> None:
    assert len(missing_places(ROOT, "no_such_op")) == 4
