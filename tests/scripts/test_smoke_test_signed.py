"""The smoke test signs its requests, checks that unsigned ones are refused, and says why its own are.

The API is the local server behind a proxy that refuses what API Gateway refuses.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NoReturn

import pytest

import smoke_test
from http_servers import answering_xml
from processes import PATIENCE_S, Command
from proxy import Exchange, proxy
from serving import serving
from signatures import Gate, Key, Received
from smoke.api_client import Api, NotSignedError, SkippedError
from smoke.checks import FROM_EMBED, HEALTH, MOST_BYTES, OPENAPI, ROUTES, rounded
from smoke.replies import TEXT
from smoke.signing import Signer, canonical
from tiny import ROOT

Output = pytest.CaptureFixture[str]
REGION = "eu-north-1"
USER = Key("AKIDEXAMPLE", "a secret of a user")
# As long as the tokens of roles are.
ROLE = Key("ASIAEXAMPLE", "a secret of a role", "IQoJb3JpZ2luX2Vj/+=" * 60)
ORIGIN = "http://localhost:3000"
VARIABLES = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")


@pytest.fixture(scope="module")
def real_url(tmp_path_factory: pytest.TempPathFactory, tiny_model_dir: Path, tiny_state_path: Path) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("server")
    with serving(folder, "--model", tiny_model_dir, "--state", tiny_state_path) as server:
        yield server.url


@pytest.fixture(autouse=True)
def aws(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No credentials, no region and no AWS but what a test gives."""
    for name in (*VARIABLES, "AWS_PROFILE", "AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "config"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    # Nothing listens there.
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", "http://127.0.0.1:9")
    monkeypatch.setattr(smoke_test, "ROOT", tmp_path)


def log_in(monkeypatch: pytest.MonkeyPatch, key: Key) -> None:
    for name, value in zip(VARIABLES, (key.id, key.secret, key.token), strict=True):
        if value:
            monkeypatch.setenv(name, value)


def outcomes(url: str, capsys: Output, *arguments: str) -> dict[str, Any]:
    smoke_test.main([url, "--repeat", "1", "--json", *arguments])
    captured = capsys.readouterr()
    assert captured.err == ""
    found: dict[str, Any] = json.loads(captured.out)
    return found


def failed(url: str, capsys: Output, *arguments: str) -> dict[str, str]:
    return {found["check"]: found["problem"] for found in outcomes(url, capsys, *arguments)["failed"]}


def sentence(capsys: Output, url: str, *arguments: str) -> str:
    """The one line on stderr with which the smoke test ends before its checks."""
    assert smoke_test.main([url, "--repeat", "1", *arguments]) == 1
    captured = capsys.readouterr()
    assert "FAIL" not in captured.out
    (line,) = captured.err.splitlines()
    assert line.startswith("smoke_test: ")
    return line.removeprefix("smoke_test: ")


# An API that takes signed requests only.


@pytest.mark.slow
@pytest.mark.parametrize("key", [USER, ROLE], ids=["user", "role"])
def test_everything_passes_with_a_signature(
    key: Key, real_url: str, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    log_in(monkeypatch, key)
    with proxy(real_url, check=Gate([key], REGION).refusal) as url:
        found = outcomes(url, capsys, "--sign", "--region", REGION)
    assert found["failed"] == []
    assert len(found["passed"]) == 34 + len([*ROUTES, HEALTH, OPENAPI])
    assert "/health refuses a request without a signature" in found["passed"]
    assert found["incidents"] == 5


@pytest.mark.parametrize("where", ["environment", "file"])
def test_the_region_of_a_domain_of_your_own_is_that_of_the_stack(
    where: str, real_url: str, capsys: Output, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    log_in(monkeypatch, USER)
    if where == "environment":
        monkeypatch.setenv("AWS_REGION", REGION)
    else:
        (tmp_path / ".env").write_text(f"AWS_REGION={REGION}\n")
    with proxy(real_url, check=Gate([USER], REGION).refusal) as url:
        assert outcomes(url, capsys, "--sign")["failed"] == []


def test_a_profile_signs_too(real_url: str, capsys: Output, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "config").write_text(
        f"[staging]\naws_access_key_id={USER.id}\naws_secret_access_key={USER.secret}\n[profile staging]\n"
    )
    monkeypatch.setenv("AWS_PROFILE", "staging")
    with proxy(real_url, check=Gate([USER], REGION).refusal) as url:
        assert Api(url, PATIENCE_S, Signer(REGION)).get(HEALTH, {}).status == 200


def test_a_preflight_is_sent_without_a_signature(real_url: str) -> None:
    def refuse(*_: object) -> NoReturn:
        raise NotSignedError("a browser doesn't sign this")

    seen: list[Exchange] = []
    with proxy(real_url, seen.append) as url:
        assert Api(url, PATIENCE_S, refuse).send("OPTIONS", "/similar").request == "OPTIONS /similar"
    assert [each.method for each in seen] == ["OPTIONS"]


def test_headers_of_any_case_are_signed_once(monkeypatch: pytest.MonkeyPatch, real_url: str) -> None:
    seen: list[Received] = []
    log_in(monkeypatch, USER)
    gate = Gate([USER], REGION)

    def check(received: Received) -> str:
        seen.append(received)
        return gate.refusal(received)

    with proxy(real_url, check=check) as url:
        api = Api(url.replace("127.0.0.1", "LOCALHOST"), PATIENCE_S, Signer(REGION))
        headers = {"CONTENT-TYPE": "application/json", "X-Some": " a  b "}
        assert api.post("/similar", {"text": TEXT}, headers=headers).status == 200
    assert seen[0].values("content-type") == ["application/json"]


@pytest.mark.parametrize("text", ["a, b", "ü+%&=;", "!*'()~-_.", '"/?:@[]{}|\\^`#'])
def test_a_text_of_any_characters_is_signed_and_arrives(
    text: str, monkeypatch: pytest.MonkeyPatch, real_url: str
) -> None:
    log_in(monkeypatch, USER)
    with proxy(real_url, check=Gate([USER], REGION).refusal) as url:
        signed = Api(url, PATIENCE_S, Signer(REGION)).get("/text-to-embed", {"text": text})
        assert signed.body() == Api(real_url, PATIENCE_S).get("/text-to-embed", {"text": text}).body()


def test_a_port_that_is_the_schemes_own_is_signed_as_it_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    log_in(monkeypatch, USER)
    for host in ("example.org", "example.org:443", "Example.ORG"):
        url, headers = Signer(REGION)("GET", f"https://{host}/health", {}, None)
        assert headers["host"] == host
        received = Received("GET", url.partition(host)[2], [*headers.items()])
        assert Gate([USER], REGION).refusal(received) == ""


def test_a_query_is_encoded_but_for_letters_digits_and_four_signs() -> None:
    assert canonical("embed=[1,-2.5]&text=a+b%20c&empty=&tilde=~_-.*") == (
        "embed=%5B1%2C-2.5%5D&text=a%20b%20c&empty=&tilde=~_-.%2A"
    )


@pytest.mark.parametrize(
    "known",
    [replace(ROLE, secret="another"), replace(ROLE, token="another"), replace(ROLE, id="ASIAANOTHER")],
    ids=["secret", "token", "id"],
)
def test_a_wrong_key_is_refused(known: Key, monkeypatch: pytest.MonkeyPatch, real_url: str) -> None:
    log_in(monkeypatch, ROLE)
    with proxy(real_url, check=Gate([known], REGION).refusal) as url:
        assert Api(url, PATIENCE_S, Signer(REGION)).get(HEALTH, {}).refusal == "Forbidden"


# The size of a URL.


def vector_of(dimensions: int, scale: float) -> list[float]:
    made = random.Random(0)
    return [made.gauss(0, scale) for _ in range(dimensions)]


@pytest.mark.parametrize(
    ("key", "embed", "digits"),
    [
        # A little longer in a URL than AIID's vectors, of which the longest takes 7,279 bytes with three digits.
        (None, vector_of(768, 0.03), 3),
        (USER, vector_of(768, 0.03), 3),
        (ROLE, vector_of(768, 0.03), 3),
        (None, vector_of(1024, 0.03), 3),
        (USER, vector_of(1024, 0.03), 2),
        (ROLE, vector_of(1024, 0.03), 1),
    ],
)
def test_a_vector_has_as_many_digits_as_fit_into_what_api_gateway_takes(
    key: Key | None, embed: list[float], digits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if key:
        log_in(monkeypatch, key)
    url = "https://abcdef1234.execute-api.us-east-1.amazonaws.com"
    api = Api(url, 1, Signer("us-east-1") if key else None)
    parameters, tolerance = rounded(api, embed)
    assert parameters == {"embed": f"[{','.join(f'{number:.{digits}g}' for number in embed)}]"}
    assert api.size(FROM_EMBED, parameters) <= MOST_BYTES
    assert tolerance == (0.05 if digits == 1 else 0.01)


@pytest.mark.parametrize(
    ("token", "embed"),
    [("x" * 2000, vector_of(1024, 0.03)), ("x" * 4000, vector_of(768, 0.03))],
    ids=["1024 numbers", "768 numbers"],
)
def test_a_vector_is_skipped_if_its_signature_leaves_no_room(
    token: str, embed: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    log_in(monkeypatch, replace(ROLE, token=token))
    url = "https://abcdef1234.execute-api.us-east-1.amazonaws.com"
    with pytest.raises(
        SkippedError, match=r"^a signed request takes up to 10,5\d\d bytes, and API Gateway takes 10,240$"
    ):
        rounded(Api(url, 1, Signer("us-east-1")), embed)
    parameters, _ = rounded(Api(url, 1), embed)
    assert Api(url, 1).size(FROM_EMBED, parameters) <= MOST_BYTES


def test_a_vector_that_fits_in_no_request_is_sent_all_the_same_without_a_signature() -> None:
    embed = vector_of(1536, 0.03)
    parameters, _ = rounded(Api("https://example.org", 1), embed)
    assert parameters == {"embed": f"[{','.join(f'{number:.1g}' for number in embed)}]"}


@pytest.mark.slow
def test_a_skipped_check_is_a_line_and_neither_passed_nor_failed(
    real_url: str, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = replace(ROLE, token="x" * MOST_BYTES)
    log_in(monkeypatch, key)
    name = f"GET {FROM_EMBED} finds what the text finds"
    with proxy(real_url, check=Gate([key], REGION).refusal) as url:
        found = outcomes(url, capsys, "--sign", "--region", REGION)
        assert smoke_test.main([url, "--repeat", "1", "--sign", "--region", REGION]) == 0
    assert found["failed"] == []
    assert [each["check"] for each in found["skipped"]] == [name]
    assert name not in found["passed"]
    lines = capsys.readouterr().out.splitlines()
    [line] = [line for line in lines if line.startswith("skip  ")]
    assert line == f"skip  {name}: {found['skipped'][0]['reason']}"
    assert lines[-1] == f"{len(found['passed'])} checks passed, 0 failed, 1 skipped."


@pytest.mark.parametrize("key", [None, ROLE], ids=["unsigned", "signed"])
def test_the_size_of_a_request_is_that_of_the_one_that_arrives_at_least(
    key: Key | None, monkeypatch: pytest.MonkeyPatch, real_url: str
) -> None:
    seen: list[Received] = []
    if key:
        log_in(monkeypatch, key)

    def note(received: Received) -> str:
        seen.append(received)
        return ""

    with proxy(real_url, check=note) as url:
        api = Api(url, PATIENCE_S, Signer(REGION) if key else None)
        parameters = {"embed": "[1.5,-2]"}
        size = api.size(FROM_EMBED, parameters)
        api.get(FROM_EMBED, parameters)
    [received] = seen
    arrived = len(f"GET {received.target} HTTP/1.1\r\n") + sum(len(f"{n}: {v}\r\n") for n, v in received.headers)
    assert arrived <= size <= arrived + 100


# What is checked in addition.


def broken(
    real_url: str, capsys: Output, monkeypatch: pytest.MonkeyPatch, change: Callable[[Exchange], None], **options: Any
) -> dict[str, str]:
    log_in(monkeypatch, USER)
    with proxy(real_url, change, **{"check": Gate([USER], REGION).refusal, **options}) as url:
        return failed(url, capsys, "--sign", "--region", REGION)


def nothing(exchange: Exchange) -> None: ...


@pytest.mark.slow
def test_a_route_that_takes_unsigned_requests_fails(
    real_url: str, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate([USER], REGION)

    def open_for_post(received: Received) -> str:
        return "" if (received.method, received.target) == ("POST", "/similar") else gate.refusal(received)

    assert broken(real_url, capsys, monkeypatch, nothing, check=open_for_post) == {
        "/similar refuses a request without a signature": (
            "POST /similar: status 400 instead of 403 for a request without a signature"
        )
    }


@pytest.mark.slow
def test_an_api_that_takes_unsigned_requests_fails(
    real_url: str, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = broken(real_url, capsys, monkeypatch, nothing, check=None)
    assert set(found) == {f"{route} refuses a request without a signature" for route in (*ROUTES, HEALTH, OPENAPI)}


@pytest.mark.slow
def test_a_preflight_that_needs_a_signature_fails(
    real_url: str, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    def guard(exchange: Exchange) -> None:
        if exchange.method == "OPTIONS":
            exchange.status, exchange.headers, exchange.content = 403, {}, b'{"message":"Forbidden"}'

    found = broken(real_url, capsys, monkeypatch, guard)
    assert set(found) == {f"pages of {ORIGIN} may call {route}" for route in ROUTES}
    assert "status 403" in found[f"pages of {ORIGIN} may call /similar"]


@pytest.mark.slow
def test_a_preflight_that_does_not_allow_a_session_token_fails(
    real_url: str, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbid(exchange: Exchange) -> None:
        name = "access-control-allow-headers"
        if name in exchange.headers:
            allowed = exchange.headers[name].lower().split(", ")
            exchange.headers[name] = ", ".join(each for each in allowed if each != "x-amz-security-token")

    found = broken(real_url, capsys, monkeypatch, forbid)
    assert "but not x-amz-security-token" in found[f"pages of {ORIGIN} may call /similar"]


# What can't be checked, in a sentence.


def test_an_unsigned_run_says_that_the_api_takes_signed_requests_only(real_url: str, capsys: Output) -> None:
    with proxy(real_url, check=Gate([USER], REGION).refusal) as url:
        assert sentence(capsys, url) == "the API takes signed requests only: give --sign"


@pytest.mark.slow
def test_one_route_that_is_refused_is_a_failed_check(real_url: str, capsys: Output) -> None:
    with proxy(real_url, check=lambda received: "no" if received.target == "/similar" else "") as url:
        assert 'status 403 instead of 200: "{"message":"Forbidden"}"' in failed(url, capsys)["POST /similar answers"]


NAMESPACE = "https://sts.amazonaws.com/doc/2011-06-15/"
KNOWN = (
    f'<GetCallerIdentityResponse xmlns="{NAMESPACE}"><GetCallerIdentityResult><Arn>arn:aws:iam::123456789012:user/ann'
    "</Arn></GetCallerIdentityResult></GetCallerIdentityResponse>"
)


def error_of(code: str) -> str:
    return (
        f'<ErrorResponse xmlns="{NAMESPACE}"><Error><Type>Sender</Type><Code>{code}</Code>'
        "<Message>No.</Message></Error></ErrorResponse>"
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("status", "answer", "says"),
    [
        (
            200,
            KNOWN,
            'the API refuses the requests that arn:aws:iam::123456789012:user/ann has signed ("Forbidden"): the API '
            f"must be in {REGION}, else give --region, and the permission execute-api:Invoke is needed "
            "(docs/publishing.md#permissions)",
        ),
        (403, error_of("ExpiredToken"), "; log in to AWS again, e.g. with `aws sso login`"),
        (403, error_of("InvalidClientTokenId"), "; check the AWS credentials in the environment"),
    ],
)
def test_if_all_signed_requests_are_refused_it_asks_aws_why(
    status: int, answer: str, says: str, real_url: str, capsys: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    log_in(monkeypatch, USER)
    with answering_xml(lambda _: (status, answer)) as sts, proxy(real_url, check=Gate([], REGION).refusal) as url:
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", sts)
        assert says in sentence(capsys, url, "--sign", "--region", REGION)


LOG_IN = "log in to AWS, e.g. with `aws configure`, or set AWS_PROFILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
URL = f"https://abcdef1234.execute-api.{REGION}.amazonaws.com"


def test_missing_credentials_are_told(capsys: Output) -> None:
    says = sentence(capsys, URL, "--sign")
    assert says == f"requests can't be signed: Unable to locate credentials; {LOG_IN}"


def test_a_missing_profile_is_told(capsys: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_PROFILE", "nobody")
    assert sentence(capsys, URL, "--sign").endswith(f"(nobody) could not be found; {LOG_IN}")


def process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, expiration: str) -> None:
    """Credentials of a program, as those of SSO and roles, which end at a time."""
    monkeypatch.setenv("AWS_PROFILE", "staging")
    answer = {
        "Version": 1, "AccessKeyId": ROLE.id, "SecretAccessKey": ROLE.secret, "SessionToken": ROLE.token,
        "Expiration": expiration,
    }  # fmt: skip
    (tmp_path / "answer").write_text(json.dumps(answer))
    (tmp_path / "config").write_text(f"[profile staging]\ncredential_process = cat {tmp_path / 'answer'}\n")


@pytest.mark.slow
def test_expired_credentials_are_told(capsys: Output, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    process(tmp_path, monkeypatch, "2026-01-01T00:00:00Z")
    says = sentence(capsys, URL, "--sign")
    assert says.startswith("requests can't be signed: ")
    assert says.endswith("still expired.; log in to AWS again, e.g. with `aws sso login`")


@pytest.mark.slow
def test_credentials_that_end_during_a_run_are_a_failed_request(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # botocore renews what ends within ten minutes.
    process(tmp_path, monkeypatch, (datetime.now(UTC) + timedelta(minutes=5)).isoformat())
    api = Api(URL, 1, Signer(REGION))
    process(tmp_path, monkeypatch, "2026-01-01T00:00:00Z")
    with pytest.raises(NotSignedError, match=r"^GET /health: the request can't be signed: .*; log in to AWS again"):
        api.get(HEALTH, {})


def test_a_missing_region_is_told(capsys: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    log_in(monkeypatch, USER)
    says = sentence(capsys, "https://similar.example.org", "--sign")
    assert says.startswith("the URL doesn't name the API's region, so give --region; else AWS_REGION isn't set")
    monkeypatch.setenv("AWS_REGION", "moon")
    assert "AWS_REGION must be an AWS region" in sentence(capsys, "https://similar.example.org", "--sign")


@pytest.mark.slow
def test_missing_packages_are_told() -> None:
    command: Command = [sys.executable, "-S", ROOT / "scripts" / "smoke_test.py", URL, "--sign"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S)
    assert ended.returncode == 1
    assert ended.stderr.startswith("smoke_test: --sign needs the package ")
    assert ended.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("url", "region"),
    [
        (URL, REGION),
        (f"{URL.upper()}/stage", REGION),
        ("https://abc.execute-api.cn-north-1.amazonaws.com.cn", "cn-north-1"),
        ("https://similar.example.org", ""),
        (f"{URL}.example.org", ""),
        ("http://127.0.0.1:3001", ""),
    ],
)
def test_the_region_is_that_of_api_gateways_own_address(url: str, region: str) -> None:
    assert smoke_test.region_of_url(url) == region


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["--region", REGION], "--region is for --sign"),
        (["--sign", "--region", "us-east-1"], f"the URL is of an API in {REGION}: leave --region out"),
        (["--sign", "--region", "moon"], '"moon" isn\'t an AWS region such as us-east-1'),
    ],
)
def test_arguments_are_checked_before_anything_else(arguments: list[str], problem: str, capsys: Output) -> None:
    with pytest.raises(SystemExit) as caught:
        smoke_test.main([URL, *arguments])
    assert caught.value.code == 2
    assert problem in capsys.readouterr().err
