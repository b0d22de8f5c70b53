"""The checks of a deployed API: routes, warnings, replies to errors and CORS.

Each check sends its own requests, and raises UnexpectedError, NoReplyError or SkippedError with one sentence.
`replies` knows the form of an answer. `smoke_test.py` runs the checks and reports the results.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from similarity.api.routes import METHODS
from smoke.api_client import JSON_TYPE, Api, Reply, SkippedError, UnexpectedError, parse_json, shortened
from smoke.replies import TEXT, TOLERANCE, matches, page_data, require_same_first, state, vector

TEXT_ROUTES = ("/similar", "/text-to-db-similar")
TO_EMBED, FROM_EMBED = "/text-to-embed", "/embed-to-db-similar"
ROUTES = (*TEXT_ROUTES, TO_EMBED, FROM_EMBED)
HEALTH, OPENAPI, PAGE = "/health", "/openapi", "/explore"

ACCENTED = "Á chatbot insülted its üsers"
OTHER_ORIGIN = "https://another-site.invalid"

NO_TEXT = "Error! Valid input text not provided!"
BAD_NUM = 'Provided value for "num" invalid, using default of 3.'
ZERO_NUM = 'Zero results requested with the "num" value of 0. Use value <0 for maximum possible.'

NO_WORDS = "The state has no word index, so it can't explain its matches."
# Larger than any incident's id.
UNKNOWN_ID = 999_999_999_999_999_999

# In a GET the numbers of a vector are rounded. With all digits the URL would be too long for API Gateway. Digits that
# count, and the tolerance with them, best first.
ROUNDINGS = ((3, 1e-2), (2, 1e-2), (1, 5e-2))
# Bytes of request line and headers that API Gateway takes:
# https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-quotas.html
MOST_BYTES = 10_240
# The headers of a signed request of a browser, see `similarity.api.routes`.
SIGNED_HEADERS = ("authorization", "x-amz-date", "x-amz-security-token", "x-amz-content-sha256")

# A Lambda in use looks for a new state every 10 s.
SWITCH_S = 11.0

_NOT_ALLOWED = "if {} isn't one of the API's ALLOWED_ORIGINS, give one of those with --origin"


def ask(api: Api, method: str, route: str, parameters: dict[str, str]) -> Reply:
    return api.get(route, parameters) if method == "GET" else api.post(route, parameters)


def check_text_route(api: Api, route: str, method: str) -> None:
    expected = matches(api.post("/similar", {"text": TEXT, "num": -1}))
    # A GET removes one pair of quotes around the text.
    for text in (TEXT, f'"{TEXT}"') if method == "GET" else (TEXT,):
        reply = ask(api, method, route, {"text": text})
        require_same_first(reply, matches(reply), expected)


def check_embedding(api: Api, method: str) -> None:
    vector(ask(api, method, TO_EMBED, {"text": TEXT}))
    # A multilingual model doesn't transliterate.
    vector(ask(api, method, TO_EMBED, {"text": ACCENTED}), (TEXT, ACCENTED))


def check_embedding_finds_what_the_text_finds(api: Api, method: str) -> None:
    embed = vector(api.post(TO_EMBED, {"text": TEXT}))
    expected = matches(api.post("/text-to-db-similar", {"text": TEXT, "num": -1}))
    if method == "GET":
        parameters, tolerance = rounded(api, embed)
        reply = api.get(FROM_EMBED, parameters)
        require_same_first(reply, matches(reply), expected, tolerance)
    else:
        reply = api.post(FROM_EMBED, {"embed": embed})
        require_same_first(reply, matches(reply), expected)


def rounded(api: Api, embed: Sequence[float]) -> tuple[dict[str, str], float]:
    """A vector as a parameter of a GET, with as many digits as API Gateway takes, and the tolerance that they need.

    Raises SkippedError if a signed request is too large even with the fewest digits: the caller's session token takes
    the room, which says nothing about the API.
    """
    roundings = [
        ({"embed": f"[{','.join(f'{number:.{digits}g}' for number in embed)}]"}, tolerance)
        for digits, tolerance in ROUNDINGS
    ]
    for found in roundings:
        if (size := api.size(FROM_EMBED, found[0])) <= MOST_BYTES:
            return found
    if api.signs:
        raise SkippedError(f"a signed request takes up to {size:,} bytes, and API Gateway takes {MOST_BYTES:,}")
    return roundings[-1]


def count_incidents(api: Api) -> int:
    """The number of incidents in the state. Raises UnexpectedError or NoReplyError."""
    count = len(matches(api.post("/similar", {"text": TEXT, "num": -1})))
    if not count:
        raise UnexpectedError("POST /similar: the state has no incidents")
    return count


def check_health(api: Api) -> None:
    health = api.get(HEALTH, {})
    ranking = api.post("/similar", {"text": TEXT, "num": -1})
    if state(health) != state(ranking):  # perhaps a new state came between the two
        time.sleep(SWITCH_S)
        health = api.get(HEALTH, {})
        ranking = api.post("/similar", {"text": TEXT, "num": -1})
    found, ranked = state(health), state(ranking)
    if found != ranked:
        health.fail(f"names the state {found['version']}, but POST /similar ranks with {ranked['version']}")
    if found["incidents"] != len(matches(ranking)):
        health.fail(f"names {found['incidents']} incidents, but POST /similar ranks {len(matches(ranking))}")
    for name in ("model_fingerprint", "engine", "precision", "version"):
        if not isinstance(health.body().get(name), str):
            health.fail(f'the body has no string "{name}"')


def check_expected(api: Api, text: str, incident_id: int) -> None:
    # Any warning is allowed, because a long text gets one.
    reply = api.post("/similar", {"text": text, "num": -1})
    ids = [id_ for _, id_ in matches(reply, warnings=None)]
    if incident_id not in ids:
        reply.fail(f"incident {incident_id} isn't among the {len(ids)} of the state")
    if ids[0] != incident_id:
        rank = ids.index(incident_id) + 1
        reply.fail(f"finds incident {ids[0]} first; incident {incident_id} comes at rank {rank} of {len(ids)}")


def check_num(api: Api) -> None:
    total = count_incidents(api)
    no_num: dict[str, str] = {}
    for num, expected, warnings in (
        (no_num, 3, ()),
        ({"num": "1"}, 1, ()),
        ({"num": "0"}, 0, (ZERO_NUM,)),
        ({"num": "many"}, 3, (BAD_NUM,)),
        ({"num": "2.7"}, 3, (BAD_NUM,)),
    ):
        reply = api.get("/similar", {"text": TEXT, **num})
        count = len(matches(reply, warnings=warnings))
        if count != min(expected, total):
            reply.fail(f"gives {count} incidents instead of {min(expected, total)} for {num or 'no num'}")


def check_metric(api: Api) -> None:
    matches(api.post("/similar", {"text": TEXT, "metric": "centered"}))
    # Older states lack the data of the other two.
    for metric in ("whitened", "hybrid"):
        reply = api.post("/similar", {"text": TEXT, "metric": metric})
        if reply.status == 400:
            pattern = rf'Error! "metric" can\'t be "{metric}" here, because the state has no .*'
            _require_error(reply, "metric_unavailable", pattern)
        else:
            matches(reply, is_cosine=metric != "hybrid")
    message = r'Error! "metric" must be "cosine".* "centered".*, not a string of 7 characters\.'
    _require_error(api.post("/similar", {"text": TEXT, "metric": "manhatt"}), "metric_unknown", message)


def check_metric_of_a_vector(api: Api) -> None:
    embed = vector(api.post(TO_EMBED, {"text": TEXT}))
    message = r'Error! "metric" can\'t be "hybrid" here, because a vector has no words\. .*'
    _require_error(api.post(FROM_EMBED, {"embed": embed, "metric": "hybrid"}), "metric_unavailable", message)


def check_missing_text(api: Api, route: str) -> None:
    for reply in (
        api.get(route, {}),
        api.get(route, {"text": "  "}),
        api.post(route, {}),
        api.post(route, {"text": "\u3000"}),  # a space of Japanese
    ):
        _require_error(reply, "text_missing", re.escape(NO_TEXT))


def check_bad_values(api: Api) -> None:
    must_be_string = re.escape('Error! "text" must be a string, not a number.')
    for route in (*TEXT_ROUTES, TO_EMBED):
        _require_error(api.post(route, {"text": 7}), "text_invalid", must_be_string)
    must_be_numbers = r'Error! "embed" must be a JSON list of [1-9][0-9]* numbers, got 2 entries\.'
    _require_error(api.post(FROM_EMBED, {"embed": [1.5, 2.5]}), "embed_invalid", must_be_numbers)
    no_json = r"Error! The body must be a JSON object; the 6 characters received are not valid JSON: .*\."
    for route in ROUTES:
        reply = api.send("POST", route, content=b"text=a", headers={"Content-Type": "application/json"})
        _require_error(reply, "request_invalid", no_json)


def _require_error(reply: Reply, code: str, pattern: str, status: int = 400) -> None:
    body = reply.body(status)
    message = body.get("msg")
    if not isinstance(message, str) or not re.fullmatch(pattern, message):
        reply.fail(f'"msg" is {json.dumps(message)[:120]} instead of {pattern}')
    if body.get("code") != code:
        reply.fail(f'"code" is {json.dumps(body.get("code"))[:120]} instead of "{code}"')


def check_incident(api: Api) -> None:
    ids = [id_ for _, id_ in matches(api.post("/similar", {"text": TEXT, "num": -1}))]
    for method in METHODS:
        reply = ask(api, method, "/similar", {"incident_id": str(ids[0]), "num": "-1"})
        found = [id_ for _, id_ in matches(reply)]
        if sorted(found) != sorted(ids[1:]):
            reply.fail(f"finds {len(found)} incidents instead of the {len(ids) - 1} beside incident {ids[0]}")
        if reply.body()["match"] is not None:
            reply.fail('has a "match", but there is no text')
    message = rf'Error! No incident in the database has the "incident_id" {UNKNOWN_ID}\.'
    _require_error(api.post("/similar", {"incident_id": UNKNOWN_ID}), "incident_unknown", message, 404)
    both = api.post("/similar", {"incident_id": ids[0], "text": TEXT})
    _require_error(both, "parameters_conflict", r'Error! Either "text" or "incident_id" must be provided, not both\.')


def check_exclude(api: Api) -> None:
    everything = matches(api.post("/similar", {"text": TEXT, "num": -1}))
    without = [id_ for _, id_ in everything[:2]]
    expected = {id_: similarity for similarity, id_ in everything[2:]}
    for reply in (
        api.post("/similar", {"text": TEXT, "num": -1, "exclude": without}),
        api.get("/similar", {"text": TEXT, "num": "-1", "exclude": ",".join(map(str, without))}),
    ):
        found = matches(reply)
        if sorted(id_ for _, id_ in found) != sorted(expected):
            reply.fail(f"finds {len(found)} incidents instead of the {len(expected)} that aren't excluded")
        if any(abs(expected[id_] - similarity) > TOLERANCE for similarity, id_ in found):
            reply.fail("finds other similarities than without exclude")
    message = r'Error! "exclude" must be a list of incident ids, .*'
    _require_error(api.post("/similar", {"text": TEXT, "exclude": ["all"]}), "exclude_invalid", message)


def check_embedding_beside_matches(api: Api) -> None:
    expected = vector(api.post(TO_EMBED, {"text": TEXT}))
    for method in METHODS:
        reply = ask(api, method, "/similar", {"text": TEXT, "embedding": "true"})
        matches(reply)
        found = vector(reply)
        if len(found) != len(expected):
            reply.fail(f"gives a vector of {len(found)} numbers, but {TO_EMBED} one of {len(expected)}")
        largest = max(map(abs, expected))
        if any(abs(one - other) > TOLERANCE * largest for one, other in zip(found, expected, strict=True)):
            reply.fail(f"gives another vector than {TO_EMBED}")


def check_explain(api: Api) -> None:
    for method in METHODS:
        reply = ask(api, method, "/similar", {"text": TEXT, "explain": "true"})
        has_words = NO_WORDS not in reply.body()["warnings"]
        matches(reply, warnings=() if has_words else (NO_WORDS,))
        if not all(_is_explained(entry, has_words) for entry in reply.body()["incidents"]):
            reply.fail('not each incident has a "why" with words and a sentence of the text')


def _is_explained(entry: dict[str, Any], has_words: bool) -> bool:
    match entry:
        case {"why": None}:
            return not has_words
        case {"why": {"words": list(words), "sentence": str() | None as sentence}}:
            # The text is one sentence.
            are_its = all(isinstance(word, str) and word in TEXT for word in words) and len(words) <= 3
            return has_words and are_its and sentence == (TEXT if words else None)
    return False


def check_openapi(api: Api) -> None:
    reply = api.get(OPENAPI, {})
    try:
        document = parse_json(reply.content)
        version, routes = str(document["openapi"]), set(document["paths"])
    except (ValueError, KeyError, TypeError):
        reply.fail(f"status {reply.status}, and no OpenAPI document: {shortened(reply.content)}")
    if reply.status != 200:
        reply.fail(f"status {reply.status} instead of 200")
    if (content_type := reply.headers.get("content-type")) != JSON_TYPE:
        reply.fail(f'the content type is "{content_type}" instead of "{JSON_TYPE}"')
    if not version.startswith("3.1."):
        reply.fail(f"the document is of OpenAPI {version} instead of 3.1")
    if missing := {*ROUTES, HEALTH, OPENAPI, PAGE} - routes:
        reply.fail(f"the document lacks {', '.join(sorted(missing))}")


def check_page(api: Api) -> None:
    found, health = _page(api), api.get(HEALTH, {})
    if found["state"] != state(health):  # perhaps a new state came between the two
        time.sleep(SWITCH_S)
        found, health = _page(api), api.get(HEALTH, {})
    served = state(health)
    if found["state"] != served:
        health.fail(f"names the state {served['version']}, but GET {PAGE} shows another")
    if not 0 < len(found["map"]["ids"]) <= found["map"]["total"] == served["incidents"]:
        health.fail(f"names {served['incidents']} incidents, but GET {PAGE} has {found['map']['total']}")


def _page(api: Api) -> dict[str, Any]:
    """The page's data, as a browser gets it, and as a program does that reads nothing compressed."""
    plain = page_data(api.get(PAGE, {}, headers={"Accept-Encoding": "identity"}))
    found = page_data(api.get(PAGE, {}, headers={"Accept-Encoding": "gzip"}))
    return found if found == plain else plain | {"state": None}


