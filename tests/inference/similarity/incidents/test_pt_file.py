"""What torch.save writes is read as torch reads it, and a hostile file does no harm. The reference is torch itself."""

from __future__ import annotations

import contextlib
import json
import os
import pickle
import pickletools
import random
import re
import struct
import subprocess
import sys
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from same_content import as_arrays, assert_same
from similarity.incidents.pt_file import is_pt, read_pt
from similarity.incidents.pt_pickle import PtFileError
from tiny import ROOT

SOME = torch.arange(24, dtype=torch.float32).reshape(4, 6) / 7

CONTENTS: dict[str, Any] = {
    "the original's list": [SOME, None, SOME[:1].clone()],
    "parameters": [torch.nn.Parameter(SOME), None, torch.nn.Parameter(SOME, requires_grad=False)],
    "half": [SOME.half()],
    "bfloat16": [SOME.bfloat16(), SOME.bfloat16()[1:, 2:4]],
    "double": [SOME.double()],
    "integers": [SOME.long(), SOME.int(), SOME.short(), SOME.char(), SOME.byte(), SOME.bool()],
    "views of one storage": [SOME[1:3], SOME[:, 2:5], SOME.t(), SOME[::2, ::3]],
    "an expanded view": [SOME[0].expand(3, 6), torch.ones(1).expand(2, 6)],
    "a number": [torch.tensor(2.5)],
    "a state": {
        "format": "incident-state",
        "version": 1,
        "incident_ids": torch.tensor([1, 2, 4]),
        "titles": ["", "ünïcode 事故 \U0001f600", "x" * 300],
        "large": 2**40,
        "negative": -3,
        "float": 0.1,
        "flags": (True, False, None),
    },
    "an OrderedDict": OrderedDict([("means", SOME), ("titles", [])]),
    "empty tensors": {"duplicates": torch.empty(0, 2).long(), "flat": torch.empty(0), "full": SOME},
    "many": [torch.full((1, 3), float(number)) for number in range(300)],
}


def save(content: Any, path: Path, form: str) -> Path:
    torch.save(content, path, _use_new_zipfile_serialization=form == "zip")
    return path


def assert_reads_as_torch_does(path: Path) -> None:
    assert_same(read_pt(path), as_arrays(torch.load(path, map_location="cpu", weights_only=True)))


@pytest.mark.parametrize("form", ["zip", "old"])
@pytest.mark.parametrize("name", CONTENTS)
def test_a_file_is_read_as_torch_reads_it(name: str, form: str, tmp_path: Path) -> None:
    path = save(CONTENTS[name], tmp_path / "s.pt", form)
    assert_reads_as_torch_does(path)
    assert is_pt(path)


FLOATS = [torch.float32, torch.float16, torch.bfloat16, torch.float64]


@given(
    shapes=st.lists(st.tuples(st.integers(1, 5), st.integers(1, 9)) | st.none(), min_size=1, max_size=8),
    dtype=st.sampled_from(FLOATS),
    form=st.sampled_from(["zip", "old"]),
    seed=st.integers(0, 2**16),
)
@settings(max_examples=100)
def test_any_list_of_tensors_is_read_as_torch_reads_it(
    shapes: list[tuple[int, int] | None], dtype: torch.dtype, form: str, seed: int, tmp_path_factory: Any
) -> None:
    generator = torch.Generator().manual_seed(seed)
    content = [None if shape is None else torch.randn(shape, generator=generator).to(dtype) for shape in shapes]
    assert_reads_as_torch_does(save(content, tmp_path_factory.mktemp("any") / "s.pt", form))


def test_a_file_without_checksums_is_read(tmp_path: Path) -> None:
    torch.serialization.set_crc32_options(False)
    try:
        path = save(CONTENTS["a state"], tmp_path / "s.pt", "zip")
    finally:
        torch.serialization.set_crc32_options(True)
    with zipfile.ZipFile(path) as archive:
        assert {info.CRC for info in archive.infolist()} == {0}
    assert_reads_as_torch_does(path)


