"""The deployment from GitHub: what runs when, what its scripts do if something fails, and that its page is right.

Its scripts run in a repository of two commits, `old` and `new`, with stand-ins for this project's commands and for
`gh`. Nothing here has seen GitHub.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

from arguments import require_parsed
from buckets import REGION, raw_client, stand_in_for_aws
from deployment.account.asking import ACTIONS, Aws
from deployment.account.checks import aws_findings
from deployment.given import Given
from infrastructure import DESCRIPTION
from pages import DOCS, SHELL, literal, spans, table, text_of
from policies import allowed_by, policies_of
from similarity.inbox.bucket import DEPLOYED_PREFIX, SERVED_KEY, STATE_KEY
from similarity.settings import DEFAULT_STACK_NAME
from stack import ACCOUNT
from tiny import ROOT
from workflow_runs import FOLDER, Object, Run, filled, is_run, job, load, run_job, steps_of

PIPELINES = DOCS / "pipelines.md"

SET_UP = {"AWS_DIFF_ROLE_ARN": "arn:diff", "AWS_DEPLOY_ROLE_ARN": "arn:deploy", "AWS_REGION": "eu-west-1"}
NUMBER = 7
DEFAULT_STAGING_NAME = "AiidSimilarIncidentsStaging"

# What runs when.


def pull_request(repository: str | None = "owner/project", author: str = "someone") -> Object:
    """The context of a pull request's run. repository: the one of its branch; None if it was deleted."""
    head = {"repo": repository and {"full_name": repository}, "sha": "0123abc"}
    event = {"number": NUMBER, "pull_request": {"head": head, "user": {"login": author}}}
    return {
        "event_name": "pull_request",
        "ref": f"refs/pull/{NUMBER}/merge",
        "repository": "owner/project",
        "server_url": "https://github.example",
        "run_id": 42,
        "event": event,
    }


def on_branch(event: str, branch: str = "main") -> Object:
    return {"event_name": event, "ref": f"refs/heads/{branch}", "repository": "owner/project", "event": {}}


def jobs_that_run(github: Object, **variables: str) -> list[str]:
    """If each of them passes."""
    found: list[str] = []
    for name, each in load("deploy.yml")["jobs"].items():
        if each.get("needs", name) in (name, *found) and is_run(each, {"github": github, "vars": variables}):
            found.append(name)
    return found


def test_a_pull_request_is_compared_and_main_is_tested_and_deployed_to_staging_first() -> None:
    assert jobs_that_run(pull_request(), **SET_UP) == ["diff", "comment"]
    for event in ("push", "workflow_dispatch"):
        assert jobs_that_run(on_branch(event), **SET_UP) == ["test", "staging", "production"]
    assert jobs_that_run(on_branch("workflow_dispatch", "other"), **SET_UP) == []
    jobs = load("deploy.yml")["jobs"]
    assert {name: each.get("needs") for name, each in jobs.items()} == {
        "diff": None, "comment": "diff", "test": None, "staging": "test", "production": "staging"
    }  # fmt: skip


@pytest.mark.parametrize(
    "github",
    [pull_request("fork/project"), pull_request(None), pull_request(author="dependabot[bot]")],
    ids=["fork", "deleted fork", "Dependabot"],
)
def test_code_of_others_gets_no_role(github: Object) -> None:
    assert jobs_that_run(github, **SET_UP) == []


@pytest.mark.parametrize("missing", SET_UP)
def test_nothing_fails_where_it_is_not_set_up(missing: str) -> None:
    variables = {name: value for name, value in SET_UP.items() if name != missing}
    wants_diff, wants_deployment = missing == "AWS_DEPLOY_ROLE_ARN", missing == "AWS_DIFF_ROLE_ARN"
    assert jobs_that_run(pull_request(), **variables) == (["diff", "comment"] if wants_diff else [])
    rest = ["staging", "production"] if wants_deployment else []
    assert jobs_that_run(on_branch("push"), **variables) == ["test", *rest]


def test_an_if_of_a_job_asks_for_variables_of_the_repository_alone() -> None:
    """Those of an environment aren't known there. So the job that has an environment must ask for none."""
    assert "if" not in job("deploy-to.yml")
    assert job("deploy-to.yml")["environment"] == "${{ inputs.environment }}"


