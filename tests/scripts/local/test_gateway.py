"""The local API Gateway: what event a request becomes, and what response an answer becomes.

The reference is AWS's page on payload format 2.0:
https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-develop-integrations-lambda.html
"""

from __future__ import annotations

import base64
import gzip
import json
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from starlette.testclient import TestClient

from local.gateway import gateway
from similarity.api.routes import find_handlers

SITE = "https://site.example"
INTERNAL_ERROR = {"message": "Internal Server Error"}
NOT_FOUND = {"message": "Not Found"}

ECHO = """
import json

def handler(event, context):
    return {"statusCode": 200, "headers": {"Content-Type": "application/json"}, "body": json.dumps(event)}
"""

# AWS writes them for every route; authorizers and certificates, which this API has none of, left out.
CONTEXT_KEYS = {
    "accountId",
    "apiId",
    "domainName",
    "domainPrefix",
    "http",
    "requestId",
    "routeKey",
    "stage",
    "time",
    "timeEpoch",
}
ALWAYS = {"version", "routeKey", "rawPath", "rawQueryString", "headers", "requestContext", "isBase64Encoded"}

Serve = Callable[..., TestClient]


@pytest.fixture
def serve(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Serve:
    """Serves handler files of the given sources, named by keyword, behind the gateway."""

    def start(**sources: str) -> TestClient:
        monkeypatch.syspath_prepend(tmp_path)
        for module, source in sources.items():
            (tmp_path / f"{module}.py").write_text(source, encoding="utf-8")
            # Noted first, so that a module that wasn't there is taken away in the end.
            monkeypatch.setitem(sys.modules, module, ModuleType(module))
            monkeypatch.delitem(sys.modules, module)
        return TestClient(gateway(find_handlers(tmp_path), [SITE]))

    return start


@pytest.fixture
def echo(serve: Serve) -> TestClient:
    return serve(echo_event=ECHO)


def answering(expression: str) -> str:
    return f"def handler(event, context):\n    return {expression}\n"


def test_a_get_becomes_an_event_of_format_2(echo: TestClient) -> None:
    before = time.time()
    event = echo.get(
        "/echo-event?text=a%20car%2C+a%20dog&num=3",
        headers={"User-Agent": "some agent", "X-Api-Key": "some key", "Host": "api.example:8000"},
    ).json()
    assert set(event) == ALWAYS | {"queryStringParameters"}
    assert event["version"] == "2.0"
    assert event["routeKey"] == "GET /echo-event"
    assert event["rawPath"] == "/echo-event"
    assert event["rawQueryString"] == "text=a%20car%2C+a%20dog&num=3"
    assert event["queryStringParameters"] == {"text": "a car, a dog", "num": "3"}
    assert event["isBase64Encoded"] is False
    assert event["headers"]["x-api-key"] == "some key"
    context = event["requestContext"]
    assert set(context) == CONTEXT_KEYS
    assert context["http"] == {
        "method": "GET",
        "path": "/echo-event",
        "protocol": "HTTP/1.1",
        "sourceIp": "testclient",
        "userAgent": "some agent",
    }
    assert (context["routeKey"], context["stage"], context["domainName"]) == (
        "GET /echo-event",
        "$default",
        "api.example:8000",
    )
    assert before * 1000 - 1 <= context["timeEpoch"] <= time.time() * 1000
    assert re.fullmatch(r"\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d \+0000", context["time"])


def test_a_post_becomes_an_event_of_format_2(echo: TestClient) -> None:
    event = echo.post("/echo-event", json={"text": "Grüße"}).json()
    assert set(event) == ALWAYS | {"body"}
    assert event["routeKey"] == "POST /echo-event"
    assert event["requestContext"]["http"]["method"] == "POST"
    assert event["rawQueryString"] == ""
    assert json.loads(event["body"]) == {"text": "Grüße"}
    assert event["isBase64Encoded"] is False
    assert event["headers"]["content-type"] == "application/json"


def test_every_request_has_an_id_of_its_own(echo: TestClient) -> None:
    assert len({echo.get("/echo-event").json()["requestContext"]["requestId"] for _ in range(3)}) == 3


def test_a_post_may_have_a_query_and_no_body(echo: TestClient) -> None:
    event = echo.post("/echo-event?text=car").json()
    assert set(event) == ALWAYS | {"queryStringParameters"}
    assert event["queryStringParameters"] == {"text": "car"}
    assert event["isBase64Encoded"] is False


@pytest.mark.parametrize(
    ("end", "read"),
    [("%", "%"), ("%E", "%E"), ("%zz", "%zz"), ("%E2%80", "\ufffd"), ("%E2%8", "\ufffd%8"), ("%ff", "\ufffd")],
)
def test_a_broken_escape_reaches_the_handler_as_its_characters(end: str, read: str, echo: TestClient) -> None:
    """As browsers read one: https://url.spec.whatwg.org/#percent-decode. No page of AWS says what API Gateway does."""
    answer = echo.get(f"/echo-event?text=a%20car{end}")
    assert answer.status_code == 200
    assert answer.json()["rawQueryString"] == f"text=a%20car{end}"
    assert answer.json()["queryStringParameters"] == {"text": f"a car{read}"}


def test_repeated_query_parameters_are_joined_by_commas(echo: TestClient) -> None:
    event = echo.get("/echo-event?parameter1=value1&parameter1=value2&parameter2=value&empty=").json()
    assert event["queryStringParameters"] == {"parameter1": "value1,value2", "parameter2": "value", "empty": ""}


def test_repeated_headers_are_joined_by_commas_under_lower_case_names(echo: TestClient) -> None:
    headers = echo.get("/echo-event", headers=[("X-Header2", "value1"), ("x-header2", "value2")]).json()["headers"]
    assert headers["x-header2"] == "value1,value2"
    assert all(name == name.lower() for name in headers)


@pytest.mark.parametrize(
    "content_type",
    [
        "application/json",
        "application/json; charset=utf-8",
        "Application/JSON",
        "application/javascript",
        "application/xml",
        "application/graphql",
        "text/plain",
        "text/csv",
        "text/html; charset=utf-8",
        'TEXT/PLAIN; Charset="UTF-8"',
    ],
)
def test_a_body_of_a_text_type_stays_text(content_type: str, echo: TestClient) -> None:
    text = '{"text": "Grüße"}'
    event = echo.post("/echo-event", content=text.encode(), headers={"Content-Type": content_type}).json()
    assert (event["body"], event["isBase64Encoded"]) == (text, False)


@pytest.mark.parametrize(
    "content_type",
    [
        None,
        "",
        "application/octet-stream",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "image/png",
        "application/json-seq",
        "application/problem+json",
        "weird/unknown",
        "text/plain; charset=iso-8859-1",
        "application/json; charset=utf-16",
    ],
)
@pytest.mark.parametrize("content", [bytes(range(256)), b"hello world"])
def test_a_body_of_another_type_or_encoding_comes_as_base64(
    content: bytes, content_type: str | None, echo: TestClient
) -> None:
    headers = {} if content_type is None else {"Content-Type": content_type}
    event = echo.post("/echo-event", content=content, headers=headers).json()
    assert event["isBase64Encoded"] is True
    assert base64.b64decode(event["body"], validate=True) == content


@pytest.mark.parametrize(
    "content", ["Grüße".encode("latin-1"), "Grüße".encode("utf-16"), b"\xed\xa0\x80", bytes(range(256))]
)
def test_no_byte_is_lost_of_a_text_that_is_not_in_the_encoding_it_claims(content: bytes, echo: TestClient) -> None:
    for content_type in ("application/json", "text/plain; charset=utf-8"):
        event = echo.post("/echo-event", content=content, headers={"Content-Type": content_type}).json()
        assert event["isBase64Encoded"] is True
        assert base64.b64decode(event["body"], validate=True) == content


@pytest.mark.parametrize("content_type", ["application/json", "image/png"])
def test_a_post_of_nothing_has_no_body(content_type: str, echo: TestClient) -> None:
    event = echo.post("/echo-event", content=b"", headers={"Content-Type": content_type}).json()
    assert "body" not in event
    assert event["isBase64Encoded"] is False


HANDLER = """
from similarity.api.events import endpoint

@endpoint
def handler(request):
    return {"got": dict(request.parameters)}
"""


@pytest.mark.parametrize(
    "charset", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "latin-1", "cp1252", "cp500", "gb18030"]
)
def test_a_handler_reads_the_same_whether_text_or_base64_comes(charset: str, serve: Serve) -> None:
    values = {"text": "Grüße: a robot"}
    client = serve(echo_parameters=HANDLER)
    content = json.dumps(values, ensure_ascii=False).encode(charset)
    for media_type in (
        "application/json",
        "text/plain",
        "application/octet-stream",
        "application/x-www-form-urlencoded",
    ):
        headers = {"Content-Type": f"{media_type}; charset={charset}"}
        response = client.post("/echo-parameters", content=content, headers=headers)
        assert response.json()["body"] == {"warnings": [], "got": values}


