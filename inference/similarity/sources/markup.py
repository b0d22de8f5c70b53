"""HTML as browsers read it, which `page` and `markdown` take links and words from."""

from __future__ import annotations

from html.parser import HTMLParser


class LenientParser(HTMLParser):
    """Python's parser, which raises AssertionError for `<![` before an unknown word. To browsers that is a comment."""

    def parse_marked_section(self, i: int, report: bool = True) -> int:
        try:
            return super().parse_marked_section(i, report)
        except AssertionError:
            return self.parse_bogus_comment(i)
