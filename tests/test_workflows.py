"""GitHub's workflows: what each may do; and of refresh, that its commands are those of the scripts.

That every action is pinned by commit is left to `test_locks.py`, the deployment to `test_deploy_workflow.py`.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from arguments import require_parsed
from pages import DOCS, text_of
from policies import allowed_by, policies_of
from processes import PATIENCE_S, Command
from similarity.inbox.bucket import DEPLOYED_PREFIX, HOLD_KEY, SERVED_KEY, STATE_KEY, STORE_KEY
from tiny import ROOT
from workflow_runs import FOLDER, WORKFLOWS, Object, job, load, steps_of

STATES = DOCS / "states.md"

# Takes the place of python: prints its arguments as a line of JSON.
PYTHON = f"""
python() {{ {sys.executable} -c 'import json, sys; print(json.dumps(sys.argv[1:]))' "$@"; }}
"""

READ_CODE, PROVE = {"contents": "read"}, {"id-token": "write"}
# The permissions of each job. A reusable workflow gets those of the job that calls it, and asks for no more.
PERMISSIONS = {
    ("deploy.yml", "diff"): READ_CODE | PROVE,
    ("deploy.yml", "comment"): {"pull-requests": "write"},
    ("deploy.yml", "test"): READ_CODE,
    ("deploy.yml", "staging"): READ_CODE | PROVE | {"actions": "read"},
    ("deploy.yml", "production"): READ_CODE | PROVE | {"actions": "read"},
    ("deploy-to.yml", "deploy"): READ_CODE | PROVE | {"actions": "read"},
    ("refresh.yml", "refresh"): READ_CODE | PROVE,
    ("test.yml", "test"): READ_CODE,
}
ROLES = {"deploy.yml": "AWS_DIFF_ROLE_ARN", "deploy-to.yml": "AWS_DEPLOY_ROLE_ARN", "refresh.yml": "AWS_ROLE_ARN"}


def uses(step: Object, action: str) -> bool:
    return str(step.get("uses", "")).startswith(f"{action}@")


def test_zizmor_finds_nothing() -> None:
    """It knows how workflows are attacked. Of what it would find, .github/zizmor.yml leaves one thing out."""
    ran = subprocess.run(
        [
            *(Path(sys.executable).parent / "zizmor", "--offline", "--persona=auditor", "--strict-collection"),
            *("--collect=all", "--no-progress", "--color=never", ROOT / ".github"),
        ],
        env={"PATH": os.environ["PATH"]}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        timeout=PATIENCE_S,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout
    for name in (*(f"workflows/{each}" for each in WORKFLOWS), "dependabot.yml"):
        assert re.search(rf"completed \S*\.github/{name}$", ran.stdout, re.MULTILINE), name


def test_zizmor_would_find_something(tmp_path: Path) -> None:
    text = (FOLDER / "deploy-to.yml").read_text(encoding="utf-8")
    path = tmp_path / "deploy-to.yml"
    path.write_text(text.replace('"$COMMIT"', "${{ steps.passed.outputs.commit }}"))
    command: Command = [Path(sys.executable).parent / "zizmor", "--offline", "--persona=auditor", "--no-progress", path]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S)
    assert ran.returncode != 0
    assert "template-injection" in ran.stdout


@pytest.mark.parametrize("name", WORKFLOWS)
def test_each_job_has_the_permissions_that_it_needs(name: str) -> None:
    workflow = load(name)
    found = {
        (name, key): {**workflow["permissions"], **each.get("permissions", {})}
        for key, each in workflow["jobs"].items()
    }
    assert found == {key: value for key, value in PERMISSIONS.items() if key[0] == name}


@pytest.mark.parametrize("name", WORKFLOWS)
def test_no_workflow_has_keys_and_none_leaves_its_token_in_the_folder(name: str) -> None:
    assert "secrets" not in (FOLDER / name).read_text(encoding="utf-8")
    for each in load(name)["jobs"].values():
        for step in steps_of(each):
            if uses(step, "actions/checkout"):
                assert step["with"]["persist-credentials"] is False
            # The token of a run is for GitHub's own command alone.
            assert ("github.token" in str(step)) == ("gh " in step.get("run", "")), step


@pytest.mark.parametrize("name", WORKFLOWS)
def test_values_that_a_person_sets_reach_a_shell_as_variables_only(name: str) -> None:
    for each in load(name)["jobs"].values():
        assert [step["run"] for step in steps_of(each) if "${{" in step.get("run", "")] == []


@pytest.mark.parametrize("name", WORKFLOWS)
def test_each_workflow_takes_its_own_role(name: str) -> None:
    taken = [
        step["with"]
        for each in load(name)["jobs"].values()
        for step in steps_of(each)
        if uses(step, "aws-actions/configure-aws-credentials")
    ]
    assert bool(taken) == (name in ROLES)
    for given in taken:
        assert given == {
            "role-to-assume": f"${{{{ vars.{ROLES[name]} }}}}", "aws-region": "${{ vars.AWS_REGION }}"
        }  # fmt: skip


@pytest.mark.parametrize("name", sorted({*WORKFLOWS} - {"test.yml"}))
def test_scripts_of_a_workflow_stop_at_the_first_failure(name: str) -> None:
    """GitHub's own default is without pipefail, which scripts/local/venv.sh needs."""
    assert load(name)["defaults"] == {"run": {"shell": "bash"}}


