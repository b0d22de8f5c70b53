"""Reports of the export: what is in the file comes back, and any other file is a ModelError."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from similarity.encoder.reports import Agreement, Report, read_report
from similarity.errors import ModelError

REPORT = Report(np.array([0, 7, 2]), np.array([3, 0, -4], np.float32), 0.01, Agreement(1.0, 0.996, 0.9995, 989))


def written(folder: Path, content: bytes) -> Path:
    (folder / "encoder.int8.json").write_bytes(content)
    return folder


def test_what_was_written_is_read(tmp_path: Path) -> None:
    found = read_report(written(tmp_path, json.dumps(REPORT.to_json()).encode()), "int8")
    assert found is not None
    assert found.ids.tolist() == [0, 7, 2]
    assert found.vector.tolist() == [3, 0, -4]
    assert found.vector.dtype == np.float32
    assert (found.tolerance, found.agreement) == (0.01, REPORT.agreement)
    assert read_report(tmp_path, "float32") is None
    assert read_report(tmp_path, "bfloat16") is None


def test_without_a_state_there_is_no_agreement() -> None:
    found = Report.from_json(json.loads(json.dumps(replace(REPORT, agreement=None).to_json())))
    assert found.agreement is None


def test_numbers_come_back_bit_by_bit() -> None:
    vector = np.random.default_rng(0).standard_normal(768, np.float32)
    found = Report.from_json(json.loads(json.dumps(replace(REPORT, vector=vector).to_json())))
    assert np.array_equal(found.vector, vector)


def test_the_distance_is_a_share_of_the_length() -> None:
    assert REPORT.distance(np.array([3, 0, -4], np.float32)) == 0
    # (3, 0, -4) is 5 long.
    assert REPORT.distance(np.array([3, 0.1, -4], np.float32)) == pytest.approx(0.02)
    assert REPORT.distance(np.array([6, 0, -8], np.float32)) == 1


@pytest.mark.parametrize(
    "vector",
    [[np.nan, 0, -4], [3, np.inf, -4], [3, 0], [3, 0, -4, 0], [], [[3, 0, -4]], [0, 0, 0], [3e38, 3e38, -3e38]],
)
def test_no_other_vector_meets_it(vector: list[float]) -> None:
    # The self-test asks in this way, so that NaN fails.
    assert not REPORT.distance(np.array(vector, np.float32)) <= REPORT.tolerance


@pytest.mark.parametrize(
    ("cosine", "centered", "is_enough"),
    [(1.0, 1.0, True), (0.995, 0.995, True), (0.994, 1.0, False), (1.0, 0.994, False)],
)
def test_both_metrics_must_agree(cosine: float, centered: float, is_enough: bool) -> None:
    assert Agreement(cosine, centered, 0.9, 200).is_enough == is_enough


def changed(**changes: object) -> bytes:
    return json.dumps({**REPORT.to_json(), **changes}).encode()


def in_test(**changes: object) -> bytes:
    return changed(self_test={**REPORT.to_json()["self_test"], **changes})


def agreement(**changes: object) -> bytes:
    return changed(agreement={**REPORT.to_json()["agreement"], **changes})


HOSTILE: dict[str, bytes] = {
    "empty": b"",
    "no JSON": b"{",
    "no text": b"\xff\xfe\x00",
    "a list": b"[]",
    "an empty object": b"{}",
    "nested too deep": b'{"self_test": ' + b"[" * 200_000,
    "a number of 5,000 digits": b'{"self_test": ' + b"1" * 5000 + b"}",
    "a pointer of Git LFS": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
    "no agreement": json.dumps({"self_test": REPORT.to_json()["self_test"]}).encode(),
    "a self-test that is a list": changed(self_test=[]),
    "a self-test that is null": changed(self_test=None),
    "an agreement that is a string": changed(agreement="good"),
    "an agreement that is a list": changed(agreement=[1, 1, 1, 9]),
    "no ids": in_test(ids=[]),
    "ids that are null": in_test(ids=None),
    "one id": in_test(ids=5),
    "ids in lists": in_test(ids=[[1, 2]]),
    "ids of different lengths": in_test(ids=[[1, 2], [3]]),
    "ids in letters": in_test(ids=["a"]),
    "ids in digits": in_test(ids=["1", "2"]),
    "fractions of ids": in_test(ids=[0, 1.5]),
    "an id of 10^30": in_test(ids=[10**30]),
    "an id below 0": in_test(ids=[0, -7, 2]),
    "truths as ids": in_test(ids=[True, False]),
    "no vector": in_test(vector=[]),
    "a vector of zeros": in_test(vector=[0, 0, 0]),
    "a vector with NaN": in_test(vector=[3, float("nan"), -4]),
    "a vector with infinity": in_test(vector=[3, float("inf"), -4]),
    "a vector that float32 can't hold": in_test(vector=[3, 1e300, -4]),
    "a vector with null": in_test(vector=[3, None, -4]),
    "a vector in lists": in_test(vector=[[3, 0, -4]]),
    "a vector in an object": in_test(vector={"0": 3}),
    "no limit": in_test(tolerance=None),
    "a limit of 0": in_test(tolerance=0),
    "a limit below 0": in_test(tolerance=-0.1),
    "a limit of 1": in_test(tolerance=1),
    "a limit of NaN": in_test(tolerance=float("nan")),
    "a limit of infinity": in_test(tolerance=float("inf")),
    "a limit in letters": in_test(tolerance="small"),
    "a share above 1": agreement(cosine=1.01),
    "a share below 0": agreement(centered=-0.5),
    "a share of NaN": agreement(cosine=float("nan")),
    "a share that is null": agreement(centered=None),
    "a cosine above 1": agreement(smallest_cosine=2),
    "no texts": agreement(texts=0),
    "fewer than no texts": agreement(texts=-3),
    "infinitely many texts": agreement(texts=float("inf")),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_any_other_file_is_a_model_error(name: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError) as caught:
        read_report(written(tmp_path, HOSTILE[name]), "int8")
    assert caught.value.status == 503
    assert "encoder.int8.json" in caught.value.detail
    assert caught.value.detail.isprintable()
    assert str(tmp_path) not in str(caught.value)


def test_a_folder_in_its_place_is_a_model_error(tmp_path: Path) -> None:
    (tmp_path / "encoder.int8.json").mkdir()
    with pytest.raises(ModelError, check=lambda error: "is a folder where a file should be" in error.detail):
        read_report(tmp_path, "int8")
