"""A file that lacks tensors gives the bytes that the fingerprint of the whole file is made of.

The reference reads the whole file by itself, as earlier versions did.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from similarity.encoder.weights_identity import NOTE_KEY, identity, make_note, note_in
from similarity.errors import ModelError

# Numbers of each tensor. safetensors sorts tensors of a type by their names.
LARGE = {"a": 40_000, "b": 3_000, "c": 90_000, "d": 100, "e": 20_000, "f": 50_000}
SMALL = {"a": 10, "b": 2_000, "c": 1, "d": 5_000}


def expected(path: Path) -> bytes:
    """Of a whole file: size, header with its length, and 64 samples of at most 4,096 bytes."""
    content = path.read_bytes()
    data = 8 + int.from_bytes(content[:8], "little")
    starts = [data + (len(content) - data) * sample // 64 for sample in range(64)]
    return b"".join([str(len(content)).encode(), content[:data], *(content[start : start + 4096] for start in starts)])


def found(path: Path) -> bytes:
    return b"".join(identity(path))


def write_whole(path: Path, sizes: dict[str, int]) -> Path:
    random = np.random.default_rng(0)
    save_file({name: random.standard_normal(size, np.float32) for name, size in sizes.items()}, path, {"format": "pt"})
    return path


def without(whole: Path, names: set[str], note: str | None = None) -> Path:
    """A copy without these tensors, by safetensors itself. note: in place of the right one."""
    smaller = whole.with_name("smaller.safetensors")
    kept = {name: tensor for name, tensor in load_file(whole).items() if name not in names}
    save_file(kept, smaller, {NOTE_KEY: make_note(whole, names) if note is None else note})
    return smaller


@pytest.mark.parametrize("sizes", [LARGE, SMALL, {"a": 1}, {}], ids=["large", "small", "one number", "empty"])
def test_a_whole_file_gives_what_it_gave_to_earlier_versions(sizes: dict[str, int], tmp_path: Path) -> None:
    path = write_whole(tmp_path / "whole.safetensors", sizes)
    assert found(path) == expected(path)
    assert not note_in(path)


@pytest.mark.parametrize("sizes", [LARGE, SMALL], ids=["large", "small"])
@pytest.mark.parametrize("names", ["a", "b", "bc", "bd", "ac", "d", "abd", "abcd", "bcd"])
def test_a_smaller_file_gives_the_same(names: str, sizes: dict[str, int], tmp_path: Path) -> None:
    whole = write_whole(tmp_path / "whole.safetensors", sizes)
    smaller = without(whole, set(names))
    assert found(smaller) == expected(whole)
    assert note_in(smaller)


def test_a_header_that_is_longer_than_what_counts(tmp_path: Path) -> None:
    path = tmp_path / "whole.safetensors"
    save_file({"a": np.ones(3000, np.float32), "b": np.ones(10, np.float32)}, path, {"format": "x" * (1 << 20)})
    content = path.read_bytes()
    data = 8 + int.from_bytes(content[:8], "little")
    assert expected(path).replace(content[:data], content[: 1 << 20]) == found(path) == found(without(path, {"b"}))


def test_a_changed_number_still_shows(tmp_path: Path) -> None:
    whole = write_whole(tmp_path / "whole.safetensors", LARGE)
    smaller = without(whole, {"b", "c"})
    content = bytearray(smaller.read_bytes())
    content[8 + int.from_bytes(content[:8], "little")] ^= 1  # in the first sample
    smaller.write_bytes(content)
    assert found(smaller) != expected(whole)


GOOD = {"header": "{}", "left_out": [[10, 20]], "samples": ""}
DAMAGED = {
    "no JSON": "{",
    "nested too deeply": "[" * 200_000,
    "no object": "[1]",
    "no header": json.dumps({**GOOD, "header": None}),
    "a place without an end": json.dumps({**GOOD, "left_out": [[10]]}),
    "a place that is no number": json.dumps({**GOOD, "left_out": [["x", 20]]}),
    "a place far outside": json.dumps({**GOOD, "left_out": [[10, 10**30]]}),
    "a place at infinity": json.dumps({**GOOD, "left_out": [[10, float("inf")]]}),
    "a place of many digits": json.dumps({**GOOD, "left_out": [[10, 10**4200], [10, 10**4200]]}),
    "a place before the file": json.dumps({**GOOD, "left_out": [[-(10**30), 1]]}),
    "samples that aren't base64": json.dumps({**GOOD, "samples": "%"}),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_note_is_refused(name: str, tmp_path: Path) -> None:
    smaller = without(write_whole(tmp_path / "whole.safetensors", LARGE), {"b"}, DAMAGED[name])
    with pytest.raises(ModelError) as caught:
        found(smaller)
    assert "has a damaged header" in caught.value.detail


@pytest.mark.parametrize("content", [b"", b"\xff" * 5, b"\xff" * 5000, b"\x02" + bytes(7) + b"{]" + bytes(500)])
def test_what_is_no_weights_file_does_no_harm(content: bytes, tmp_path: Path) -> None:
    """Opening the model's folder refuses it."""
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    assert found(path).startswith(str(len(content)).encode())