@pytest.mark.parametrize(
    ("name", "variables", "stack"),
    [
        ("staging", {}, DEFAULT_STAGING_NAME),
        ("staging", {"STAGING_STACK_NAME": "Try", "STACK_NAME": "Real"}, "Try"),
        ("production", {"STAGING_STACK_NAME": "Try"}, ""),
        ("production", {"STACK_NAME": "Real"}, "Real"),
    ],
)
def test_each_environment_has_its_stack(name: str, variables: dict[str, str], stack: str) -> None:
    given = job("deploy.yml", name)["with"]
    assert given["environment"] == name
    assert filled(given["stack"], {"vars": variables}) == stack
    assert job("deploy-to.yml")["env"]["STACK_NAME"] == "${{ inputs.stack }}"
    assert job("deploy.yml", "diff")["env"] == {"STACK_NAME": "${{ vars.STACK_NAME }}"}


def test_one_deployment_runs_at_a_time_and_none_is_stopped() -> None:
    concurrency = load("deploy.yml")["concurrency"]
    for github, stopped in ((pull_request(), "true"), (on_branch("push"), "false")):
        assert filled(concurrency["cancel-in-progress"], {"github": github}) == stopped
        assert filled(concurrency["group"], {"github": github}) == f"deploy-{github['ref']}"
    assert "concurrency" not in load("deploy-to.yml")


# The deployment.

# Notes its arguments with the name of the commit that it was called in, and exits with the code that CODES has for it.
PYTHON = f"""#!{sys.executable}
import json, os, sys
from pathlib import Path
if sys.argv[1] == "-c":
    os.execv(sys.executable, [sys.executable, *sys.argv[1:]])
call = [Path("commit").read_text(), *sys.argv[1:]]
with Path(os.environ["CALLS"]).open("a") as file:
    file.write(json.dumps(call) + "\\n")
if "fetch_model" in call[1]:
    Path("inference/model").mkdir(exist_ok=True)
    Path("inference/model/model.safetensors").write_text(call[0])
codes = json.loads(os.environ["CODES"])
sys.exit(codes.get(f"{{call[0]}} {{call[1]}}", codes.get(call[1], 0)))
"""

GH = f"""#!{sys.executable}
import json, os, sys
from pathlib import Path
arguments = sys.argv[1:]
with Path(os.environ["CALLS"]).open("a") as file:
    file.write(json.dumps(["gh", *arguments]) + "\\n")
assert os.environ["GH_TOKEN"] and os.environ["GH_REPO"] == "owner/project"
if arguments[:2] == ["run", "list"]:
    runs = json.loads(os.environ["RUNS"])
    if runs is None:
        sys.exit("HTTP 403")
    options = dict(zip(arguments[2::2], arguments[3::2]))
    assert options == {{
        "--workflow": "deploy.yml", "--branch": "main", "--status": "success", "--limit": "100",
        "--json": "headSha,event", "--jq": '[.[] | select(.event != "pull_request")][0].headSha // empty',
    }}, options
    print(next((run["headSha"] for run in runs if run["event"] != "pull_request"), ""))
"""

# As scripts/local/venv.sh, which puts the venv's python first in PATH.
VENV = """
ensure_venv() {
    [ "$*" = requirements.txt ]
    mkdir -p .venv
    PATH=$PWD/../bin:$PATH
}
"""


