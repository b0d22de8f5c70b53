"""Of Markdown there is left what a reader sees."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from similarity.sources.markdown import without_markdown


@pytest.mark.parametrize(
    ("markdown", "text"),
    [
        ("Plain words.", "Plain words."),
        (r"The robot\_arm \*fell\* \[photo\] \\server\\share", r"The robot_arm *fell* [photo] \server\share"),
        ("*a* _b_ **c** __d__ ***e*** ~~f~~ `g`", "a b c d e f g"),
        ("# One\n\nTwo\n===\n\n### Three ###", "One\nTwo\nThree"),
        ("[words](https://x.org 'title') <https://x.org> [more][1]\n\n[1]: https://y.org", "words https://x.org more"),
        ("Before ![a *picture*](x.png) after", "Before a picture after"),
        ("> quoted\n> words\n\n- one\n- two\n  - three\n\n1. four", "quoted\nwords\none\ntwo\nthree\nfour"),
        ("Words  \nbroken\\\nthrice\nor so.", "Words\nbroken\nthrice\nor so."),
        ("One.\n\n* * *\n\nTwo.", "One.\nTwo."),
        ("```python\nprint(1)\n```\n\n    indented\n", "print(1)\nindented"),
        ("| a | b |\n|---|---|\n| c | d |", "a\nb\nc\nd"),
        ("<div>In <b>bold</b></div>\n\nOut<br>side <!-- no --> <script>no()</script>", "In bold\nOut\nside"),
        ("<div><![unknown[ no ]>In a box</div>", "In a box"),
        ("AT&amp;T &lt;3 &copy; 1 < 2 & 3", "AT&T <3 © 1 < 2 & 3"),
        ("snake_case_words and 2*3*4", "snake_case_words and 234"),
        ("事故 *und* 🤖", "事故 und 🤖"),
        (" \n", ""),
    ],
)
def test_marks_escapes_tags_and_targets_are_taken_off(markdown: str, text: str) -> None:
    found = without_markdown(markdown)
    assert [line.split() for line in found.splitlines()] == [line.split() for line in text.splitlines()]


@settings(derandomize=True, max_examples=100, deadline=None)
@given(st.lists(st.sampled_from(["*", "**", "_", "`", "[", "](x)", "\n\n", "> ", "# ", "- ", "word", " ", "\\", "|"])))
def test_words_come_through_whatever_stands_around_them(parts: list[str]) -> None:
    markdown = " robot ".join(parts)
    # What follows "](" may be the target of a link, which isn't for readers.
    expected = 0 if "](x)" in parts else markdown.count("robot")
    assert len(re.findall("robot", without_markdown(markdown))) >= expected
