"""That a call which the template doesn't allow would be found."""

from __future__ import annotations

from typing import Any

import pytest

from chain.permissions import allowed, call_of, forbidden

BUCKET = "a-bucket"
ARN = f"arn:aws:s3:::{BUCKET}"
SIGNED = "AWS4-HMAC-SHA256 Credential=jobs.tidy/20261126/us-east-1/{}/aws4_request, SignedHeaders=host"

TEMPLATE = {
    "Resources": {
        "Tidy": {
            "Type": "AWS::Lambda::Function",
            "Properties": {
                "ImageConfig": {"Command": ["jobs.tidy.handler"]},
                "Role": {"Fn::GetAtt": ["TidyRole", "Arn"]},
            },
        },
        "Policy": {
            "Type": "AWS::IAM::Policy",
            "Properties": {
                "Roles": [{"Ref": "TidyRole"}],
                "PolicyDocument": {
                    "Statement": [
                        {
                            "Effect": "Allow",
                            "Action": ["s3:GetObject", "s3:PutObject"],
                            "Resource": {"Fn::Join": ["", [{"Fn::GetAtt": ["Bucket", "Arn"]}, "/states/*"]]},
                        },
                        {"Effect": "Allow", "Action": "s3:ListBucket", "Resource": {"Fn::GetAtt": ["Bucket", "Arn"]}},
                        {"Effect": "Allow", "Action": "sqs:SendMessage", "Resource": {"Ref": "Queue"}},
                    ]
                },
            },
        },
        "Other": {
            "Type": "AWS::IAM::Policy",
            "Properties": {
                "Roles": [{"Ref": "OtherRole"}],
                "PolicyDocument": {"Statement": [{"Effect": "Allow", "Action": "s3:*", "Resource": "*"}]},
            },
        },
    }
}


def environ(method: str, path: str, query: str = "", source: str = "", service: str = "s3") -> dict[str, Any]:
    return {
        "REQUEST_METHOD": method,
        "PATH_INFO": path,
        "QUERY_STRING": query,
        "HTTP_AUTHORIZATION": SIGNED.format(service),
        **({"HTTP_X_AMZ_COPY_SOURCE": source} if source else {}),
    }


def test_a_job_has_the_statements_of_its_own_role() -> None:
    assert allowed(TEMPLATE, "jobs.tidy", BUCKET) == {
        ("s3:GetObject", f"{ARN}/states/*"),
        ("s3:PutObject", f"{ARN}/states/*"),
        ("s3:ListBucket", ARN),
    }


@pytest.mark.parametrize(
    ("request_", "lacks"),
    [
        (environ("GET", f"/{BUCKET}/states/a.pt"), set()),
        (environ("HEAD", f"/{BUCKET}/states/a.pt"), set()),
        (environ("GET", f"/{BUCKET}/states/a.pt", "versionId=1"), {("s3:GetObjectVersion", f"{ARN}/states/a.pt")}),
        (environ("PUT", f"/{BUCKET}/states/a.pt"), set()),
        (environ("PUT", f"/{BUCKET}/served.json"), {("s3:PutObject", f"{ARN}/served.json")}),
        (
            environ("PUT", f"/{BUCKET}/states/a.pt", source=f"{BUCKET}/deployed/b.pt?versionId=1"),
            {("s3:GetObjectVersion", f"{ARN}/deployed/b.pt")},
        ),
        (environ("DELETE", f"/{BUCKET}/states/a.pt"), {("s3:DeleteObject", f"{ARN}/states/a.pt")}),
        (environ("GET", f"/{BUCKET}", "list-type=2&prefix=states"), set()),
        (environ("GET", f"/{BUCKET}", "versions&prefix=states"), {("s3:ListBucketVersions", ARN)}),
    ],
    ids=lambda value: f"{value['REQUEST_METHOD']} {value['PATH_INFO']}" if isinstance(value, dict) else "",
)
def test_a_call_that_is_not_allowed_is_found(request_: dict[str, Any], lacks: set[tuple[str, str]]) -> None:
    call = call_of(request_)
    assert call is not None
    assert call.by == "jobs.tidy"
    assert forbidden([call], allowed(TEMPLATE, "jobs.tidy", BUCKET)) == lacks


def test_calls_of_other_services_do_not_count() -> None:
    assert call_of(environ("POST", "/", service="sqs")) is None
    assert call_of({**environ("GET", "/moto-api"), "HTTP_AUTHORIZATION": ""}) is None
