"""The checks of the account: with everything there, with each thing missing, and with each thing broken."""

from __future__ import annotations

import re
import socket
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from botocore.config import Config
from botocore.exceptions import (
    EndpointConnectionError,
    NoCredentialsError,
    ProfileNotFound,
    ReadTimeoutError,
    TokenRetrievalError,
)

from deployment.account import asking
from deployment.account.asking import Aws
from deployment.account.checks import ACTIONS, aws_findings
from deployment.findings import Finding, Outcome
from deployment.given import Given
from pages import DOCS, anchors
from tiny import ROOT, copy_inference
from told_aws import Answer, Refusal, Teller, Told

ACCOUNT, REGION, STACK = "123456789012", "eu-west-1", "AiidSimilarIncidents"
ARN = f"arn:aws:iam::{ACCOUNT}:user/somebody"
CERTIFICATE = f"arn:aws:acm:{REGION}:{ACCOUNT}:certificate/01234567-89ab-cdef-0123-456789abcdef"
DOMAIN = {"DOMAIN_NAME": "similar.example.org", "CERTIFICATE_ARN": CERTIFICATE}
NOW = datetime(2026, 11, 26, tzinfo=UTC)
NAMES = ["Credentials", "Region", "Bootstrap", "Lambda memory", "Concurrency", "Network", "Certificate", "Stack"]

OK, NOTE, NOT_CHECKED, PROBLEM = Outcome.OK, Outcome.NOTE, Outcome.NOT_CHECKED, Outcome.PROBLEM
CONNECTION = EndpointConnectionError(endpoint_url=f"https://a-service.{REGION}.amazonaws.com/")
# As AWS words it: https://docs.aws.amazon.com/IAM/latest/UserGuide/troubleshoot_access-denied.html
DENIED = Refusal("AccessDeniedException", f"User: {ARN} is not authorized to perform: it")


def quota(name: str, value: float, unit: str = "None", service: str = "lambda") -> dict[str, Any]:
    return {"ServiceCode": service, "QuotaName": name, "Value": value, "Unit": unit, "Adjustable": True}


def region(name: str, status: str = "opt-in-not-required") -> dict[str, str]:
    return {"RegionName": name, "OptInStatus": status, "Endpoint": f"ec2.{name}.amazonaws.com"}


def stack(status: str, name: str = STACK, **more: Any) -> dict[str, Any]:
    ours = {"Description": "Finds the recorded AI incidents most like a text"}
    return {"StackName": name, "StackStatus": status, "CreationTime": NOW, **ours, **more}


def stacks(**found: dict[str, Any]) -> Teller:
    """Those that are there, by name. A name of another leads to CloudFormation's error."""

    def tell(_: str, parameters: dict[str, Any]) -> dict[str, Any] | Refusal:
        name = parameters["StackName"]
        if name not in found:
            return Refusal("ValidationError", f"Stack with id {name} does not exist")
        return {"Stacks": [found[name]]}

    return tell


BOOTSTRAPPED = stack("CREATE_COMPLETE", "CDKToolkit", Description="This stack includes resources …")


def deployed(status: str = "UPDATE_COMPLETE", **more: Any) -> Teller:
    return stacks(CDKToolkit=BOOTSTRAPPED, **{STACK: stack(status, **more)})


def resources(*kinds_and_ids: tuple[str, str]) -> dict[str, Any]:
    common = {"ResourceStatus": "CREATE_COMPLETE", "LastUpdatedTimestamp": NOW}
    return {
        "StackResourceSummaries": [
            {"LogicalResourceId": f"A{number}", "ResourceType": kind, "PhysicalResourceId": physical, **common}
            for number, (kind, physical) in enumerate(kinds_and_ids)
        ]
    }


def limits(quota: int, unreserved: int | None = None) -> dict[str, Any]:
    free = quota if unreserved is None else unreserved
    return {"AccountLimit": {"ConcurrentExecutions": quota, "UnreservedConcurrentExecutions": free}}


def vpcs(count: int, owner: str = ACCOUNT) -> dict[str, Any]:
    return {"Vpcs": [{"VpcId": f"vpc-{number}", "OwnerId": owner} for number in range(count)]}


def certificate(status: str = "ISSUED", *names: str) -> dict[str, Any]:
    names = names or ("similar.example.org",)
    return {"Certificate": {"DomainName": names[0], "SubjectAlternativeNames": list(names), "Status": status}}


