"""The shape of the HTTP API: its routes and who may call them from a browser.

`app.py` and the local server both ask here, so they can't disagree. Handler files are read as text, not imported:
finding them needs neither their packages nor their weights.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass
from importlib.util import decode_source
from pathlib import Path

METHODS = ("GET", "POST")
DEFAULT_ALLOWED_ORIGINS = ("http://localhost:3000",)
ALLOWED_HEADERS = ("Content-Type", "X-Amz-Date", "Authorization", "X-Api-Key")


class HandlerFileError(ValueError):
    """A file in the handlers' folder that can't be read as a handler, in one sentence."""


@dataclass(frozen=True)
class HandlerFile:
    """One Lambda: `similar.py` is the module `similar`, the route `/similar` and the command `similar.handler`."""

    path: Path

    @property
    def module(self) -> str:
        return self.path.stem

    @property
    def route(self) -> str:
        return route_of(self.module)

    @property
    def command(self) -> str:
        return f"{self.path.stem}.handler"


def route_of(module: str) -> str:
    return "/" + module.replace("_", "-")


def find_handlers(folder: Path) -> list[HandlerFile]:
    """The `*.py` files directly in `folder` that define `handler` at their top level, by name.

    Raises HandlerFileError for a file that is no Python and for two files that would share a route.
    """
    found: dict[str, HandlerFile] = {}
    for path in sorted(folder.glob("*.py")):
        # Hidden files are an editor's or the system's; Emacs locks a file with a link that leads nowhere.
        if path.name.startswith(".") or not path.is_file() or not _defines_handler(path):
            continue
        candidate = HandlerFile(path)
        if "." in candidate.module:
            raise HandlerFileError(f"{path.name} can't be imported: a module's name has no dot in it.")
        if candidate.route in found:
            raise HandlerFileError(
                f"{found[candidate.route].path.name} and {path.name} would both answer {candidate.route}: rename one."
            )
        found[candidate.route] = candidate
    return list(found.values())


def _defines_handler(path: Path) -> bool:
    try:
        # Decoded first, as an import does: ast lets bytes of a wrong encoding pass where they stand in a comment.
        tree = ast.parse(decode_source(path.read_bytes()), filename=str(path))
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None)
        place = f"{path.name}, line {line}" if line else path.name
        raise HandlerFileError(f"{place} is not valid Python: {getattr(error, 'msg', error)}.") from error
    return any("handler" in _names_bound(statement) for statement in tree.body)


def _names_bound(statement: ast.stmt) -> set[str]:
    match statement:
        case ast.FunctionDef(name=name):
            return {name}
        case ast.Import(names=names) | ast.ImportFrom(names=names):
            return {alias.asname or alias.name for alias in names}
        case ast.Assign(targets=targets):
            return {target.id for target in targets if isinstance(target, ast.Name)}
        case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr()):
            return {name}
    return set()