@dataclass
class Project:
    """A repository with two commits, and the stand-ins."""

    folder: Path

    def git(self, *arguments: str) -> str:
        given = ["-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "init.defaultBranch=main"]
        ran = subprocess.run(["git", *given, *arguments], cwd=self.folder, capture_output=True, text=True, check=True)
        return ran.stdout.strip()

    def commit(self, name: str) -> str:
        (self.folder / "commit").write_text(name)
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", name)
        return self.git("rev-parse", "HEAD")

    @property
    def calls(self) -> list[list[str]]:
        path = self.folder.parent / "calls"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def environment(self, codes: dict[str, int], runs: list[Object] | None) -> dict[str, str]:
        return {
            "PATH": f"{self.folder.parent / 'bin'}:/usr/bin:/bin",
            "CALLS": str(self.folder.parent / "calls"),
            "CODES": json.dumps(codes),
            "RUNS": json.dumps(runs),
        }

    def deploy(
        self, codes: dict[str, int] | None = None, runs: list[Object] | None = None, hit: str = "", **variables: str
    ) -> Run:
        """Runs the job. codes: with which commands exit. runs: that gh lists. hit: whether the model was cached."""
        contexts = {
            "vars": {"DOT_ENV": "AWS_ACCOUNT_ID=1\nTAGS='a=b $c'", **variables},
            "inputs": {"environment": "staging", "stack": "Staging"},
            "github": {"repository": "owner/project", "token": "a-token"},
            "steps": {"cache": {"outputs": {"cache-hit": hit}}},
        }
        return run_job(job("deploy-to.yml"), self.folder, contexts, self.environment(codes or {}, runs))


@pytest.fixture
def project(tmp_path: Path) -> Project:
    found = Project(tmp_path / "project")
    for name, text in (("python", PYTHON), ("gh", GH)):
        path = tmp_path / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        path.chmod(0o755)
    (found.folder / "scripts" / "local").mkdir(parents=True)
    (found.folder / "scripts" / "local" / "venv.sh").write_text(VENV)
    (found.folder / "scripts" / "deploy").write_text('#!/bin/sh\nexec python deploy "stack=$STACK_NAME" "$@"\n')
    (found.folder / "scripts" / "deploy").chmod(0o755)
    (found.folder / ".github").mkdir()
    shutil.copy(FOLDER.parent / "deploy.sh", found.folder / ".github")
    shutil.copy(ROOT / ".gitignore", found.folder)
    (found.folder / "inference").mkdir()
    (found.folder / "inference" / "handler.py").write_text("")
    found.git("init", "--quiet")
    return found


OLD_AND_NEW = [
    ["scripts/fetch_model.py"],
    ["scripts/publish_state.py", "--fetch-state", "inference/model/incident_cls.pt"],
]
DEPLOY = ["deploy", "stack=Staging", "--yes"]


def parts(commit: str) -> list[list[str]]:
    return [[commit, *call] for call in (*OLD_AND_NEW, DEPLOY)]


@pytest.mark.slow
def test_a_deployment_gets_model_and_state_and_deploys(project: Project) -> None:
    project.commit("new")
    run = project.deploy()
    assert not run.failed, run.printed
    assert project.calls == parts("new")
    assert (project.folder / ".env").read_text() == "AWS_ACCOUNT_ID=1\nTAGS='a=b $c'\n"
    assert run.done == [
        "actions/checkout", "actions/setup-python", "Write the settings", "actions/cache/restore", "Get the model",
        "actions/cache/save", "aws-actions/configure-aws-credentials", "Get the state",
        "aws-actions/configure-aws-credentials", "Deploy",
    ]  # fmt: skip


@pytest.mark.slow
def test_a_model_that_was_cached_is_neither_fetched_nor_cached_again(project: Project) -> None:
    project.commit("new")
    run = project.deploy(hit="true")
    assert not run.failed
    assert project.calls == parts("new")[1:]
    assert "actions/cache/save" not in run.done


def test_the_cache_has_the_model_alone_and_is_made_anew_for_another_one() -> None:
    restore, save = (step for step in steps_of(job("deploy-to.yml")) if "actions/cache/" in step.get("uses", ""))
    assert restore["with"]["path"] == save["with"]["path"] == "inference/model"
    assert save["with"]["key"] == "${{ steps.cache.outputs.cache-primary-key }}"
    # State and other precisions come after the model was put into the cache, see above.
    hashed = re.search(r"hashFiles\((.*?)\)", restore["with"]["key"])
    assert hashed
    patterns = re.findall(r"'([^']+)'", hashed[1])
    assert [each for each in patterns if not list(ROOT.glob(each))] == []
    assert filled(restore["with"]["key"], {"vars": {"MODEL_COMMAND": "a.py --b"}}).endswith("-a.py --b")
    for path in ("scripts/fetch_model.py", "scripts/models/quick_start.py", "scripts/models/onnx_graph.py"):
        assert any(Path(path).match(each.replace("/**", "/*")) for each in patterns), path


@pytest.mark.slow
@pytest.mark.parametrize(
    ("variables", "built"),
    [
        ({}, ["--vectors", "published"]),
        ({"BUILD_OPTIONS": "--vectors computed --max-tokens 1000"}, ["--vectors", "computed", "--max-tokens", "1000"]),
    ],
)
def test_a_state_is_built_only_if_there_is_none_to_fetch(
    variables: dict[str, str], built: list[str], project: Project
) -> None:
    project.commit("new")
    assert not project.deploy({"scripts/publish_state.py": 3}, None, "", **variables).failed
    model, state, deploy = parts("new")
    assert project.calls == [model, state, ["new", "scripts/build_state.py", "--latest", *built], deploy]


@pytest.mark.slow
@pytest.mark.parametrize("code", [1, 2, 130])
def test_if_the_state_can_not_be_fetched_nothing_is_deployed_and_nothing_deployed_again(
    code: int, project: Project
) -> None:
    passed = project.commit("old")
    project.commit("new")
    run = project.deploy({"scripts/publish_state.py": code}, [{"headSha": passed, "event": "push"}])
    assert run.failed
    assert run.done[-1] == "Get the state"
    assert project.calls == parts("new")[:2]


def exported(precision: str, commit: str = "new") -> list[str]:
    return [commit, "scripts/export_onnx.py", "inference/model", "--precision", precision]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("dot_env", "precision"),
    [
        ("ENCODER_PRECISION=int8", "int8"),
        ("# x\nexport ENCODER_PRECISION = 'int8'", "int8"),
        ("ENCODER_PRECISION=auto", "int8"),
        ("ENCODER_PRECISION=auto\nENCODER_ENGINE=torch", "bfloat16"),
        ("ENCODER_PRECISION=bfloat16\nENCODER_ENGINE=torch", "bfloat16"),
        ("ENCODER_PRECISION=float32", None),
        ("ENCODER_PRECISION=", None),
    ],
)
def test_a_lower_precision_is_exported_with_the_state_if_the_settings_want_it(
    dot_env: str, precision: str | None, project: Project
) -> None:
    project.commit("new")
    command = "convert_encoder.py --quick-start --out inference/model"
    assert not project.deploy(DOT_ENV=dot_env, MODEL_COMMAND=command).failed
    _, state, deploy = parts("new")
    export = [exported(precision)] if precision else []
    assert project.calls == [["new", *f"scripts/{command}".split()], state, *export, deploy]