REGIONS: Answer = {"Regions": [region("us-east-1"), region(REGION), region("eu-south-2", "not-opted-in")]}
# An account of a few months, into which nobody has deployed this yet. Service Quotas has no entry of the memory.
ANSWERS: dict[str, Teller] = {
    "GetCallerIdentity": {"UserId": "AIDA", "Account": ACCOUNT, "Arn": ARN},
    "DescribeRegions": REGIONS,
    "GetParameter": {"Parameter": {"Name": "/cdk-bootstrap/hnb659fds/version", "Type": "String", "Value": "27"}},
    "DescribeStacks": stacks(CDKToolkit=BOOTSTRAPPED),
    "ListStackResources": resources(),
    "ListServiceQuotas": {"Quotas": [quota("Concurrent executions", 1000)]},
    "ListFunctions": {"Functions": [{"FunctionName": "another", "MemorySize": 10240}]},
    "GetAccountSettings": limits(1000),
    "GetFunctionConcurrency": {},
    "DescribeVpcs": vpcs(1),
    "DescribeAddresses": {"Addresses": []},
    "GetServiceQuota": Refusal("NoSuchResourceException", "The request failed because the resource does not exist"),
    "DescribeCertificate": certificate(),
    "GetDomainName": Refusal("NotFoundException", "Invalid domain name identifier specified"),
}


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Told:
    answers = Told(dict(ANSWERS))
    monkeypatch.setattr(Aws, "client", lambda _, service, region: answers.client(service, region))
    return answers


def given(settings: dict[str, str], root: Path = ROOT) -> Given:
    """Without this machine's .env. An empty setting removes one of the two that are required."""
    required = {"AWS_ACCOUNT_ID": ACCOUNT, "AWS_REGION": REGION}
    return replace(Given.read({**required, **settings}, Path("/nowhere")), root=root)


def findings(name: str = "", **settings: str) -> list[Finding]:
    return [found for found in aws_findings(given(settings)) if found.name == name or not name]


def finding(name: str, **settings: str) -> Finding:
    [found] = findings(name, **settings)
    return found


def outcomes(found: list[Finding]) -> list[tuple[str, Outcome]]:
    return [(each.name, each.outcome) for each in found]


def test_all_is_there(told: Told) -> None:
    found = findings(**DOMAIN)
    assert outcomes(found) == [(name, OK) for name in NAMES]
    assert all(not each.detail.endswith(".") and not each.remedy for each in found)
    assert {place for _, place in told.calls} == {REGION, "us-east-1"}


def test_without_a_domain_no_certificate_is_asked_for(told: Told) -> None:
    assert "Certificate" not in [each.name for each in findings()]
    assert not {"DescribeCertificate", "GetDomainName"} & {name for name, _ in told.calls}


def test_the_list_of_permissions_is_what_the_checks_use(told: Told) -> None:
    told.answers |= {
        "ListServiceQuotas": DENIED,
        "DescribeVpcs": vpcs(5),
        "DescribeAddresses": {"Addresses": [{"PublicIp": "203.0.113.7"}] * 5},
    }
    findings(**DOMAIN, NAT_GATEWAY="true")
    told.answers |= {
        "DescribeStacks": deployed(),
        "ListStackResources": resources(("AWS::Lambda::Function", "a-function")),
        "GetAccountSettings": limits(1000, 100),
    }
    findings(MAX_CONCURRENCY="10")
    used = set()
    for service, method in ACTIONS.values():
        client = told.client(service, REGION)
        used.add(client.meta.method_to_api_mapping[method])
    assert {name for name, _ in told.calls} == used


def test_the_permissions_have_the_names_of_iam(told: Told) -> None:
    for action, (service, method) in ACTIONS.items():
        meta = told.client(service, REGION).meta
        prefix, name = action.split(":")
        assert prefix == meta.service_model.signing_name
        http = meta.service_model.operation_model(meta.method_to_api_mapping[method]).http["method"]
        assert name in (meta.method_to_api_mapping[method], http)


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        (NoCredentialsError(), "AWS_PROFILE"),
        (ProfileNotFound(profile="gone"), "AWS_PROFILE"),
        (TokenRetrievalError(provider="sso", error_msg="Token has expired and refresh failed"), "aws sso login"),
        # botocore's own for credentials that stay expired after they were renewed.
        (RuntimeError("Credentials were refreshed, but the refreshed credentials are still expired."), "log in"),
        (Refusal("ExpiredToken", "The security token included in the request is expired"), "aws sso login"),
        (Refusal("InvalidClientTokenId", "The security token included in the request is invalid."), "check the AWS"),
        (Refusal("SignatureDoesNotMatch", "The request signature we calculated does not match"), "check the AWS"),
        # The role of a profile: sts:AssumeRole is refused before the identity is asked for.
        (Refusal("AccessDenied", f"User: {ARN} is not authorized to perform: sts:AssumeRole"), "AWS_PROFILE"),
    ],
    ids=lambda value: value.code if isinstance(value, Refusal) else type(value).__name__,
)
def test_without_usable_credentials_nothing_is_checked(told: Told, error: Teller, remedy: str) -> None:
    told.answers["GetCallerIdentity"] = error
    first, *others = findings(**DOMAIN)
    assert (first.name, first.outcome) == ("Credentials", PROBLEM)
    assert remedy in first.remedy
    assert outcomes(others) == [(name, NOT_CHECKED) for name in NAMES[1:]]
    assert {each.detail for each in others} == {"there are no credentials that AWS accepts"}
    assert len(told.calls) == 1


