"""The structure: which room may use which, and that no import leads back."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from similarity.api.routes import find_handlers
from tiny import ROOT

# A room, and the rooms that it may use. `similarity` stands for the modules directly in it.
MAY_USE = {
    "similarity.api": {"similarity", "similarity.incidents"},
    "similarity.encoder": {"similarity"},
    "similarity.incidents": {"similarity"},
    "similarity.explore": {"similarity", "similarity.api", "similarity.incidents"},
    # AIID's hash of a text is that of the text as encoders get it: transliterated.
    "similarity.sources": {"similarity", "similarity.incidents", "similarity.encoder"},
    "similarity.refresh": {
        *("similarity", "similarity.encoder", "similarity.inbox", "similarity.incidents", "similarity.sources")
    },
    "similarity.shelf": {"similarity", "similarity.encoder", "similarity.incidents"},
    "similarity.inbox": {"similarity", "similarity.incidents"},
    "jobs": {"similarity", "similarity.inbox", "similarity.incidents", "similarity.refresh", "similarity.shelf"},
    # The local server makes model and state by the commands at the top.
    "local": {"", "shared", "models", "states", "similarity"},
    # The local server makes the model and the state of the quick start.
    "asking": {"local", "shared", "similarity"},
    # Vectors are kept where a build keeps them.
    "evaluation": {"models", "shared", "similarity", "states"},
    "benchmarks": {"models", "shared", "similarity"},
    "costing": {"infrastructure", "similarity"},
    # Of the stack it needs the settings only. The smoke test is a command at the top.
    "deployment": {"", "aws", "costing", "deployment", "infrastructure", "shared", "similarity", "smoke"},
    "publishing": {"aws", "similarity", "smoke"},
    "smoke": {"aws", "similarity"},
    "aws": {"similarity"},
    "models": {"shared", "similarity"},
    "states": {"similarity"},
    "shared": set(),
}
FOLDERS = [ROOT / "infrastructure", ROOT / "inference", ROOT / "scripts"]


def module_of(path: Path) -> str:
    root = ROOT if path.is_relative_to(ROOT / "infrastructure") else ROOT / path.relative_to(ROOT).parts[0]
    return ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")


MODULES = {
    module_of(path): path
    for folder in FOLDERS
    for path in folder.rglob("*.py")
    # scripts/similar.py has the name of a handler. It has no code but `asking.similar`.
    if "model" not in path.relative_to(folder).parts and path != ROOT / "scripts" / "similar.py"
} | {"app": ROOT / "app.py"}


def room_of(module: str) -> str:
    return module if MODULES[module].name == "__init__.py" else module.rpartition(".")[0]


def imports(module: str) -> Iterator[str]:
    """The modules of ours that a module imports, at its top or in a function."""
    for node in ast.walk(ast.parse(MODULES[module].read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in MODULES)
        elif isinstance(node, ast.ImportFrom) and node.module:
            inside = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (name for name in inside if name in MODULES)
            if node.module in MODULES and not all(name in MODULES for name in inside):
                yield node.module


@pytest.mark.slow
def test_no_import_leads_back() -> None:
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, f"a circle: {' -> '.join([*path[path.index(module) :], module])}"
        if module not in done:
            for other in imports(module):
                visit(other, (*path, module))
            done.add(module)

    for module in MODULES:
        visit(module, ())
    assert len(done) > 60


@pytest.mark.parametrize("room", MAY_USE)
def test_a_room_uses_those_below_it_alone(room: str) -> None:
    members = [module for module in MODULES if module == room or module.startswith(f"{room}.")]
    assert members
    for module in members:
        used = {room_of(name) for name in imports(module)} - {room}
        top = "similarity" if room.startswith(("similarity", "jobs")) else None
        allowed = {name for name in used if name in MAY_USE[room] or name.partition(".")[0] in MAY_USE[room] - {top}}
        assert used == allowed, f"{module} uses {sorted(used - allowed)}"


@pytest.mark.slow
def test_handlers_load_nothing_that_speaks_with_s3() -> None:
    """They have no permission for it, and boto3 would slow down each start."""
    modules = [handler.module for handler in find_handlers(ROOT / "inference")]
    assert "similar" in modules
    program = f"""
import sys
import {", ".join(modules)}
print(sorted({{"boto3", "botocore", "similarity.inbox", "similarity.refresh", "jobs"}}.intersection(sys.modules)))
"""
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=ROOT / "inference", env=environment, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_every_folder_says_in_two_lines_what_belongs_there() -> None:
    for folder in FOLDERS:
        for path in [folder, *folder.rglob("*")]:
            if not path.is_dir() or not list(path.glob("*.py")) or path.name in ("inference", "scripts"):
                continue
            docstring = ast.get_docstring(ast.parse((path / "__init__.py").read_text(encoding="utf-8"))) or ""
            assert len(docstring.split("\n\n")) == 2, path
