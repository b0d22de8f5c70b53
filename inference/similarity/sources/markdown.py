"""Turns Markdown into the text that a reader sees."""

from __future__ import annotations

import re

from markdown_it import MarkdownIt

from similarity.sources.markup import LenientParser

_MARKDOWN = MarkdownIt("commonmark").enable(["table", "strikethrough"])
_BLOCKS = {"p", "h1", "h2", "h3", "h4", "h5", "h6", "li", "pre", "blockquote", "td", "th", "div", "br"}


def without_markdown(text: str) -> str:
    """The words of `text`, one paragraph a line, without marks, escapes, tags and the targets of links."""
    reader = _Words()
    reader.feed(_MARKDOWN.render(text))
    reader.close()
    return re.sub(r"\s*\n\s*", "\n", "".join(reader.pieces)).strip()


class _Words(LenientParser):
    """Collects the text between the tags, and the descriptions of images."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.pieces: list[str] = []

    def handle_data(self, data: str) -> None:
        if self.cdata_elem is None:  # Scripts and styles aren't for readers.
            self.pieces.append(data)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "img":
            self.pieces.append(dict(attrs).get("alt") or "")
        elif tag in _BLOCKS:
            self.pieces.append("\n")

    def handle_endtag(self, tag: str) -> None:
        if tag in _BLOCKS:
            self.pieces.append("\n")
