"""`scripts/destroy`: what it shows, what stops it, what it leaves protected, what it says at the end.

What is played is the CDK's command line. AWS is moto. `tests/deploy` rehearses the whole command.
"""

from __future__ import annotations

import errno
import json
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
import pytest

from bootstrapped import (
    ACCOUNT,
    ADDRESS,
    BASE,
    REPOSITORY,
    Answer,
    answer,
    bootstrapped,
    fail,
    make_lambda,
    make_stack,
    push,
    refuse,
    set_status,
    tags_left,
    template,
)
from buckets import REGION
from deployment import destroy
from deployment.given import Given
from deployment.removal.contents import megabytes, plural
from full_disk import full_stdout
from infrastructure import IMAGE_TAG_PREFIX

# Each test has a stand-in for AWS.
pytestmark = pytest.mark.slow

NAME = "AiidSimilarIncidents"
API = f"https://abcdef1234.execute-api.{REGION}.amazonaws.com"
OURS, SHARED = (f"{IMAGE_TAG_PREFIX}{each * 64}" for each in "ab")
FOREIGN = "e" * 64
BUCKET = "states-of-a-stack"
Output = pytest.CaptureFixture[str]


def resources() -> dict[str, Any]:
    """A bucket, a file system and a Lambda, in a template."""
    properties = {
        "PackageType": "Image",
        "Role": f"arn:aws:iam::{ACCOUNT}:role/of-a-lambda",
        "Code": {"ImageUri": f"{ADDRESS}:{OURS}"},
    }
    return {
        "Bucket": {"Type": "AWS::S3::Bucket", "Properties": {"BucketName": BUCKET}},
        "FileSystem": {"Type": "AWS::EFS::FileSystem", "Properties": {}},
        "Similar": {"Type": "AWS::Lambda::Function", "Properties": properties},
    }


def make_ours(name: str = NAME, **options: Any) -> str:
    body = json.loads(template(OURS, SHARED, resources=resources()))
    outputs = {"apiUrl": API, "stateBucketName": BUCKET}
    body["Outputs"] = {key: {"Value": value} for key, value in outputs.items()}
    return make_stack(name, json.dumps(body), **options)


@dataclass
class Stage:
    """What is played. removes: what the CDK's command line does; it returns its exit code."""

    removes: Callable[[], int] = lambda: 0
    commands: list[tuple[list[str], dict[str, str]]] = field(default_factory=list)
    answers: list[str | None] = field(default_factory=list)
    questions: list[str] = field(default_factory=list)

    def cdk(self, arguments: list[str], root: Path, environment: dict[str, str]) -> int:
        self.commands.append((arguments, environment))
        return self.removes()

    def remove_stack(self) -> int:
        """As the CDK's command line has it done: moto leaves a full bucket where it is."""
        boto3.resource("s3", region_name=REGION).Bucket(BUCKET).object_versions.delete()
        boto3.client("cloudformation", region_name=REGION).delete_stack(StackName=self.commands[-1][0][1])
        return 0

    def input(self, question: str) -> str:
        self.questions.append(question.strip())
        reply = self.answers.pop(0)
        if reply is None:
            raise EOFError
        if reply == "^C":
            raise KeyboardInterrupt
        return reply


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Stage]:
    """A deployed stack that has published a state twice, and the images of three deployments."""
    found = Stage()
    found.removes = found.remove_stack
    read = Given.read
    monkeypatch.setattr(Given, "read", lambda environment, stack_name: read(environment, tmp_path, stack_name))
    monkeypatch.setattr("deployment.cdk.run", found.cdk)
    monkeypatch.setattr("builtins.input", found.input)
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    with bootstrapped(monkeypatch):
        monkeypatch.setenv("AWS_ACCOUNT_ID", ACCOUNT)
        for tag in (OURS, SHARED, FOREIGN):
            push(tag, BASE, (tag, 1_000_000), days_ago=0)
        make_ours()
        make_lambda("of-staging", SHARED)
        s3 = boto3.client("s3", region_name=REGION)
        s3.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
        for key in ("states/incident_cls.pt", "states/incident_cls.pt", "deployed/0123.pt", "vectors/vectors.sqlite"):
            s3.put_object(Bucket=BUCKET, Key=key, Body=bytes(1_500_000))
        yield found


