"""Reads a page as a strict reader does, for the tests of pages."""

from __future__ import annotations

import base64
import hashlib
import io
from html.parser import HTMLParser

from PIL import Image

_VOID = {"meta", "link", "img", "br", "input"}
_SVG = {"path", "circle", "rect"}


class Page(HTMLParser):
    """Ids, pictures, references, classes and text of a page; a tag that is not closed is an error."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.ids: list[str] = []
        self.images: list[str] = []
        self.references: list[str] = []
        self.classes: list[str] = []
        self.titles: list[str] = []
        self.tags: list[str] = []
        self._open: list[str] = []
        self._text: list[str] = []
        self.script = self.policy = ""
        self.feed(html)
        self.close()
        assert self._open == [], self._open

    @property
    def text(self) -> str:
        return " ".join(" ".join(self._text).split())

    def check(self) -> None:
        """Check what every page must be."""
        assert len(self.ids) == len(set(self.ids)), "an id comes twice"
        for source in self.images:
            kind, content = source.split(";base64,", 1)
            assert kind == "data:image/jpeg"
            Image.open(io.BytesIO(base64.b64decode(content, validate=True))).load()
        for reference in self.references:
            assert reference.startswith(("data:", "#")), reference
            assert not reference.startswith("#") or reference[1:] in self.ids, reference
        assert self.tags.count("script") == 1
        digest = base64.b64encode(hashlib.sha256(self.script.encode()).digest()).decode()
        assert (
            f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
            in (self.policy)
        ), "the policy allows the page's own script alone"

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in _VOID:
            self._open.append(tag)
        if ("http-equiv", "Content-Security-Policy") in attributes:
            self.policy = dict(attributes)["content"] or ""
        for name, value in attributes:
            assert not name.startswith("on"), name
            if name == "id":
                self.ids.append(value or "")
            elif name in ("src", "href", "srcset", "data", "action", "poster", "xlink:href"):
                (self.images if tag == "img" else self.references).append(value or "")
            elif name == "class":
                self.classes += (value or "").split()
            elif name == "title":
                self.titles.append(value or "")

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        assert tag in _SVG or tag in _VOID, tag
        self.handle_starttag(tag, attributes)
        if tag not in _VOID:
            self._open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self._open[-1:] == [tag], (tag, self._open[-3:])
        self._open.pop()

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] == "style":
            assert "url(" not in data
            assert "@import" not in data
            return
        if self._open and self._open[-1] == "script":
            self.script += data
            return
        self._text.append(data)
