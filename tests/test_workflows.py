"""GitHub's workflows: what they may do, and that the commands in them are those of the scripts.

That every action is pinned by commit is left to `test_locks.py`.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from arguments import require_parsed
from pages import DOCS, text_of
from similarity.inbox.bucket import DEPLOYED_PREFIX, HOLD_KEY, SERVED_KEY, STATE_KEY, STORE_KEY
from tiny import ROOT

FOLDER = ROOT / ".github" / "workflows"
REFRESH = FOLDER / "refresh.yml"
STATES = DOCS / "states.md"
Object = dict[str, Any]

# Takes the place of python: prints its arguments as a line of JSON.
PYTHON = f"""
python() {{ {sys.executable} -c 'import json, sys; print(json.dumps(sys.argv[1:]))' "$@"; }}
"""


def load(path: Path) -> Object:
    found: dict[Any, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    # YAML 1.1, which PyYAML reads, takes `on` for true.
    return {"on" if key is True else key: value for key, value in found.items()}


def job() -> Object:
    [found] = load(REFRESH)["jobs"].values()
    return dict(found)


def steps() -> list[Object]:
    return [dict(step) for step in job()["steps"]]


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
    assert load(REFRESH)["defaults"] == {"run": {"shell": "bash"}}  # with pipefail, as scripts/serve
    # Before all other commands, or they would run without packages.
    assert next(step["run"] for step in steps() if "run" in step) == install


def test_refresh_runs_once_a_week_after_the_snapshot_and_by_hand() -> None:
    on = load(REFRESH)["on"]
    assert set(on) == {"schedule", "workflow_dispatch"}
    [schedule] = on["schedule"]
    minute, hour, day, month, weekday = schedule["cron"].split()
    assert 0 < int(minute) < 60  # on the hour GitHub is busy, and drops runs
    assert 0 <= int(hour) < 12
    assert (day, month, weekday) == ("*", "*", "3")
    assert list(on["workflow_dispatch"]["inputs"]) == ["force"]
    assert on["workflow_dispatch"]["inputs"]["force"]["type"] == "boolean"
    assert on["workflow_dispatch"]["inputs"]["force"]["default"] is False


def test_refresh_may_read_the_code_and_prove_what_it_is_and_nothing_else() -> None:
    found = load(REFRESH)
    assert found["permissions"] == {"contents": "read", "id-token": "write"}
    assert "permissions" not in job()
    text = REFRESH.read_text(encoding="utf-8")
    assert "secrets" not in text
    assert "github.token" not in text
    [checkout] = [step for step in steps() if step.get("uses", "").startswith("actions/checkout@")]
    assert checkout["with"] == {"persist-credentials": False}


def test_refresh_skips_where_it_is_not_set_up() -> None:
    assert set(re.findall(r"vars\.(\w+) != ''", job()["if"])) == {"AWS_ROLE_ARN", "AWS_REGION"}
    assert "||" not in job()["if"]


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
    assert job()["env"] == {"STACK_NAME": "${{ vars.STACK_NAME }}"}


def test_refresh_runs_alone_and_is_not_stopped_by_another() -> None:
    assert load(REFRESH)["concurrency"] == {"group": "refresh", "cancel-in-progress": False}
    # GitHub's own limit is 360: https://docs.github.com/en/actions/reference/limits
    assert 120 <= job()["timeout-minutes"] < 360


def test_values_that_a_person_sets_reach_a_shell_as_variables_only() -> None:
    for path in sorted(FOLDER.glob("*.yml")):
        for each in load(path)["jobs"].values():
            assert [step["run"] for step in each["steps"] if "${{" in step.get("run", "")] == []


def test_the_page_names_the_variables_that_refresh_reads() -> None:
    _, _, section = text_of(STATES).partition("## Refresh from GitHub")
    named = set(re.findall(r"^\| `([A-Z_]+)` \|", section, re.MULTILINE))
    assert named == set(re.findall(r"vars\.(\w+)", REFRESH.read_text(encoding="utf-8")))


def policies() -> list[Object]:
    _, _, section = text_of(STATES).partition("## Refresh from GitHub")
    return [json.loads(block) for block in re.findall(r"```json\n(.*?)```", section, re.DOTALL)]


def test_the_role_trusts_one_branch_of_one_repository() -> None:
    trust, _ = policies()
    [statement] = trust["Statement"]
    assert statement["Action"] == "sts:AssumeRoleWithWebIdentity"
    issuer = "token.actions.githubusercontent.com"
    assert statement["Principal"]["Federated"].endswith(f":oidc-provider/{issuer}")
    assert statement["Condition"] == {
        "StringEquals": {
            f"{issuer}:aud": "sts.amazonaws.com",
            f"{issuer}:sub": "repo:OWNER/REPOSITORY:ref:refs/heads/main",
        }
    }


def test_the_role_may_look_at_the_stack_and_use_the_buckets_prefixes_and_nothing_else() -> None:
    _, permissions = policies()
    allowed: dict[str, set[str]] = {}
    for statement in permissions["Statement"]:
        assert statement["Effect"] == "Allow"
        actions, resources = statement["Action"], statement["Resource"]
        for action in [actions] if isinstance(actions, str) else actions:
            allowed.setdefault(action, set()).update([resources] if isinstance(resources, str) else resources)
    bucket = "arn:aws:s3:::BUCKET"
    written = {f"{bucket}/{key}" for key in (STATE_KEY, STORE_KEY, HOLD_KEY)}
    read = written | {f"{bucket}/{SERVED_KEY}", f"{bucket}/{DEPLOYED_PREFIX}*"}
    assert allowed == {
        "cloudformation:DescribeStacks": {"arn:aws:cloudformation:REGION:ACCOUNT:stack/AiidSimilarIncidents/*"},
        "s3:ListBucket": {bucket},
        "s3:ListBucketVersions": {bucket},
        "s3:GetObject": read,
        "s3:GetObjectVersion": read,
        "s3:PutObject": written,
        "execute-api:Invoke": {"arn:aws:execute-api:REGION:ACCOUNT:API/*/GET/health"},
    }
