"""Schemathesis makes thousands of requests of /openapi, sends them to the local server, and looks at the answers."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests

from openapi_documents import answers_closed
from processes import PATIENCE_S
from proxy import Exchange, proxy
from serving import Server, environment, serving
from similarity.api.routes import find_handlers
from similarity.incidents.state import IncidentState
from tiny import ROOT, fitted_state

# docs/development.md says why others are left out.
CHECKS = (
    *("not_a_server_error", "status_code_conformance", "content_type_conformance"),
    *("response_headers_conformance", "response_schema_conformance"),
)
LEAST_REQUESTS = 2000
_LINE = re.compile(r'"([A-Z]+) (/[\w-]+)\S* HTTP/1\.1" (\d+)')


@pytest.fixture(scope="module")
def server(
    tmp_path_factory: pytest.TempPathFactory, tiny_model_dir: Path, tiny_state: IncidentState
) -> Iterator[Server]:
    """Its state has the data of all metrics, a merged incident, and dates that aren't all known."""
    folder = tmp_path_factory.mktemp("server")
    dates = ["2020-01-31", "", "2021-02-28", "", "2026-11-26"]
    state = dataclasses.replace(fitted_state(tiny_state, 0.0), dates=dates, duplicates=np.array([[5, 4]]))
    state.save(folder / "state.pt")
    with serving(folder, "--model", tiny_model_dir, "--state", folder / "state.pt") as found:
        yield found


def schemathesis(url: str, folder: Path, *options: str) -> tuple[dict[str, Any], str]:
    """The report of a run, and what it printed. The same requests each time, however slow the machine is."""
    report, path = folder / "report.json", folder / "openapi.json"
    document = requests.get(f"{url}/openapi", timeout=PATIENCE_S).json()
    path.write_text(json.dumps(answers_closed(document)), encoding="utf-8")
    command = [
        *(sys.executable, "-m", "schemathesis.cli", "--no-color", "run", str(path), "--url", url),
        *("--checks", ",".join(CHECKS), "--seed", "1", "--generation-database", "none"),
        *("--suppress-health-check", "all", "--request-timeout", str(PATIENCE_S)),
        *("--report", "json", "--report-json-path", str(report), *options),
    ]
    done = subprocess.run(
        command, cwd=folder, env=environment(), capture_output=True, text=True, timeout=2 * PATIENCE_S
    )
    assert done.returncode in (0, 1), done.stdout + done.stderr
    found: dict[str, Any] = json.loads(report.read_text(encoding="utf-8"))
    return found, done.stdout


@pytest.mark.slow
def test_no_answer_is_an_error_of_the_server_or_breaks_its_schema(
    server: Server, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    report, printed = schemathesis(server.url, tmp_path, "--phases", "examples,coverage,fuzzing", "-n", "220")
    record_property("figures", printed.partition("SUMMARY")[2].partition("Reports:")[0].strip(" =\n"))
    assert (report["failures"], report["errors"], report["exit_code"]) == ([], [], 0), printed
    operations = sum(len(file.methods) for file in find_handlers(ROOT / "inference"))
    assert report["operations"]["tested"] == report["operations"]["total"] == operations
    # The server has counted, too.
    answers = Counter(_LINE.findall(server.output))
    assert sum(answers.values()) >= LEAST_REQUESTS
    assert report["test_cases"]["generated"] >= LEAST_REQUESTS
    routes = {route for _, route, _ in answers}
    for route in ("/similar", "/text-to-db-similar", "/embed-to-db-similar", "/text-to-embed"):
        for method in ("GET", "POST"):
            # Many are answered, and many refused.
            assert answers[method, route, "200"] >= 20, (method, route)
            assert answers[method, route, "400"] >= 20, (method, route)
    assert {"/health", "/openapi"} <= routes
    assert not [status for _, _, status in answers if status >= "500"]


def break_answers(exchange: Exchange) -> None:
    """Breaks the answers of each route in a way of its own."""
    body = exchange.method in ("GET", "POST") and exchange.status == 200
    match exchange.route:
        case "/similar" if body:
            exchange.change_body(lambda found: found["incidents"][0].update(undescribed=1))
        case "/text-to-db-similar" if body:
            exchange.change_body(lambda found: found.pop("state"))
        case "/text-to-embed":
            exchange.headers["content-type"] = "text/plain"
        case "/health":
            exchange.status = 418
        case "/embed-to-db-similar":
            exchange.status, exchange.content = 500, b'{"message": "Internal Server Error"}'


@pytest.mark.slow
def test_answers_that_are_broken_are_found(server: Server, tmp_path: Path) -> None:
    with proxy(server.url, break_answers) as url:
        report, printed = schemathesis(url, tmp_path, "--phases", "coverage", "--mode", "positive")
    found = {
        (failure["type"], operation.partition(" ")[2])
        for failure in report["failures"]
        for operation in failure["operations"]
    }
    assert report["exit_code"] == 1
    assert found == {
        ("JsonSchemaError", "/similar"),
        ("JsonSchemaError", "/text-to-db-similar"),
        ("UndefinedContentType", "/text-to-embed"),
        ("UndefinedStatusCode", "/health"),
        ("ServerError", "/embed-to-db-similar"),
    }, printed
