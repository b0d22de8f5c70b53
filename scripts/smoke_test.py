#!/usr/bin/env python3
"""Check a deployed API: every route, CORS and the replies to errors. Measure how long it takes.

Prints the version of this code, a line for each check, a table of latencies, and the number of incidents. The exit code
is 0 if no check fails. It is 1 if a check fails or nothing answers at the URL.

The checks work with any state. To check that it is the right state, give --expect with a text and the incident that the
text must find first.

If the API was deployed with API_AUTH=iam, give --sign. It signs the requests with the credentials that boto3 finds: of
the environment, of a profile or of AWS's SSO. The region is that of the URL https://….execute-api.REGION.amazonaws.com.
For a domain of your own it is --region, else AWS_REGION or AWS_DEFAULT_REGION, else the AWS_REGION in .env.
The GET with a vector is skipped if the signature makes it too large for API Gateway.

Example with the apiUrl that a deployment prints, one of its ALLOWED_ORIGINS, and an incident of AIID:
    python scripts/smoke_test.py https://abcdef1234.execute-api.us-east-1.amazonaws.com \\
        --origin https://incidentdatabase.ai --expect "YouTube Kids shows violent videos to children=1"
Example with the local server:
    python scripts/smoke_test.py http://127.0.0.1:3001
"""

from __future__ import annotations

from shared import command
from shared.command import ROOT, argument_parser

import argparse
import json
import os
import re
import statistics
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from similarity import __version__
from similarity.api.routes import DEFAULT_ALLOWED_ORIGINS
from similarity.settings import REGION
from smoke.api_client import Api, NoReplyError, NotSignedError, SkippedError, UnexpectedError
from smoke.checks import FROM_EMBED, HEALTH, OPENAPI, PAGE, ROUTES, TO_EMBED, checks, count_incidents
from smoke.replies import TEXT, vector

if TYPE_CHECKING:
    from smoke.signing import Signer

# API Gateway gives up after 30 s. This waits longer, to see its reply.
DEFAULT_TIMEOUT_S = 35.0
DEFAULT_REPEAT = 5


@dataclass(frozen=True)
class Latency:
    """Seconds from a request to its complete reply: of the first request, and of the following ones."""

    route: str
    first_s: float
    following_s: tuple[float, ...]

    @property
    def median_s(self) -> float:
        return statistics.median(self.following_s)


@dataclass(frozen=True)
class Outcome:
    """A check and the problem that it found; None if it passed. skipped: why it wasn't made; "" if it was."""

    name: str
    problem: str | None
    latency: Latency | None = None
    skipped: str = ""

    @property
    def passed(self) -> bool:
        return self.problem is None and not self.skipped

    @property
    def line(self) -> str:
        if self.problem is not None:
            return f"FAIL  {self.name}: {self.problem}"
        return f"skip  {self.name}: {self.skipped}" if self.skipped else f"ok    {self.name}"


def measure(api: Api, route: str, repeat: int) -> Latency:
    """The latencies of a POST route. Raises UnexpectedError or NoReplyError."""
    parameters: dict[str, Any] = {"text": TEXT}
    if route == FROM_EMBED:
        parameters = {"embed": vector(api.post(TO_EMBED, {"text": TEXT}))}
    replies = [api.post(route, parameters) for _ in range(1 + repeat)]
    for reply in replies:
        reply.body()
    return Latency(route, replies[0].seconds, tuple(reply.seconds for reply in replies[1:]))


def run(api: Api, origin: str, repeat: int, expected: Sequence[tuple[str, int]] = ()) -> Iterator[Outcome]:
    """Runs all checks. Latencies are measured first, because a route's first reply may wait for a Lambda to start."""
    for route in ROUTES:
        name = f"POST {route} answers"
        try:
            yield Outcome(name, None, measure(api, route, repeat))
        except (UnexpectedError, NoReplyError) as error:
            yield Outcome(name, str(error))
    for name, check in checks(api, origin, expected):
        try:
            check()
            yield Outcome(name, None)
        except SkippedError as error:
            yield Outcome(name, None, skipped=str(error))
        except (UnexpectedError, NoReplyError) as error:
            yield Outcome(name, str(error))