def test_main_is_tested_once() -> None:
    assert load("test.yml")["on"] == {
        "push": {"branches-ignore": ["main"]},
        "pull_request": None,
        "workflow_call": None,
    }
    assert load("deploy.yml")["on"]["push"] == {"branches": ["main"]}
    assert job("deploy.yml", "test")["uses"] == "./.github/workflows/test.yml"


def steps() -> list[Object]:
    """Of refresh."""
    return steps_of(job("refresh.yml"))


def commands(**variables: str) -> list[list[str]]:
    """The arguments of each python that the steps run. variables: of the steps' environments; others are empty."""
    found = []
    for step in steps():
        if "python " not in (script := step.get("run", "")):
            continue
        environment = {name: variables.get(name, "") for name in step.get("env", {})}
        ran = subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", PYTHON + script],
            cwd=ROOT, env={"PATH": "/usr/bin:/bin", **environment}, capture_output=True, text=True, check=True,
        )  # fmt: skip
        found += [json.loads(line) for line in ran.stdout.splitlines()]
    return found


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"BUILD_OPTIONS": "--vectors computed --responses exclude --max-tokens 1000", "FORCE": "--force"},
        {"MODEL_COMMAND": "fetch_model.py --model some/longformer --revision 0123456789"},
        {"MODEL_COMMAND": "convert_encoder.py --quick-start --out inference/model"},
    ],
)
def test_the_commands_of_refresh_take_their_arguments(
    variables: dict[str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = commands(**variables)
    model = variables.get("MODEL_COMMAND", "fetch_model.py").split()
    assert found == [
        [f"scripts/{model[0]}", *model[1:]],
        ["scripts/publish_state.py", "--fetch-vectors"],
        ["scripts/build_state.py", "--latest", *variables.get("BUILD_OPTIONS", "").split()],
        ["scripts/publish_state.py", "inference/model/incident_cls.pt", *variables.get("FORCE", "").split()],
    ]
    for path, *options in found:
        assert (ROOT / path).is_file(), path
        require_parsed(Path(path).stem, options, monkeypatch, capsys)


def test_refresh_installs_as_scripts_serve_does() -> None:
    [install] = [step["run"] for step in steps() if "venv.sh" in step.get("run", "")]
    lines = install.splitlines()
    assert lines[:2] == [". scripts/local/venv.sh", "ensure_venv requirements.txt"]
    assert "ensure_venv requirements.txt" in (ROOT / "scripts" / "serve").read_text()
    # Before all other commands, or they would run without packages.
    assert next(step["run"] for step in steps() if "run" in step) == install


def test_refresh_runs_once_a_week_after_the_snapshot_and_by_hand() -> None:
    on = load("refresh.yml")["on"]
    assert set(on) == {"schedule", "workflow_dispatch"}
    [schedule] = on["schedule"]
    minute, hour, day, month, weekday = schedule["cron"].split()
    assert 0 < int(minute) < 60  # on the hour GitHub is busy, and drops runs
    assert 0 <= int(hour) < 12
    assert (day, month, weekday) == ("*", "*", "3")
    assert list(on["workflow_dispatch"]["inputs"]) == ["force"]
    assert on["workflow_dispatch"]["inputs"]["force"]["type"] == "boolean"
    assert on["workflow_dispatch"]["inputs"]["force"]["default"] is False


def test_refresh_skips_where_it_is_not_set_up() -> None:
    assert set(re.findall(r"vars\.(\w+) != ''", job("refresh.yml")["if"])) == {"AWS_ROLE_ARN", "AWS_REGION"}
    assert "||" not in job("refresh.yml")["if"]


def test_refresh_takes_a_role_before_it_reads_the_bucket_and_again_after_the_build() -> None:
    """Credentials of a role end after an hour."""
    kinds = []
    for step in steps():
        if step.get("uses", "").startswith("aws-actions/configure-aws-credentials@"):
            given = {"role-to-assume": "${{ vars.AWS_ROLE_ARN }}", "aws-region": "${{ vars.AWS_REGION }}"}
            assert step["with"] == given
            kinds.append("role")
        elif found := re.search(r"python scripts/(build|publish)_state\.py", step.get("run", "")):
            kinds.append(found[1])
    assert kinds == ["role", "publish", "build", "role", "publish"]


def test_refresh_publishes_to_the_stack_that_a_variable_names() -> None:
    assert job("refresh.yml")["env"] == {"STACK_NAME": "${{ vars.STACK_NAME }}"}


def test_refresh_runs_alone_and_is_not_stopped_by_another() -> None:
    assert load("refresh.yml")["concurrency"] == {"group": "refresh", "cancel-in-progress": False}
    # GitHub's own limit is 360: https://docs.github.com/en/actions/reference/limits
    assert 120 <= job("refresh.yml")["timeout-minutes"] < 360


def test_the_page_names_the_variables_that_refresh_reads() -> None:
    _, _, section = text_of(STATES).partition("## Refresh from GitHub")
    named = set(re.findall(r"^\| `([A-Z_]+)` \|", section, re.MULTILINE))
    assert named == set(re.findall(r"vars\.(\w+)", (FOLDER / "refresh.yml").read_text(encoding="utf-8")))


def test_the_role_trusts_one_branch_of_one_repository() -> None:
    trust, _ = policies_of(STATES, "Refresh from GitHub")
    [statement] = trust["Statement"]
    assert statement["Action"] == "sts:AssumeRoleWithWebIdentity"
    issuer = "token.actions.githubusercontent.com"
    assert statement["Principal"]["Federated"].endswith(f":oidc-provider/{issuer}")
    assert statement["Condition"] == {
        "StringEquals": {
            f"{issuer}:aud": "sts.amazonaws.com",
            f"{issuer}:sub": "PREFIX:ref:refs/heads/main",
        }
    }


def test_the_role_may_look_at_the_stack_and_use_the_buckets_prefixes_and_nothing_else() -> None:
    _, permissions = policies_of(STATES, "Refresh from GitHub")
    bucket = "arn:aws:s3:::BUCKET"
    written = {f"{bucket}/{key}" for key in (STATE_KEY, STORE_KEY, HOLD_KEY)}
    read = written | {f"{bucket}/{SERVED_KEY}", f"{bucket}/{DEPLOYED_PREFIX}*"}
    assert allowed_by(permissions) == {
        "cloudformation:DescribeStacks": {"arn:aws:cloudformation:REGION:ACCOUNT:stack/AiidSimilarIncidents/*"},
        "s3:ListBucket": {bucket},
        "s3:ListBucketVersions": {bucket},
        "s3:GetObject": read,
        "s3:GetObjectVersion": read,
        "s3:PutObject": written,
        "execute-api:Invoke": {"arn:aws:execute-api:REGION:ACCOUNT:API/*/GET/health"},
    }