@pytest.mark.slow
def test_an_earlier_commit_exports_its_own(project: Project) -> None:
    passed = project.commit("old")
    (project.folder / "only-new.txt").write_text("")
    project.commit("new")
    runs: list[Object] = [{"headSha": passed, "event": "push"}]
    assert project.deploy({"new deploy": 1}, runs, DOT_ENV="ENCODER_PRECISION=auto").failed
    assert [call for call in project.calls if "scripts/export_onnx.py" in call] == [
        exported("int8", commit) for commit in ("new", "old")
    ]


@pytest.mark.slow
def test_without_its_export_auto_is_deployed_and_int8_is_not(project: Project) -> None:
    """Most machines of GitHub can't export int8: they lack AVX-512."""
    project.commit("new")
    fails = {"scripts/export_onnx.py": 1}
    run = project.deploy(fails, DOT_ENV="ENCODER_PRECISION=auto")
    assert not run.failed
    assert "::warning::int8 could not be exported (see above), so float32 will serve." in run.printed
    assert project.calls[-1] == parts("new")[-1]
    run = project.deploy(fails, DOT_ENV="ENCODER_PRECISION=int8")
    assert run.failed
    assert run.done[-1] == "Get the state"


@pytest.mark.slow
def test_the_commands_take_their_arguments(
    project: Project, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    project.commit("new")
    project.deploy({"scripts/publish_state.py": 3}, DOT_ENV="ENCODER_PRECISION=int8")
    *calls, (_, _, _, *options) = project.calls
    assert len(calls) == 4
    for _, script, *arguments in calls:
        assert (ROOT / script).is_file()
        require_parsed(Path(script).stem, arguments, monkeypatch, capsys)
    # scripts/deploy gives its arguments to this.
    require_parsed("deployment.deploy", options, monkeypatch, capsys)


@pytest.mark.slow
@pytest.mark.parametrize("again", [True, False])
def test_if_a_deployment_fails_the_last_commit_that_has_passed_is_deployed_again(again: bool, project: Project) -> None:
    """Once that succeeds, and once not. The run fails in any case."""
    passed = project.commit("old")
    (project.folder / "only-new.txt").write_text("")
    new = project.commit("new")
    fork = {"headSha": new, "event": "pull_request"}
    codes = {"new deploy": 1} if again else {"deploy": 1}
    run = project.deploy(codes, [fork, {"headSha": passed, "event": "push"}, {"headSha": "0", "event": "push"}])
    assert run.failed
    assert run.done[-4:] == [
        "Deploy", "Find the last commit that has passed", "aws-actions/configure-aws-credentials",
        "Deploy that commit again",
    ]  # fmt: skip
    assert [call for call in project.calls if call[0] != "gh"] == [*parts("new"), *parts("old")]
    assert project.git("rev-parse", "HEAD") == passed
    assert not (project.folder / "only-new.txt").exists()
    # Ignored files stay.
    assert (project.folder / ".env").read_text().startswith("AWS_ACCOUNT_ID=1")
    assert (project.folder / "inference" / "model" / "model.safetensors").read_text() == "old"
    assert (project.folder / ".venv").is_dir()
    assert (f"{passed}, which has passed before, is deployed again." in run.printed) is again


@pytest.mark.slow
@pytest.mark.parametrize(
    ("events", "message"),
    [
        ([], "none has passed before. CloudFormation has rolled back"),
        (["pull_request"], "none has passed before"),
        (["workflow_dispatch"], "the last one that has passed is this one"),
        (None, "HTTP 403"),
    ],
)
def test_without_an_earlier_success_nothing_is_deployed_again(
    events: list[str] | None, message: str, project: Project
) -> None:
    project.commit("old")
    new = project.commit("new")
    runs = None if events is None else [{"headSha": new, "event": event} for event in events]
    run = project.deploy({"deploy": 1}, runs)
    assert run.failed
    assert message in run.printed
    assert run.done[-1] == "Find the last commit that has passed"
    assert [call for call in project.calls if call[0] != "gh"] == parts("new")


@pytest.mark.slow
def test_a_commit_that_a_forced_push_has_removed_is_not_deployed_again(project: Project) -> None:
    project.commit("new")
    gone = "0123456789" * 4
    run = project.deploy({"deploy": 1}, [{"headSha": gone, "event": "push"}])
    assert run.failed
    assert f"{gone}, which has passed before, is on no branch any more." in run.printed
    assert run.done[-1] == "Find the last commit that has passed"


@pytest.mark.skipif(not shutil.which("jq"), reason="needs jq, in whose language gh filters")
@pytest.mark.parametrize(
    ("runs", "found"),
    [
        ([], ""),
        ([("pull_request", "a")], ""),
        ([("pull_request", "a"), ("workflow_dispatch", "b"), ("push", "c")], "b"),
    ],
)
def test_runs_of_pull_requests_do_not_count(runs: list[tuple[str, str]], found: str) -> None:
    [script] = [step["run"] for step in steps_of(job("deploy-to.yml")) if "gh run list" in step.get("run", "")]
    wanted = re.search(r"--jq '([^']+)'", script)
    assert wanted
    given = json.dumps([{"event": event, "headSha": commit} for event, commit in runs])
    ran = subprocess.run(["jq", "-r", wanted[1]], input=given, capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == found


def test_a_role_is_taken_before_each_step_that_may_come_an_hour_later() -> None:
    found = steps_of(job("deploy-to.yml"))
    roles = [number for number, step in enumerate(found) if "configure-aws-credentials" in step.get("uses", "")]
    assert [found[number + 1]["name"] for number in roles] == ["Get the state", "Deploy", "Deploy that commit again"]
    assert job("deploy-to.yml")["timeout-minutes"] >= 60  # a first deployment takes 20, and may have to be undone


def test_the_commit_to_go_back_to_is_there() -> None:
    [checkout] = [step for step in steps_of(job("deploy-to.yml")) if "checkout" in step.get("uses", "")]
    assert checkout["with"]["fetch-depth"] == 0


# The comparison.


def test_the_job_that_comments_runs_no_code_of_the_pull_request() -> None:
    used = [step["uses"].partition("@")[0] for step in steps_of(job("deploy.yml", "comment")) if "uses" in step]
    assert used == ["actions/download-artifact"]


@pytest.mark.slow
def test_the_comparison_is_that_of_the_pinned_command_line(project: Project) -> None:
    project.commit("new")
    contexts = {"vars": {**SET_UP, "DOT_ENV": "AWS_ACCOUNT_ID=1"}, "github": pull_request()}
    run = run_job(job("deploy.yml", "diff"), project.folder, contexts, project.environment({}, None))
    assert not run.failed, run.printed
    [[_, script, *_]] = project.calls
    assert project.calls == [["new", "scripts/deployment/cdk.py", "diff", "--method=template", "--no-color"]]
    assert (ROOT / script).is_file()
    assert (project.folder / ".env").read_text() == "AWS_ACCOUNT_ID=1\n"
    # A command line that fails isn't hidden by what reads it.
    assert run_job(job("deploy.yml", "diff"), project.folder, contexts, project.environment({script: 1}, None)).failed


def comment(diff: bytes, folder: Path) -> str:
    """The comment that the job writes."""
    (folder / "job").mkdir()
    (folder / "job" / "diff.txt").write_bytes(diff)
    gh = folder / "bin" / "gh"
    gh.parent.mkdir()
    gh.write_text(GH)
    gh.chmod(0o755)
    contexts = {"github": {**pull_request(), "token": "a-token"}}
    environment = Project(folder / "job").environment({}, None)
    run = run_job(job("deploy.yml", "comment"), folder / "job", contexts, environment)
    assert not run.failed, run.printed
    assert Project(folder / "job").calls == [
        ["gh", "pr", "comment", str(NUMBER), "--edit-last", "--create-if-none", "--body-file", "comment.md"]
    ]
    # As Go reads it, which gh is written in.
    return (folder / "job" / "comment.md").read_bytes().decode(errors="replace")


def code_of(text: str) -> tuple[str, list[str]]:
    """The block of code in a comment, and the lines after it: https://spec.commonmark.org/0.31.2/#fenced-code-blocks"""
    first, empty, fence, *lines = text.splitlines()
    assert first == "This is how 0123abc changes the deployed stack:"
    assert (empty, fence) == ("", "```")
    end = next(number for number, line in enumerate(lines) if re.fullmatch(r" {0,3}`{3,}[ \t]*", line))
    return "\n".join(lines[:end]), lines[end + 1 :]


WHY_THE_IMAGE = "The image's tag always differs here, because the model isn't fetched for this."
CUT = "It is cut here. [The run](https://github.example/owner/project/actions/runs/42) has all of it."


@pytest.mark.slow
def test_the_comment_has_the_whole_comparison(tmp_path: Path) -> None:
    diff = "Stack A\n  \\n $HOME `date` %s\n└─ [~] Ünïcode\n[-] last"
    assert code_of(comment(diff.encode(), tmp_path)) == (diff, [WHY_THE_IMAGE])


@pytest.mark.slow
@pytest.mark.parametrize("line", ["[+] AWS::Lambda::Function", "│ + │ ├───", "😀", "```" * 30])
def test_a_long_comparison_is_cut(line: str, tmp_path: Path) -> None:
    diff = f"{line}\n" * (200_000 // len(line) + 1)
    text = comment(diff.encode(), tmp_path)
    # https://github.com/orgs/community/discussions/27190
    assert len(text) <= 65_536
    code, after = code_of(text)
    assert after == [CUT, WHY_THE_IMAGE]
    assert diff.replace("`", "'").startswith(code.replace("`", "'").rstrip("\ufffd\n"))
    assert len(code.encode()) > 55_000


@pytest.mark.slow
@pytest.mark.parametrize(
    "hostile",
    [
        "```\n@everyone <img src=x>\n",
        "a\n``````\n[link](https://example.org)",
        "~~~\n```` \n```js\n",
        "   ```\r\n</pre>\n",
        "`````",
    ],
)
def test_a_comparison_can_not_leave_its_block_of_code(hostile: str, tmp_path: Path) -> None:
    code, after = code_of(comment(hostile.encode(), tmp_path))
    assert code.replace("'", "`").split() == hostile.split()
    assert after == [WHY_THE_IMAGE]


@pytest.mark.slow
def test_bytes_that_are_no_text_do_not_stop_the_comment(tmp_path: Path) -> None:
    _, after = code_of(comment(b"Stack \xff\xfe A\n\x80 ```\n", tmp_path))
    assert after == [WHY_THE_IMAGE]


# The page.


def test_the_page_names_the_variables_that_the_workflows_read() -> None:
    read = set()
    for name in ("deploy.yml", "deploy-to.yml"):
        read |= set(re.findall(r"vars\.(\w+)", (FOLDER / name).read_text(encoding="utf-8")))
    assert {literal(name) for name, _ in table(PIPELINES, "| variable | value |")} == read


def test_the_page_says_which_variables_an_environment_can_have() -> None:
    """Those that are read where the environment is known, and not given to the job from outside."""
    [sentence] = re.findall(r"An\s+environment can have its own (.*?)\.\s", text_of(PIPELINES), re.DOTALL)
    read = re.findall(r"vars\.(\w+)", (FOLDER / "deploy-to.yml").read_text(encoding="utf-8"))
    assert set(spans(sentence)) == set(read)


TRUSTED = {
    "The role that compares": "PREFIX:pull_request",
    "The role that deploys": ["PREFIX:environment:staging", "PREFIX:environment:production"],
}


@pytest.mark.parametrize("title", TRUSTED)
def test_a_role_trusts_jobs_of_one_repository_alone(title: str) -> None:
    trust, _ = policies_of(PIPELINES, title)
    [statement] = trust["Statement"]
    assert statement["Action"] == "sts:AssumeRoleWithWebIdentity"
    issuer = "token.actions.githubusercontent.com"
    assert statement["Principal"] == {"Federated": f"arn:aws:iam::ACCOUNT:oidc-provider/{issuer}"}
    assert statement["Condition"] == {
        "StringEquals": {f"{issuer}:aud": "sts.amazonaws.com", f"{issuer}:sub": TRUSTED[title]}
    }


def test_the_environments_are_those_that_the_role_trusts() -> None:
    environments = [job("deploy.yml", name)["with"]["environment"] for name in ("staging", "production")]
    assert TRUSTED["The role that deploys"] == [f"PREFIX:environment:{name}" for name in environments]


def test_the_role_that_compares_reads_the_template_of_one_stack() -> None:
    """`deploy/test_comparison.py` counts what the CDK's command line asks for."""
    _, permissions = policies_of(PIPELINES, "The role that compares")
    stack = "arn:aws:cloudformation:REGION:ACCOUNT:stack/AiidSimilarIncidents/*"
    assert allowed_by(permissions) == {"cloudformation:DescribeStacks": {stack}, "cloudformation:GetTemplate": {stack}}


def test_the_role_that_deploys_takes_the_roles_of_the_cdk_and_reads_what_the_command_asks_for() -> None:
    _, permissions = policies_of(PIPELINES, "The role that deploys")
    allowed = allowed_by(permissions)
    roles = ("deploy", "file-publishing", "image-publishing", "lookup")
    assert allowed.pop("sts:AssumeRole") == {
        f"arn:aws:iam::ACCOUNT:role/cdk-hnb659fds-{role}-role-ACCOUNT-REGION" for role in roles
    }
    assert allowed.pop("execute-api:Invoke") == {"arn:aws:execute-api:REGION:ACCOUNT:*"}
    bucket = "arn:aws:s3:::aiidsimilarincidents*"
    assert allowed.pop("s3:ListBucket") == {bucket}
    objects = {f"{bucket}/{key}" for key in (SERVED_KEY, STATE_KEY, f"{DEPLOYED_PREFIX}*")}
    assert allowed.pop("s3:GetObject") == allowed.pop("s3:GetObjectVersion") == objects
    # The reasons of a failure are read too, by deployment/failures.py. AWS lets everybody ask who he is.
    assert set(allowed) == {*ACTIONS, "cloudformation:DescribeStackEvents"} - {"sts:GetCallerIdentity"}
    for action, resources in allowed.items():
        if action.startswith("cloudformation:"):
            bootstrap = {"CDKToolkit"} if action == "cloudformation:DescribeStacks" else set()
            assert resources == {named(name) for name in {DEFAULT_STACK_NAME, DEFAULT_STAGING_NAME} | bootstrap}
        assert re.fullmatch(r"[a-z0-9-]+:(Describe|Get|List|GET)\w*", action), "it may only read"


def named(stack: str) -> str:
    """The ARN by which a policy names a stack."""
    return f"arn:aws:cloudformation:REGION:ACCOUNT:stack/{stack}/*"


@pytest.mark.slow
def test_the_role_that_deploys_may_look_at_all_that_the_checks_look_at(monkeypatch: pytest.MonkeyPatch) -> None:
    """IAM refuses a permission of the right name for another stack or parameter."""
    asked: list[tuple[str, str]] = []

    def noted(method: Callable[..., Any]) -> Callable[..., Any]:
        def asking(aws: Aws, action: str, *rest: str, **parameters: Any) -> Any:
            asked.append((action, str(parameters.get("StackName") or parameters.get("Name") or "")))
            return method(aws, action, *rest, **parameters)

        return asking

    monkeypatch.setattr(Aws, "ask", noted(Aws.ask))
    monkeypatch.setattr(Aws, "all_of", noted(Aws.all_of))
    with stand_in_for_aws(monkeypatch):
        template = {"Description": DESCRIPTION, "Resources": {"Topic": {"Type": "AWS::SNS::Topic"}}}
        raw_client("cloudformation").create_stack(StackName=DEFAULT_STAGING_NAME, TemplateBody=json.dumps(template))
        settings = {"AWS_ACCOUNT_ID": ACCOUNT, "AWS_REGION": REGION, "STACK_NAME": DEFAULT_STAGING_NAME}
        assert list(aws_findings(replace(Given.read(settings, Path("/nowhere")), root=ROOT)))
    allowed = allowed_by(policies_of(PIPELINES, "The role that deploys")[1])
    assert ("cloudformation:ListStackResources", DEFAULT_STAGING_NAME) in asked
    for action, name in asked:
        if action.startswith("cloudformation:"):
            assert named(name) in allowed[action]
        elif action == "ssm:GetParameter":
            assert f"arn:aws:ssm:REGION:ACCOUNT:parameter{name}" in allowed[action]
        elif action != "sts:GetCallerIdentity":
            assert allowed[action] == {"*"}


@pytest.mark.slow
def test_the_commands_that_set_it_up_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the real AWS CLI and a stand-in for IAM, which refuses policies that IAM wouldn't read."""
    for title, name in (("The role that compares", "diff"), ("The role that deploys", "deploy")):
        for policy, suffix in zip(policies_of(PIPELINES, title), ("-trust", ""), strict=True):
            text = json.dumps(policy).replace("ACCOUNT", "123456789012").replace("REGION", "eu-west-1")
            text = text.replace("PREFIX", "repo:an-owner@123456/a-repository@456789")
            (tmp_path / f"{name}{suffix}.json").write_text(text)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    try:
        host, port = server.get_host_and_port()
        keys = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_DEFAULT_REGION": "eu-west-1"}
        environment = {
            **keys,
            "PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin",
            "AWS_ENDPOINT_URL": f"http://{host}:{port}",
            "AWS_CONFIG_FILE": str(tmp_path / "none"),
            "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "none"),
        }
        commands = [command.line for block in SHELL if block.page == PIPELINES for command in block.commands()]
        # Only GitHub itself can be asked this.
        commands.remove("gh api repos/OWNER/REPOSITORY/actions/oidc/customization/sub --jq .sub_claim_prefix")

        def run(given: list[str]) -> list[str]:
            for command in given:
                subprocess.run(command, shell=True, cwd=tmp_path, env=environment, check=True, capture_output=True)
            return [" ".join(command.split()[:3]) for command in given]

        assert run(commands[:5]) == [
            "aws iam create-open-id-connect-provider",
            *["aws iam create-role", "aws iam put-role-policy"] * 2,
        ]
        for name, value in keys.items():
            monkeypatch.setenv(name, value)
        iam = boto3.client("iam", endpoint_url=environment["AWS_ENDPOINT_URL"])
        [provider] = iam.list_open_id_connect_providers()["OpenIDConnectProviderList"]
        for name in ("diff", "deploy"):
            role = iam.get_role(RoleName=f"aiid-{name}")["Role"]
            [statement] = role["AssumeRolePolicyDocument"]["Statement"]
            assert statement["Principal"] == {"Federated": provider["Arn"]}
            found = iam.get_role_policy(RoleName=f"aiid-{name}", PolicyName=name)["PolicyDocument"]
            assert found == json.loads((tmp_path / f"{name}.json").read_text())
        assert run(commands[5:]) == ["aws iam delete-role-policy", "aws iam delete-role"] * 2
        assert iam.list_roles()["Roles"] == []
    finally:
        server.stop()
