"""README and docs, read as a reader reads them: pages, tables, code, commands; and a comparison with what is real."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tiny import ROOT

README = ROOT / "README.md"
DOCS = ROOT / "docs"
API, AIID, DEPLOYING, OPERATIONS, SHELF, PUBLISHING, REFRESH, DEVELOPMENT = (
    DOCS / f"{name}.md"
    for name in ("api", "aiid", "deploying", "operations", "shelf", "publishing", "refresh", "development")
)
PAGES = (README, *sorted(DOCS.glob("*.md")), ROOT / "scripts" / "sample" / "README.md")

# Stands for what was left out of an output or an answer.
DOTS = "…"

_FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
_SPAN = re.compile(r"`([^`\n]+)`")


def text_of(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def prose_of(page: Path) -> str:
    """A page without its blocks of code."""
    return _FENCE.sub("", text_of(page))


def spans(text: str) -> list[str]:
    """What stands in code font within lines."""
    return _SPAN.findall(text)


def anchors(page: Path) -> set[str]:
    """The headings, as GitHub names them in links."""
    titles = re.findall(r"^#+ (.+)$", prose_of(page), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}


def links(page: Path) -> list[str]:
    return re.findall(r"\]\(([^)\s]+)\)", prose_of(page))


def table(page: Path, header: str) -> list[list[str]]:
    """The cells of the one table whose first row is `header`, row by row."""
    found = re.findall(rf"^{re.escape(header)}\n\|[-|]+\|\n((?:\|.*\n)+)", text_of(page), re.MULTILINE)
    assert len(found) == 1, f"{page.name} has {len(found)} tables {header}"
    return [[cell.strip() for cell in line.strip().strip("|").split("|")] for line in found[0].splitlines()]


def literal(cell: str) -> str:
    """What a cell says in code font, which is all that it says."""
    assert re.fullmatch("`[^`]+`", cell), cell
    return cell.strip("`")


@dataclass(frozen=True)
class Block:
    """Code in a page. `before`: the page's text above it."""

    page: Path
    line: int
    language: str
    code: str
    before: str

    @property
    def name(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def path(self) -> str:
        """The file that a block of Python is to be put into: the last one named above it."""
        *_, last = re.finditer(r"`(inference/[\w/]+\.py)`", self.before)
        return last[1]

    def commands(self) -> list[Command]:
        """bash is all commands; in a console they follow a dollar, and what follows them is their output."""
        found: list[Command] = []
        lines = iter(self.code.splitlines())
        for line in lines:
            if self.language == "console" and not line.startswith("$ "):
                found[-1].output.append(line)
                continue
            command = line.removeprefix("$ ")
            while command.endswith("\\"):
                command = command[:-1] + next(lines).strip()
            if command:
                found.append(Command(command, []))
        return found


@dataclass(frozen=True)
class Command:
    """A line for a shell, and the lines that it prints according to the page."""

    line: str
    output: list[str]

    def words(self) -> list[list[str]]:
        """The words of each program in a pipe, without variables set for it without redirections and parentheses."""
        lexer = shlex.shlex(self.line, posix=True, punctuation_chars="|<>&;()")
        lexer.whitespace_split = True
        programs: list[list[str]] = [[]]
        for word in lexer:
            if word in ("|", "&&", ";"):
                programs.append([])
            elif word in (">", ">>", "<"):
                next(lexer)
            elif word in ("(", ")"):
                continue
            elif programs[-1] or not re.match(r"[A-Za-z_]\w*=", word):
                programs[-1].append(word)
        return programs


def blocks() -> Iterator[Block]:
    for page in PAGES:
        text = text_of(page)
        for match in _FENCE.finditer(text):
            indent, language, code = match.groups()
            code = "".join(line.removeprefix(indent) for line in code.splitlines(keepends=True))
            yield Block(page, text.count("\n", 0, match.start()) + 1, language, code, text[: match.start()])


BLOCKS = list(blocks())
# Programs that call the API, by language. `test_clients.py` runs them.
CLIENTS = {block.language: block for block in BLOCKS if block.page == API and "\n## Clients\n" in block.before}
SINGLE_CALL, WRITES_NEIGHBOURS = [block for block in BLOCKS if block.page == AIID and block.language == "javascript"]
PYTHON = [block for block in BLOCKS if block.language == "python" and block not in CLIENTS.values()]
JSON = [block for block in BLOCKS if block.language == "json"]
SHELL = [block for block in BLOCKS if block.language in ("bash", "console") and block not in CLIENTS.values()]
DRAWINGS = [block for block in BLOCKS if block.language == "mermaid"]


def asks_aws(block: Block) -> bool:
    """Of the runbook. `resource` and `lines` are its own functions."""
    return block.page == OPERATIONS and bool(re.search(r"\b(aws|resource|lines) ", block.code))


def documented_json(text: str) -> Any:
    """JSON of a page, in which dots may stand for any value, and at the end of a list for more of the same."""
    return json.loads(re.sub(rf"(?<=[\s\[,:]){DOTS}(?=[\s,\]}}])", f'"{DOTS}"', text))


def require_same_shape(documented: Any, real: Any, where: str = "answer") -> None:
    """The same keys everywhere, and values of the same kind."""
    if documented == DOTS:
        return
    assert type(documented) is type(real), f"{where}: {documented!r} is documented, {real!r} is real"
    if isinstance(documented, dict):
        assert list(documented) == list(real), where
        for key, value in documented.items():
            require_same_shape(value, real[key], f"{where}.{key}")
    elif isinstance(documented, list) and documented:
        if documented[-1] == DOTS:
            documented, real = documented[:-1], real[: len(documented) - 1]
        assert len(documented) == len(real), where
        for index, (value, real_value) in enumerate(zip(documented, real, strict=True)):
            require_same_shape(value, real_value, f"{where}[{index}]")


def masked(line: str) -> str:
    """A line without its numbers, whose count of spaces depends on them."""
    return re.sub(r"\s+", " ", re.sub(r"\d[\d,.]*(?<=\d)", "0", line)).strip()


def require_printed(documented: list[str], printed: str, where: str) -> None:
    """The lines of a page stand in what was printed, in their order; dots stand for any lines."""
    real = iter([masked(line) for line in printed.splitlines()])
    for line in documented:
        if line != DOTS:
            assert masked(line) in real, f"{where}: {line!r} isn't in, or not at its place in:\n{printed}"