def test_an_error_that_nobody_foresaw_is_told(told: Told) -> None:
    told.answers["GetCallerIdentity"] = Refusal("InternalError", "We encountered an internal error")
    found = finding("Credentials")
    assert found.outcome is NOT_CHECKED
    assert "internal error" in found.detail
    assert {each.detail for each in findings()[1:]} == {"AWS doesn't tell whose credentials these are"}


def test_credentials_of_another_account(told: Told) -> None:
    told.answers["GetCallerIdentity"] = {"Account": "210987654321", "Arn": "arn:aws:iam::210987654321:user/a"}
    first, *others = findings()
    assert first.outcome is PROBLEM
    assert "210987654321" in first.detail
    assert ACCOUNT in first.detail
    assert {"AWS_PROFILE", "AWS_ACCOUNT_ID=210987654321"} <= set(first.remedy.split())
    assert {each.outcome for each in others} == {NOT_CHECKED}


def test_without_an_account_id_the_line_for_the_file_is_told(told: Told) -> None:
    first, *others = findings(AWS_ACCOUNT_ID="")
    assert (first.outcome, first.remedy) == (NOTE, f"AWS_ACCOUNT_ID={ACCOUNT} in .env")
    assert ARN in first.detail
    assert {each.outcome for each in others} == {OK}


def test_the_root_user_is_a_note(told: Told) -> None:
    told.answers["GetCallerIdentity"] = {"Account": ACCOUNT, "Arn": f"arn:aws:iam::{ACCOUNT}:root"}
    assert [each.outcome for each in findings("Credentials")] == [OK, NOTE]


def test_without_a_network_one_call_is_tried(told: Told) -> None:
    told.answers["GetCallerIdentity"] = CONNECTION
    first, *others = findings()
    assert first.outcome is PROBLEM
    assert "network" in first.remedy
    assert {(each.outcome, each.detail) for each in others} == {(NOT_CHECKED, "AWS can't be reached")}
    assert len(told.calls) == 1


@pytest.mark.parametrize(("operation", "made"), [("GetParameter", 2), ("ListServiceQuotas", 3)])
def test_a_network_that_breaks_ends_the_checks(told: Told, operation: str, made: int) -> None:
    told.answers[operation] = ReadTimeoutError(endpoint_url=f"https://a-service.{REGION}.amazonaws.com/")
    found = findings()
    assert [each.outcome for each in found] == made * [OK] + (7 - made) * [NOT_CHECKED]
    assert {each.detail for each in found[made + 1 :]} == {"AWS can't be reached"}
    assert told.calls[-1][0] == operation


@pytest.mark.slow
def test_a_network_that_swallows_everything_takes_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host that takes connections and never answers. The client's timeouts, shortened in proportion, end it."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.getsockname()[1]}")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
        short = asking._CONFIG.merge(Config(read_timeout=0.1))
        monkeypatch.setattr(asking, "_CONFIG", short)
        first, *others = findings()
    assert first.outcome is PROBLEM
    assert {each.detail for each in others} == {"AWS can't be reached"}


def test_the_timeouts_are_short() -> None:
    """Two tries of one call are all that a missing network costs."""
    config = asking._CONFIG
    assert config.retries["total_max_attempts"] * (config.connect_timeout + config.read_timeout) <= 30


@pytest.mark.slow
def test_roles_and_tokens_are_asked_for_with_the_same_timeouts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "a")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "b")
    monkeypatch.delenv("AWS_PROFILE", raising=False)
    made = Aws(REGION)
    assert made.client("sts", REGION).meta.config.connect_timeout == asking._CONFIG.connect_timeout
    # botocore itself makes such clients from the session below boto3's.
    own = made._session._session.create_client("sso-oidc", region_name=REGION)
    assert own.meta.config.read_timeout == asking._CONFIG.read_timeout


