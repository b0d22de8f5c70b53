"""Documents are read one by one; a damaged one is reported by its number, and costs only itself."""

from __future__ import annotations

import io
import random
import struct
from typing import Any

import bson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from similarity.sources import documents
from similarity.sources.documents import MAX_DAMAGED, MAX_DOCUMENT_BYTES, read_documents
from similarity.sources.problems import Problems, SourceError


def document(number: int, **fields: Any) -> bytes:
    return bson.encode({"_id": bson.ObjectId(f"{number:024x}"), "number": number, "vector": [0.0, 1.5], **fields})


DUMP = [document(number, text=f"text {number}") for number in range(1, 6)]


def read(content: bytes, problems: Problems | None = None) -> list[tuple[int, int]]:
    """Number of each document in the dump, and the number that it holds."""
    found = read_documents(io.BytesIO(content), "reports.bson", problems or Problems())
    return [(number, document.get("number", 0)) for number, document in found]


ALL = [(number, number) for number in range(1, 6)]


def test_documents_come_in_their_order_with_their_numbers() -> None:
    problems = Problems()
    assert read(b"".join(DUMP), problems) == ALL
    assert read(b"") == []
    assert problems.count == 0


def test_a_date_beyond_pythons_years_is_no_damage() -> None:
    far = bson.DatetimeMS(2**60)
    assert read(document(1, date=far)) == [(1, 1)]


def damaged(kind: str, content: bytes) -> bytes:
    """`content`, a document, with one thing wrong. Only "cut off" has another size."""
    number = int.from_bytes(content[:4], "little")
    return {
        "a length of 0": struct.pack("<i", 0) + content[4:],
        "a negative length": struct.pack("<i", -number) + content[4:],
        "a length too short": struct.pack("<i", number - 7) + content[4:],
        "a length that leads to a zero within": struct.pack("<i", content.index(b"\0", 20) + 1) + content[4:],
        "a length too long": struct.pack("<i", number + 9) + content[4:],
        "a length beyond the limit": struct.pack("<i", MAX_DOCUMENT_BYTES + 1) + content[4:],
        "a length beyond the file": struct.pack("<i", MAX_DOCUMENT_BYTES - 1) + content[4:],
        "an unknown type": content.replace(b"\x10number", b"\x6enumber"),
        "a text that isn't UTF-8": content.replace(b"text 3", b"tex\xff 3"),
        "a text longer than the document": content.replace(b"\x07\0\0\0text", b"\xff\xff\0\0text"),
        "no zero at its end": content[:-1] + b"\1",
        "cut off": content[:-20],
        "all noise": random.Random(0).randbytes(len(content)),
    }[kind]


KINDS = [
    "a length of 0",
    "a negative length",
    "a length too short",
    "a length that leads to a zero within",
    "a length too long",
    "a length beyond the limit",
    "a length beyond the file",
    "an unknown type",
    "a text that isn't UTF-8",
    "a text longer than the document",
    "no zero at its end",
    "cut off",
    "all noise",
]


@pytest.mark.parametrize("place", [0, 2, 4])
@pytest.mark.parametrize("kind", KINDS)
def test_a_damaged_document_costs_only_itself(kind: str, place: int, capsys: pytest.CaptureFixture[str]) -> None:
    dump = DUMP.copy()
    broken = damaged(kind, dump[2])
    assert broken != dump[2]
    dump[place] = broken
    problems = Problems()
    found = read(b"".join(dump), problems)
    assert [number for _, number in found] == [number for number in range(1, 6) if number != place + 1]
    assert problems.count == 1
    [said] = capsys.readouterr().err.splitlines()
    assert said.startswith(f"reports.bson, document {place + 1}: not valid BSON: ")
    assert said.endswith("; skipped")


def test_a_field_name_with_a_line_break_makes_no_second_line(capsys: pytest.CaptureFixture[str]) -> None:
    read(bson.encode({"_id": 1, "num\nber": 5}).replace(b"\x10num", b"\x6enum"))
    [said] = capsys.readouterr().err.splitlines()
    assert "num\\nber" in said


def test_many_damaged_documents_in_a_row_are_each_left_out() -> None:
    noise = [damaged(kind, DUMP[2]) for kind in KINDS]
    problems = Problems()
    assert [number for _, number in read(b"".join([DUMP[0], *noise, DUMP[4]]), problems)] == [1, 5]
    assert problems.count >= 1


@settings(derandomize=True, max_examples=200, deadline=None)
@given(st.lists(st.binary(max_size=60), max_size=4), st.randoms(use_true_random=False))
def test_whatever_stands_between_documents_the_last_one_is_read(noise: list[bytes], chosen: random.Random) -> None:
    parts = [*noise, *DUMP[:2]]
    chosen.shuffle(parts)
    # A document before it that claims to be long may swallow it only where it is valid, which noise never is here.
    assert [number for _, number in read(b"".join([*parts, DUMP[4]]))][-1:] == [5]


def nested(depth: int) -> bytes:
    """A document in a document in a document."""
    sizes = [5 + 8 * level for level in range(depth, 0, -1)]
    return b"".join(struct.pack("<i", size) + b"\x03a\0" for size in sizes) + b"\5\0\0\0\0" + b"\0" * depth


def test_a_document_nested_too_deeply_is_left_out() -> None:
    assert bson.decode(nested(3)) == {"a": {"a": {"a": {}}}}
    problems = Problems()
    assert read(DUMP[0] + nested(500_000) + DUMP[1], problems) == [(1, 1), (3, 2)]
    assert problems.count == 1


class Endless(io.RawIOBase):
    """A file of zeros that counts what is read of it."""

    def __init__(self, start: bytes, size: int) -> None:
        self.start, self.left, self.largest = start, size, 0

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        self.largest = max(self.largest, size)
        given = self.start + bytes(min(size, self.left) - len(self.start))
        self.left, self.start = self.left - len(given), b""
        return given


def test_a_length_beyond_the_limit_takes_no_memory() -> None:
    file = Endless(struct.pack("<i", 2**31 - 1) + b"\x07_id\0", 100 * 1024**2)
    assert list(read_documents(file, "reports.bson", Problems())) == []  # type: ignore[arg-type]
    assert file.left == 0
    assert file.largest <= 1024**2


def test_a_file_of_damaged_documents_is_refused_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(documents, "MAX_DAMAGED", 10)
    assert MAX_DAMAGED > 10
    broken = damaged("a text that isn't UTF-8", DUMP[2])
    assert read(broken * 10 + DUMP[0]) == [(11, 1)]
    with pytest.raises(SourceError, match=r"^reports\.bson has more than 10 damaged documents\.$"):
        read(broken * 11)
