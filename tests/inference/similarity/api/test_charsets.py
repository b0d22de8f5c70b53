"""The same bytes give the same answer, whether they come as text or as base64, in every encoding that they may name."""

from __future__ import annotations

import base64
import encodings
import json
import pkgutil
from typing import Any

import hypothesis.strategies
import pytest

from similarity.api.charsets import charset_of, decode
from similarity.api.events import Request, endpoint
from similarity.errors import RequestError

# Of letters that most encodings of Europe have.
VALUES = {"text": "Grüße aus Köln: a robot", "num": 2}
JSON = json.dumps(VALUES, ensure_ascii=False)


@endpoint
def echo(request: Request) -> dict[str, Any]:
    return {"got": dict(request.parameters)}


def post(content: bytes | str, content_type: str | None = None, **fields: Any) -> tuple[int, dict[str, Any]]:
    """Status and body of the answer to a POST: bytes come as base64, a string as text."""
    body = base64.b64encode(content).decode() if isinstance(content, bytes) else content
    headers = {} if content_type is None else {"headers": {"content-type": content_type}}
    event = {"requestContext": {}, "isBase64Encoded": isinstance(content, bytes), "body": body, **headers, **fields}
    envelope = json.loads(echo(event, None)["body"])
    return envelope["statusCode"], envelope["body"]


def as_text(content: bytes) -> str | None:
    """What reads every body as UTF-8 makes of it, or None where it isn't UTF-8."""
    try:
        return content.decode()
    except UnicodeDecodeError:
        return None


CHARSETS = {
    "UTF-8": JSON.encode(),
    "utf8": JSON.encode("utf-8-sig"),
    "UTF-8-SIG": JSON.encode("utf-8-sig"),
    "utf-16": JSON.encode("utf-16"),
    "UTF-16LE": JSON.encode("utf-16-le"),
    "utf-16be": ("\ufeff" + JSON).encode("utf-16-be"),
    "utf-32": JSON.encode("utf-32"),
    "ISO-8859-1": JSON.encode("latin-1"),
    "latin1": JSON.encode("latin-1"),
    "windows-1252": JSON.encode("cp1252"),
    "iso-8859-15": JSON.encode("iso-8859-15"),
    "macintosh": JSON.encode("mac-roman"),
    "ibm500": JSON.encode("cp500"),
    "gb18030": JSON.encode("gb18030"),
}


@pytest.mark.parametrize("form", ["{}", '"{}"', "'{}'", " {} ; profile=x"])
@pytest.mark.parametrize("charset", CHARSETS)
def test_bytes_are_read_as_their_charset_says(charset: str, form: str) -> None:
    content_type = f"application/json; Charset={form.format(charset)}"
    assert post(CHARSETS[charset], content_type) == (200, {"warnings": [], "got": VALUES})


@pytest.mark.parametrize("charset", CHARSETS)
def test_a_text_is_not_decoded_twice(charset: str) -> None:
    expected = (200, {"warnings": [], "got": VALUES})
    assert post(JSON, f"application/json; charset={charset}") == expected
    text = as_text(CHARSETS[charset])
    if text is not None:
        assert post(text, f"application/json; charset={charset}") == expected


