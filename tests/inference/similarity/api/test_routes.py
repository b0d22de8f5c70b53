"""Which files are Lambdas: what counts as a handler, what its route is called, and what is said of broken files."""

from __future__ import annotations

from pathlib import Path

import pytest

from similarity.api.routes import HandlerFile, HandlerFileError, find_handlers
from tiny import ROOT

HANDLER = "def handler(event, context):\n    return {}\n"


def write(folder: Path, **modules: str) -> None:
    for module, source in modules.items():
        (folder / f"{module}.py").write_text(source, encoding="utf-8")


@pytest.mark.parametrize(
    "source",
    [
        HANDLER,
        "import functools\n\n@functools.cache\ndef handler(event, context): ...\n",
        "from similar import handler\n",
        "from elsewhere import answer as handler\n",
        "import elsewhere as handler\n",
        "handler = print\n",
        "first = handler = print\n",
        "handler: object = print\n",
        "\ufeff" + HANDLER,
        "# -*- coding: utf-8 -*-\n# Grüße\n" + HANDLER,
    ],
)
def test_a_file_that_binds_handler_at_its_top_level_is_a_handler_file(source: str, tmp_path: Path) -> None:
    write(tmp_path, similar=source)
    assert find_handlers(tmp_path) == [HandlerFile(tmp_path / "similar.py")]


@pytest.mark.parametrize(
    "source",
    [
        "",
        "def make():\n    def handler(event, context): ...\n    return handler\n",
        "class Routes:\n    def handler(self, event, context): ...\n",
        "class handler: ...\n",
        "def handle(event, context): ...\n",
        "handlers = []\n",
        "handler: object\n",
        "from similar import handler as similar\n",
        "import package.handler\n",
        "print(handler)\n",
        "routes.handler = print\n",
        '"""def handler(event, context): ..."""\n',
        # The Lambda runtime calls a handler; it would get a coroutine of this one.
        "async def handler(event, context): ...\n",
    ],
)
def test_a_file_that_binds_no_handler_at_its_top_level_is_none(source: str, tmp_path: Path) -> None:
    write(tmp_path, helpers=source)
    assert find_handlers(tmp_path) == []


def test_an_underscore_before_the_name_does_not_matter_but_the_handler_does(tmp_path: Path) -> None:
    write(tmp_path, _private="LIMIT = 3\n", similar=HANDLER)
    assert [found.module for found in find_handlers(tmp_path)] == ["similar"]


def test_finding_handlers_runs_nothing(tmp_path: Path) -> None:
    write(tmp_path, similar=f"import no_such_package\nopen({str(tmp_path / 'ran')!r}, 'w')\n{HANDLER}")
    assert [found.module for found in find_handlers(tmp_path)] == ["similar"]
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("module", "route", "command"),
    [
        ("similar", "/similar", "similar.handler"),
        ("text_to_db_similar", "/text-to-db-similar", "text_to_db_similar.handler"),
        ("text-to-embed", "/text-to-embed", "text-to-embed.handler"),
    ],
)
def test_route_and_command_follow_from_the_file_name(module: str, route: str, command: str, tmp_path: Path) -> None:
    write(tmp_path, **{module: HANDLER})
    (found,) = find_handlers(tmp_path)
    assert (found.module, found.route, found.command) == (module, route, command)
    assert found.path == tmp_path / f"{module}.py"


def test_handlers_come_in_the_order_of_their_names(tmp_path: Path) -> None:
    write(tmp_path, b=HANDLER, c=HANDLER, a=HANDLER)
    assert [found.route for found in find_handlers(tmp_path)] == ["/a", "/b", "/c"]


def test_two_files_for_one_route_are_refused_by_name(tmp_path: Path) -> None:
    write(tmp_path, a_b=HANDLER, **{"a-b": HANDLER})
    with pytest.raises(HandlerFileError) as caught:
        find_handlers(tmp_path)
    assert str(caught.value) == "a-b.py and a_b.py would both answer /a-b: rename one."


def test_a_file_without_handler_may_share_a_name(tmp_path: Path) -> None:
    write(tmp_path, a_b=HANDLER, **{"a-b": "LIMIT = 3\n"})
    assert [found.path.name for found in find_handlers(tmp_path)] == ["a_b.py"]


def test_a_syntax_error_names_file_and_line_in_one_line(tmp_path: Path) -> None:
    write(tmp_path, similar="import json\n\ndef handler(event, context:\n    return {}\n")
    with pytest.raises(HandlerFileError) as caught:
        find_handlers(tmp_path)
    assert str(caught.value).startswith("similar.py, line 3 is not valid Python: ")
    assert "\n" not in str(caught.value)
    assert str(tmp_path) not in str(caught.value)


@pytest.mark.parametrize("content", [b"x = 1\0\n" + HANDLER.encode(), b"\xff\xfe\x00", b"# \xe9\n" + HANDLER.encode()])
def test_a_file_that_is_no_text_is_named_in_one_line(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "similar.py").write_bytes(content)
    with pytest.raises(HandlerFileError) as caught:
        find_handlers(tmp_path)
    assert str(caught.value).startswith("similar.py")
    assert "is not valid Python" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_packages_subfolders_and_other_files_are_ignored(tmp_path: Path) -> None:
    for folder in ("package", "__pycache__", "tests", "folder.py"):
        (tmp_path / folder).mkdir()
        write(tmp_path / folder, __init__=HANDLER, similar=HANDLER)
    for name in ("similar.pyc", "similar.py.orig", "similar.txt", "Dockerfile"):
        (tmp_path / name).write_text(HANDLER)
    assert find_handlers(tmp_path) == []


def test_hidden_files_are_ignored(tmp_path: Path) -> None:
    write(tmp_path, similar=HANDLER)
    # What macOS keeps beside a file on a foreign disk, and the dangling link with which Emacs locks one.
    (tmp_path / "._similar.py").write_bytes(b"\x00\x05\x16\x07\x00\x02")
    (tmp_path / ".#similar.py").symlink_to("someone@somewhere.1234")
    assert [found.path.name for found in find_handlers(tmp_path)] == ["similar.py"]


def test_a_folder_without_files_has_no_handlers(tmp_path: Path) -> None:
    assert find_handlers(tmp_path) == []


def test_the_project_has_the_four_routes_of_its_contract() -> None:
    assert {found.route: found.path.name for found in find_handlers(ROOT / "inference")} == {
        "/similar": "similar.py",
        "/text-to-db-similar": "text_to_db_similar.py",
        "/embed-to-db-similar": "embed_to_db_similar.py",
        "/text-to-embed": "text_to_embed.py",
    }


def test_a_dot_in_the_name_is_refused_because_it_could_not_be_imported(tmp_path: Path) -> None:
    write(tmp_path, **{"similar.v2": HANDLER})
    with pytest.raises(
        HandlerFileError, match=r"^similar\.v2\.py can't be imported: a module's name has no dot in it\.$"
    ):
        find_handlers(tmp_path)