def stacks() -> set[str]:
    found = boto3.client("cloudformation", region_name=REGION).describe_stacks()["Stacks"]
    return {each["StackName"] for each in found}


def is_protected() -> bool:
    (found,) = boto3.client("cloudformation", region_name=REGION).describe_stacks(StackName=NAME)["Stacks"]
    return bool(found["EnableTerminationProtection"])


@pytest.fixture
def protected(stage: Stage) -> Stage:
    boto3.client("cloudformation", region_name=REGION).update_termination_protection(
        StackName=NAME, EnableTerminationProtection=True
    )
    return stage


def test_with_yes_stack_and_images_go_without_a_question(stage: Stage, capsys: Output) -> None:
    assert destroy.main(["--yes"]) == 0
    assert stage.questions == []
    assert stage.commands == [(["destroy", NAME, "--force"], {"STACK_NAME": NAME})]
    assert stacks() == set()
    assert tags_left() == {SHARED, FOREIGN}
    before, _, after = capsys.readouterr().out.partition("== cdk destroy")
    assert f"The stack {NAME} in {REGION} of account {ACCOUNT} (CREATE_COMPLETE):" in before
    assert f"  API          {API}\n" in before
    assert [line for line in before.splitlines() if line.startswith("  file system  fs-")]
    assert f"  bucket       {BUCKET}, 6.0 MB:\n" in before
    assert "2 published states, 3.0 MB; 1 state of deployed images\n" in before
    assert f"to keep the newest one: aws s3 cp s3://{BUCKET}/states/incident_cls.pt .\n" in before
    assert "python scripts/publish_state.py --fetch-vectors\n" in before
    assert "This can take 40 minutes" in before
    assert "1 image, 1.0 MB, that no other Lambda or stack here uses\n" in before
    assert "1 image that other Lambdas or stacks use, or with a foreign tag; they stay\n" in before
    assert "Deleted 1 image, 1.0 MB.\n" in after
    assert f"images       2 images, 602 MB, $0.06 a month, in {REPOSITORY}\n" in after
    assert "1 of this project, 1 of other CDK apps or of earlier versions\n" in after


@pytest.mark.parametrize(
    ("answers", "code", "stack_goes", "images_go"),
    [
        (["y", "y"], 0, True, True),
        (["YES ", "n"], 0, True, False),
        (["n"], 1, False, False),
        ([""], 1, False, False),
        ([None], 1, False, False),
        (["y", None], 0, True, False),
        (["^C"], 1, False, False),
        (["y", "^C"], 1, False, False),
    ],
)
def test_it_asks_for_the_stack_and_for_its_images_before_it_begins(
    answers: list[str | None], code: int, stack_goes: bool, images_go: bool, stage: Stage, capsys: Output
) -> None:
    stage.answers = answers
    assert destroy.main([]) == code
    asked = ["Remove all this? [y/N]", "Delete 1 unused image too? [y/N]"]
    assert stage.questions == asked[: len(stage.questions)]
    assert stage.answers == []
    assert bool(stage.commands) is stack_goes
    assert (NAME not in stacks()) is stack_goes
    assert (OURS not in tags_left()) is images_go
    assert ("nothing was removed" in capsys.readouterr().err) is not stack_goes


def test_images_can_be_kept(stage: Stage, capsys: Output) -> None:
    assert destroy.main(["--yes", "--keep-images"]) == 0
    assert stacks() == set()
    assert tags_left() == {OURS, SHARED, FOREIGN}
    assert "  images       3 images, 603 MB" in capsys.readouterr().out


def test_without_a_terminal_it_needs_yes(stage: Stage, monkeypatch: pytest.MonkeyPatch, capsys: Output) -> None:
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
    with pytest.raises(SystemExit) as exit_:
        destroy.main([])
    assert exit_.value.code == 2
    assert "there is no terminal at which to ask: give --yes" in capsys.readouterr().err
    assert stage.commands == []