def test_a_region_that_is_not_set(told: Told) -> None:
    found = findings(AWS_REGION="")
    assert [each.outcome for each in found] == [OK] + 6 * [NOT_CHECKED]
    assert "AWS_REGION" in found[1].detail
    assert {each.detail for each in found[2:]} == {"the region isn't known"}


def test_a_region_that_is_switched_off(told: Told) -> None:
    """EC2 refuses credentials in such a region, so another one is asked."""
    refused = Refusal("AuthFailure", "AWS was not able to validate the provided access credentials")
    told.answers["DescribeRegions"] = lambda place, _: refused if place == "eu-south-2" else REGIONS
    found = findings(AWS_REGION="eu-south-2")
    assert (found[1].outcome, found[1].name) == (PROBLEM, "Region")
    assert "aws account enable-region --region-name eu-south-2" in found[1].remedy
    assert {each.outcome for each in found[2:]} == {NOT_CHECKED}
    assert ("DescribeRegions", "us-east-1") in told.calls


def test_a_region_that_aws_does_not_know(told: Told) -> None:
    told.answers["DescribeRegions"] = lambda place, _: CONNECTION if place == "eu-wst-1" else REGIONS
    found = findings(AWS_REGION="eu-wst-1")
    assert found[1].outcome is PROBLEM
    assert "nearest names: eu-west-1" in found[1].detail
    assert found[1].remedy.startswith("AWS_REGION=eu-west-1")


def test_a_policy_may_forbid_all_other_regions(told: Told) -> None:
    refused = Refusal("UnauthorizedOperation", "You are not authorized to perform this operation.")
    told.answers["DescribeRegions"] = lambda place, _: REGIONS if place == REGION else refused
    assert finding("Region").outcome is OK


def test_regions_that_may_not_be_listed(told: Told) -> None:
    """The other checks are made: the region may well be usable."""
    told.answers["DescribeRegions"] = Refusal("UnauthorizedOperation", "You are not authorized to perform this")
    found = findings()
    assert (found[1].outcome, "ec2:DescribeRegions" in found[1].detail) == (NOT_CHECKED, True)
    assert {each.outcome for each in found[2:]} == {OK}


@pytest.mark.parametrize(("name", "home"), [("us-gov-west-1", "us-gov-west-1"), ("cn-north-1", "cn-north-1")])
def test_the_identity_is_asked_for_in_the_regions_own_partition(told: Told, name: str, home: str) -> None:
    findings(AWS_REGION=name)
    assert told.calls[0] == ("GetCallerIdentity", home)


NO_PARAMETER = Refusal("ParameterNotFound", "")


@pytest.mark.parametrize(
    ("version", "status", "outcome", "told_of"),
    [
        ("6", "UPDATE_ROLLBACK_COMPLETE", OK, "version 6"),
        ("27", None, OK, "version 27"),
        ("27", "UPDATE_ROLLBACK_FAILED", NOTE, "UPDATE_ROLLBACK_FAILED"),
        ("27", "UPDATE_IN_PROGRESS", PROBLEM, "UPDATE_IN_PROGRESS"),
        ("5", "CREATE_COMPLETE", PROBLEM, "6 is needed"),
        (None, None, PROBLEM, "isn't bootstrapped"),
        (None, "REVIEW_IN_PROGRESS", PROBLEM, "isn't bootstrapped"),
        (None, "ROLLBACK_COMPLETE", PROBLEM, "ROLLBACK_COMPLETE"),
        (None, "DELETE_FAILED", PROBLEM, "DELETE_FAILED"),
    ],
)
def test_the_bootstrap(told: Told, version: str | None, status: str | None, outcome: Outcome, told_of: str) -> None:
    told.answers["GetParameter"] = {"Parameter": {"Value": version}} if version else NO_PARAMETER
    told.answers["DescribeStacks"] = stacks(**({"CDKToolkit": stack(status, "CDKToolkit")} if status else {}))
    found = finding("Bootstrap")
    assert found.outcome is outcome
    assert told_of in found.detail
    if outcome is PROBLEM and "IN_PROGRESS" not in told_of:
        assert f"npx aws-cdk@2 bootstrap aws://{ACCOUNT}/{REGION}" in found.remedy
    assert ("delete-stack" in found.remedy) == (told_of == "DELETE_FAILED")


