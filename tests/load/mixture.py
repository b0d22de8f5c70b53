"""What the callers send: texts as long as AIID's reports, and one request in ten that is malformed."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import cycle
from typing import Any
from urllib.parse import quote, urlencode

from benchmarks.inputs import aiid_lengths

JSON = {"Content-Type": "application/json"}
# Each is one token of the quick-start model. So a text has two tokens more than words: the special ones.
_WORDS = """
a the one two old new road car bus train driver robot arm worker factory camera face police court judge risk score
bank loan price market crash chat answer advice doctor hospital patient photo video voice child school teacher test
exam job letter name city street night water fire light door house phone screen music game player map plane pilot
engine ship farm field animal dog bird tree food shop box
"""
WORDS = _WORDS.split()
# AIID's news job cuts its URLs here.
LONGEST_URL = 2048
# Tokens. The model takes so many.
LONGEST = 4096
_NUMS: tuple[object, ...] = (3, "3", 1, 10, -1, 0, "many", 2.7)
_METRICS = ("cosine", "cosine", "cosine", "centered", "whitened", "hybrid", "hybrid")


@dataclass(frozen=True)
class Ask:
    """A request. status: the only one that may come. tokens: of its text, 0 without one. kind: for messages."""

    kind: str
    path: str
    body: bytes | None = None
    method: str = "POST"
    headers: dict[str, str] = field(default_factory=lambda: JSON)
    status: int = 200
    tokens: int = 0


def text_of(tokens: int, chance: random.Random) -> str:
    return " ".join(chance.choices(WORDS, k=tokens - 2))


def mixture(seed: int, dimension: int) -> Iterator[Ask]:
    """The requests of one caller, without an end, in a random order. The same seed gives the same ones.

    dimension: of the vectors.
    """
    chance = random.Random(seed)
    lengths = aiid_lengths(1000)
    chance.shuffle(lengths)
    of_texts, malformed = cycle(lengths), list(_malformed(dimension, chance))
    chance.shuffle(malformed)
    of_malformed = cycle(malformed)
    while True:
        ten = [_good(next(of_texts), dimension, chance) for _ in range(9)]
        ten.insert(chance.randrange(10), next(of_malformed))
        yield from ten


def _post(kind: str, path: str, content: object, **options: Any) -> Ask:
    return Ask(kind, path, json.dumps(content).encode(), **options)


def _similar(path: str, tokens: int, chance: random.Random) -> Ask:
    content = {"text": text_of(tokens, chance), "num": chance.choice(_NUMS), "metric": chance.choice(_METRICS)}
    return _post(f"a text to {path}", path, content, tokens=tokens)


def _good(tokens: int, dimension: int, chance: random.Random) -> Ask:
    share = chance.random()
    if share < 0.50:
        return _similar("/similar", tokens, chance)
    if share < 0.65:
        return _similar("/text-to-db-similar", tokens, chance)
    if share < 0.75:
        return _post("a text to /text-to-embed", "/text-to-embed", {"text": text_of(tokens, chance)}, tokens=tokens)
    if share < 0.82:
        return _in_url(tokens, chance)
    if share < 0.94:
        return _vector(dimension, chance)
    return Ask("health", "/health", method="GET", headers={})


def _in_url(tokens: int, chance: random.Random) -> Ask:
    """As AIID's news job asks: what doesn't fit into the URL is lost."""
    route = "/text-to-embed?text="
    words = text_of(tokens, chance).split()
    while len(route) + len(quote(" ".join(words))) > LONGEST_URL:
        words.pop()
    return Ask("a text in the URL", route + quote(" ".join(words)), None, "GET", {}, tokens=len(words) + 2)


def _vector(dimension: int, chance: random.Random) -> Ask:
    numbers: object = [chance.gauss(0, 1) for _ in range(dimension)]
    # AIID's site sends strings.
    embed, num = (numbers, 3) if chance.random() < 0.5 else (json.dumps(numbers), "3")
    content = {"embed": embed, "num": num, "metric": chance.choice(("cosine", "centered", "whitened"))}
    return _post("a vector", "/embed-to-db-similar", content)


def _malformed(dimension: int, chance: random.Random) -> Iterator[Ask]:
    """Each kind once, with the status that the contract gives it."""
    text, vector = text_of(200, chance), [0.5] * dimension
    whole = json.dumps({"text": text_of(100_000, chance)}).encode()
    for kind, content in {
        "no text": {},
        "an empty text": {"text": " "},
        "a text of emoji": {"text": "\U0001f600" * 50},
        "a number as text": {"text": 7},
        "a list as body": [text],
        "an unknown metric": {"text": text, "metric": "nearest"},
        "a metric of another type": {"text": text, "metric": ["cosine"]},
    }.items():
        for path in ("/similar", "/text-to-db-similar"):
            yield _post(kind, path, content, status=400)
    for kind, embed in {
        "no vector": None,
        "a short vector": vector[1:],
        "NaN in a vector": [float("nan"), *vector[1:]],
        "words in a vector": ["one", *vector[1:]],
        "a vector of zeros": [0] * dimension,
        "half a vector": json.dumps(vector)[:-1],
    }.items():
        yield _post(kind, "/embed-to-db-similar", {"embed": embed}, status=400)
    yield _post("hybrid for a vector", "/embed-to-db-similar", {"embed": vector, "metric": "hybrid"}, status=400)
    yield Ask("broken JSON", "/similar", whole[:500], status=400)
    yield Ask("JSON of 500 kB that breaks off", "/similar", whole[:-1], status=400)
    yield Ask("deep JSON", "/similar", b"[" * 100_000, status=400)
    yield Ask("bytes that aren't UTF-8", "/text-to-embed", b'{"text": "caf\xe9"}', status=400)
    yield Ask("no text in the URL", f"/similar?{urlencode({'num': 3})}", None, "GET", {}, status=400)
    yield Ask("an unknown route", "/similars", whole[:500], status=404)
    yield Ask("an unknown method", "/similar", whole[:500], "PUT", status=404)
    yield Ask("POST to a route for GET", "/health", b"{}", status=404)
