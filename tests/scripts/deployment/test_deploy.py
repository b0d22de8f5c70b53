"""`scripts/deploy`, in its own part: the order of the steps, what stops it, and what it says at the end.

What is played: the checks, the CDK's command line and the smoke test, which have tests of their own. CloudFormation is
moto's. `tests/deploy` rehearses the whole command.
"""

from __future__ import annotations

from shared.command import INFERENCE_DIR

import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from aws.stack import StackError
from buckets import REGION, raw_client, stand_in_for_aws
from costing.rows import at_rest
from deployment import deploy
from deployment.findings import Finding, not_checked, note, ok, problem
from deployment.given import Given
from full_disk import full_stdout
from infrastructure.config import Config

ACCOUNT = "123456789012"
API = "https://abcdef1234.execute-api.eu-west-1.amazonaws.com"
TOPIC = {"Type": "AWS::SNS::Topic", "Properties": {"TopicName": "a-topic"}}
FINE = [ok("Docker", "28.1 answers"), note("Disk", "a little"), not_checked("Memory", "Service Quotas doesn't tell")]


def put_out(**more: str) -> str:
    outputs = {"apiUrl": API, "stateBucketName": "a-bucket", **more}
    return json.dumps(
        {"Resources": {"A": TOPIC}, "Outputs": {name: {"Value": value} for name, value in outputs.items()}}
    )


@dataclass
class Stage:
    """What is played. cdk_ends: what a command of the CDK does; it returns its exit code."""

    findings: list[Finding] = field(default_factory=lambda: list(FINE))
    outputs: dict[str, str] = field(default_factory=dict)
    cdk_ends: dict[str, Callable[[], int]] = field(default_factory=dict)
    smoke_code: int = 0
    commands: list[list[str]] = field(default_factory=list)
    names: set[str] = field(default_factory=set)
    smoke: list[list[str]] = field(default_factory=list)

    def cdk(self, arguments: list[str], root: Path, environment: dict[str, str]) -> int:
        self.commands.append(arguments)
        self.names.add(environment["STACK_NAME"])
        return self.cdk_ends.get(arguments[0], lambda: 0)()

    def make_stack(self) -> int:
        [name] = self.names
        raw_client("cloudformation").create_stack(StackName=name, TemplateBody=put_out(**self.outputs))
        return 0

    def smoke_test(self, arguments: list[str]) -> int:
        self.smoke.append(arguments)
        return self.smoke_code


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Stage]:
    found = Stage()
    found.cdk_ends["deploy"] = found.make_stack
    read = Given.read
    monkeypatch.setattr(Given, "read", lambda environment, stack_name: read(environment, tmp_path, stack_name))
    monkeypatch.setattr("deployment.deploy.local_findings", lambda given: iter(found.findings))
    monkeypatch.setattr("deployment.deploy.aws_findings", lambda given: iter([]))
    monkeypatch.setattr("deployment.cdk.run", found.cdk)
    monkeypatch.setattr("smoke_test.main", found.smoke_test)
    with stand_in_for_aws(monkeypatch):
        monkeypatch.setenv("AWS_ACCOUNT_ID", ACCOUNT)
        yield found


