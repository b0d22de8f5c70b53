"""Which files are Lambdas: what counts as a handler, what its route is called, and what is said of broken files."""

from __future__ import annotations

from pathlib import Path

import pytest

from similarity.api.routes import JOBS, KNOWN_METHODS, HandlerFile, HandlerFileError, find_handlers, methods_of
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


def test_the_project_has_the_routes_of_its_contract() -> None:
    assert {found.route: found.path.name for found in find_handlers(ROOT / "inference")} == {
        "/similar": "similar.py",
        "/text-to-db-similar": "text_to_db_similar.py",
        "/embed-to-db-similar": "embed_to_db_similar.py",
        "/text-to-embed": "text_to_embed.py",
        "/health": "health.py",
        "/openapi": "openapi.py",
        "/explore": "explore.py",
    }
    assert [found.route for found in find_handlers(ROOT / "inference") if found.page] == ["/explore"]


def test_a_dot_in_the_name_is_refused_because_it_could_not_be_imported(tmp_path: Path) -> None:
    write(tmp_path, **{"similar.v2": HANDLER})
    with pytest.raises(
        HandlerFileError, match=r"^similar\.v2\.py can't be imported: a module's name has no dot in it\.$"
    ):
        find_handlers(tmp_path)


def test_jobs_are_the_files_beside_the_handlers_that_define_one_and_run_as_modules_of_their_package(
    tmp_path: Path,
) -> None:
    (tmp_path / "jobs").mkdir()
    write(tmp_path / "jobs", __init__="", shelve_state=HANDLER, helper="LIMIT = 3\n")
    write(tmp_path, similar=HANDLER)
    (job,) = find_handlers(tmp_path, JOBS)
    assert (job.path, job.module, job.command) == (
        tmp_path / "jobs" / "shelve_state.py",
        "shelve_state",
        "jobs.shelve_state.handler",
    )
    assert [found.command for found in find_handlers(tmp_path)] == ["similar.handler"]


def test_without_a_folder_of_jobs_there_are_none(tmp_path: Path) -> None:
    assert find_handlers(tmp_path, JOBS) == []


def test_a_job_and_a_handler_may_share_a_name_and_jobs_a_route(tmp_path: Path) -> None:
    (tmp_path / "jobs").mkdir()
    write(tmp_path / "jobs", a_b=HANDLER, **{"a-b": HANDLER})
    write(tmp_path, a_b=HANDLER)
    assert [found.command for found in find_handlers(tmp_path, JOBS)] == ["jobs.a-b.handler", "jobs.a_b.handler"]
    assert [found.command for found in find_handlers(tmp_path)] == ["a_b.handler"]


def test_the_project_has_the_job_that_a_deployment_calls() -> None:
    commands = [found.command for found in find_handlers(ROOT / "inference", JOBS)]
    assert commands == ["jobs.refresh.handler", "jobs.shelve_state.handler"]


def test_a_file_that_states_nothing_leaves_all_to_the_settings(tmp_path: Path) -> None:
    write(tmp_path, similar=HANDLER)
    (found,) = find_handlers(tmp_path)
    assert (found.methods, found.memory_mib, found.timeout_s) == (("GET", "POST"), None, None)


@pytest.mark.parametrize(
    ("constants", "expected"),
    [
        ("TIMEOUT_S = 60\n", (("GET", "POST"), None, 60)),
        ("MEMORY_MIB = 128\nTIMEOUT_S = 900\n", (("GET", "POST"), 128, 900)),
        ("MEMORY_MIB: int = 10_240\nTIMEOUT_S: Final = 1\n", (("GET", "POST"), 10240, 1)),
        ('METHODS = ("GET",)\n', (("GET",), None, None)),
        ('METHODS = ["PUT", "DELETE"]\n', (("PUT", "DELETE"), None, None)),
        # As Python does, the last one counts.
        ("TIMEOUT_S = 60\nTIMEOUT_S = 30\n", (("GET", "POST"), None, 30)),
        # Names of other places.
        ("def other():\n    TIMEOUT_S = 5000\n", (("GET", "POST"), None, None)),
        ("class Other:\n    TIMEOUT_S = 5000\n", (("GET", "POST"), None, None)),
        ("print(TIMEOUT_S)\nother.TIMEOUT_S = 5000\n", (("GET", "POST"), None, None)),
    ],
)
def test_a_file_states_what_it_needs(
    constants: str, expected: tuple[tuple[str, ...], int | None, int | None], tmp_path: Path
) -> None:
    write(tmp_path, similar=f"import no_such_package\n\n{constants}\n{HANDLER}")
    (found,) = find_handlers(tmp_path)
    assert (found.methods, found.memory_mib, found.timeout_s) == expected


