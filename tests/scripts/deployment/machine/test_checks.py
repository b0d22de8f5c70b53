"""The checks of this machine, in their order: Python, handlers, Node and the CDK's command line, and all together."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from deployment import cdk
from deployment.findings import Finding, Outcome, ok, problem
from deployment.given import Given
from deployment.machine import checks
from deployment.machine.checks import (
    cdk_findings,
    handlers_findings,
    local_findings,
    python_finding,
)
from programs import calls_of, leave_path_empty, put_into_path, put_program
from similarity.incidents.state import IncidentState
from tiny import ROOT, copy_inference

ACCOUNT = {"AWS_ACCOUNT_ID": "123456789012", "AWS_REGION": "eu-west-1"}
ENV = "AWS_ACCOUNT_ID=123456789012\nAWS_REGION=eu-west-1\n"
ACTIVATE = "source .venv/bin/activate\nscripts/deploy does so itself"

# What npm prints without a network, and for a release that the registry lacks.
NO_NETWORK = """npm error code ENOTFOUND
npm error errno ENOTFOUND
npm error network request to https://registry.example/aws-cdk failed, reason: getaddrinfo ENOTFOUND registry.example
npm error network This is a problem related to network connectivity.
npm error network In most cases you are behind a proxy or have bad network settings.
npm error network
npm error network If you are behind a proxy, please make sure that the 'proxy' config is set properly.
npm error A complete log of this run can be found in: /home/me/.npm/_logs/2026-11-27T02_53_59_020Z-debug-0.log
"""
REFUSED = """npm error code ECONNREFUSED
npm error errno ECONNREFUSED
npm error FetchError: request to http://127.0.0.1:9/aws-cdk failed, reason: connect ECONNREFUSED 127.0.0.1:9
npm error     at ClientRequest.<anonymous> (/lib/node_modules/npm/node_modules/minipass-fetch/lib/index.js:130:14)
npm error   code: 'ECONNREFUSED',
npm error }
npm error
npm error A complete log of this run can be found in: /home/me/.npm/_logs/2026-11-27T02_53_57_571Z-debug-0.log
"""


def given_in(root: Path, **environment: str) -> Given:
    return Given.read(environment, root)


# Python


@pytest.mark.parametrize("version", [(3, 11), (3, 14)])
def test_a_supported_python_is_ok(version: tuple[int, int]) -> None:
    assert python_finding(version) == ok("Python", platform.python_version())


@pytest.mark.parametrize("version", [(3, 10), (3, 15), (4, 0)])
def test_another_python_is_a_problem(version: tuple[int, int]) -> None:
    found = python_finding(version)
    assert found == problem("Python", f"{version[0]}.{version[1]} isn't supported", "install Python 3.11 to 3.14")


def test_the_shell_knows_the_same_pythons() -> None:
    oldest, newest = checks.PYTHONS
    assert f"{oldest} <= sys.version_info[:2] <= {newest}" in (ROOT / "scripts" / "local" / "venv.sh").read_text()


# Handlers


@pytest.fixture
def project(tmp_path: Path) -> Path:
    copy_inference(tmp_path / "inference")
    return tmp_path


def handlers(project: Path) -> list[Finding]:
    return list(handlers_findings(given_in(project, **ACCOUNT)))


def test_handlers_and_jobs_are_ok(project: Path) -> None:
    [found] = handlers(project)
    assert found.outcome is Outcome.OK
    assert found.detail.startswith("7 handlers: embed_to_db_similar, explore, health, openapi, ")
    assert found.detail.endswith("; 2 jobs: refresh, shelve_state")


def test_a_page_that_is_not_deployed_is_not_named(project: Path) -> None:
    [found] = handlers_findings(given_in(project, **ACCOUNT, API_AUTH="iam"))
    assert found.detail.startswith("6 handlers: embed_to_db_similar, health, openapi, ")


def test_each_bad_file_is_a_problem(project: Path) -> None:
    (project / "inference" / "health.py").write_text("MEMORY_MIB = 1\ndef handler(event, context): ...\n")
    (project / "inference" / "jobs" / "refresh.py").write_text("def handler(:\n")
    first, second = handlers(project)
    assert first.detail.startswith("health.py, line 1: MEMORY_MIB must be a whole number from 128 to 10240")
    assert second.detail.startswith("jobs/refresh.py, line 1 is not valid Python")
    assert {(each.outcome, each.remedy) for each in (first, second)} == {
        (Outcome.PROBLEM, "correct that file in inference/")
    }


def test_without_the_job_that_a_deployment_calls_there_is_a_problem(project: Path) -> None:
    (project / "inference" / "jobs" / "shelve_state.py").unlink()
    [found] = handlers(project)
    assert found.is_problem
    assert found.detail.startswith("jobs/shelve_state.py with a `handler` isn't there")


def test_a_link_around_the_handlers_is_a_problem(project: Path) -> None:
    (project / "inference" / "model").mkdir()
    (project / "inference" / "model" / "more").symlink_to(project)
    found, handlers_found = handlers(project)
    assert found == problem(
        "Links",
        f"inference/model/more is a symbolic link to {project}, which holds inference/ itself",
        "rm inference/model/more\nor let it lead to the model's folder",
    )
    assert handlers_found.outcome is Outcome.OK


# Node and the CDK


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder in PATH with Node and npx."""
    folder = tmp_path / "bin"
    put_program(folder, "node", "v24.19.0\n")
    put_program(
        folder, "npx", "2.1148.1 (build fcf5e34)\n", 'npm warn Unknown user config "some". This will stop working.\n'
    )
    put_into_path(folder, monkeypatch)
    return folder


