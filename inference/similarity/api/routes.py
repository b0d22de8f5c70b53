"""The shape of the HTTP API: which files are Lambdas, their routes, and who may call them from a browser.

The stack and the local server both ask here, so they can't disagree. Handler files are read as text, not imported:
finding them needs neither their packages nor their weights.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import decode_source
from pathlib import Path
from typing import Any

# Methods of a handler file that names none, and all that one may name. API Gateway answers OPTIONS itself, for CORS:
# https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-cors.html
METHODS = ("GET", "POST")
KNOWN_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
DEFAULT_ALLOWED_ORIGINS = ("http://localhost:3000",)
ALLOWED_HEADERS = (
    *("Content-Type", "X-Api-Key"),
    # Of signed requests. aws4fetch and Amplify don't send the last one, but AWS's own signer does:
    # https://github.com/smithy-lang/smithy-typescript/tree/main/packages/signature-v4 (its option applyChecksum).
    *("Authorization", "X-Amz-Date", "X-Amz-Security-Token", "X-Amz-Content-Sha256"),
)

# https://docs.aws.amazon.com/lambda/latest/dg/gettingstarted-limits.html
MEMORY_MIB_RANGE = (128, 10240)
TIMEOUT_S_RANGE = (1, 900)

# Where the Lambdas without a route stand, beside the handlers.
JOBS = "jobs"


class HandlerFileError(ValueError):
    """A file in the handlers' folder that can't be read as a handler, in one sentence."""


@dataclass(frozen=True)
class HandlerFile:
    """One Lambda: `similar.py` is the module `similar`, the route `/similar` and the command `similar.handler`.

    package: the folder beside the handlers that it stands in, for a job, which has no route.
    methods: the HTTP methods of the route. The file's METHODS.
    memory_mib, timeout_s: what the file asks for; None leaves it to the settings. Its MEMORY_MIB and TIMEOUT_S.
    page: whether it answers with a page for browsers, which can't sign requests. Its PAGE.
    """

    path: Path
    package: str = ""
    methods: tuple[str, ...] = METHODS
    memory_mib: int | None = None
    timeout_s: int | None = None
    page: bool = False

    @property
    def module(self) -> str:
        return self.path.stem

    @property
    def route(self) -> str:
        return route_of(self.module)

    @property
    def command(self) -> str:
        return ".".join(part for part in (self.package, self.module, "handler") if part)


def route_of(module: str) -> str:
    return "/" + module.replace("_", "-")


def find_handlers(folder: Path, package: str = "") -> list[HandlerFile]:
    """The `*.py` files directly in `folder`, or in its package, that define `handler` at their top level, by name.

    With `package=JOBS` these are the jobs. Raises HandlerFileError for a file that isn't Python, for a constant with
    a bad value, and for two files that would share a route.
    """
    found: dict[str, HandlerFile] = {}
    for path in sorted((folder / package).glob("*.py")):
        # Hidden files are an editor's or the system's; Emacs locks a file with a link that leads nowhere.
        if path.name.startswith(".") or not path.is_file():
            continue
        name = f"{package}/{path.name}" if package else path.name
        tree = _parse(path, name)
        if not any("handler" in _names_bound(statement) for statement in tree.body):
            continue
        candidate = _handler_file(path, package, _Constants(tree, name))
        if "." in candidate.module:
            raise HandlerFileError(f"{name} can't be imported: a module's name has no dot in it.")
        if not package and candidate.route in found:
            raise HandlerFileError(
                f"{found[candidate.route].path.name} and {path.name} would both answer {candidate.route}: rename one."
            )
        found[candidate.route if not package else name] = candidate
    return list(found.values())


def methods_of(handlers: Iterable[HandlerFile]) -> list[str]:
    """All methods that handlers answer, for CORS, which counts for the whole API."""
    used = {method for handler in handlers for method in handler.methods}
    return [method for method in KNOWN_METHODS if method in used]


def _handler_file(path: Path, package: str, constants: _Constants) -> HandlerFile:
    for name in ("METHODS", "PAGE"):
        if package and constants.state(name):
            raise HandlerFileError(f"{constants.file} has {name}, but a job has no route: remove it.")
    return HandlerFile(
        path,
        package,
        methods=constants.methods("METHODS") or METHODS,
        memory_mib=constants.integer("MEMORY_MIB", MEMORY_MIB_RANGE),
        timeout_s=constants.integer("TIMEOUT_S", TIMEOUT_S_RANGE),
        page=constants.flag("PAGE"),
    )


class _Constants:
    """What a file states of its Lambda, each constant read with its rule. None where the file doesn't state it."""

    def __init__(self, tree: ast.Module, file: str) -> None:
        self.file = file
        self._tree = tree

    def state(self, name: str) -> ast.stmt | None:
        """The last statement at the top level that gives the name a value."""
        stated = [statement for statement in self._tree.body if name in _names_given(statement)]
        return stated[-1] if stated else None

    def integer(self, name: str, limits: tuple[int, int]) -> int | None:
        low, high = limits
        statement = self.state(name)
        if statement is None:
            return None
        value = self._literal(statement)
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise self._error(statement, f"{name} must be a whole number from {low} to {high}")
        return value

    def flag(self, name: str) -> bool:
        statement = self.state(name)
        if statement is None:
            return False
        value = self._literal(statement)
        if not isinstance(value, bool):
            raise self._error(statement, f"{name} must be True or False")
        return value

    def methods(self, name: str) -> tuple[str, ...] | None:
        statement = self.state(name)
        if statement is None:
            return None
        value = self._literal(statement)
        known = isinstance(value, tuple | list) and all(method in KNOWN_METHODS for method in value)
        if not known or not value or len(set(value)) < len(value):
            raise self._error(statement, f"{name} must be a tuple of different ones of {', '.join(KNOWN_METHODS)}")
        return tuple(value)

    def _literal(self, statement: ast.stmt) -> Any:
        match statement:
            case ast.Assign(targets=[ast.Name()], value=value) | ast.AnnAssign(value=ast.expr() as value):
                with suppress(ValueError, TypeError, RecursionError):
                    return ast.literal_eval(value)
        return None

    def _error(self, statement: ast.stmt, rule: str) -> HandlerFileError:
        found = " ".join(ast.unparse(statement).split())
        shown = found if len(found) <= 60 else f"{found[:60]} …"
        return HandlerFileError(
            f"{self.file}, line {statement.lineno}: {rule}, written as a literal at the top level, not `{shown}`."
        )


def _parse(path: Path, name: str) -> ast.Module:
    try:
        # Decoded first, as an import does: ast lets bytes of a wrong encoding pass where they stand in a comment.
        return ast.parse(decode_source(path.read_bytes()), filename=str(path))
    except (SyntaxError, ValueError) as error:
        line = getattr(error, "lineno", None)
        place = f"{name}, line {line}" if line else name
        raise HandlerFileError(f"{place} is not valid Python: {getattr(error, 'msg', error)}.") from error


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


def _names_given(statement: ast.stmt) -> set[str]:
    """As `_names_bound`, with names that an `if`, a loop or the like gives a value, or a tuple of names gets."""
    names = _names_bound(statement)
    if not isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        for part in ast.walk(statement):
            if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store):
                names.add(part.id)
            elif isinstance(part, ast.stmt):
                names |= _names_bound(part)
    return names