def test_it_deploys_what_it_shows_and_tests_it(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    assert deploy.main(["--yes"]) == 0
    assembly = stage.commands[0][-1]
    assert stage.commands == [
        ["synth", "--quiet", "--output", assembly],
        ["diff", "--app", assembly],
        ["deploy", "AiidSimilarIncidents", "--app", assembly, "--require-approval", "never"],
    ]
    assert stage.names == {"AiidSimilarIncidents"}
    assert stage.smoke == [[API, "--origin", "http://localhost:3000"]]
    out = capsys.readouterr().out
    assert "1 ok, 1 note, 1 not checked." in out
    rows = dict(line.split(None, 1) for line in out.splitlines()[-4:])
    assert rows["API"] == API
    assert f"It costs {at_rest(Config(account=ACCOUNT, region=REGION), INFERENCE_DIR).text}.\n" in out
    # With the name, because the environment of this run may have set it.
    assert out.splitlines()[-1].split(None, 2) == ["remove", "it", "scripts/destroy --stack AiidSimilarIncidents"]


def test_each_deployment_has_a_folder_of_its_own_and_removes_it(stage: Stage, tmp_path: Path) -> None:
    """A copy that a stopped run has left there isn't taken, and another run may go on beside this one."""
    left, seen = tmp_path / "cdk.out" / "asset.0123", []
    left.mkdir(parents=True)

    def look() -> int:
        folder = tmp_path / stage.commands[-1][-1]
        seen.append(folder)
        assert list(folder.iterdir()) == []
        (folder / "asset.0123").mkdir()
        return 0

    stage.cdk_ends["synth"] = look
    stage.cdk_ends["diff"] = interrupt
    for _ in range(2):
        assert deploy.main(["--yes"]) == 1
    assert seen[0] != seen[1]
    assert list((tmp_path / "cdk.out").iterdir()) == [left]


def test_what_a_killed_run_has_left_is_removed_after_a_day(stage: Stage, tmp_path: Path) -> None:
    old, new, other = (tmp_path / "cdk.out" / name for name in ("deploy-old", "deploy-new", "asset.0123"))
    for folder in (old, new, other):
        folder.mkdir(parents=True)
        (folder / "a").touch()
    for folder in (old, other):
        os.utime(folder, (time.time() - 90_000,) * 2)
    assert deploy.main(["--yes"]) == 0
    assert set((tmp_path / "cdk.out").iterdir()) == {new, other}


def test_a_folder_that_cannot_be_written_is_told(
    stage: Stage, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "cdk.out").touch()
    assert deploy.main(["--yes"]) == 1
    assert "cdk.out can't be written: File exists; nothing was deployed" in capsys.readouterr().err
    assert stage.commands == []


def test_settings_that_change_after_the_checks_are_not_deployed(
    stage: Stage, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def change() -> int:
        (tmp_path / ".env").write_text("API_AUTH=iam\n")
        return 0

    stage.cdk_ends["synth"] = change
    assert deploy.main(["--yes"]) == 1
    assert [command[0] for command in stage.commands] == ["synth"]
    assert "the settings have changed since the checks, so nothing was deployed" in capsys.readouterr().err


def test_a_command_line_that_cannot_be_started_is_told(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    def is_gone() -> int:
        raise FileNotFoundError(2, "No such file or directory")

    stage.cdk_ends["synth"] = is_gone
    assert deploy.main(["--yes"]) == 1
    assert capsys.readouterr().err == "deploy: `cdk synth` can't be started: No such file or directory\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a file that can't be written")
def test_output_that_cannot_be_written_is_told_in_a_line(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with full_stdout(monkeypatch), pytest.raises(SystemExit, match="1"):
        deploy.main(["--check"])
    assert capfd.readouterr().err == "deploy: stdout can't be written: No space left on device\n"


def test_the_name_of_the_stack_reaches_the_app_and_is_in_the_command_that_removes_it(
    stage: Stage, capsys: pytest.CaptureFixture[str]
) -> None:
    assert deploy.main(["--yes", "--stack", "Staging"]) == 0
    assert stage.names == {"Staging"}
    assert stage.commands[-1][1] == "Staging"
    assert capsys.readouterr().out.rstrip().endswith("scripts/destroy --stack Staging")


def test_settings_of_the_stack_are_those_of_the_smoke_test_and_of_the_last_lines(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("ALLOWED_ORIGINS", "https://example.org,https://example.com")
    monkeypatch.setenv("DOMAIN_NAME", "similar.example.org")
    monkeypatch.setenv("CERTIFICATE_ARN", f"arn:aws:acm:{REGION}:{ACCOUNT}:certificate/0123")
    monkeypatch.setenv("ALARM_EMAIL", "me@example.org")
    stage.outputs = {"apiAuth": "iam", "domainTarget": "d-0123.example.com", "dashboardUrl": "https://a.dashboard"}
    assert deploy.main(["--yes"]) == 0
    assert stage.smoke == [[API, "--origin", "https://example.org", "--sign"]]
    out = capsys.readouterr().out
    assert f"try it      python scripts/smoke_test.py {API} --sign" in out
    assert "make a CNAME record of similar.example.org that leads to d-0123.example.com" in out
    assert "dashboard   https://a.dashboard" in out
    # A stack whose requests have to be signed has none.
    assert not [line for line in out.splitlines() if line.startswith("page ")]
    assert "AWS has sent a mail to me@example.org" in out


def test_the_page_s_address_is_among_the_last_lines(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    stage.outputs = {"apiAuth": "none", "pageUrl": f"{API}/explore"}
    assert deploy.main(["--yes"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert f"page        {API}/explore" in lines[-5:]


def test_with_a_problem_nothing_is_deployed(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    stage.findings += [problem("Bootstrap", "it isn't there", "npx aws-cdk@2 bootstrap")] * 2
    assert deploy.main(["--yes"]) == 1
    assert stage.commands == []
    printed = capsys.readouterr()
    assert printed.out.count("-> npx aws-cdk@2 bootstrap") == 2
    assert printed.err.startswith(
        "deploy: nothing was deployed: solve the 2 problems above, and give the same command again\n"
    )
    # The Python of the tests isn't the one of the project in the temporary folder.
    assert printed.err.endswith(" && source .venv/bin/activate\n")


def test_a_shell_is_told_what_the_remedies_need(tmp_path: Path) -> None:
    root, active = tmp_path / "a project", {"VIRTUAL_ENV": str(tmp_path / "a project" / ".venv")}
    assert deploy.preparation(root, root, active) == ""
    assert deploy.preparation(root, root, {}) == "source .venv/bin/activate"
    assert deploy.preparation(root, root, {"VIRTUAL_ENV": "/another"}) == "source .venv/bin/activate"
    assert deploy.preparation(root, tmp_path, active) == f"cd '{root}'"
    assert deploy.preparation(root, tmp_path, {}) == f"cd '{root}' && source .venv/bin/activate"


@pytest.mark.parametrize(("more", "code"), [([], 0), ([problem("a", "b", "c")], 1)])
def test_checking_only_checks(more: list[Finding], code: int, stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    stage.findings += more
    assert deploy.main(["--check"]) == code
    assert ("without --check deploys" in capsys.readouterr().err) is (code == 0)
    assert stage.commands == []


@pytest.mark.parametrize(("answer", "code"), [("y", 0), ("YES", 0), ("n", 1), ("", 1), (None, 1)])
def test_it_asks(answer: str | None, code: int, stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def reply(question: str) -> str:
        asked.append(question)
        if answer is None:
            raise EOFError
        return answer

    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", reply)
    assert deploy.main([]) == code
    [question] = asked
    assert f"account {ACCOUNT} in {REGION}, as AiidSimilarIncidents?" in question
    assert ("deploy" in [command[0] for command in stage.commands]) == (code == 0)


def test_without_a_terminal_it_does_not_begin(stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        deploy.main([])
    assert "there is no terminal at which to ask" in capsys.readouterr().err
    assert stage.commands == []


@pytest.mark.parametrize("failing", ["synth", "diff"])
def test_what_cannot_be_shown_is_not_deployed(failing: str, stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    stage.cdk_ends[failing] = lambda: 1
    assert deploy.main(["--yes"]) == 1
    assert stage.commands[-1][0] == failing
    assert f"`cdk {failing}` failed, see above; nothing was deployed" in capsys.readouterr().err


def test_a_deployment_that_fails_before_cloudformation_is_told_from_one_that_is_rolled_back(
    stage: Stage, capsys: pytest.CaptureFixture[str]
) -> None:
    stage.cdk_ends["deploy"] = lambda: 1
    assert deploy.main(["--yes"]) == 1
    assert "The stack is unchanged." in capsys.readouterr().err
    assert stage.smoke == []

    def fail() -> int:
        stage.make_stack()
        return 1

    stage.cdk_ends["deploy"] = fail
    assert deploy.main(["--yes"]) == 1
    assert "The stack is CREATE_COMPLETE: see docs/operations.md#undo-the-last-deployment." in capsys.readouterr().err


@pytest.mark.parametrize(
    ("status", "meaning"),
    [
        ("ROLLBACK_COMPLETE", "Only the name of the stack is left."),
        ("UPDATE_ROLLBACK_COMPLETE", "The stack is as it was before."),
        ("UPDATE_ROLLBACK_FAILED", "The stack is UPDATE_ROLLBACK_FAILED: see docs/operations.md"),
    ],
)
def test_how_a_failed_deployment_has_left_the_stack(
    status: str, meaning: str, stage: Stage, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    events = iter(["before", "after"])
    monkeypatch.setattr("deployment.deploy.newest_event", lambda name, region: next(events))
    monkeypatch.setattr("deployment.deploy.failures", lambda name, region, after: [f"Api: failed after {after}"])
    monkeypatch.setattr("deployment.deploy.status_of", lambda name, region: status)
    stage.cdk_ends["deploy"] = lambda: 1
    assert deploy.main(["--yes"]) == 1
    err = capsys.readouterr().err
    assert meaning in err
    assert err.splitlines()[-1] == "  Api: failed after before"


@pytest.mark.parametrize(("before", "after"), [(None, None), ("before", None), (None, "after")])
def test_where_aws_tells_no_events_nobody_says_that_the_stack_was_not_touched(
    before: str | None,
    after: str | None,
    stage: Stage,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def refuse(name: str, region: str) -> str:
        raise StackError("the stack can't be looked at: ExpiredToken")

    events = iter([before, after])
    monkeypatch.setattr("deployment.deploy.newest_event", lambda name, region: next(events))
    monkeypatch.setattr("deployment.deploy.status_of", refuse)
    stage.cdk_ends["deploy"] = lambda: 1
    assert deploy.main(["--yes"]) == 1
    err = capsys.readouterr().err
    assert "the deployment failed, see above. The stack's status isn't known: the stack can't be" in err


def test_an_api_that_fails_the_smoke_test_is_a_failure_although_it_is_deployed(
    stage: Stage, capsys: pytest.CaptureFixture[str]
) -> None:
    stage.smoke_code = 1
    assert deploy.main(["--yes"]) == 1
    printed = capsys.readouterr()
    assert "scripts/destroy" in printed.out
    assert "the stack is deployed, but it didn't pass the smoke test" in printed.err


def interrupt() -> int:
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("during", "said"), [("diff", "stopped; nothing was deployed"), ("deploy", "CloudFormation continues")]
)
def test_ctrl_c_says_how_far_it_was(during: str, said: str, stage: Stage, capsys: pytest.CaptureFixture[str]) -> None:
    stage.cdk_ends[during] = interrupt
    assert deploy.main(["--yes"]) == 1
    err = capsys.readouterr().err
    assert said in err
    assert ("nothing was deployed" in err) == (during == "diff")