def cdk_found(root: Path) -> list[Finding]:
    return list(cdk_findings(given_in(root, **ACCOUNT)))


def test_node_and_the_pinned_release_are_ok(programs: Path, tmp_path: Path) -> None:
    assert cdk_found(tmp_path) == [ok("Node", "24.19.0"), ok("CDK", "command line 2.1148.1 (build fcf5e34)")]
    assert calls_of(programs / "npx") == [f"--yes {cdk.CDK} --version"]


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (NO_NETWORK, "request to https://registry.example/aws-cdk failed, reason: getaddrinfo ENOTFOUND"),
        (REFUSED, "FetchError: request to http://127.0.0.1:9/aws-cdk failed, reason: connect ECONNREFUSED 127.0.0.1:9"),
        ("npm error code ETARGET\nnpm error notarget No matching version found for aws-cdk@2.1148.1.\n", "No matching"),
        ("node: bad option: --some\n", "node: bad option: --some"),
    ],
)
def test_a_release_that_does_not_come_is_a_problem_with_npm_s_sentence(
    said: str, reason: str, programs: Path, tmp_path: Path
) -> None:
    put_program(programs, "npx", "", said, 1)
    _, found = cdk_found(tmp_path)
    assert found.is_problem
    assert found.detail.startswith(f"{cdk.CDK} can't be fetched or started: ")
    assert reason in found.detail
    assert "log of this run" not in found.detail
    assert found.remedy == "check the network, and npm's registry and proxy: npm config list"


def test_npm_that_hangs_is_a_problem(programs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checks, "CDK_TIMEOUT_S", 0.2)
    put_program(programs, "npx", instead="exec sleep 1000")
    _, found = cdk_found(tmp_path)
    assert found == problem(
        "CDK",
        f"{cdk.CDK} hasn't come from npm's registry within 0.2 s",
        f"try it alone: npx --yes {cdk.CDK} --version",
    )


def test_npm_gives_up_soon_and_asks_nobody_about_what_it_has(programs: Path, tmp_path: Path) -> None:
    put_program(programs, "npx", instead="env | grep '^npm_config_' | sort")
    _, found = cdk_found(tmp_path)
    for setting in ("npm_config_fetch_retries=1", "npm_config_prefer_offline=true"):
        assert setting in found.detail


