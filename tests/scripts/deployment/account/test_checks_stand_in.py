"""The checks against moto's AWS, which has its own idea of what an account holds; and the CDK's own numbers.

moto knows neither Lambda's settings of an account nor its quotas.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import boto3
import pytest
from moto.acm.models import acm_backends

from buckets import REGION, stand_in_for_aws
from deployment.account.access import BOOTSTRAP_PARAMETER, REQUIRED_BOOTSTRAP
from deployment.account.asking import Aws
from deployment.account.checks import aws_findings
from deployment.findings import Finding, Outcome
from deployment.given import Given
from infrastructure import DESCRIPTION
from stack import ACCOUNT, DEFAULT, synthesise
from tiny import ROOT

# moto and the CDK take a second to load.
pytestmark = pytest.mark.slow

NAMES = ["Credentials", "Region", "Bootstrap", "Lambda memory", "Concurrency", "Network", "Stack"]
# What moto can't tell.
UNKNOWN = {"Lambda memory", "Concurrency"}
OK, NOTE, NOT_CHECKED, PROBLEM = Outcome.OK, Outcome.NOTE, Outcome.NOT_CHECKED, Outcome.PROBLEM


@pytest.fixture(autouse=True)
def account(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with stand_in_for_aws(monkeypatch):
        yield


@pytest.fixture
def kept_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    """The checks' own clients take a second to make, each time."""
    monkeypatch.setattr(Aws, "client", lambda _, service, region: client(service, region))


@cache
def client(service: str, region: str = REGION) -> Any:
    return boto3.client(service, region_name=region)


def findings(**settings: str) -> dict[str, Finding]:
    """The last of each name."""
    required = {"AWS_ACCOUNT_ID": ACCOUNT, "AWS_REGION": REGION}
    given = replace(Given.read({**required, **settings}, Path("/nowhere")), root=ROOT)
    return {found.name: found for found in aws_findings(given)}


def make_stack(name: str, **template: Any) -> None:
    client("cloudformation").create_stack(StackName=name, TemplateBody=json.dumps(template))


def bootstrap(version: str) -> None:
    topic = {"Topic": {"Type": "AWS::SNS::Topic", "Properties": {}}}
    make_stack("CDKToolkit", Resources=topic)
    client("ssm").put_parameter(Name=BOOTSTRAP_PARAMETER, Value=version, Type="String")


def test_an_empty_account() -> None:
    found = findings()
    assert list(found) == NAMES
    assert {name for name, each in found.items() if each.outcome is NOT_CHECKED} == UNKNOWN
    assert found["Bootstrap"].outcome is PROBLEM
    assert {found[name].outcome for name in ("Credentials", "Region", "Network", "Stack")} == {OK}
    assert "will be new" in found["Stack"].detail


def test_a_bootstrapped_account_with_the_stack(kept_clients: None) -> None:
    bootstrap("27")
    vpc = {"Type": "AWS::EC2::VPC", "Properties": {"CidrBlock": "10.0.0.0/16"}}
    make_stack("AiidSimilarIncidents", Description=DESCRIPTION, Resources={"Vpc": vpc})
    found = findings()
    assert {name for name, each in found.items() if each.outcome is not OK} == UNKNOWN
    assert "CREATE_COMPLETE" in found["Stack"].detail
    assert findings(NAT_GATEWAY="true")["Stack"].outcome is PROBLEM
    assert "will be new" in findings(STACK_NAME="Staging")["Stack"].detail


def test_an_old_bootstrap(kept_clients: None) -> None:
    bootstrap(str(REQUIRED_BOOTSTRAP - 1))
    assert findings()["Bootstrap"].outcome is PROBLEM


def test_a_stack_of_another_application(kept_clients: None) -> None:
    make_stack("AiidSimilarIncidents", Resources={"Topic": {"Type": "AWS::SNS::Topic", "Properties": {}}})
    assert findings()["Stack"].remedy == "choose another STACK_NAME in .env"


def test_no_room_for_a_vpc_or_an_address(kept_clients: None) -> None:
    ec2 = client("ec2")
    while len(ec2.describe_vpcs()["Vpcs"]) < 5:
        ec2.create_vpc(CidrBlock="10.0.0.0/16")
    for _ in range(5):
        ec2.allocate_address()
    assert "VPCs: 5 of 5" in findings()["Network"].detail
    assert "Elastic IP addresses: 5 of 5" in findings(NAT_GATEWAY="true")["Network"].detail


def test_a_certificate_until_it_is_issued_and_a_domain_that_is_taken(kept_clients: None) -> None:
    arn = client("acm").request_certificate(DomainName="*.example.org")["CertificateArn"]
    settings = {"DOMAIN_NAME": "similar.example.org", "CERTIFICATE_ARN": arn}
    assert findings(**settings)["Certificate"].remedy.startswith("make the DNS record")
    acm_backends[ACCOUNT][REGION]._certificates[arn].status = "ISSUED"
    assert findings(**settings)["Certificate"].outcome is OK
    assert findings(**{**settings, "DOMAIN_NAME": "example.org"})["Certificate"].outcome is PROBLEM
    client("apigatewayv2").create_domain_name(DomainName="similar.example.org")
    assert "another API" in findings(**settings)["Certificate"].detail
    gone = f"{arn[:-12]}0123456789ab"
    assert "there is no certificate" in findings(**{**settings, "CERTIFICATE_ARN": gone})["Certificate"].detail


@pytest.mark.parametrize(
    ("region", "told_of"), [("ap-east-1", "switched off"), ("eu-west-9", "nearest names: eu-west")]
)
def test_a_region_that_cannot_be_used(kept_clients: None, region: str, told_of: str) -> None:
    found = findings(AWS_REGION=region)
    assert found["Region"].outcome is PROBLEM
    assert told_of in found["Region"].detail


def test_another_account(kept_clients: None) -> None:
    assert ACCOUNT in findings(AWS_ACCOUNT_ID="210987654321")["Credentials"].detail


def test_the_stack_requires_this_bootstrap_and_has_this_description(tmp_path: Path) -> None:
    synthesised = synthesise(DEFAULT, tmp_path)
    properties = [
        artifact["properties"]
        for artifact in synthesised.manifest()["artifacts"].values()
        if "requiresBootstrapStackVersion" in artifact.get("properties", {})
    ]
    assert {each["requiresBootstrapStackVersion"] for each in properties} == {REQUIRED_BOOTSTRAP}
    assert {each["bootstrapStackVersionSsmParameter"] for each in properties} == {BOOTSTRAP_PARAMETER}
    assert synthesised.template.to_json()["Description"] == DESCRIPTION