@pytest.mark.parametrize(
    ("statement", "rule"),
    [
        ("TIMEOUT_S = 0", "a whole number from 1 to 900"),
        ("TIMEOUT_S = 901", "a whole number from 1 to 900"),
        ("TIMEOUT_S = -60", "a whole number from 1 to 900"),
        ("TIMEOUT_S = 60.0", "a whole number from 1 to 900"),
        ("TIMEOUT_S = True", "a whole number from 1 to 900"),
        ("TIMEOUT_S = '60'", "a whole number from 1 to 900"),
        ("TIMEOUT_S = None", "a whole number from 1 to 900"),
        ("TIMEOUT_S = 2 * 30", "a whole number from 1 to 900"),
        ("TIMEOUT_S = minutes(1)", "a whole number from 1 to 900"),
        ("TIMEOUT_S += 1", "a whole number from 1 to 900"),
        ("TIMEOUT_S = LIMIT = 60", "a whole number from 1 to 900"),
        ("TIMEOUT_S, LIMIT = 60, 3", "a whole number from 1 to 900"),
        ("from similar import TIMEOUT_S", "a whole number from 1 to 900"),
        ("if True: TIMEOUT_S = 60", "a whole number from 1 to 900"),
        ("MEMORY_MIB = 127", "a whole number from 128 to 10240"),
        ("MEMORY_MIB = 10241", "a whole number from 128 to 10240"),
        ("METHODS = ()", "different ones of GET, HEAD, POST"),
        ("METHODS = 'GET'", "different ones of GET, HEAD, POST"),
        ("METHODS = ('get',)", "different ones of GET, HEAD, POST"),
        ("METHODS = ('GET', 'GET')", "different ones of GET, HEAD, POST"),
        # API Gateway answers it itself, for CORS.
        ("METHODS = ('OPTIONS',)", "different ones of GET, HEAD, POST"),
        ("METHODS = ('ANY',)", "different ones of GET, HEAD, POST"),
        ("METHODS = (GET, POST)", "different ones of GET, HEAD, POST"),
        ("METHODS = (['GET'],)", "different ones of GET, HEAD, POST"),
        ("PAGE = 1", "PAGE must be True or False"),
        ("PAGE = 'yes'", "PAGE must be True or False"),
        ("PAGE = None", "PAGE must be True or False"),
        ("PAGE = not False", "PAGE must be True or False"),
        ("PAGE = MAP = True", "PAGE must be True or False"),
        ("if True: PAGE = True", "PAGE must be True or False"),
    ],
)
def test_a_bad_constant_is_named_with_its_line_and_rule_in_one_line(statement: str, rule: str, tmp_path: Path) -> None:
    write(tmp_path, broken=f"import json\n\n{statement}\n\n{HANDLER}")
    with pytest.raises(HandlerFileError) as caught:
        find_handlers(tmp_path)
    message = str(caught.value)
    assert message.startswith("broken.py, line 3: ")
    assert rule in message
    assert "written as a literal at the top level" in message
    assert "\n" not in message
    assert str(tmp_path) not in message


def test_a_long_value_is_cut_in_the_message(tmp_path: Path) -> None:
    write(tmp_path, broken=f"TIMEOUT_S = {list(range(1000))}\n{HANDLER}")
    with pytest.raises(HandlerFileError) as caught:
        find_handlers(tmp_path)
    assert len(str(caught.value)) < 250


def test_a_constant_counts_in_handler_files_only(tmp_path: Path) -> None:
    write(tmp_path, helper="TIMEOUT_S = compute()\n")
    assert find_handlers(tmp_path) == []


@pytest.mark.parametrize("constant", ['METHODS = ("GET",)', "PAGE = True", "PAGE = False"])
def test_a_job_that_states_what_a_route_is_like_is_refused_because_it_has_none(constant: str, tmp_path: Path) -> None:
    (tmp_path / "jobs").mkdir()
    write(tmp_path / "jobs", tidy=f"{constant}\n{HANDLER}")
    name = constant.partition(" ")[0]
    with pytest.raises(HandlerFileError, match=rf"^jobs/tidy\.py has {name}, but a job has no route: remove it\.$"):
        find_handlers(tmp_path, JOBS)


@pytest.mark.parametrize(
    ("constant", "page"),
    [("", False), ("PAGE = True\n", True), ("PAGE: Final = True\n", True), ("PAGE = False\n", False)],
)
def test_a_file_states_whether_it_answers_with_a_page(constant: str, page: bool, tmp_path: Path) -> None:
    write(tmp_path, map=f"{constant}{HANDLER}")
    assert [found.page for found in find_handlers(tmp_path)] == [page]


def test_errors_name_a_job_with_its_folder(tmp_path: Path) -> None:
    (tmp_path / "jobs").mkdir()
    write(tmp_path / "jobs", tidy=f"MEMORY_MIB = 1\n{HANDLER}")
    with pytest.raises(HandlerFileError, match=r"^jobs/tidy\.py, line 1: "):
        find_handlers(tmp_path, JOBS)


def test_the_project_s_handlers_take_both_methods_but_for_three_and_end_after_a_minute() -> None:
    for found in find_handlers(ROOT / "inference"):
        methods = ("GET",) if found.route in ("/health", "/openapi", "/explore") else ("GET", "POST")
        assert (found.methods, found.timeout_s) == (methods, 60)


def test_methods_of_several_files_are_those_of_any_each_once_in_a_fixed_order(tmp_path: Path) -> None:
    write(
        tmp_path,
        a=f'METHODS = ("PUT",)\n{HANDLER}',
        b=f'METHODS = ("POST", "GET")\n{HANDLER}',
        c=f'METHODS = ("GET",)\n{HANDLER}',
    )
    assert methods_of(find_handlers(tmp_path)) == ["GET", "POST", "PUT"]
    assert methods_of([]) == []
    assert set(methods_of([HandlerFile(tmp_path / "a.py", methods=KNOWN_METHODS)])) == set(KNOWN_METHODS)