def test_without_node_there_are_two_problems(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    leave_path_empty(tmp_path, monkeypatch)
    assert cdk_found(tmp_path) == [
        problem("Node", "node can't be started: No such file or directory", ACTIVATE),
        problem("CDK", "npx can't be started: No such file or directory", ACTIVATE),
    ]


def test_a_node_that_fails_is_a_problem(programs: Path, tmp_path: Path) -> None:
    put_program(programs, "node", "", "node: /lib/libc.so.6: version `GLIBC_2.28' not found (required by node)\n", 1)
    found, _ = cdk_found(tmp_path)
    assert found.is_problem
    assert "GLIBC_2.28" in found.detail


# All of them

NAMES = ["Python", "Settings", "Handlers", "Model", "Graph", "State", "Docker", "Platform", "Disk", "Node", "CDK"]


@pytest.fixture
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("CDK_DOCKER", "DOCKER_HOST", "DOCKER_BUILDKIT"):
        monkeypatch.delenv(name, raising=False)


def test_everything_is_there(
    project: Path,
    programs: Path,
    tiny_model_dir: Path,
    tiny_state: IncidentState,
    nothing_set: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = Path(shutil.copytree(tiny_model_dir, project / "inference" / "model"))
    tiny_state.save(model / "incident_cls.pt")
    (project / ".env").write_text(ENV)
    info = {
        "ServerVersion": "28.2.2",
        "Architecture": "x86_64",
        "DockerRootDir": str(project),
        "Name": platform.node(),
        "KernelVersion": platform.release(),
    }
    put_program(programs, "docker", json.dumps(info))
    monkeypatch.setattr("deployment.machine.disk._SPARE_BYTES", 0)
    monkeypatch.setattr("deployment.machine.disk._IMAGE_BYTES", {"onnx": 0})
    found = list(local_findings(given_in(project)))
    assert [each.name for each in found] == NAMES
    assert {each.outcome for each in found} == {Outcome.OK}


def test_everything_is_missing(tmp_path: Path, nothing_set: None, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "inference" / "jobs").mkdir(parents=True)
    leave_path_empty(tmp_path, monkeypatch)
    found = list(local_findings(given_in(tmp_path)))
    outcomes = {each.name: each.outcome for each in found}
    assert list(outcomes) == [*NAMES[:-2], "Docker's disk", *NAMES[-2:]]
    checked = {name for name, outcome in outcomes.items() if outcome is not Outcome.NOT_CHECKED}
    assert checked == set(NAMES) - {"Graph", "Platform"}
    assert {name for name, outcome in outcomes.items() if outcome is Outcome.PROBLEM} == checked - {"Python", "Disk"}
    for each in found:
        assert bool(each.remedy) >= each.is_problem
        assert not each.detail.endswith(".")


def test_an_error_that_nobody_foresees_does_not_hide_what_the_others_find(
    project: Path, programs: Path, nothing_set: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(given: Given) -> list[Finding]:
        raise MemoryError("too deep")

    monkeypatch.setattr("deployment.machine.checks.handlers_findings", fail)
    found = {each.name: each for each in local_findings(given_in(project, **ACCOUNT))}
    assert found["Handlers"].outcome is Outcome.NOT_CHECKED
    assert found["Handlers"].detail == "the check has failed: MemoryError: too deep"
    assert found["CDK"].outcome is Outcome.OK


@pytest.mark.slow
def test_the_checks_start_neither_torch_nor_node() -> None:
    """Each would take a second or more, before anything is found."""
    program = (
        "import sys, shared.command, deployment.machine.checks\n"
        "print(sorted({'torch', 'jsii', 'aws_cdk'}.intersection(sys.modules)))"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "scripts"), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert (done.stdout, done.stderr) == ("[]\n", "")
