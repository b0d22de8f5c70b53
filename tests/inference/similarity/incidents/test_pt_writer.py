"""What is written without torch is what torch.save would have written: torch reads it, and so does our own reader."""

from __future__ import annotations

import io
import pickletools
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from torch.utils.serialization import config

from same_content import as_arrays, assert_same
from similarity.incidents.pt_file import is_pt, read_pt
from similarity.incidents.pt_writer import write_pt

DTYPES = ["<f4", ">f4", "<f8", "<f2", "<i8", ">i8", "<i4", "<i2", "|i1", "|u1", "|b1"]
# Lone surrogates among them.
STRINGS = st.text(st.characters(exclude_categories=()), max_size=20)
PLAIN = st.recursive(
    STRINGS | st.integers(-(2**63), 2**63) | st.booleans() | st.none() | st.floats(allow_nan=False),
    lambda inner: st.lists(inner) | st.tuples(inner) | st.dictionaries(STRINGS, inner),
    max_leaves=8,
)
SHAPES = st.integers(0, 5).flatmap(lambda rows: st.lists(st.integers(1, 5), max_size=2).map(lambda rest: (rows, *rest)))
ARRAYS = st.sampled_from(DTYPES).flatmap(
    lambda dtype: arrays(dtype, SHAPES | st.just(()), elements={"allow_nan": False} if dtype[1] == "f" else None)
)


def written(content: dict[str, Any], path: Path) -> Path:
    with path.open("wb") as file:
        write_pt(content, file)
    return path


def native(content: dict[str, Any]) -> dict[str, Any]:
    return {
        name: value.astype(value.dtype.newbyteorder("=")) if isinstance(value, np.ndarray) else value
        for name, value in content.items()
    }


@pytest.mark.slow
@given(st.dictionaries(STRINGS, ARRAYS | PLAIN, max_size=6))
@settings(max_examples=200)
def test_whatever_is_written_is_read_again_by_torch_and_by_our_reader(
    tmp_path_factory: Any, content: dict[str, Any]
) -> None:
    path = written(content, tmp_path_factory.getbasetemp() / "any-content.pt")
    assert is_pt(path)
    assert_same(as_arrays(torch.load(path, weights_only=True)), native(content))
    assert_same(read_pt(path), native(content))


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("step", [1, -1, 3])
def test_arrays_are_written_as_they_look_however_they_lie_in_memory(order: Any, step: int, tmp_path: Path) -> None:
    array = np.arange(60, dtype=np.float32).reshape(6, 10).copy(order=order)[::step, ::step]
    path = written({"a": array}, tmp_path / "s.pt")
    assert_same(as_arrays(torch.load(path, weights_only=True)), {"a": np.ascontiguousarray(array)})


@pytest.mark.slow
def test_large_arrays_and_many_strings_are_written(tmp_path: Path) -> None:
    content = {
        "means": np.random.default_rng(0).standard_normal((5000, 768)).astype(np.float32),
        "titles": [f"Incident {number}" for number in range(100_000)],
        "long": "x" * 1_000_000,
    }
    path = written(content, tmp_path / "s.pt")
    assert_same(as_arrays(torch.load(path, weights_only=True)), content)
    assert_same(read_pt(path), content)


def test_values_are_not_numbered_for_later_reference(tmp_path: Path) -> None:
    """Numbering doubles the instructions that read a list of strings."""
    titles = [f"Incident {number}" for number in range(1000)]
    path = written({"titles": titles, "dates": titles}, tmp_path / "s.pt")
    with zipfile.ZipFile(path) as archive:
        instructions = [opcode.name for opcode, _, _ in pickletools.genops(archive.read("archive/data.pkl"))]
    assert instructions.count("BINUNICODE") == 2002
    assert not [name for name in instructions if "PUT" in name or "GET" in name]
    assert read_pt(path)["dates"] == titles


def test_the_zip_is_whole_not_compressed_and_torch_can_map_its_tensors(tmp_path: Path) -> None:
    content = {f"array {number}": np.arange(number, dtype=np.float64) for number in range(1, 20)}
    path = written(content, tmp_path / "s.pt")
    with zipfile.ZipFile(path) as archive:
        assert archive.testzip() is None
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}
        assert {info.date_time[0] for info in archive.infolist()} == {1980}
    mapped = torch.load(path, weights_only=True, mmap=True)
    assert {tensor.data_ptr() % 64 for tensor in mapped.values()} == {0}
    assert_same(as_arrays(mapped), content)


def test_torch_agrees_with_itself_about_where_the_storages_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """torch may calculate the places instead of looking them up, where a file promises that they can be."""
    monkeypatch.setenv("TORCH_SERIALIZATION_DEBUG", "1")
    content = {"a": np.arange(3), "none": np.empty((0, 2), dtype=np.int64), "b": np.ones((2, 3), dtype=np.float32)}
    path = written(content, tmp_path / "s.pt")
    with config.patch("load.calculate_storage_offsets", True):  # type: ignore[attr-defined]  # made on import
        for mmap in (True, False):
            assert_same(as_arrays(torch.load(path, weights_only=True, mmap=mmap)), content)


def test_the_same_content_gives_the_same_bytes() -> None:
    streams = [io.BytesIO(), io.BytesIO()]
    for stream in streams:
        write_pt({"a": np.arange(5), "b": ["x", "y"]}, stream)
    assert streams[0].getvalue() == streams[1].getvalue()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (object(), "holds no object"),
        ([np.ones(2)], "holds no ndarray"),
        (["a", np.str_("b")], "holds no str_"),
        (Path("a"), "holds no .*Path"),
        (print, "holds no builtin_function"),
        (np.array(["a"]), "no tensor of <U1"),
        (np.array([1], dtype=np.uint16), "no tensor of uint16"),
        (np.array([None]), "no tensor of object"),
    ],
)
def test_what_no_reader_would_take_is_refused(value: object, message: str) -> None:
    with pytest.raises(TypeError, match=message):
        write_pt({"value": value}, io.BytesIO())