def test_a_limit_of_memory_that_service_quotas_tells(told: Told) -> None:
    """This project knows no account whose quotas have this entry. AWS's support calls the quota by this name."""
    names = [quota("MicroVM memory", 1, "Gigabytes"), quota("Function memory maximum", 3008, "Megabytes")]
    told.answers["ListServiceQuotas"] = {"Quotas": [quota("Function memory minimum", 128, "Megabytes"), *names]}
    found = finding("Lambda memory")
    assert (found.outcome, found.remedy) == (PROBLEM, "LAMBDA_MEMORY_MIB=3008 in .env")
    assert "8,096" in found.detail
    told.answers["ListServiceQuotas"] = {"Quotas": [quota("Function memory maximum", 10, "Gigabytes")]}
    assert "allows 10,240" in finding("Lambda memory").detail
    assert "ListFunctions" not in [name for name, _ in told.calls]


def test_quotas_come_in_pages(told: Told) -> None:
    def page(_: str, parameters: dict[str, Any]) -> dict[str, Any]:
        if "NextToken" not in parameters:
            return {"Quotas": [quota("Concurrent executions", 1000)], "NextToken": "more"}
        return {"Quotas": [quota("Function memory maximum", 3008, "Megabytes")]}

    told.answers["ListServiceQuotas"] = page
    assert finding("Lambda memory").outcome is PROBLEM


@pytest.mark.parametrize("quotas", [{"Quotas": []}, DENIED], ids=["not told", "not allowed"])
def test_a_lambda_with_as_much_memory_proves_that_it_is_allowed(told: Told, quotas: Teller) -> None:
    told.answers["ListServiceQuotas"] = quotas
    assert finding("Lambda memory").outcome is OK
    told.answers["ListFunctions"] = {"Functions": [{"FunctionName": "small", "MemorySize": 8095}]}
    found = finding("Lambda memory")
    assert found.outcome is NOT_CHECKED
    assert found.remedy == "if the account is new: LAMBDA_MEMORY_MIB=3008 in .env"
    reason = (
        "lack the permission servicequotas:ListServiceQuotas" if quotas is DENIED else "Service Quotas doesn't tell"
    )
    assert reason in found.detail


def test_little_memory_needs_no_question(told: Told) -> None:
    assert finding("Lambda memory", LAMBDA_MEMORY_MIB="3008").outcome is OK
    assert "ListServiceQuotas" not in [name for name, _ in told.calls]


@pytest.mark.parametrize("folder", ["", "jobs"], ids=["handler", "job"])
def test_the_largest_file_counts(told: Told, tmp_path: Path, folder: str) -> None:
    """A file that asks for more than the setting gets no more than that. Without MEMORY_MIB it gets the setting."""
    inference = tmp_path / "inference"
    (inference / "jobs").mkdir(parents=True)
    (inference / "small.py").write_text("MEMORY_MIB = 128\ndef handler(event, context): ...\n")
    told.answers["ListFunctions"] = {"Functions": []}

    def detail() -> str:
        [found] = [each for each in aws_findings(given({}, tmp_path)) if each.name == "Lambda memory"]
        return found.detail

    assert "128 MB" in detail()
    large = inference / folder / "large.py"
    large.write_text("MEMORY_MIB = 4000\ndef handler(event, context): ...\n")
    assert "4,000 MB" in detail()
    large.write_text("MEMORY_MIB = 10240\ndef handler(event, context): ...\n")
    assert "8,096 MB" in detail()


def test_a_handler_file_that_is_broken(told: Told, tmp_path: Path) -> None:
    copy_inference(tmp_path / "inference")
    (tmp_path / "inference" / "similar.py").write_text("MEMORY_MIB = 1\ndef handler(event, context): ...\n")
    found = [each for each in aws_findings(given({"MAX_CONCURRENCY": "5"}, tmp_path)) if each.outcome is not OK]
    assert outcomes(found) == [("Lambda memory", NOT_CHECKED), ("Concurrency", NOT_CHECKED)]
    assert all(each.detail.startswith("similar.py") for each in found)


def test_a_quota_of_ten_is_a_note(told: Told) -> None:
    told.answers["GetAccountSettings"] = limits(10)
    found = finding("Concurrency")
    assert found.outcome is NOTE
    assert "10 Lambdas" in found.detail
    assert "--quota-code L-B99A9384" in found.remedy