def pack(path: Path, members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return path


def unpack(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_a_file_that_was_packed_again_with_compression_is_read(tmp_path: Path) -> None:
    members = unpack(save(CONTENTS["a state"], tmp_path / "s.pt", "zip"))
    assert_reads_as_torch_does(pack(tmp_path / "again.pt", members, zipfile.ZIP_DEFLATED))


def test_a_file_of_a_big_endian_machine_is_read(tmp_path: Path) -> None:
    members = unpack(save([SOME], tmp_path / "s.pt", "zip"))
    members["s/byteorder"] = b"big"
    members["s/data/0"] = np.frombuffer(members["s/data/0"], "<f4").astype(">f4").tobytes()
    assert_reads_as_torch_does(pack(tmp_path / "big.pt", members))


def test_a_file_with_protocol_3_is_read(tmp_path: Path) -> None:
    torch.save([SOME, None], tmp_path / "s.pt", pickle_protocol=3)
    assert_same(read_pt(tmp_path / "s.pt"), [SOME.numpy(), None])  # torch.load warns, and gives the same


def test_a_tensor_whose_signs_are_turned_around_is_refused(tmp_path: Path) -> None:
    torch.save([torch._neg_view(SOME)], tmp_path / "s.pt")
    with pytest.raises(PtFileError, match="isn't plain"):
        read_pt(tmp_path / "s.pt")


def test_weights_are_told_from_a_state(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(2, 2).state_dict(), tmp_path / "s.pt")
    with pytest.raises(PtFileError, match="it holds weights"):
        read_pt(tmp_path / "s.pt")


def test_tensors_of_another_device_are_read(tmp_path: Path) -> None:
    members = unpack(save([SOME], tmp_path / "s.pt", "zip"))
    members["s/data.pkl"] = members["s/data.pkl"].replace(b"X\x03\0\0\0cpu", b"X\x06\0\0\0cuda:0")
    assert b"cuda:0" in members["s/data.pkl"]
    assert_reads_as_torch_does(pack(tmp_path / "cuda.pt", members))


def test_what_is_not_a_state_is_told_by_its_content(tmp_path: Path) -> None:
    for name, content in {"csv": b"incident_id,mean\n1,[2]\n", "empty": b"", "pickle": pickle.dumps([1])}.items():
        (tmp_path / name).write_bytes(content)
        assert not is_pt(tmp_path / name), name
    assert not is_pt(pack(tmp_path / "snapshot.pt", {"incidents.csv": b"incident_id\n"}))
    with pytest.raises(PtFileError, match=r"without data\.pkl"):
        read_pt(tmp_path / "snapshot.pt")


# Hostile files. Those below end or starve a process that believes them, so they are read in a process of their own.

STORAGE = b"(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\0" + b"0X\x03\0\0\0cpuK\x04tQ"
REBUILD = b"ctorch._utils\n_rebuild_tensor_v2\n"


def literal(value: object) -> bytes:
    """The instructions that make a number or a tuple of numbers."""
    return pickle.dumps(value, 2)[2:-1]


def tensor(storage: bytes, offset: int, size: tuple[int, ...], stride: tuple[int, ...]) -> bytes:
    return REBUILD + b"(" + storage + literal(offset) + literal(size) + literal(stride) + b"tR"


def listed(*items: bytes) -> bytes:
    return b"\x80\x02](" + b"".join(items) + b"e."


ROW = tensor(STORAGE, 0, (1, 4), (4, 1))

# Name -> the pickle, and what the reader says of it. The storage has four numbers.
PICKLES: dict[str, tuple[bytes, str]] = {
    "a tensor for a storage, read far outside": (
        listed(tensor(tensor(STORAGE, 0, (5 * 10**8, 0), (0, 1)), 0, (4 * 10**6, 100), (100, 1))), "is empty"
    ),
    "a tensor for a storage": (listed(tensor(ROW, 0, (1, 4), (4, 1))), "one of type Storage is needed"),
    "a parameter for a storage": (
        listed(tensor(b"ctorch._utils\n_rebuild_parameter\n(" + ROW + b"\x88}tR", 0, (1, 4), (4, 1))),
        "one of type Storage is needed",
    ),
    "a string for a storage": (listed(tensor(b"X\x01\0\0\0a", 0, (1, 1), (1, 1))), "one of type Storage is needed"),
    "a stride of 0": (listed(tensor(STORAGE, 0, (10**8, 8), (0, 0))), "far more memory"),
    "a stride of 0 in many tensors": (listed(*[tensor(STORAGE, 0, (10**6, 1), (0, 0))] * 80), "far more memory"),
    "one tensor for many incidents": (
        listed(tensor(STORAGE, 0, (1 << 18, 1), (0, 0)) + b"q\0", *[b"h\0"] * 10_000), "far more memory"
    ),
    "all signs turned around": (
        listed(REBUILD + b"(" + STORAGE + b"K\0" + literal((1, 4)) + literal((4, 1)) + b"\x89}}X\x03\0\0\0neg\x88stR"),
        "isn't plain",
    ),
    "overlapping rows": (listed(*[tensor(STORAGE, 0, (2,) * 30, (0,) * 30)] * 3), "far more memory"),
    "a negative stride": (listed(tensor(STORAGE, 3, (2, 2), (-1, 1))), "negative"),
    "a negative offset": (listed(tensor(STORAGE, -(2**40), (1, 4), (4, 1))), "negative"),
    "an offset behind the end": (listed(tensor(STORAGE, 2**62, (1, 1), (1, 1))), "beyond its storage"),
    "a stride that wraps around": (listed(tensor(STORAGE, 0, (3, 1), (2**62, 1))), "beyond its storage"),
    "a row too many": (listed(tensor(STORAGE, 0, (2, 4), (4, 1))), "beyond its storage"),
    "sizes that aren't numbers": (listed(REBUILD + b"(" + STORAGE + b"K\0)(NNttR"), "isn't|needed|sizes"),
    "65 dimensions": (listed(tensor(STORAGE, 0, (1,) * 65, (1,) * 65)), "65 sizes"),
    "a storage without entries": (listed(tensor(STORAGE.replace(b"K\x04", b"K\0"), 0, (1, 1), (1, 1))), "another size"),
    "an empty tensor": (listed(tensor(STORAGE, 0, (0, 4), (4, 1))), "is empty; without reports"),
    "an empty tensor of wide rows": (listed(tensor(STORAGE, 0, (0, 10**12), (1, 1))), "far more memory"),
    "many empty tensors of wide rows": (listed(*[tensor(STORAGE, 0, (0, 10**6), (1, 1))] * 80), "far more memory"),
    "an empty tensor of 63 dimensions": (listed(tensor(STORAGE, 0, (0, *[2] * 63), (1,) * 64)), "far more memory"),
    "a storage larger than its file": (
        listed(tensor(STORAGE.replace(b"K\x04", b"J\xff\xff\xff\x7f"), 0, (1, 1), (1, 1))), "another size"
    ),
    "a storage that isn't there": (listed(tensor(STORAGE.replace(b"0X", b"7X"), 0, (1, 1), (1, 1))), "the zip has no"),
    "a memo of 4 GB": (b"\x80\x02]r" + struct.pack("<I", 2**28 - 1) + b".", "no incidents"),
    "a memo that is empty": (b"\x80\x02j" + struct.pack("<I", 2**31) + b".", "damaged"),
    "BUILD on a function": (listed(REBUILD + b"}X\x08\0\0\0__code__NsbN"), "holds weights"),
    "BUILD on a class": (listed(b"ccollections\nOrderedDict\n}X\x01\0\0\0aNsb"), "holds weights"),
    "a call of something else": (listed(b"cos\nsystem\nX\x04\0\0\0true\x85R"), "'os system', which a state"),
    "a call of an object": (listed(STORAGE + b")R"), "calls something"),
    "a name with line breaks": (listed(b"ctorch\nFloat\x1bStorage\n"), r"\\x1b"),
    "another instruction": (listed(b"ccollections\nOrderedDict\n)\x81"), "instruction NEWOBJ"),
    "a later protocol": (b"\x80\x04].", "protocol 4"),
    "tuples as keys, which take for ever to compare": (
        b"\x80\x02}" + b")" + b"q\0h\0\x86" * 64 + b"Ns.", "type tuple where one of type str"
    ),
    "numbers as keys": (b"\x80\x02}K\x01Ns.", "type int where one of type str"),
    "a string of 2 GB": (b"\x80\x02X\xff\xff\xff\x7fabc.", "damaged"),
    "millions of lists": (b"\x80\x02(" + b"]" * 3_000_000 + b"l.", "far more memory"),
    "no end": (b"\x80\x02](", "damaged"),
    "no value": (b"\x80\x02.", "damaged"),
    "values that aren't there": (b"\x80\x02R.", "hasn't made"),
    "a list in itself": (b"\x80\x02]q\0h\0a.", "isn't a tensor"),
    "a dict in itself": (b"\x80\x02}q\0X\x06\0\0\0formath\0s.", '"format"'),
}  # fmt: skip


def read_in_another_process(folder: Path) -> dict[str, str]:
    """For each state in `folder`, "ranked" or why it was refused; see pt_reader.py."""
    ran = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("pt_reader.py")), str(folder)],
        env=os.environ | {"PYTHONPATH": str(ROOT / "inference"), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=600,
    )
    assert ran.returncode == 0, (ran.returncode, ran.stderr[-2000:])
    outcomes: dict[str, str] = json.loads(ran.stdout)
    return outcomes