def refusal(api: Api) -> str:
    """The message with which API Gateway refuses each route; "" if it doesn't."""
    message = ""
    for route in (HEALTH, *ROUTES):
        try:
            message = api.get(route, {}).refusal
        except NoReplyError:
            return ""
        if not message:
            return ""
    return message


def table(latencies: list[Latency]) -> str:
    lines = [f"{'POST':<22}{'first s':>9}{'median s':>10}{'slowest s':>11}"]
    for found in latencies:
        slowest = max(found.following_s)
        lines.append(f"{found.route:<22}{found.first_s:>9.3f}{found.median_s:>10.3f}{slowest:>11.3f}")
    return "\n".join(lines)


def served(api: Api) -> int | None:
    """The number of incidents in the state; None if the API doesn't tell, in which case a check has failed."""
    try:
        return count_incidents(api)
    except (UnexpectedError, NoReplyError):
        return None


def precision_of(api: Api) -> str | None:
    """The precision of the Lambda that answers, which depends on its CPU; None if the API doesn't say."""
    try:
        found = api.get(HEALTH, {}).body().get("precision")
    except (UnexpectedError, NoReplyError):
        return None
    return found if isinstance(found, str) else None


def closing(outcomes: Sequence[Outcome], incidents: int | None, precision: str | None, page: str) -> str:
    """The lines at the end. page: its URL, "" without one."""
    lines = [table([found.latency for found in outcomes if found.latency]), ""]
    if incidents is not None:
        lines.append(f"{incidents} incidents are served.{f' Texts are encoded in {precision}.' if precision else ''}")
    if page:
        lines.append(f"A page to look at: {page}")
    failed = sum(outcome.problem is not None for outcome in outcomes)
    skipped = sum(bool(outcome.skipped) for outcome in outcomes)
    passed = len(outcomes) - failed - skipped
    lines.append(f"{passed} checks passed, {failed} failed{f', {skipped} skipped' if skipped else ''}.")
    return "\n".join(lines)


def as_json(url: str, outcomes: list[Outcome], incidents: int | None, precision: str | None) -> str:
    return json.dumps(
        {
            "url": url,
            "version": __version__,
            "incidents": incidents,
            "precision": precision,
            "passed": [found.name for found in outcomes if found.passed],
            "skipped": [{"check": found.name, "reason": found.skipped} for found in outcomes if found.skipped],
            "failed": [{"check": found.name, "problem": found.problem} for found in outcomes if found.problem],
            "latency_s": {
                found.latency.route: {
                    "first": found.latency.first_s,
                    "median": found.latency.median_s,
                    "following": found.latency.following_s,
                }
                for found in outcomes
                if found.latency
            },
        },
        indent=2,
    )


def api_url(value: str) -> str:
    """The URL of an API. A route at its end is removed."""
    try:
        parts = urlsplit(value)
        well_formed = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        well_formed = False
    # http.client refuses spaces and controls only when it sends. A query or fragment would end up inside the URL.
    if not well_formed or not re.fullmatch(r"[!-~]+", value) or parts.query or parts.fragment:
        raise argparse.ArgumentTypeError(f'"{value}" isn\'t a URL such as https://example.org')
    for route in (*ROUTES, HEALTH, OPENAPI, PAGE):
        value = value.rstrip("/").removesuffix(route)
    return value


def region_of_url(url: str) -> str:
    """The region of an API's own address; "" for a domain of somebody's own."""
    host = urlsplit(url).hostname or ""
    found = re.fullmatch(r"[a-z0-9-]+\.execute-api\.([a-z0-9-]+)\.amazonaws\.com(\.cn)?", host)
    return found[1] if found else ""


def signer(url: str, region: str | None) -> Signer:
    """region: that of --region. Raises NotSignedError."""
    try:
        # Not at the top: without --sign, the standard library is enough.
        from aws.settings import SettingError, region_of
        from smoke.signing import Signer
    except ModuleNotFoundError as error:
        raise NotSignedError(
            f"--sign needs the package {error.name}: install requirements.txt, and take that Python"
        ) from error
    try:
        return Signer(region or region_of_url(url) or region_of(os.environ, ROOT / ".env"))
    except SettingError as error:
        raise NotSignedError(f"the URL doesn't name the API's region, so give --region; else {error}") from error