@pytest.mark.parametrize(
    ("quota_of_account", "unreserved", "each", "outcome", "remedy"),
    [
        (1000, 1000, "128", OK, ""),
        (1000, 1000, "129", PROBLEM, "MAX_CONCURRENCY=128"),
        (1000, 450, "100", PROBLEM, "MAX_CONCURRENCY=50"),
        (10, 10, "1", PROBLEM, "MAX_CONCURRENCY=0"),
        (100, 100, "1", PROBLEM, "MAX_CONCURRENCY=0"),
        (107, 107, "1", OK, ""),
    ],
)
def test_what_is_reserved_must_leave_a_hundred(
    told: Told, quota_of_account: int, unreserved: int, each: str, outcome: Outcome, remedy: str
) -> None:
    """For seven handlers."""
    told.answers["GetAccountSettings"] = limits(quota_of_account, unreserved)
    found = finding("Concurrency", MAX_CONCURRENCY=each)
    assert found.outcome is outcome
    assert found.remedy.startswith(remedy)
    if outcome is PROBLEM:
        # What is missing, and no more.
        more = 7 * int(each) + 100 - unreserved
        assert found.remedy.endswith(f"--desired-value {quota_of_account + more}")


def test_a_stack_without_the_page_reserves_nothing_for_it(told: Told) -> None:
    """With six handlers."""
    told.answers["GetAccountSettings"] = limits(1000, 1000)
    assert finding("Concurrency", MAX_CONCURRENCY="150", API_AUTH="iam").outcome is OK
    assert finding("Concurrency", MAX_CONCURRENCY="150").outcome is PROBLEM
    assert finding("Concurrency", MAX_CONCURRENCY="151", API_AUTH="iam").remedy.startswith("MAX_CONCURRENCY=150 in ")


def test_what_the_stack_has_reserved_is_free_for_it(told: Told) -> None:
    functions = [("AWS::Lambda::Function", f"function-{number}") for number in range(7)]
    told.answers |= {
        "DescribeStacks": deployed(),
        "ListStackResources": resources(*functions, ("AWS::EC2::VPC", "vpc-0")),
        "GetAccountSettings": limits(1000, 240),
        "GetFunctionConcurrency": {"ReservedConcurrentExecutions": 100},
    }
    assert finding("Concurrency", MAX_CONCURRENCY="120").outcome is OK
    assert finding("Concurrency", MAX_CONCURRENCY="121").remedy.startswith("MAX_CONCURRENCY=120 in .env\nor ")
    told.answers["GetFunctionConcurrency"] = {}
    assert finding("Concurrency", MAX_CONCURRENCY="120").remedy.startswith("MAX_CONCURRENCY=20 in .env\nor ")


def test_a_full_region_has_no_room_for_a_network(told: Told) -> None:
    told.answers["DescribeVpcs"] = vpcs(5)
    found = finding("Network")
    assert found.outcome is PROBLEM
    assert "VPCs: 5 of 5" in found.detail
    assert "--quota-code L-F678F1CE --desired-value 6" in found.remedy
    told.answers["GetServiceQuota"] = {"Quota": quota("VPCs per Region", 20, service="vpc")}
    assert finding("Network").outcome is OK
    told.answers["GetServiceQuota"] = DENIED
    assert finding("Network").detail == "these credentials lack the permission servicequotas:GetServiceQuota"


def test_a_vpc_that_another_account_shares_does_not_count(told: Told) -> None:
    told.answers["DescribeVpcs"] = vpcs(9, owner="210987654321")
    assert finding("Network").outcome is OK


def test_a_nat_gateway_needs_an_address(told: Told) -> None:
    told.answers["DescribeAddresses"] = {"Addresses": [{"PublicIp": f"203.0.113.{number}"} for number in range(5)]}
    assert [each.outcome for each in findings("Network")] == [OK]
    vpc, address = findings("Network", NAT_GATEWAY="true")
    assert (vpc.outcome, address.outcome) == (OK, PROBLEM)
    assert "Elastic IP" in address.detail
    assert "--service-code ec2 --quota-code L-0263D0A3" in address.remedy


def test_a_stack_that_is_there_has_its_network(told: Told) -> None:
    told.answers |= {"DescribeStacks": deployed(), "DescribeVpcs": vpcs(5)}
    assert finding("Network").outcome is OK
    told.answers["DescribeStacks"] = deployed("ROLLBACK_COMPLETE")
    assert finding("Network").outcome is PROBLEM


@pytest.mark.parametrize(
    ("names", "outcome"),
    [
        (("similar.example.org",), OK),
        (("example.org", "*.Example.org"), OK),
        (("example.org",), PROBLEM),
        (("*.similar.example.org",), PROBLEM),
        (("*.org",), PROBLEM),
    ],
)
def test_the_certificate_covers_the_domain(told: Told, names: tuple[str, ...], outcome: Outcome) -> None:
    told.answers["DescribeCertificate"] = certificate("ISSUED", *names)
    found = finding("Certificate", **DOMAIN)
    assert found.outcome is outcome
    assert names[0] in found.detail or outcome is OK