@pytest.mark.parametrize("arguments", [["--stack", "a_b"], ["--images"], ["more"]])
def test_wrong_arguments(arguments: list[str], stage: Stage) -> None:
    with pytest.raises(SystemExit) as exit_:
        destroy.main(arguments)
    assert exit_.value.code == 2


# Which stack.


def test_another_stack_can_be_named(stage: Stage, capsys: Output) -> None:
    make_stack("Staging", template())
    assert destroy.main(["--yes", "--stack", "Staging"]) == 0
    assert stage.commands == [(["destroy", "Staging", "--force"], {"STACK_NAME": "Staging"})]
    assert stacks() == {NAME}
    assert OURS in tags_left()


def test_a_stack_that_is_not_there_is_no_failure_and_those_there_are_named(stage: Stage, capsys: Output) -> None:
    assert destroy.main(["--yes", "--stack", "Stagin"]) == 0
    assert stage.commands == []
    out = capsys.readouterr().out
    assert out.startswith(
        f"There is no stack Stagin in {REGION} of account {ACCOUNT}.\nStacks of this project there: {NAME}\n"
    )
    assert stacks() == {NAME}
    assert tags_left() == {OURS, SHARED, FOREIGN}


def test_after_a_removal_that_was_stopped_the_images_go(stage: Stage, capsys: Output) -> None:
    assert destroy.main(["--yes", "--keep-images"]) == 0
    stage.answers = ["y"]
    assert destroy.main([]) == 0
    assert stage.questions == ["Delete 1 unused image too? [y/N]"]
    assert tags_left() == {SHARED, FOREIGN}


def test_the_stack_of_another_app_is_refused(stage: Stage, capsys: Output) -> None:
    make_stack("App", template(description="Another app"))
    assert destroy.main(["--yes", "--stack", "App"]) == 1
    assert "the stack App in eu-west-1 isn't one of this project" in capsys.readouterr().err
    assert "App" in stacks()
    assert stage.commands == []


@pytest.mark.parametrize(
    ("status", "says"),
    [
        ("UPDATE_IN_PROGRESS", "is UPDATE_IN_PROGRESS: wait until that has ended"),
        ("UPDATE_ROLLBACK_COMPLETE_CLEANUP_IN_PROGRESS", "_CLEANUP_IN_PROGRESS: wait until that has ended"),
        ("REVIEW_IN_PROGRESS", f"aws cloudformation delete-stack --region {REGION} --stack-name {NAME}"),
    ],
)
def test_a_stack_that_somebody_deploys_is_refused(status: str, says: str, stage: Stage, capsys: Output) -> None:
    set_status(NAME, status)
    assert destroy.main(["--yes"]) == 1
    assert says in capsys.readouterr().err
    assert stage.commands == []


@pytest.mark.parametrize("status", ["ROLLBACK_COMPLETE", "UPDATE_ROLLBACK_FAILED", "DELETE_FAILED"])
def test_a_stack_whose_deployment_or_removal_failed_is_removed(status: str, stage: Stage) -> None:
    set_status(NAME, status)
    assert destroy.main(["--yes"]) == 0
    assert stacks() == set()


def test_a_removal_under_way_is_waited_for_and_only_the_images_are_asked_for(stage: Stage, capsys: Output) -> None:
    set_status(NAME, "DELETE_IN_PROGRESS")
    stage.answers = ["y"]
    assert destroy.main([]) == 0
    assert stage.questions == ["Delete 1 unused image too? [y/N]"]
    assert "Its removal has begun already" in capsys.readouterr().out
    assert tags_left() == {SHARED, FOREIGN}


