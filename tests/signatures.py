"""The check that API Gateway makes of a request's signature, made again from AWS's description alone.

It looks at the request as it arrived: the query is decoded and encoded again, and headers and body are those that were
received. It shares no code with the signers that it checks.
https://docs.aws.amazon.com/IAM/latest/UserGuide/reference_sigv-create-signed-request.html
"""

from __future__ import annotations

import hashlib
import hmac
import posixpath
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from urllib.parse import quote, unquote

ALGORITHM = "AWS4-HMAC-SHA256"
_TIME = "%Y%m%dT%H%M%SZ"
# How far the clocks may differ.
SKEW = timedelta(minutes=5)
_AUTHORIZATION = re.compile(
    rf"{ALGORITHM} Credential=([^/\s]+)/(\d{{8}})/([^/\s]+)/([^/\s]+)/aws4_request, *"
    r"SignedHeaders=([a-z0-9;-]+), *Signature=([0-9a-f]{64})"
)


@dataclass(frozen=True)
class Received:
    """A request as it arrived. target: path and query. headers: in the order in which they came."""

    method: str
    target: str
    headers: Sequence[tuple[str, str]]
    body: bytes = b""

    def values(self, name: str) -> list[str]:
        return [value for each, value in self.headers if each.lower() == name]


@dataclass(frozen=True)
class Key:
    """token: of a role or of SSO; "" for a key of a user."""

    id: str
    secret: str
    token: str = ""


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True)
class Gate:
    """What a service of a region lets through: requests that one of the keys has signed, not long ago."""

    keys: Iterable[Key]
    region: str
    service: str = "execute-api"
    now: Callable[[], datetime] = _now

    def refusal(self, request: Received) -> str:
        """Why the request is refused; "" if it isn't. API Gateway doesn't tell the caller."""
        given = request.values("authorization")
        found = _AUTHORIZATION.fullmatch(given[0]) if len(given) == 1 else None
        if not found:
            return "no signature"
        id_, day, region, service, names, signature = found.groups()
        key = next((each for each in self.keys if each.id == id_), None)
        if key is None or request.values("x-amz-security-token") != [key.token] * bool(key.token):
            return "unknown key or token"
        if (region, service) != (self.region, self.service):
            return f"signed for {service} in {region}"
        signed = names.split(";")
        required = {"host"} | {name.lower() for name, _ in request.headers if name.lower().startswith("x-amz-")}
        if signed != sorted(set(signed)) or not required <= set(signed):
            return f"signed headers {names}"
        time = "".join(request.values("x-amz-date"))
        if not re.fullmatch(r"\d{8}T\d{6}Z", time) or not time.startswith(day):
            return "no date"
        if abs(self.now() - datetime.strptime(time, _TIME).replace(tzinfo=UTC)) > SKEW:
            return "expired"
        expected = _signature(key, time, f"{day}/{region}/{service}/aws4_request", _canonical(request, signed))
        return "" if hmac.compare_digest(expected, signature) else "wrong signature"


def _canonical(request: Received, signed: Sequence[str]) -> str:
    path, _, query = request.target.partition("?")
    # Services other than S3 normalise the path, and encode it a second time.
    normal = posixpath.normpath(path).replace("//", "/") + ("/" if path.endswith("/") and path != "/" else "")
    pairs = sorted(
        tuple(quote(unquote(part), safe="") for part in (name, value))
        for name, _, value in (pair.partition("=") for pair in query.split("&") if pair)
    )
    headers = [f"{name}:{','.join(' '.join(value.split()) for value in request.values(name))}\n" for name in signed]
    return "\n".join(
        [
            request.method,
            quote(normal, safe="/"),
            "&".join(f"{name}={value}" for name, value in pairs),
            "".join(headers),
            ";".join(signed),
            hashlib.sha256(request.body).hexdigest(),
        ]
    )


def _signature(key: Key, time: str, scope: str, canonical: str) -> str:
    def mac(secret: bytes, text: str) -> bytes:
        return hmac.new(secret, text.encode(), hashlib.sha256).digest()

    secret = f"AWS4{key.secret}".encode()
    for part in scope.split("/"):
        secret = mac(secret, part)
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    return mac(secret, f"{ALGORITHM}\n{time}\n{scope}\n{digest}").hex()