@pytest.mark.parametrize(
    ("answer", "told_of"),
    [
        (Refusal("ResourceNotFoundException", f"Could not find certificate {CERTIFICATE}."), "there is no certificate"),
        (certificate("PENDING_VALIDATION"), "nobody has proved yet that similar.example.org is yours"),
        (certificate("EXPIRED"), "EXPIRED"),
    ],
    ids=["missing", "pending", "expired"],
)
def test_a_certificate_that_cannot_be_used(told: Told, answer: Teller, told_of: str) -> None:
    told.answers["DescribeCertificate"] = answer
    found = finding("Certificate", **DOMAIN)
    assert found.outcome is PROBLEM
    assert told_of in found.detail
    assert found.remedy


def test_a_certificate_of_another_account(told: Told) -> None:
    arn = CERTIFICATE.replace(ACCOUNT, "210987654321")
    found = finding("Certificate", **{**DOMAIN, "CERTIFICATE_ARN": arn})
    assert (found.outcome, found.detail) == (PROBLEM, "it is in the account 210987654321")


def test_a_domain_that_is_taken(told: Told) -> None:
    told.answers["GetDomainName"] = {"DomainName": "similar.example.org"}
    assert [each.outcome for each in findings("Certificate", **DOMAIN)] == [OK, PROBLEM]
    told.answers["DescribeStacks"] = deployed()
    assert [each.outcome for each in findings("Certificate", **DOMAIN)] == [OK, PROBLEM]
    told.answers["ListStackResources"] = resources(("AWS::ApiGatewayV2::DomainName", "similar.example.org"))
    assert [each.outcome for each in findings("Certificate", **DOMAIN)] == [OK]


@pytest.mark.parametrize(
    ("status", "outcome", "remedy"),
    [
        ("REVIEW_IN_PROGRESS", OK, ""),
        ("CREATE_COMPLETE", OK, ""),
        ("UPDATE_ROLLBACK_COMPLETE", OK, ""),
        ("ROLLBACK_COMPLETE", NOTE, ""),
        ("CREATE_IN_PROGRESS", PROBLEM, "wait"),
        ("UPDATE_COMPLETE_CLEANUP_IN_PROGRESS", PROBLEM, "wait"),
        ("DELETE_IN_PROGRESS", PROBLEM, "wait"),
        ("UPDATE_ROLLBACK_FAILED", PROBLEM, "aws cloudformation continue-update-rollback --stack-name AiidSimilar"),
        ("UPDATE_FAILED", PROBLEM, "aws cloudformation rollback-stack --stack-name AiidSimilarIncidents --region eu-w"),
        ("CREATE_FAILED", PROBLEM, "aws cloudformation rollback-stack"),
        ("ROLLBACK_FAILED", NOTE, ""),
        ("DELETE_FAILED", PROBLEM, "scripts/destroy"),
        ("IMPORT_ROLLBACK_FAILED", PROBLEM, "repair it"),
    ],
)
def test_the_state_of_the_stack(told: Told, status: str, outcome: Outcome, remedy: str) -> None:
    told.answers["DescribeStacks"] = deployed(status)
    found = finding("Stack")
    assert found.outcome is outcome
    assert found.remedy.startswith(remedy)
    assert status in found.detail or status == "REVIEW_IN_PROGRESS"


def test_a_stack_that_is_not_there(told: Told) -> None:
    found = finding("Stack", STACK_NAME="Staging")
    assert (found.outcome, found.detail) == (OK, f"Staging in {REGION} will be new")
    assert "ListStackResources" not in [name for name, _ in told.calls]


@pytest.mark.parametrize("status", ["ROLLBACK_COMPLETE", "ROLLBACK_FAILED"])
def test_a_failed_first_deployment_that_is_protected(told: Told, status: str) -> None:
    told.answers["DescribeStacks"] = deployed(status, EnableTerminationProtection=True)
    found = finding("Stack")
    assert (found.outcome, found.remedy) == (PROBLEM, "scripts/destroy")


def test_a_stack_of_another_application(told: Told) -> None:
    told.answers["DescribeStacks"] = deployed(Description="Something else")
    found = finding("Stack")
    assert (found.outcome, found.remedy) == (PROBLEM, "choose another STACK_NAME in .env")
    assert "Something else" in found.detail
    assert "VPCs: 1 in use" in finding("Network").detail
    output = {"OutputKey": "apiUrl", "OutputValue": "https://a.execute-api.eu-west-1.amazonaws.com"}
    told.answers["DescribeStacks"] = deployed(Description="An older description", Outputs=[output])
    assert finding("Stack").outcome is OK
    assert finding("Network").outcome is OK
    # Nothing of it is left, and the CDK removes it.
    told.answers["DescribeStacks"] = deployed("ROLLBACK_COMPLETE", Description="Something else")
    assert finding("Stack").outcome is NOTE


