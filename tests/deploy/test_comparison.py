"""The comparison of a pull request, with the real command line of the CDK, and with what its role may do.

AWS is a server here that answers what `docs/pipelines.md` allows the role, and refuses everything else, as IAM would.

Needs npm's registry; it runs where RUN_REHEARSAL=1 is set.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from urllib.parse import parse_qs

import pytest

import stack
from http_servers import answering_xml
from pages import DOCS
from policies import allowed_by, policies_of
from processes import PATIENCE_S
from stack import ACCOUNT, REGION
from tiny import ROOT
from workflow_runs import job, steps_of

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        os.environ.get("RUN_REHEARSAL") != "1",
        reason="needs npm's registry: RUN_REHEARSAL=1 scripts/test tests/deploy",
    ),
]

STACK = "AiidSimilarIncidents"
ALLOWED = allowed_by(policies_of(DOCS / "pipelines.md", "The role that compares")[1])

CLOUDFORMATION, STS = "http://cloudformation.amazonaws.com/doc/2010-05-15/", "https://sts.amazonaws.com/doc/2011-06-15/"
DEPLOYED = f"""<DescribeStacksResult><Stacks><member>
    <StackName>{STACK}</StackName>
    <StackId>arn:aws:cloudformation:{REGION}:{ACCOUNT}:stack/{STACK}/1</StackId>
    <CreationTime>2026-01-01T00:00:00Z</CreationTime><StackStatus>UPDATE_COMPLETE</StackStatus>
</member></Stacks></DescribeStacksResult>"""
TEMPLATE = '{"Resources": {"OfBefore": {"Type": "AWS::SNS::Topic"}}}'
IDENTITY = f"""<GetCallerIdentityResult>
    <Arn>arn:aws:sts::{ACCOUNT}:assumed-role/aiid-diff/GitHubActions</Arn>
    <UserId>AROA:GitHubActions</UserId><Account>{ACCOUNT}</Account>
</GetCallerIdentityResult>"""
# AWS's own answer to DescribeStacks for a stack that isn't there.
MISSING = f"<Code>ValidationError</Code><Message>Stack with id {STACK} does not exist</Message>"
DENIED = "<Code>AccessDenied</Code><Message>User is not authorized to perform: {action}</Message>"


class Cloud:
    """is_deployed: whether the stack is there. asked: the actions that were asked for, and those that were refused."""

    def __init__(self, *, is_deployed: bool) -> None:
        self.is_deployed = is_deployed
        self.asked: list[str] = []
        self.refused: list[str] = []

    def answer(self, action: str) -> tuple[int, str]:
        space, service = (
            (STS, "sts") if action in ("GetCallerIdentity", "AssumeRole") else (CLOUDFORMATION, "cloudformation")
        )
        name = f"{service}:{action}"
        self.asked.append(name)
        if name not in (*ALLOWED, "sts:GetCallerIdentity"):  # which AWS allows everybody
            self.refused.append(name)
            status, content = 403, f"<Error>{DENIED.format(action=name)}</Error>"
        elif service == "cloudformation" and not self.is_deployed:
            status, content = 400, f"<Error>{MISSING}</Error>"
        else:
            template = f"<GetTemplateResult><TemplateBody>{TEMPLATE}</TemplateBody></GetTemplateResult>"
            answers = {"DescribeStacks": DEPLOYED, "GetTemplate": template, "GetCallerIdentity": IDENTITY}
            status, content = 200, answers[action]
        kind = "ErrorResponse" if status != 200 else f"{action}Response"
        return status, f'<{kind} xmlns="{space}">{content}</{kind}>'


def compared(folder: Path, cloud: Cloud) -> str:
    """What the job writes into diff.txt, in a copy of the project without a model."""
    stack.copy_project(folder)
    (folder / "scripts" / "deployment").mkdir(parents=True, exist_ok=True)
    shutil.copy(ROOT / "scripts" / "deployment" / "cdk.py", folder / "scripts" / "deployment")
    [script] = [step["run"] for step in steps_of(job("deploy.yml", "diff")) if "diff.txt" in step.get("run", "")]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "CDK_"))} | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "CI": "true",
        "AWS_ACCOUNT_ID": ACCOUNT,
        "AWS_REGION": REGION,
        "AWS_ACCESS_KEY_ID": "a",
        "AWS_SECRET_ACCESS_KEY": "b",
        "AWS_CONFIG_FILE": str(folder / "no-config"),
        "AWS_SHARED_CREDENTIALS_FILE": str(folder / "no-credentials"),
        "AWS_EC2_METADATA_DISABLED": "true",
        "CDK_DISABLE_CLI_TELEMETRY": "true",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    with answering_xml(lambda body: cloud.answer(parse_qs(body)["Action"][0])) as url:
        ran = subprocess.run(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script],
            cwd=folder,
            env=environment | {"AWS_ENDPOINT_URL": url},
            capture_output=True,
            text=True,
            timeout=PATIENCE_S * 4,
        )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return (folder / "diff.txt").read_text(encoding="utf-8")


def test_the_role_is_allowed_all_that_a_comparison_needs_and_no_more(tmp_path: Path) -> None:
    cloud = Cloud(is_deployed=True)
    text = compared(tmp_path / "project", cloud)
    assert set(cloud.asked) - {"sts:GetCallerIdentity", "sts:AssumeRole"} == set(ALLOWED)
    # Its own role, which may read the whole account. It goes on without it, and says so.
    assert cloud.refused == ["sts:AssumeRole"]
    assert "Lookup role" in text
    assert "Proceeding with default credentials" in text
    assert "[-] AWS::SNS::Topic OfBefore destroy" in text
    assert "[+] AWS::ApiGatewayV2::Api " in text
    assert "\x1b" not in text


def test_before_the_first_deployment_the_whole_stack_is_new(tmp_path: Path) -> None:
    text = compared(tmp_path / "project", Cloud(is_deployed=False))
    assert "[+] AWS::ApiGatewayV2::Api " in text
    assert "[-]" not in text