def site(value: str) -> str:
    """An origin as browsers send it, without a path."""
    if not re.fullmatch(r"https?://[^/*]+", value) or not re.fullmatch(r"[!-~]+", value):
        raise argparse.ArgumentTypeError(f'"{value}" isn\'t an origin such as https://example.org, without a path')
    return value


def expectation(value: str) -> tuple[str, int]:
    """Parses TEXT=ID. The text may contain equals signs."""
    text, _, incident_id = value.rpartition("=")
    if not text.strip() or not re.fullmatch(r"[0-9]{1,18}", incident_id, re.ASCII):
        raise argparse.ArgumentTypeError(f'"{value}" isn\'t TEXT=ID such as "A robot hurt a worker=24"')
    return text, int(incident_id)


def aws_region(value: str) -> str:
    if not re.fullmatch(REGION, value):
        raise argparse.ArgumentTypeError(f'"{value}" isn\'t an AWS region such as us-east-1')
    return value


def positive(value: str) -> int:
    if not re.fullmatch(r"[1-9][0-9]{0,3}", value):
        raise argparse.ArgumentTypeError(f'"{value}" isn\'t a whole number from 1 to 9999')
    return int(value)


def _parsed(argv: list[str] | None) -> argparse.Namespace:
    """Exits with 2 if the arguments can't be used."""
    parser = argument_parser(__doc__)
    parser.add_argument("url", type=api_url, metavar="URL", help="URL of the API, without a route")
    origin = DEFAULT_ALLOWED_ORIGINS[0]
    parser.add_argument(
        "--origin", type=site, default=origin, help=f"one of the API's ALLOWED_ORIGINS (default {origin})"
    )
    parser.add_argument(
        "--expect",
        type=expectation,
        action="append",
        default=[],
        metavar="TEXT=ID",
        help="a text and the incident that it must find first; can be repeated",
    )
    parser.add_argument(
        "--timeout",
        type=positive,
        default=DEFAULT_TIMEOUT_S,
        metavar="S",
        help="seconds to wait for a reply (default 35)",
    )
    parser.add_argument(
        "--repeat",
        type=positive,
        default=DEFAULT_REPEAT,
        metavar="N",
        help="requests to each route after the first (default 5)",
    )
    parser.add_argument("--sign", action="store_true", help="sign the requests, for an API with API_AUTH=iam")
    parser.add_argument("--region", type=aws_region, help="the API's region, if its URL is of a domain of your own")
    parser.add_argument("--json", action="store_true", help="print one JSON object instead")
    args = parser.parse_args(argv)
    if args.region and not args.sign:
        parser.error("--region is for --sign")
    if args.region and region_of_url(args.url) not in ("", args.region):
        parser.error(f"the URL is of an API in {region_of_url(args.url)}: leave --region out")
    return args


def main(argv: list[str] | None = None) -> int:
    args = _parsed(argv)
    outcomes: list[Outcome] = []
    try:
        sign = signer(args.url, args.region) if args.sign else None
        api = Api(args.url, args.timeout, sign)
        api.send("OPTIONS", ROUTES[0])  # without any reply, fail once instead of in every check
        if not args.json:
            print(f"smoke test of version {__version__}: {args.url}", flush=True)
        for outcome in run(api, args.origin, args.repeat, args.expect):
            if not outcomes and outcome.problem and (message := refusal(api)):
                says = sign.why_refused(message) if sign else "the API takes signed requests only: give --sign"
                print(f"smoke_test: {says}", file=sys.stderr)
                return 1
            outcomes.append(outcome)
            if not args.json:
                print(outcome.line, flush=True)
    except NotSignedError as error:
        print(f"smoke_test: {error}", file=sys.stderr)
        return 1
    except NoReplyError as error:
        print(f"smoke_test: nothing answers at {args.url}: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 1
    incidents, precision = served(api), precision_of(api)
    if args.json:
        print(as_json(args.url, outcomes, incidents, precision))
    else:
        print(f"\n{closing(outcomes, incidents, precision, '' if args.sign else args.url + PAGE)}")
    return 1 if any(outcome.problem is not None for outcome in outcomes) else 0


if __name__ == "__main__":
    command.run(main)