@pytest.mark.parametrize("has_one", [False, True])
def test_a_nat_gateway_cannot_come_or_go(told: Told, has_one: bool) -> None:
    gateway = [("AWS::EC2::NatGateway", "nat-0")] if has_one else []
    told.answers |= {
        "DescribeStacks": deployed(),
        "ListStackResources": resources(("AWS::EC2::VPC", "vpc-0"), *gateway),
    }
    as_deployed, other = str(has_one).lower(), str(not has_one).lower()
    assert [each.outcome for each in findings("Stack", NAT_GATEWAY=as_deployed)] == [OK]
    state, found = findings("Stack", NAT_GATEWAY=other)
    assert (state.outcome, found.outcome) == (OK, PROBLEM)
    assert found.remedy.startswith(f"NAT_GATEWAY={as_deployed}")
    assert "docs/deploying.md#internet-access-for-handlers" in found.detail


def test_a_nat_gateway_that_was_deleted_is_not_there(told: Told) -> None:
    summaries = resources(("AWS::EC2::NatGateway", "nat-0"))
    summaries["StackResourceSummaries"][0]["ResourceStatus"] = "DELETE_COMPLETE"
    told.answers |= {"DescribeStacks": deployed(), "ListStackResources": summaries}
    assert [each.outcome for each in findings("Stack")] == [OK]


@pytest.mark.parametrize(
    ("operation", "name", "action"),
    [
        ("GetParameter", "Bootstrap", "ssm:GetParameter"),
        ("DescribeStacks", "Stack", "cloudformation:DescribeStacks"),
        ("ListStackResources", "Stack", "cloudformation:ListStackResources"),
        ("ListFunctions", "Lambda memory", "lambda:ListFunctions"),
        ("GetAccountSettings", "Concurrency", "lambda:GetAccountSettings"),
        ("GetFunctionConcurrency", "Concurrency", "lambda:GetFunctionConcurrency"),
        ("DescribeVpcs", "Network", "ec2:DescribeVpcs"),
        ("DescribeAddresses", "Network", "ec2:DescribeAddresses"),
        ("DescribeCertificate", "Certificate", "acm:DescribeCertificate"),
        ("GetDomainName", "Certificate", "apigateway:GET"),
    ],
)
def test_a_missing_permission_is_named_and_the_other_checks_are_made(
    told: Told, operation: str, name: str, action: str
) -> None:
    if name in ("Stack", "Concurrency"):
        told.answers |= {"DescribeStacks": deployed(), "GetAccountSettings": limits(1000, 100)}
        told.answers["ListStackResources"] = resources(
            ("AWS::EC2::NatGateway", "nat-0"), ("AWS::Lambda::Function", "a-function")
        )
    told.answers[operation] = DENIED
    found = findings(**DOMAIN, NAT_GATEWAY="true", MAX_CONCURRENCY="1")
    assert (name, NOT_CHECKED) in outcomes(found)
    assert f"these credentials lack the permission {action}" in [each.detail for each in found]
    assert [each for each in NAMES if each in {one.name for one in found}] == NAMES


def test_what_goes_wrong_in_aws_is_told_and_not_raised(told: Told) -> None:
    told.answers |= {
        name: Refusal("InternalError", "An internal error has occurred")
        for name in ANSWERS
        if name not in ("GetCallerIdentity", "DescribeRegions")
    }
    found = findings(**DOMAIN)
    assert outcomes(found) == [*((name, OK) for name in NAMES[:2]), *((name, NOT_CHECKED) for name in NAMES[2:])]
    assert all("internal error" in each.detail for each in found[2:])


def test_an_answer_of_another_form_is_told_and_not_raised(told: Told) -> None:
    told.answers |= {"GetParameter": {"Parameter": {"Value": "new"}}, "GetAccountSettings": {}}
    found = {each.name: each for each in findings()}
    assert [name for name, each in found.items() if each.outcome is NOT_CHECKED] == ["Bootstrap", "Concurrency"]
    assert "'new'" in found["Bootstrap"].detail


def test_the_pages_that_remedies_name_are_there() -> None:
    named = {
        match
        for path in (ROOT / "scripts" / "deployment" / "account").glob("*.py")
        for match in re.findall(r"docs/(\w+)\.md#([\w-]+)", path.read_text(encoding="utf-8"))
    }
    assert len(named) == 2
    assert all(anchor in anchors(DOCS / f"{page}.md") for page, anchor in named)