def check_preflight(api: Api, route: str, origin: str) -> None:
    asked = ("content-type", *SIGNED_HEADERS) if api.signs else ("content-type",)
    for method in METHODS:
        headers = {"Access-Control-Request-Method": method, "Access-Control-Request-Headers": ",".join(asked)}
        reply = api.send("OPTIONS", route, headers={"Origin": origin, **headers})
        if not 200 <= reply.status < 300:
            reply.fail(f"status {reply.status}: {_NOT_ALLOWED.format(origin)}")
        _require_granted(reply, origin)
        for header, wanted in (("methods", method), *(("headers", name) for name in asked)):
            granted = reply.headers.get(f"access-control-allow-{header}", "")
            if wanted.lower() not in {name.strip().lower() for name in granted.split(",")}:
                reply.fail(f'allows the {header} "{granted}", but not {wanted}')
        refused = api.send("OPTIONS", route, headers={"Origin": OTHER_ORIGIN, **headers})
        if refused.headers.get("access-control-allow-origin") in ("*", OTHER_ORIGIN):
            refused.fail("allows other sites to call")


def check_unsigned(api: Api, route: str, methods: Sequence[str]) -> None:
    for method in methods:
        reply = api.unsigned().send(method, route)
        if not reply.refusal:
            reply.fail(f"status {reply.status} instead of 403 for a request without a signature")


