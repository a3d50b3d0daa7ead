"""What modules and their parameters are called: by their path in a model.

A model that nobody named gets the name of its class: "GPT.h.0.attn.weight"; a second one of the
same class, "GPT#2".
"""

from __future__ import annotations

import weakref
from collections import Counter

from torch import Tensor, nn

__all__ = ["Names", "joined"]

# Between a model and the module that torch.compile puts around it.
_COMPILED = "_orig_mod"


def joined(path: str, name: str) -> str:
    """Path of what is called `name` inside of `path`, either of which may be empty."""
    return f"{path}.{name}" if path and name else path or name


class Names:
    """model: has the path "", and then no other model is given a name."""

    def __init__(self, model: nn.Module | None = None) -> None:
        self._given = model is not None
        self._paths: dict[int, tuple[weakref.ref[nn.Module], str]] = {}
        self._parameters: dict[int, tuple[weakref.ref[Tensor], str, str]] = {}
        self._roots: dict[str, weakref.ref[nn.Module]] = {}
        self._classes: Counter[str] = Counter()
        if model is not None:
            self._learn(model, "")

    def path(self, module: nn.Module) -> str | None:
        """Of a module of a model that is known."""
        known = self._paths.get(id(module))
        return known[1] if known is not None and known[0]() is module else None

    def of_root(self, module: nn.Module) -> str | None:
        """The path of a module that was called from outside of any known one: it becomes a model of
        its own, unless a model was given."""
        if self._given:
            return None
        inner = getattr(module, _COMPILED, module)
        name = type(inner).__name__
        if next(module.parameters(), None) is not None:
            self._classes[name] += 1
            if self._classes[name] > 1:
                name += f"#{self._classes[name]}"
        self._learn(module, name)
        return name

    def within(self, base: str, name: str) -> tuple[str, str]:
        """(path of the module, its own path) of a parameter or buffer that a model at `base` calls
        `name`."""
        parts = [part for part in name.split(".") if part != _COMPILED]
        return joined(base, ".".join(parts[:-1])), joined(base, ".".join(parts))

    def is_root(self, module: nn.Module) -> bool:
        return any(root() is module for root in self._roots.values())

    def roots(self) -> list[tuple[str, nn.Module]]:
        """(name, model) of all that are known and still there."""
        alive = ((name, root()) for name, root in self._roots.items())
        return [(name, root) for name, root in alive if root is not None]

    def parameter(self, parameter: Tensor) -> tuple[str, str] | None:
        """(path of its module, its own path); None for a parameter of no known model."""
        known = self._parameters.get(id(parameter))
        return known[1:] if known is not None and known[0]() is parameter else None

    def _learn(self, root: nn.Module, name: str) -> None:
        self._roots[name] = weakref.ref(root)
        for path, module in root.named_modules():
            own = ".".join(part for part in path.split(".") if part != _COMPILED)
            full = joined(name, own)
            self._paths[id(module)] = weakref.ref(module), full
            for key, parameter in module.named_parameters(recurse=False):
                self._parameters[id(parameter)] = (weakref.ref(parameter), full, joined(full, key))
