"""The stack against two sets of rules, in every form that settings give it: cdk-nag's AwsSolutions, and cfn-lint.

A finding stays only with a reason, which stands here. A reason that no form needs any more fails as well.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path

import aws_cdk as cdk
import cdk_nag
import pytest
from aws_cdk import aws_s3 as s3
from aws_cdk.assertions import Template
from cfnlint.api import ManualArgs, lint_file

from stack import DEFAULT, OTHER, stack_of
from tiny import copy_inference

# By the kind of difference that a setting makes in the template.
FORMS = {
    "default": DEFAULT,
    "everything": OTHER,
    "nat": replace(DEFAULT, nat_gateway=True),
    "signed": replace(DEFAULT, api_auth="iam"),
    "domain": replace(
        DEFAULT,
        domain_name="similar.example.org",
        certificate_arn="arn:aws:acm:eu-central-1:123456789012:certificate/01234567-89ab-cdef-0123-456789abcdef",
    ),
    "limited": replace(DEFAULT, max_concurrency=1),
    "no alarms": replace(DEFAULT, alarms=False),
    "mail": replace(DEFAULT, alarm_email="someone@example.org"),
    "no refresh": replace(DEFAULT, refresh_hours=0),
    "staging": replace(DEFAULT, stack_name="Staging", tags=(("stage", "staging"),)),
}

# Rule and finding, construct, and why it stays. Patterns, each for the whole.
NAG = {
    (
        r"AwsSolutions-APIG4",
        r"Api/(GET|POST)--.*",
    ): "Anyone may call the API. API_AUTH=iam is for who wants another one.",
    (r"AwsSolutions-VPC7", r"Network/Vpc/Resource"): (
        "A log of all packets costs by the GB. Security groups let out nothing but NFS and, from one job, HTTPS."
    ),
    (r"AwsSolutions-S1", r"Inbox/Bucket/Resource"): (
        "A log of requests needs a second bucket. The bucket is private, and keeps the versions of what is overwritten."
    ),
    (
        r"AwsSolutions-IAM5\[Resource::<Inbox\w+\.Arn>/(states|deployed|vectors)/\*\]",
        r"Jobs/(refresh|shelve_state)/.*",
    ): ("A job may use the keys of one prefix, not the bucket."),
    (r"AwsSolutions-IAM5\[Resource::<\w+\.Arn>:\*\]", r"Priming/Invoker/.*"): (
        "A deployment invokes the version that it made, whose number isn't known before."
    ),
    (r"AwsSolutions-IAM5\[Resource::\*\]", r"(Functions|Jobs)/\w+/Function/ServiceRole/DefaultPolicy/Resource"): (
        "Describing subnets and network interfaces can't be limited to resources."
    ),
    (
        r"AwsSolutions-IAM5\[Resource::arn:<AWS::Partition>:ec2:[\w-]+:\d+:\*/\*\]",
        r"(Functions|Jobs)/\w+/Function/ServiceRole/DefaultPolicy/Resource",
    ): "Lambda makes the network interfaces, so their ids aren't known. A function's own code is refused.",
}
# Rule, logical id, and why it stays.
LINT = {
    ("W3005", ".*"): "The CDK writes a dependency out that a reference implies. That changes nothing.",
}


@dataclass(frozen=True)
class Findings:
    """nag: rule with its finding, and the construct's path below the stack. lint: rule, and the resource's id."""

    nag: set[tuple[str, str]]
    lint: set[tuple[str, str]]


@pytest.fixture(scope="module", params=FORMS)
def findings(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Findings:
    folder, config = tmp_path_factory.mktemp("form"), FORMS[request.param]
    stack = stack_of(config, copy_inference(folder / "inference"), folder / "cdk.out")
    template = folder / "template.json"
    template.write_text(json.dumps(Template.from_stack(stack).to_json()), encoding="utf-8")
    matches = lint_file(template, config=ManualArgs(regions=[config.region]))
    return Findings(
        nag={
            (violation.rule_name, str(resource.construct_path).partition("/")[2])
            for violation in cdk_nag.AwsSolutionsChecks().validate_scope(stack).violations
            for resource in violation.violating_resources
        },
        lint={(match.rule.id, "/".join(str(part) for part in match.path[:2])) for match in matches},
    )


def fits(finding: tuple[str, str], pattern: tuple[str, str]) -> bool:
    return all(re.fullmatch(*pair) for pair in zip(pattern, finding, strict=True))


@pytest.mark.slow
def test_no_finding_is_without_a_reason(findings: Findings) -> None:
    for found, reasons in ((findings.nag, NAG), (findings.lint, LINT)):
        assert {finding for finding in found if not any(fits(finding, pattern) for pattern in reasons)} == set()


@pytest.mark.slow
def test_no_reason_is_without_a_finding(findings: Findings, request: pytest.FixtureRequest) -> None:
    signed = "everything" in request.node.name or "signed" in request.node.name
    for found, reasons in ((findings.nag, NAG), (findings.lint, LINT)):
        for pattern in reasons:
            needed = not (signed and pattern[0] == "AwsSolutions-APIG4")
            assert any(fits(finding, pattern) for finding in found) == needed


def test_the_rules_find_what_is_wrong(tmp_path: Path) -> None:
    """Else both lists would be empty for another reason than a good stack."""
    stack = cdk.Stack(cdk.App(outdir=str(tmp_path)), "Bad")
    s3.Bucket(stack, "Bucket")
    cdk.CfnResource(stack, "Queue", type="AWS::SQS::Queue", properties={"DelaySeconds": "soon"})
    found = cdk_nag.AwsSolutionsChecks().validate_scope(stack)
    assert {"AwsSolutions-S1", "AwsSolutions-S10"} <= {violation.rule_name for violation in found.violations}
    template = tmp_path / "template.json"
    template.write_text(json.dumps(Template.from_stack(stack).to_json()), encoding="utf-8")
    assert "E3012" in {match.rule.id for match in lint_file(template, config=ManualArgs(regions=["eu-central-1"]))}