def test_credentials_of_another_account_are_refused(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    monkeypatch.setenv("AWS_ACCOUNT_ID", "210987654321")
    assert destroy.main(["--yes"]) == 1
    assert f"the credentials are of account {ACCOUNT}, but AWS_ACCOUNT_ID is 210987654321" in capsys.readouterr().err
    assert stage.commands == []


def test_without_credentials_it_says_what_to_do(stage: Stage, monkeypatch: pytest.MonkeyPatch, capsys: Output) -> None:
    fail(monkeypatch, "GetCallerIdentity", "ExpiredToken", "The security token included in the request is expired")
    assert destroy.main(["--yes"]) == 1
    assert "log in to AWS again" in capsys.readouterr().err
    assert stage.commands == []


def test_settings_that_the_cdk_would_refuse_are_told_before(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    monkeypatch.setenv("ALARMS", "no")
    monkeypatch.setenv("AWS_REGION", "")
    assert destroy.main(["--yes"]) == 1
    said = capsys.readouterr().err
    assert said.startswith("destroy: the CDK needs all settings, so nothing was removed:\n  AWS_REGION is not set")
    assert '  ALARMS must be true or false, not "no".\n' in said


@pytest.mark.parametrize("operation", ["DescribeStacks", "ListStackResources"])
def test_a_stack_that_cannot_be_looked_at_stays(
    operation: str, stage: Stage, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    with monkeypatch.context() as patch:
        refuse(patch, operation)
        assert destroy.main(["--yes"]) == 1
    assert f"can't be looked at: An error occurred (AccessDeniedException) when calling the {operation}" in (
        capsys.readouterr().err
    )
    assert stage.commands == []


@pytest.mark.parametrize("garbled", [False, True])
def test_sizes_that_aws_does_not_tell_are_left_out(
    garbled: bool, stage: Stage, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    refuse(monkeypatch, "ListObjectVersions")
    if garbled:
        answer(monkeypatch, "DescribeFileSystems", lambda parameters, moto: {})
    else:
        refuse(monkeypatch, "DescribeFileSystems")
    stage.answers = ["n"]
    assert destroy.main([]) == 1
    out = capsys.readouterr().out
    assert f"bucket       {BUCKET}, which can't be looked at: An error occurred (AccessDeniedException)" in out
    assert [line for line in out.splitlines() if "file system  fs-" in line and "MB" not in line]


# Termination protection.


def test_with_yes_alone_a_protected_stack_stays(protected: Stage, capsys: Output) -> None:
    assert destroy.main(["--yes"]) == 1
    assert "the stack is protected (TERMINATION_PROTECTION=true): give --unprotect too" in capsys.readouterr().err
    assert is_protected()
    assert protected.commands == []


@pytest.mark.parametrize(
    ("arguments", "answers"), [(["--yes", "--unprotect"], []), ([], ["y", "n"]), (["--unprotect"], ["y", "n"])]
)
def test_the_protection_is_lifted_where_that_was_agreed(
    arguments: list[str], answers: list[str | None], protected: Stage
) -> None:
    protected.answers = answers
    assert destroy.main(arguments) == 0
    assert stacks() == set()
    if not arguments:
        question = "The stack is protected from removal. Lift the protection, and remove all this? [y/N]"
        assert protected.questions[0] == question


def test_after_a_no_the_stack_is_still_protected(protected: Stage) -> None:
    protected.answers = ["n"]
    assert destroy.main([]) == 1
    assert is_protected()


def fails() -> int:
    return 1


def stops() -> int:
    raise KeyboardInterrupt


@pytest.mark.parametrize(("removes", "says"), [(fails, "the CDK failed, see above"), (stops, "stopped")])
def test_if_the_removal_does_not_begin_the_stack_is_protected_again(
    removes: Callable[[], int], says: str, protected: Stage, capsys: Output
) -> None:
    lifted = []

    def note_and_end() -> int:
        lifted.append(not is_protected())
        return removes()

    protected.removes = note_and_end
    assert destroy.main(["--yes", "--unprotect"]) == 1
    assert lifted == [True]
    assert is_protected()
    said = capsys.readouterr().err
    assert "destroy: the stack is protected again\n" in said
    assert said.endswith(f"destroy: {says}; nothing was removed\n")
    assert tags_left() == {OURS, SHARED, FOREIGN}


def test_a_protection_that_cannot_be_lifted_stays(
    protected: Stage, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    refuse(monkeypatch, "UpdateTerminationProtection")
    assert destroy.main(["--yes", "--unprotect"]) == 1
    said = capsys.readouterr().err
    assert "the protection can't be lifted: An error occurred (AccessDeniedException)" in said
    assert "may be without" not in said
    assert is_protected()
    assert protected.commands == []


def test_a_protection_that_cannot_be_put_back_is_told_with_the_command_that_does(
    protected: Stage, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    def refuse_and_fail() -> int:
        refuse(monkeypatch, "UpdateTerminationProtection")
        return 1

    protected.removes = refuse_and_fail
    assert destroy.main(["--yes", "--unprotect"]) == 1
    assert (
        f"aws cloudformation update-termination-protection --region {REGION} --stack-name {NAME} "
        "--enable-termination-protection"
    ) in capsys.readouterr().err


def test_a_protection_that_an_answer_of_another_form_leaves_unknown_is_told(
    protected: Stage, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    def garble_and_fail() -> int:
        answer(monkeypatch, "DescribeStacks", lambda parameters, moto: {})
        return 1

    protected.removes = garble_and_fail
    assert destroy.main(["--yes", "--unprotect"]) == 1
    assert "the stack may be without its protection: KeyError" in capsys.readouterr().err


def test_ctrl_c_while_the_protection_is_put_back_is_told(
    protected: Stage, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    def fail_and_be_stopped() -> int:
        monkeypatch.setattr("deployment.removal.protection.protect", lambda stack, on: stops())
        return 1

    protected.removes = fail_and_be_stopped
    assert destroy.main(["--yes", "--unprotect"]) == 1
    said = capsys.readouterr().err
    assert (
        "the stack may be without its protection: stopped. This command puts it back: aws cloudformation update-"
        in said
    )
    assert said.endswith("destroy: stopped; nothing was removed\n")


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGTERM])
def test_a_closed_terminal_and_kill_leave_the_stack_protected(
    number: signal.Signals, protected: Stage, capsys: Output
) -> None:
    before = signal.getsignal(number)

    def be_stopped() -> int:
        assert not is_protected()
        assert callable(signal.getsignal(number))
        signal.raise_signal(number)
        return 0

    protected.removes = be_stopped
    assert destroy.main(["--yes", "--unprotect"]) == 1
    assert is_protected()
    assert signal.getsignal(number) is before
    assert capsys.readouterr().err.endswith("destroy: stopped; nothing was removed\n")


def test_a_signal_that_is_ignored_stays_so(protected: Stage) -> None:
    """As with `nohup`."""

    def be_left_alone() -> int:
        signal.raise_signal(signal.SIGHUP)
        return protected.remove_stack()

    protected.removes = be_left_alone
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert destroy.main(["--yes", "--unprotect"]) == 0
    finally:
        signal.signal(signal.SIGHUP, before)
    assert stacks() == set()


# A removal that doesn't end.


def test_a_command_line_that_cannot_be_started(protected: Stage, capsys: Output) -> None:
    def be_missing() -> int:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), "npx")

    protected.removes = be_missing
    assert destroy.main(["--yes", "--unprotect"]) == 1
    assert is_protected()
    assert capsys.readouterr().err.endswith(
        "destroy: `cdk destroy` can't be started: No such file or directory; nothing was removed\n"
    )


def test_a_removal_whose_end_aws_does_not_tell(stage: Stage, monkeypatch: pytest.MonkeyPatch, capsys: Output) -> None:
    def remove_and_expire() -> int:
        stage.remove_stack()
        fail(monkeypatch, "DescribeStacks", "ExpiredToken", "The security token included in the request is expired")
        return 0

    stage.removes = remove_and_expire
    assert destroy.main(["--yes"]) == 1
    said = capsys.readouterr().err
    assert "log in to AWS again" in said
    assert said.endswith("So nobody knows how far the removal is: give the same command again\n")


def test_ctrl_c_while_nobody_knows_how_far_the_removal_is(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    def remove() -> int:
        stage.remove_stack()
        answer(monkeypatch, "DescribeStacks", lambda parameters, moto: stops())
        return 0

    stage.removes = remove
    assert destroy.main(["--yes"]) == 1
    assert capsys.readouterr().err.endswith(
        "destroy: stopped; the removal may have begun: give the same command again to go on\n"
    )


def test_an_answer_of_another_form_is_told_in_one_line(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    answer(monkeypatch, "DescribeStacks", lambda parameters, moto: {})
    assert destroy.main(["--yes"]) == 1
    assert capsys.readouterr().err == (
        "destroy: AWS's answer has an unforeseen form: KeyError: 'Stacks'; nothing was removed\n"
    )


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a file that can't be written")
def test_a_full_disk_ends_it_in_one_line_before_anything_is_removed(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with full_stdout(monkeypatch), pytest.raises(SystemExit, match="1"):
        destroy.main(["--yes"])
    assert stage.commands == []
    assert capfd.readouterr().err == "destroy: stdout can't be written: No space left on device\n"


def begins(code: int | None) -> Callable[[], int]:
    """code: None for Ctrl-C."""

    def begin() -> int:
        set_status(NAME, "DELETE_IN_PROGRESS")
        return stops() if code is None else code

    return begin


@pytest.mark.parametrize(("code", "says"), [(None, "stopped"), (1, "the CDK has ended")])
def test_a_removal_that_was_left_alone_goes_on(code: int | None, says: str, protected: Stage, capsys: Output) -> None:
    protected.removes = begins(code)
    assert destroy.main(["--yes", "--unprotect"]) == 1
    said = capsys.readouterr().err
    assert f"destroy: {says}; CloudFormation continues the removal." in said
    assert "aws cloudformation describe-stacks --region eu-west-1 --stack-name arn:aws:cloudformation:" in said
    assert not is_protected()
    assert tags_left() == {OURS, SHARED, FOREIGN}


def test_ctrl_c_after_the_end_of_the_removal(stage: Stage, capsys: Output) -> None:
    def remove_and_stop() -> int:
        stage.remove_stack()
        return stops()

    stage.removes = remove_and_stop
    assert destroy.main(["--yes"]) == 1
    assert "stopped; the stack is removed. For its images, give the same command again" in capsys.readouterr().err


def test_why_a_removal_failed_is_said(protected: Stage, monkeypatch: pytest.MonkeyPatch, capsys: Output) -> None:
    reason = "The bucket you tried to delete is not empty (Service: S3, Status Code: 409)"

    def events(parameters: Any, moto: Answer) -> Any:
        event = {
            "StackId": parameters["StackName"],
            "EventId": "1",
            "StackName": NAME,
            "Timestamp": datetime.now(UTC),
            "LogicalResourceId": "Bucket",
            "PhysicalResourceId": BUCKET,
            "ResourceStatus": "DELETE_FAILED",
            "ResourceStatusReason": reason,
        }
        return {"StackEvents": [event, *moto(parameters)["StackEvents"]]}

    def fail_in_the_middle() -> int:
        set_status(NAME, "DELETE_FAILED")
        answer(monkeypatch, "DescribeStackEvents", events)
        return 1

    protected.removes = fail_in_the_middle
    assert destroy.main(["--yes", "--unprotect"]) == 1
    assert capsys.readouterr().err.endswith(
        "destroy: CloudFormation couldn't remove all of the stack; give the same command again to go on\n"
        f"  Bucket: {reason}\n"
    )
    assert not is_protected()
    assert tags_left() == {OURS, SHARED, FOREIGN}
    # The same command again.
    protected.removes = protected.remove_stack
    assert destroy.main(["--yes"]) == 0
    assert tags_left() == {SHARED, FOREIGN}


# Images.


@pytest.mark.parametrize("operation", ["ListFunctions", "GetTemplate", "DescribeImages"])
def test_if_nobody_knows_what_uses_the_images_the_stack_goes_and_they_stay(
    operation: str, stage: Stage, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    with monkeypatch.context() as patch:
        refuse(patch, operation)
        assert destroy.main(["--yes"]) == 1
    said = capsys.readouterr().err
    assert "destroy: no image will be deleted: the " in said
    assert f"not authorized to perform: {operation}" in said
    assert stacks() == set()
    assert tags_left() == {OURS, SHARED, FOREIGN}


def test_images_that_cannot_be_deleted_are_told_and_the_rest_is_said(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    refuse(monkeypatch, "BatchDeleteImage")
    assert destroy.main(["--yes"]) == 1
    said = capsys.readouterr()
    assert "destroy: these images couldn't be deleted:\n  An error occurred (AccessDeniedException)" in said.err
    assert "This remains:\n  images       3 images" in said.out
    assert stacks() == set()


# What remains.


def test_without_anything_else_nothing_remains(stage: Stage, capsys: Output) -> None:
    boto3.client("ecr", region_name=REGION).delete_repository(repositoryName=REPOSITORY, force=True)
    boto3.client("lambda", region_name=REGION).delete_function(FunctionName="of-staging")
    assert destroy.main(["--yes"]) == 0
    assert "remains" not in capsys.readouterr().out


def test_all_that_remains_is_named(stage: Stage, monkeypatch: pytest.MonkeyPatch, capsys: Output) -> None:
    make_stack("CDKToolkit", template(description="of bootstrapping"))
    files = f"cdk-hnb659fds-assets-{ACCOUNT}-{REGION}"
    s3 = boto3.client("s3", region_name=REGION)
    s3.create_bucket(Bucket=files, CreateBucketConfiguration={"LocationConstraint": REGION})
    for number in range(3):
        s3.put_object(Bucket=files, Key=str(number), Body=bytes(100_000))
    acm = boto3.client("acm", region_name=REGION)
    certificate = acm.request_certificate(DomainName="similar.example.org")["CertificateArn"]
    trust = {"Statement": [{"Condition": {"StringEquals": {"token.actions.githubusercontent.com:aud": "sts"}}}]}
    iam = boto3.client("iam", region_name=REGION)
    iam.create_role(RoleName="deploys-from-github", AssumeRolePolicyDocument=json.dumps(trust))
    monkeypatch.setenv("DOMAIN_NAME", "similar.example.org")
    monkeypatch.setenv("CERTIFICATE_ARN", certificate)
    assert destroy.main(["--yes"]) == 0
    lines = capsys.readouterr().out.partition("This remains:\n")[2].splitlines()
    assert [line[2:15].rstrip() for line in lines if line[2:15].strip()] == [
        *("images", "files", "stack", "CNAME record", "certificate", "roles")
    ]
    remains = "\n".join(lines)
    assert "npx aws-cdk@2 gc --unstable=gc" in remains
    assert f"files        3 files of CDK apps, 0.3 MB, in {files}" in remains
    assert f"aws cloudformation delete-stack --region {REGION} --stack-name CDKToolkit" in remains
    assert "CNAME record of similar.example.org, where you made it" in remains
    assert f"certificate  {certificate}, free of charge" in remains
    assert "roles        for GitHub: deploys-from-github; docs/pipelines.md" in remains


def test_what_aws_does_not_tell_is_left_out_at_the_end(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    for operation in ("ListRoles", "DescribeCertificate", "ListObjectsV2"):
        refuse(monkeypatch, operation)
    monkeypatch.setenv("DOMAIN_NAME", "similar.example.org")
    monkeypatch.setenv("CERTIFICATE_ARN", f"arn:aws:acm:{REGION}:{ACCOUNT}:certificate/0123")
    assert destroy.main(["--yes"]) == 0
    lines = capsys.readouterr().out.partition("This remains:\n")[2].splitlines()
    assert [line[2:15].rstrip() for line in lines if line[2:15].strip()] == ["images", "CNAME record"]


def test_numbers_as_people_read_them() -> None:
    assert (megabytes(0), megabytes(9_940_000), megabytes(1_234_500_000)) == ("0.0 MB", "9.9 MB", "1,234 MB")
    assert (plural(1, "image"), plural(1200, "image")) == ("1 image", "1,200 images")
