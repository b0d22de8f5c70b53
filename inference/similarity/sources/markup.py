"""Reads HTML as browsers do. `page` takes links from it, `markdown` words."""

from __future__ import annotations

from html.parser import HTMLParser


class LenientParser(HTMLParser):
    """Python's parser raises AssertionError for `<![` and an unknown word. Browsers take that for a comment."""

    def parse_marked_section(self, i: int, report: bool = True) -> int:
        try:
            return super().parse_marked_section(i, report)
        except AssertionError:
            return self.parse_bogus_comment(i)
