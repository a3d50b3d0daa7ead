"""How the parts of a trace are written: steps, what a record is of, figures, digests."""

from __future__ import annotations

import re

from nondet_probe.records.trace import SETUP, Site, Words
from nondet_probe.report.spell import clip, count, one_line

__all__ = ["digest_phrase", "site_phrase", "step_phrase", "value_phrase"]


def step_phrase(step: int) -> str:
    """ "step 17", "setup"."""
    return "setup" if step == SETUP else f"step {count(step)}"


def site_phrase(site: Site) -> str:
    """What a record is of: "aten.index_put_", "the gradient of conv.bias", "buffer bn.mean"."""
    name = clip(site.name, 100)
    if site.kind == "op":
        return name.removesuffix(".default")
    if site.kind == "module":
        which = "the gradient that came back to" if site.phase == "backward" else "the module"
        return f"{which} {clip(site.module, 80) if site.module else 'the model itself'} ({name})"
    if site.kind == "gradient" and name.startswith("gradient norm"):
        return f"the {name}"
    if site.kind == "gradient":
        return f"the gradient of {name}"
    if site.kind == "optimizer" and (setting := re.match(r"(optimizer \d+, .*): (\w+)$", name)):
        whose, key = setting.groups()
        return f"{'another setting' if key == 'settings' else f'the {key}'} of {whose}"
    if site.kind == "optimizer" and (of := re.match(r"(.+): (\w+)$", name)):
        return f"the optimizer's {of[2]} of {of[1]}"
    if site.kind == "optimizer":
        return f"the optimizer's {name}"
    if site.kind == "rng" and re.match(r"(base )?(seed|generator) (of|given to) ", name):
        return f"the {name}"
    if site.kind == "loss":
        return "the loss" if name in {"", "loss"} else f"the loss ({name})"
    words = {
        "environment": "the setting",
        "rng": "random generator",
        "batch": "a batch of",
        "parameter": "parameter",
        "buffer": "buffer",
        "collective": "collective",
    }
    return f"{words.get(site.kind, one_line(site.kind, 40))} {name}"


def value_phrase(value: float) -> str:
    """A figure in full: two losses may differ in their last digit alone."""
    return repr(float(value))


def digest_phrase(words: Words | None) -> str:
    """The first 12 of a digest's hex digits, as many as tell two apart."""
    return "none" if words is None else f"{words[0] & 0xFFFF_FFFF_FFFF_FFFF:016x}"[:12]