@pytest.mark.parametrize(
    "content_type", ["application/json", "text/plain; charset=utf-8", "application/octet-stream", None]
)
def test_bytes_that_nobody_can_decode_are_a_400(content_type: str | None, serve: Serve) -> None:
    headers = {} if content_type is None else {"Content-Type": content_type}
    content = '{"text": "Grüße"}'.encode("latin-1")
    response = serve(echo_parameters=HANDLER).post("/echo-parameters", content=content, headers=headers)
    assert response.status_code == 400
    assert response.json()["body"]["msg"].startswith("Error! The body must be text in utf-8, but byte 13 of 17 isn't; ")


def test_a_form_is_a_400_that_says_what_is_wanted(serve: Serve) -> None:
    response = serve(echo_parameters=HANDLER).post("/echo-parameters", data={"text": "a"})
    assert (response.status_code, response.json()["body"]["msg"]) == (
        400,
        "Error! The body must be a JSON object; the 6 characters received are not valid JSON: Expecting value "
        "(line 1, column 1).",
    )


def test_the_handler_s_status_headers_and_body_are_the_response(serve: Serve) -> None:
    answer = {"statusCode": 418, "headers": {"Content-Type": "text/x-tea", "X-Pot": "short"}, "body": "Grüße"}
    response = serve(tea=answering(repr(answer))).get("/tea")
    assert response.status_code == 418
    assert response.headers["content-type"] == "text/x-tea"
    assert response.headers["x-pot"] == "short"
    assert response.content == "Grüße".encode()