@pytest.mark.parametrize("charset", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
def test_ascii_in_a_wide_encoding_is_valid_utf_8_and_read_alike_both_ways(charset: str) -> None:
    content = json.dumps({"text": "a robot"}).encode(charset)
    for content_type in (None, "application/json", f"application/json; charset={charset}"):
        assert post(content, content_type) == post(content.decode(), content_type)
        assert post(content, content_type)[1]["got"] == {"text": "a robot"}


@pytest.mark.parametrize("codec", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("content_type", [None, "", "application/json", "application/json; charset=", "text/plain;x=y"])
def test_json_says_itself_which_encoding_of_unicode_it_is_in(codec: str, content_type: str | None) -> None:
    assert post(JSON.encode(codec), content_type) == (200, {"warnings": [], "got": VALUES})


def test_a_byte_order_mark_changes_nothing() -> None:
    for content in (JSON, "\ufeff" + JSON, JSON.encode(), JSON.encode("utf-8-sig")):
        for content_type in (None, "application/json", "application/json; charset=utf-8"):
            assert post(content, content_type) == (200, {"warnings": [], "got": VALUES})


@pytest.mark.parametrize(
    "fields",
    [
        {"headers": {"CONTENT-TYPE": "application/json; charset=latin-1"}},
        {"headers": {"accept": "*/*", "Content-Type": "application/json; charset=latin-1"}},
        {"headers": None, "multiValueHeaders": {"Content-Type": ["application/json; charset=latin-1"]}},
        {"multiValueHeaders": {"content-type": ["text/plain", "application/json; charset=latin-1"]}},
    ],
)
def test_the_content_type_is_found_wherever_it_stands(fields: dict[str, Any]) -> None:
    assert post(JSON.encode("latin-1"), **fields) == (200, {"warnings": [], "got": VALUES})


@pytest.mark.parametrize(
    "headers", [None, [], "text", {"content-type": None}, {"content-type": []}, {"content-type": 3}, {"": ""}]
)
def test_headers_of_another_form_are_no_headers(headers: object) -> None:
    assert post(JSON, headers=headers, multiValueHeaders=headers) == (200, {"warnings": [], "got": VALUES})


UNDECODABLE = [
    (
        JSON.encode("latin-1"),
        None,
        "utf-8, but byte 13 of 45 isn't; send UTF-8, or name the encoding as the charset of Content-Type",
    ),
    (
        JSON.encode("latin-1"),
        "application/json",
        "utf-8, but byte 13 of 45 isn't; send UTF-8, or name the encoding as the charset of Content-Type",
    ),
    (JSON.encode("latin-1"), "application/json; charset=utf-8", "utf-8, but byte 13 of 45 isn't; send UTF-8"),
    (JSON.encode(), "application/json; charset=us-ascii", "ascii, but byte 13 of 48 isn't; send UTF-8"),
    (
        b"\xff\xfe\xfa",
        None,
        "utf-16, but byte 3 of 3 isn't; send UTF-8, or name the encoding as the charset of Content-Type",
    ),
    (
        b'{"text": "\xed\xa0\x80"}',
        None,
        "utf-8, but byte 11 of 15 isn't; send UTF-8, or name the encoding as the charset of Content-Type",
    ),
    (b"{}{", "application/json; charset=utf-16-le", "utf-16-le, but byte 3 of 3 isn't; send UTF-8"),
    (b"\x81", "application/json; charset=windows-1252", "cp1252, but byte 1 of 1 isn't; send UTF-8"),
]


@pytest.mark.parametrize(("content", "content_type", "message"), UNDECODABLE, ids=range(len(UNDECODABLE)))
def test_bytes_that_can_not_be_decoded_are_the_callers_error(
    content: bytes, content_type: str | None, message: str
) -> None:
    assert post(content, content_type) == (
        400,
        {"warnings": [], "msg": f"Error! The body must be text in {message}.", "code": "request_invalid"},
    )


@pytest.mark.parametrize(
    "charset",
    [
        *("klingon", "utf-9", "binary", "aliases", "../utf_8", "ü", "\ud800", "\0", "x" * 10_000),
        # Python has them, but they don't make text of bytes.
        *("zlib", "rot13", "base64", "bz2", "hex", "quopri", "uu"),
        # They do, but aren't what a body is written in.
        *("idna", "punycode", "unicode_escape", "raw-unicode-escape", "undefined"),
    ],
)
def test_an_unknown_charset_is_the_callers_error(charset: str) -> None:
    message = (
        f"Error! The charset of Content-Type, a name of {len(charset)} characters, is not an encoding known here; "
        "send UTF-8."
    )
    for content in (JSON.encode(), JSON):
        assert post(content, f"application/json; charset={charset}") == (
            400,
            {"warnings": [], "msg": message, "code": "request_invalid"},
        )


def test_every_encoding_that_python_has_gives_an_answer_or_the_callers_error() -> None:
    names = {module.name for module in pkgutil.iter_modules(encodings.__path__)} | set(encodings.aliases.aliases)
    read = set()
    for name in names:
        for content in (b'{"a": 1}', b"\xff\xfe\x00\x81\xc3{", JSON):
            status, body = post(content, f"application/json; charset={name}")
            assert status in (200, 400), (name, body)
            read |= {name} if status == 200 and content == b'{"a": 1}' else set()
    # All that ASCII is a part of, but for notations.
    assert {"ascii", "utf_8", "latin_1", "cp1252", "shift_jis", "euc_kr", "koi8_r", "big5"} <= read
    assert not {"idna", "punycode", "unicode_escape", "rot_13", "zlib", "bz2"} & read


NAMES = hypothesis.strategies.sampled_from([*CHARSETS, "shift_jis", "utf-7", "klingon", "idna"])
TYPES = hypothesis.strategies.none() | NAMES.map("application/json; charset={}".format)
CONTENTS = hypothesis.strategies.binary() | hypothesis.strategies.builds(
    lambda text, codec: json.dumps({"text": text}, ensure_ascii=False).encode(codec, "replace"),
    hypothesis.strategies.text(),
    hypothesis.strategies.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32", "latin-1", "shift_jis"]),
)


@pytest.mark.slow
@hypothesis.settings(derandomize=True, deadline=None, max_examples=1000)
@hypothesis.given(content=CONTENTS, content_type=TYPES)
def test_any_bytes_are_answered_and_alike_both_ways(content: bytes, content_type: str | None) -> None:
    answer = post(content, content_type)
    assert answer[0] in (200, 400)
    text = as_text(content)
    # API Gateway gives no text of another charset.
    if text is not None and (content_type is None or content_type.lower().endswith(("utf-8", "utf8"))):
        assert post(text, content_type) == answer


@pytest.mark.parametrize(
    ("content_type", "charset"),
    [
        ("application/json", ""),
        ("application/json;charset=utf-8", "utf-8"),
        ("application/json ; a=b; CHARSET = Latin-1 ; c=d", "Latin-1"),
        ("text/plain; xcharset=a", ""),
        ("charset=a", ""),
        ("", ""),
        (";" * 100_000, ""),
        ("; " * 50_000 + "charset=a", "a"),
    ],
)
def test_the_charset_of_a_content_type(content_type: str, charset: str) -> None:
    assert charset_of(content_type) == charset


def test_a_lone_surrogate_in_a_text_stays() -> None:
    assert decode('{"a": "\ud800"}', "") == '{"a": "\ud800"}'
    with pytest.raises(RequestError):
        decode(b"\xed\xa0\x80", "")