def test_hostile_pickles_are_refused_and_do_no_harm(tmp_path: Path) -> None:
    for number, (pickled, _) in enumerate(PICKLES.values()):
        pack(tmp_path / f"{number:03}.pt", {"a/data.pkl": pickled, "a/data/0": np.ones(4, "<f4").tobytes()})
    outcomes = read_in_another_process(tmp_path)
    for (name, (_, reason)), outcome in zip(PICKLES.items(), outcomes.values(), strict=True):
        assert outcome != "ranked", name
        assert re.search(reason, outcome), (name, outcome)
        assert outcome.isprintable(), name


def test_hostile_zips_are_refused_and_do_no_harm(tmp_path: Path) -> None:
    good = {"a/data.pkl": listed(ROW), "a/data/0": np.ones(4, "<f4").tobytes()}
    zeros = {**good, "a/data/0": bytes(1 << 30)}
    pack(tmp_path / "1 good", good)
    pack(tmp_path / "2 a storage of 1 GiB in 1 MB", zeros, zipfile.ZIP_DEFLATED)
    pack(tmp_path / "3 a pickle of 1 GiB in 1 MB", {**good, "a/data.pkl": bytes(1 << 30)}, zipfile.ZIP_DEFLATED)
    pack(tmp_path / "4 a byte order of 1 GiB", {**good, "a/byteorder": bytes(1 << 30)}, zipfile.ZIP_DEFLATED)
    many = {f"a/data/{number}": bytes(1 << 20) for number in range(64)}
    storages = [STORAGE.replace(b"\x01\0\0\x000X", b"\x02\0\0\0%02dX" % number) for number in range(10, 64)]
    rows = [tensor(each.replace(b"K\x04", literal(1 << 18)), 0, (1, 4), (4, 1)) for each in storages]
    pack(tmp_path / "5 many that each inflate", {"a/data.pkl": listed(*rows), **many}, zipfile.ZIP_DEFLATED)
    pack(tmp_path / "6 another compression", good, zipfile.ZIP_BZIP2)
    pack(tmp_path / "7 a storage that isn't whole numbers", {**good, "a/data/0": b"123456"})
    claims = bytearray(pack(tmp_path / "8 a size beyond the file", good).read_bytes())
    at = claims.rindex(b"PK\x01\x02")
    claims[at + 20 : at + 28] = struct.pack("<II", 2**31, 2**31)
    (tmp_path / "8 a size beyond the file").write_bytes(claims)
    outcomes = read_in_another_process(tmp_path)
    assert [name[0] for name, outcome in outcomes.items() if outcome == "ranked"] == ["1"]
    assert ["memory" in outcomes[name] for name in sorted(outcomes)[1:5]] == [True] * 4, outcomes