@pytest.mark.parametrize("status", ["404", "'404'"])
def test_a_status_may_be_a_number_or_the_string_of_one(status: str, serve: Serve) -> None:
    assert serve(status=answering(f"{{'statusCode': {status}}}")).get("/status").status_code == 404


def test_an_answer_with_nothing_but_a_status_has_an_empty_body(serve: Serve) -> None:
    response = serve(empty=answering("{'statusCode': 201}")).post("/empty")
    assert (response.status_code, response.content) == (201, b"")


@pytest.mark.parametrize(
    ("answer", "content"),
    [
        # The two examples of AWS's page; JSON leaves the spaces open.
        ("'Hello from Lambda!'", b"Hello from Lambda!"),
        ("{'message': 'Hello from Lambda!'}", b'{"message":"Hello from Lambda!"}'),
        ("[1, 2]", b"[1,2]"),
        ("{}", b"{}"),
        ("3", b"3"),
    ],
)
def test_an_answer_without_status_is_itself_the_body(answer: str, content: bytes, serve: Serve) -> None:
    response = serve(plain=answering(answer)).get("/plain")
    assert (response.status_code, response.headers["content-type"]) == (200, "application/json")
    assert response.content == content


def test_a_base64_body_is_decoded(serve: Serve) -> None:
    content = bytes(range(256))
    answer = {
        "statusCode": 200,
        "headers": {"Content-Type": "image/png"},
        "body": base64.b64encode(content).decode(),
        "isBase64Encoded": True,
    }
    response = serve(picture=answering(repr(answer))).get("/picture")
    assert response.content == content
    assert response.headers["content-type"] == "image/png"


