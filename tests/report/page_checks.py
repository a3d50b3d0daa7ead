"""What a self-contained, well-formed page must keep to; used on reports and on planted offences."""

from __future__ import annotations

import re
from collections import Counter
from html.parser import HTMLParser

VOID = {"area", "base", "br", "col", "hr", "img", "input", "link", "meta", "source", "wbr"}
FETCHING = {"src", "href", "xlink:href", "srcset", "poster", "data", "action", "background"}


class Page(HTMLParser):
    """A page read strictly: every problem found is a sentence in `problems`."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.problems: list[str] = []
        self.open: list[str] = []
        self.count: Counter[str] = Counter()
        self.ids: list[str] = []
        self.references: list[str] = []
        self.text: list[str] = []
        self.heading = ""
        if not text.startswith("<!DOCTYPE html>"):
            self.problems.append("no doctype at the start")
        self.feed(text)
        self.close()
        self.problems += [f"<{tag}> is never closed" for tag in self.open]
        self.problems += [f"id {name} twice" for name, n in Counter(self.ids).items() if n > 1]
        self.problems += [f"no id {ref}" for ref in self.references if ref not in self.ids]
        if self.count["h1"] != 1:
            self.problems.append(f"{self.count['h1']} h1")

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._look(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self._look(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open[-1] != tag:
            self.problems.append(f"</{tag}> closes {self.open[-1] if self.open else 'nothing'}")
        else:
            self.open.pop()

    def handle_data(self, data: str) -> None:
        inside = self.open[-1] if self.open else ""
        if inside == "style":
            self._look_css(data)
        else:
            self.text.append(data)
            if "h1" in self.open:
                self.heading += data

    def _look(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.count[tag] += 1
        given = dict(attrs)
        if len(given) != len(attrs):
            self.problems.append(f"<{tag}> has an attribute twice")
        if tag in {"script", "iframe", "object", "embed", "link", "base", "form"}:
            self.problems.append(f"<{tag}> in the page")
        for name, value in attrs:
            text = value or ""
            if name.startswith("on"):
                self.problems.append(f"handler {name}")
            if name in FETCHING and not text.strip().startswith(("#", "data:image/png;base64,")):
                self.problems.append(f"{tag} {name} refers to {text[:60]}")
            if name in FETCHING and text.startswith("#"):
                self.references.append(text[1:])
            if name == "aria-labelledby":
                self.references += text.split()
            if name == "id":
                self.ids.append(text)
            if name in {"style", "clip-path", "fill", "filter", "mask"}:
                self._look_css(text)
        if tag == "img" and not given.get("alt"):
            self.problems.append("img without alt")
        if tag == "svg" and not (given.get("role") == "img" and given.get("aria-labelledby")):
            self.problems.append("svg without a text alternative")

    def _look_css(self, text: str) -> None:
        if "@import" in text:
            self.problems.append("@import")
        for target in re.findall(r"url\(\s*['\"]?([^)'\"]*)", text):
            if target.startswith("#"):
                self.references.append(target[1:])
            elif not target.startswith("data:image/png;base64,"):
                self.problems.append(f"url({target})")


def problems(text: str) -> list[str]:
    return Page(text).problems