def check_reply_to_a_page(api: Api, route: str, origin: str) -> None:
    _require_granted(api.get(route, {}, headers={"Origin": origin}), origin)
    _require_granted(api.post(route, {}, headers={"Origin": origin}), origin)


def _require_granted(reply: Reply, origin: str) -> None:
    granted = reply.headers.get("access-control-allow-origin")
    if granted != origin:
        reply.fail(f"access-control-allow-origin is {granted}: {_NOT_ALLOWED.format(origin)}")
    if (granted := reply.headers.get("access-control-allow-credentials")) != "true":
        reply.fail(f"access-control-allow-credentials is {granted} instead of true")


def check_other_routes(api: Api) -> None:
    unknown = [("GET", "/no-such-route"), ("DELETE", "/similar"), *(("POST", each) for each in (HEALTH, OPENAPI, PAGE))]
    for method, route in unknown:
        reply = api.send(method, route)
        if reply.status != 404:
            reply.fail(f"status {reply.status} instead of 404")


def checks(api: Api, origin: str, expected: Sequence[tuple[str, int]]) -> Iterator[tuple[str, Callable[[], None]]]:
    """All checks. Each name says what is true if the check passes.

    origin: a site that may call. expected: texts, each with the incident that it must find first.
    """
    for method in METHODS:
        for route in TEXT_ROUTES:
            yield f"{method} {route} finds incidents", partial(check_text_route, api, route, method)
        yield f"{method} {TO_EMBED} gives a vector", partial(check_embedding, api, method)
        name = f"{method} {FROM_EMBED} finds what the text finds"
        yield name, partial(check_embedding_finds_what_the_text_finds, api, method)
    yield "num is obeyed, or answered with a warning", partial(check_num, api)
    yield "metric is obeyed, or refused", partial(check_metric, api)
    yield f"{FROM_EMBED} refuses a metric that needs words", partial(check_metric_of_a_vector, api)
    yield "incident_id is obeyed, or refused", partial(check_incident, api)
    yield "exclude is obeyed, or refused", partial(check_exclude, api)
    yield f"embedding gives the vector of {TO_EMBED}", partial(check_embedding_beside_matches, api)
    yield "explain gives words and a sentence of the text", partial(check_explain, api)
    yield f"GET {HEALTH} names the state that ranks", partial(check_health, api)
    yield f"GET {OPENAPI} describes all routes", partial(check_openapi, api)
    if not api.signs:  # a stack whose requests have to be signed has no page
        yield f"GET {PAGE} is a page with the state's map", partial(check_page, api)
    for route in (*TEXT_ROUTES, TO_EMBED):
        yield f"{route} refuses a missing text", partial(check_missing_text, api, route)
    yield "errors name bad values", partial(check_bad_values, api)
    for route in ROUTES:
        yield f"pages of {origin} may call {route}", partial(check_preflight, api, route, origin)
        yield f"pages of {origin} may read {route}", partial(check_reply_to_a_page, api, route, origin)
    if api.signs:
        for route, methods in (*((each, METHODS) for each in ROUTES), (HEALTH, ("GET",)), (OPENAPI, ("GET",))):
            yield f"{route} refuses a request without a signature", partial(check_unsigned, api, route, methods)
    yield "other routes and methods are refused", partial(check_other_routes, api)
    for text, incident_id in expected:
        name = f"{shortened(text.encode(errors='replace'))} finds incident {incident_id} first"
        yield name, partial(check_expected, api, text, incident_id)