@pytest.mark.parametrize(
    "answer",
    [
        "{'statusCode': 200, 'body': {'msg': 'no string'}}",
        "{'statusCode': 200, 'body': 3}",
        "{'statusCode': 200, 'body': b'bytes'}",
        "{'statusCode': 200, 'body': 'abcde', 'isBase64Encoded': True}",
        "{'statusCode': 'fine', 'body': ''}",
        "{'statusCode': None, 'body': ''}",
        "{'statusCode': 200, 'headers': ['Content-Type'], 'body': ''}",
        "{'message': {1, 2}}",
        "{'similarity': float('nan')}",
        "1 / 0",
        "[][0]",
    ],
)
def test_an_answer_that_api_gateway_refuses_is_a_500(
    answer: str, serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    response = serve(broken=answering(answer)).get("/broken")
    assert (response.status_code, response.json()) == (500, INTERNAL_ERROR)
    assert response.headers["content-type"] == "application/json"
    (record,) = [record for record in caplog.records if record.levelname == "ERROR"]
    assert "/broken" in record.getMessage()
    assert record.exc_info


def test_after_an_error_the_next_request_is_answered(serve: Serve) -> None:
    client = serve(sometimes="def handler(event, context):\n    return {'statusCode': 200, 'body': event['body']}\n")
    assert client.post("/sometimes").status_code == 500
    assert client.post("/sometimes", content="text", headers={"Content-Type": "text/plain"}).text == "text"


@pytest.mark.parametrize("path", ["/", "/nowhere", "/echo-event/", "/echo-event/more", "/echo_event", "/Echo-Event"])
def test_an_unknown_route_is_a_404(path: str, echo: TestClient) -> None:
    for method in ("GET", "POST"):
        response = echo.request(method, path, follow_redirects=False)
        assert (response.status_code, response.json()) == (404, NOT_FOUND)


@pytest.mark.parametrize("method", ["PUT", "DELETE", "PATCH", "OPTIONS"])
def test_an_unknown_method_is_a_404(method: str, echo: TestClient) -> None:
    response = echo.request(method, "/echo-event")
    assert (response.status_code, response.json()) == (404, NOT_FOUND)


def test_head_is_an_unknown_method(echo: TestClient) -> None:
    assert echo.head("/echo-event").status_code == 404


def test_a_method_that_the_file_does_not_state_is_a_404(serve: Serve) -> None:
    client = serve(look=f'METHODS = ("GET",)\n{ECHO}', report=f'METHODS = ("PUT", "HEAD")\n{ECHO}')
    allowed = {"/look": {"GET"}, "/report": {"PUT", "HEAD"}}
    for path, methods in allowed.items():
        for method in ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH"):
            response = client.request(method, path)
            assert response.status_code == (200 if method in methods else 404), (method, path)
            if method in methods - {"HEAD"}:
                assert response.json()["routeKey"] == f"{method} {path}"


def preflight(client: TestClient, origin: str, *, path: str = "/echo-event", method: str = "POST") -> Any:
    asked = {
        "Origin": origin,
        "Access-Control-Request-Method": method,
        "Access-Control-Request-Headers": "content-type, x-api-key",
    }
    return client.options(path, headers=asked)


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_preflight_of_an_allowed_origin_is_granted(method: str, echo: TestClient) -> None:
    response = preflight(echo, SITE, method=method)
    assert response.is_success
    assert response.headers["access-control-allow-origin"] == SITE
    assert response.headers["access-control-allow-credentials"] == "true"
    assert set(response.headers["access-control-allow-methods"].split(", ")) == {"GET", "POST"}
    allowed = {name.lower() for name in response.headers["access-control-allow-headers"].split(", ")}
    assert {"content-type", "x-amz-date", "authorization", "x-api-key"} <= allowed


def test_cors_allows_the_methods_of_all_files_on_every_route(serve: Serve) -> None:
    """As in API Gateway, where CORS is the whole API's."""
    client = serve(look=f'METHODS = ("GET",)\n{ECHO}', report=f'METHODS = ("PUT",)\n{ECHO}')
    for path in ("/look", "/report"):
        response = preflight(client, SITE, path=path, method="PUT")
        assert response.is_success
        assert set(response.headers["access-control-allow-methods"].split(", ")) == {"GET", "PUT"}


@pytest.mark.parametrize("origin", ["https://other.example", "http://site.example", f"{SITE}.other.example", "null"])
def test_a_preflight_of_another_origin_is_not_granted(origin: str, echo: TestClient) -> None:
    assert "access-control-allow-origin" not in preflight(echo, origin).headers


def test_a_browser_of_an_allowed_origin_may_read_answers_and_errors(serve: Serve) -> None:
    client = serve(good=answering("{}"), bad=answering("1 / 0"))
    for path, status in (("/good", 200), ("/bad", 500), ("/nowhere", 404)):
        response = client.get(path, headers={"Origin": SITE})
        assert response.status_code == status
        assert response.headers["access-control-allow-origin"] == SITE
        assert response.headers["access-control-allow-credentials"] == "true"


def test_a_browser_of_another_origin_may_not(serve: Serve) -> None:
    client = serve(good=answering("{}"), bad=answering("1 / 0"))
    for path in ("/good", "/bad", "/nowhere"):
        response = client.get(path, headers={"Origin": "https://other.example"})
        assert "access-control-allow-origin" not in response.headers


PAGE = """
from similarity.api.answers import Document
from similarity.api.events import endpoint

METHODS = ("GET",)
PAGE = True

@endpoint(media_type="text/html")
def handler(request):
    return Document("<p>Größe 🤖</p>" * 100, "text/html", {"X-Own": "a header"})
"""
TEXT = "<p>Größe 🤖</p>" * 100


@pytest.mark.parametrize("path", ["/map", "/"])
@pytest.mark.parametrize("accepted", ["gzip, br", "identity", "gzip;q=0"])
def test_a_page_arrives_whole_compressed_or_not(path: str, accepted: str, serve: Serve) -> None:
    with serve(map=PAGE).stream("GET", path, headers={"Accept-Encoding": accepted}) as response:
        sent = b"".join(response.iter_raw())
    packed = accepted == "gzip, br"
    assert (gzip.decompress(sent) if packed else sent).decode() == TEXT
    assert response.headers.get("content-encoding") == ("gzip" if packed else None)
    assert response.headers["content-length"] == str(len(sent))
    assert (response.headers["content-type"], response.headers["x-own"]) == ("text/html", "a header")
    assert "Accept-Encoding" in response.headers["vary"].split(", ")  # CORS adds Origin


@pytest.mark.parametrize("path", ["/map", "/"])
@pytest.mark.parametrize("method", ["HEAD", "POST", "PUT", "DELETE", "OPTIONS"])
def test_a_page_takes_get_alone(method: str, path: str, serve: Serve) -> None:
    response = serve(map=PAGE).request(method, path)
    assert response.status_code == 404
    if method != "HEAD":
        assert response.json() == NOT_FOUND


def test_the_first_of_two_pages_is_also_at_the_root(serve: Serve) -> None:
    client = serve(map=PAGE, another_page=PAGE.replace("Größe", "Another"), echo_event=ECHO)
    texts = {path: client.get(path).text for path in ("/", "/map", "/another-page")}
    assert texts["/"] == texts["/another-page"] != texts["/map"]


def test_a_handler_that_is_no_page_leaves_the_root_empty(serve: Serve) -> None:
    client = serve(map=PAGE.replace("PAGE = True", "PAGE = False"))
    assert client.get("/map").text == TEXT
    assert (client.get("/").status_code, client.get("/").json()) == (404, NOT_FOUND)
