"""The text of an HTTP body, whatever encoding its sender chose."""

from __future__ import annotations

import codecs
import json
import re

from similarity.errors import RequestError

_CHARSET = re.compile(r""";\s*charset\s*=\s*["']?([^\s"';]*)""", re.IGNORECASE)
_LONGEST_NAME = 40
# Python counts them among the encodings of text, but they are notations for host names and for Python's own literals.
_NOTATIONS = ("idna", "punycode", "unicode-escape", "raw-unicode-escape")


def charset_of(content_type: str) -> str:
    """The encoding that a Content-Type names, "" where it names none."""
    found = _CHARSET.search(content_type)
    return found[1] if found else ""


def decode(body: str | bytes, charset: str) -> str:
    """The text of a body without a byte order mark. Raises RequestError for an unknown charset or bytes that don't fit.

    API Gateway hands on bytes (as base64) where the charset isn't UTF-8. What comes as a string nonetheless has been
    decoded already. Without a charset, bytes and strings alike may be UTF-16 or UTF-32, which JSON's first two
    characters give away.
    """
    errors = "strict" if isinstance(body, bytes) else "surrogatepass"
    content = body if isinstance(body, bytes) else body.encode(errors=errors)
    codec = _text_codec(charset) if charset else ""
    if not codec or (isinstance(body, str) and codec != "utf-8"):
        codec = json.detect_encoding(content)
    try:
        return content.decode(codec, errors).removeprefix("\ufeff")
    except UnicodeError as error:
        which = f"byte {error.start + 1} of {len(content)}" if isinstance(error, UnicodeDecodeError) else "some of it"
        remedy = "send UTF-8" if charset else "send UTF-8, or name the encoding as the charset of Content-Type"
        raise RequestError(
            "request_invalid", f"Error! The body must be text in {codec}, but {which} isn't; {remedy}."
        ) from error


def _text_codec(charset: str) -> str:
    """Python's name for an encoding of text. Raises RequestError."""
    try:
        if len(charset) <= _LONGEST_NAME:
            name = codecs.lookup(charset).name
            " ".encode(name)  # raises LookupError for what doesn't make bytes of text, such as rot13
            if name not in _NOTATIONS:
                return name
    except (LookupError, ValueError):
        pass
    raise RequestError(
        "request_invalid",
        f"Error! The charset of Content-Type, a name of {len(charset)} characters, is not an encoding known here; "
        "send UTF-8.",
    )