def changed(content: bytes, chance: random.Random) -> bytes:
    """A few bytes of `content` other than they were, gone, or doubled."""
    mutant = bytearray(content)
    for _ in range(chance.choice((1, 1, 2, 8))):
        at = chance.randrange(len(mutant))
        match chance.randrange(4):
            case 0:
                mutant[at] ^= 1 << chance.randrange(8)
            case 1:
                mutant[at] = chance.randrange(256)
            case 2:
                del mutant[at : at + chance.randrange(1, 9)]
            case 3:
                mutant[at:at] = mutant[at : at + chance.randrange(1, 9)]
        if not mutant:
            break
    return bytes(mutant)


def mutants(tmp_path: Path, count: int) -> Iterator[bytes]:
    """Files like valid ones of both forms and formats: of some only the pickle differs, under a right checksum."""
    chance = random.Random(20)
    state = {
        "format": "incident-state",
        "version": 1,
        "incident_ids": torch.tensor([1, 2, 4]),
        "report_counts": torch.tensor([1, 5, 2]),
        "means": SOME[:3, :4],
        "titles": ["a", "", "c"],
        "model": "m",
        "model_fingerprint": "",
        "precision": "float32",
        "dates": ["2026-11-26", "", ""],
        "source": {"kind": "csv", "name": "n", "date": ""},
        "max_tokens": 2000,
        "duplicates": torch.tensor([[3, 1], [5, 2]]),
        "dissimilar": torch.empty(0, 2, dtype=torch.int64),
    }
    forms = [
        save(content, tmp_path / f"{number}-{form}.pt", form)
        for number, content in enumerate((state, CONTENTS["the original's list"]))
        for form in ("zip", "old")
    ]
    for number in range(count):
        path = forms[number % len(forms)]
        if path.name.endswith("zip.pt") and chance.random() < 0.7:
            members = unpack(path)
            name = next(name for name in members if name.endswith("/data.pkl"))
            members[name] = changed(members[name], chance)
            yield pack(tmp_path / "mutant", members).read_bytes()
        else:
            yield changed(path.read_bytes(), chance)


