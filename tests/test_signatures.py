"""The check of signatures agrees with AWS's published vectors, and refuses what API Gateway refuses."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

from signatures import Gate, Key, Received

# The credentials, the time and the requests of AWS's Signature Version 4 test suite:
# https://github.com/awslabs/aws-c-auth/tree/main/tests/aws-signing-test-suite/v4
TIME = datetime(2015, 8, 30, 12, 36, tzinfo=UTC)
KEY = Key("AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY")
SUITE = Gate([KEY], "us-east-1", "service", lambda: TIME)
FORM = ("Content-Type", "application/x-www-form-urlencoded")


def vector(method: str, target: str, signature: str, *headers: tuple[str, str], body: bytes = b"") -> Received:
    sent = [("Host", "example.amazonaws.com"), ("X-Amz-Date", "20150830T123600Z"), *headers]
    names = ";".join(sorted(name.lower() for name, _ in sent))
    authorization = (
        f"AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20150830/us-east-1/service/aws4_request, SignedHeaders={names}, "
        f"Signature={signature}"
    )
    return Received(method, target, [*sent, ("Authorization", authorization)], body)


VANILLA = vector("GET", "/", "5fa00fa31553b73ebf1942676e86291e8372ff2a2260956d9b8aae1d763fbf31")
VECTORS = {
    "get-vanilla": VANILLA,
    "get-relative": replace(VANILLA, target="/example/.."),
    "get-slashes": vector(
        "GET", "//example//", "9a624bd73a37c9a373b5312afbebe7a714a789de108f0bdfe846570885f57e84"
    ),
    "get-vanilla-query-order-key-case": vector(
        "GET", "/?Param2=value2&Param1=value1", "b97d918cfa904a5beff61c982a1b6f458b799221646efd99d3219ec94cdf2500"
    ),
    "get-vanilla-utf8-query": vector(
        "GET", "/?%E1%88%B4=bar", "2cdec8eed098649ff3a119c94853b13c643bcf08f8b0a1d91e12c9027818dd04"
    ),
    "get-header-value-trim": vector(
        "GET", "/", "acc3ed3afb60bb290fc8d2dd0098b9911fcaa05412b367055dee359757a9c736",
        ("My-Header1", " value1"), ("My-Header2", ' "a   b   c"'),
    ),
    "post-x-www-form-urlencoded": vector(
        "POST", "/", "ff11897932ad3f4e8b18135d722051e5ac45fc38421b1da7b9d196a0fe09473a", FORM, body=b"Param1=value1"
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", VECTORS)
def test_the_vectors_of_aws_pass(name: str) -> None:
    assert SUITE.refusal(VECTORS[name]) == ""


FORM_POST = VECTORS["post-x-www-form-urlencoded"]


def with_header(request: Received, name: str, value: str | None) -> Received:
    kept = [each for each in request.headers if each[0] != name]
    return replace(request, headers=[*kept, *([(name, value)] if value is not None else [])])


@pytest.mark.parametrize(
    ("gate", "request_", "reason"),
    [
        (SUITE, with_header(VANILLA, "Authorization", None), "no signature"),
        (SUITE, with_header(VANILLA, "Authorization", "Bearer abc"), "no signature"),
        (SUITE, replace(VANILLA, method="POST"), "wrong signature"),
        (SUITE, replace(VANILLA, target="/other"), "wrong signature"),
        (SUITE, replace(VANILLA, target="/?a=b"), "wrong signature"),
        (SUITE, replace(FORM_POST, body=b"Param1=value2"), "wrong signature"),
        (SUITE, with_header(FORM_POST, "Content-Type", "text/plain"), "wrong signature"),
        (SUITE, with_header(VANILLA, "Host", "another.amazonaws.com"), "wrong signature"),
        (SUITE, with_header(VANILLA, "X-Amz-Content-Sha256", "0" * 64), "signed headers host;x-amz-date"),
        (SUITE, with_header(VANILLA, "X-Amz-Date", None), "no date"),
        (SUITE, with_header(VANILLA, "X-Amz-Security-Token", "t"), "unknown key or token"),
        (replace(SUITE, keys=[replace(KEY, token="t")]), VANILLA, "unknown key or token"),
        (replace(SUITE, keys=[]), VANILLA, "unknown key or token"),
        (replace(SUITE, keys=[replace(KEY, secret="another")]), VANILLA, "wrong signature"),
        (replace(SUITE, service="execute-api"), VANILLA, "signed for service in us-east-1"),
        (replace(SUITE, region="eu-west-1"), VANILLA, "signed for service in us-east-1"),
        (replace(SUITE, now=lambda: TIME + timedelta(minutes=6)), VANILLA, "expired"),
        (replace(SUITE, now=lambda: TIME - timedelta(minutes=6)), VANILLA, "expired"),
    ],
)
def test_anything_else_is_refused(gate: Gate, request_: Received, reason: str) -> None:
    assert gate.refusal(request_) == reason


@pytest.mark.parametrize(
    ("query", "is_right"), [("embed=%5B1%2C2%5D", True), ("embed=%5B1,2%5D", False), ("a=b+c", False)]
)
def test_botocore_signs_a_url_as_it_is_and_that_is_wrong_unless_all_is_encoded(query: str, is_right: bool) -> None:
    request = AWSRequest("GET", f"https://example.org/embed?{query}", headers={"host": "example.org"})
    SigV4Auth(Credentials(KEY.id, KEY.secret), "execute-api", "us-east-1").add_auth(request)
    received = Received("GET", f"/embed?{query}", request.headers.items())
    assert Gate([KEY], "us-east-1").refusal(received) == ("" if is_right else "wrong signature")