def test_damaged_files_end_in_a_sentence_or_in_a_state_that_ranks(tmp_path: Path) -> None:
    """600 mutants, read in a process with little memory."""
    folder = tmp_path / "mutants"
    folder.mkdir()
    for number, content in enumerate(mutants(tmp_path, 600)):
        (folder / f"{number:04}.pt").write_bytes(content)
    outcomes = read_in_another_process(folder)
    assert len(outcomes) == 600
    ranked = sum(outcome == "ranked" for outcome in outcomes.values())
    # Both kinds are there: changes that a state survives (of a title, say), and others.
    assert 20 < ranked < 500, ranked
    # The reasons are ours: no word of the system's, such as "Invalid argument" for a place before the file's start.
    reasons = [outcome for outcome in outcomes.values() if outcome != "ranked"]
    assert all("isn't an incident state that can be used: " in reason and reason.isprintable() for reason in reasons)


INSTRUCTIONS = [
    bytes([byte]) for byte in range(256) if chr(byte) in {opcode.code for opcode in pickletools.opcodes}
] + [STORAGE, REBUILD, ROW, b"ccollections\nOrderedDict\n", b"K\x02", b"X\x01\0\0\0k", b"q\x05", b"h\x05", b"Q", b"R"]


@given(st.lists(st.sampled_from(INSTRUCTIONS) | st.binary(max_size=3), max_size=40))
@settings(max_examples=1000)
def test_any_instructions_give_values_or_a_pt_file_error(tmp_path_factory: Any, parts: list[bytes]) -> None:
    pickled = b"\x80\x02" + b"".join(parts) + b"."
    path = tmp_path_factory.getbasetemp() / "any-instructions.pt"
    pack(path, {"a/data.pkl": pickled, "a/data/0": np.ones(4, "<f4").tobytes()})
    with contextlib.suppress(PtFileError):
        assert_is_plain(read_pt(path))


def assert_is_plain(content: Any, depth: int = 0) -> None:
    """Values alone: nothing in it is a function or a class."""
    assert not callable(content), content
    if isinstance(content, dict):
        content = list(content.values())
    if isinstance(content, list | tuple) and depth < 10:  # a list may be in itself
        for each in content:
            assert_is_plain(each, depth + 1)


@pytest.mark.parametrize("form", ["zip", "old"])
def test_a_file_cut_at_any_byte_is_refused_in_words(form: str, tmp_path: Path) -> None:
    content = save([SOME[:1, :2].clone()], tmp_path / "whole.pt", form).read_bytes()
    path = tmp_path / "cut.pt"
    for size in range(len(content)):
        path.write_bytes(content[:size])
        with pytest.raises(PtFileError) as caught:
            read_pt(path)
        assert "Errno" not in str(caught.value)


@pytest.mark.parametrize("form", ["zip", "old"])
def test_each_file_has_a_reader_of_its_own(form: str, tmp_path: Path) -> None:
    """The memo of one file isn't seen by the next, nor are its storages."""
    first = save([SOME], tmp_path / "1.pt", form)
    second = save([SOME + 1], tmp_path / "2.pt", form)
    before = read_pt(first)
    assert_reads_as_torch_does(second)
    assert_same(before, [SOME.numpy()])
    pack(tmp_path / "3.pt", {"a/data.pkl": b"\x80\x02h\0."})
    with pytest.raises(PtFileError):
        read_pt(tmp_path / "3.pt")
