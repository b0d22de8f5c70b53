"""The job that publishes a state of AIID's newest snapshot: when it acts, when it mustn't, and what it leaves behind.

AIID's page is a server on this machine, and the bucket is moto's.
"""

from __future__ import annotations

import dataclasses
import errno
import json
import logging
import shlex
import sqlite3
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import build_state
import snapshots
from buckets import BUCKET, put_by_hand, raw_client
from jobs import refresh
from metric_lines import Printed
from models.export import export
from published import content_of
from similarity.encoder.text_encoder import TextEncoder
from similarity.encoder.torch_encoder import TorchEncoder
from similarity.inbox.bucket import HOLD_KEY, SERVED_KEY, STATE_KEY, STORE_KEY, Bucket, InboxError
from similarity.inbox.notes import Deployed, Hold, Served, now
from similarity.inbox.publications import publish
from similarity.incidents.fit import Fit
from similarity.incidents.neighbours import neighbours
from similarity.incidents.points import no_points, pca
from similarity.incidents.ranking import Match
from similarity.incidents.state import IncidentState, state_version
from similarity.incidents.vector_index import Index
from similarity.refresh import refresher
from similarity.refresh.build import build_state as build_state_of
from similarity.refresh.refresher import OutOfTimeError, Refresher, RefreshError, Result
from similarity.refresh.vector_store import StoreError
from similarity.settings import DEFAULT_MODEL_URI, Engine, Settings
from similarity.shelf.usable import FolderModel
from similarity.sources.problems import SourceError
from similarity.vectors import Vector
from snapshot_server import Host
from snapshots import Snapshot, dump, embedding, form_hash, incident, report
from tiny import ROOT, TINY_MAX_TOKENS, edit_config
from tiny import Deployed as Files

# All its parameters together take a minute.
pytestmark = pytest.mark.slow

PAGE = "/research/snapshots/"
MONDAY, NEXT_MONDAY = "backup-20261116100000.tar.bz2", "backup-20261123100000.tar.bz2"
MONDAYS = {MONDAY: "2026-11-16T10:00:00Z", NEXT_MONDAY: "2026-11-23T10:00:00Z"}
TEXTS = {
    1: ["A car without a driver hit a pedestrian.", "Police say the car saw nobody."],
    4: ["A chatbot learned to insult people."],
    7: ["Risk scores of a court were biased."],
    10: ["A trading program crashed the market."],
    23: ["A robot in a warehouse hurt workers."],
}
# Where each incident is on the map of the served state.
PLACES = np.array([[-1, 0.125], [0.5, 0.5], [0, -0.75], [1, 0], [-0.25, 1]], dtype=np.float32)
NEW = "A drone flew into a power line."
# The texts of the newer snapshot: one more incident, one more report.
MORE = {**TEXTS, 23: [*TEXTS[23], "The robot had been repaired."], 30: [NEW]}


def all_of(texts: Mapping[int, Sequence[str]]) -> list[str]:
    return list(dict.fromkeys(text for each in texts.values() for text in each))


def snapshot(texts: Mapping[int, Sequence[str]], published: Mapping[str, Vector] | None = None) -> Snapshot:
    """published: AIID's vectors of some texts."""
    vectors = published or {}
    numbers = {text: number for number, text in enumerate(all_of(texts), start=101)}
    embeddings = {text: {"embedding": embedding(each.tolist(), form_hash(text))} for text, each in vectors.items()}
    reports = [report(number, text, **embeddings.get(text, {})) for text, number in numbers.items()]
    return Snapshot([incident(each, [numbers[text] for text in texts[each]]) for each in texts], reports)


@dataclass
class Lambda:
    """The context of a call. remaining_s: the seconds that are left at each question; the last one stays."""

    remaining_s: list[float] = field(default_factory=lambda: [900.0])

    def get_remaining_time_in_millis(self) -> int:
        return int(1000 * (self.remaining_s.pop(0) if len(self.remaining_s) > 1 else self.remaining_s[0]))


@dataclass
class Service:
    """A deployed image, its bucket, and AIID's page."""

    files: Files
    bucket: Bucket
    host: Host
    tmp: Path
    caplog: pytest.LogCaptureFixture

    @property
    def deployed(self) -> Deployed:
        model = FolderModel(Settings.from_environment())
        name = model.files.name() or ""
        return Deployed(name, model.fingerprint, model.dimension, model.longest_input, TINY_MAX_TOKENS, "unidecode")

    def offer(self, name: str, content: Snapshot) -> Path:
        """Puts a snapshot on AIID's page, beside those that are there. Gives its file."""
        path = content.write(self.tmp.parent / name)
        self.host.files[f"/{name}"] = path.read_bytes()
        self.host.pages[PAGE] = "".join(f'<a href="{self.host.url}{each}">.</a>' for each in self.host.files)
        return path

    def serve(self, state: IncidentState, **changed: Any) -> Served:
        """Publishes a state, and writes served.json as the job `shelve_state` does."""
        path = self.tmp.parent / "served.pt"
        state.save(path)
        version = publish(self.bucket, path)
        stored = self.bucket.look_at(STATE_KEY)
        assert stored
        served = Served(state.facts(version), now(), STATE_KEY, stored.version_id, self.deployed, now())
        served = replace(served, **changed)
        served.write(self.bucket)
        return served

    def shelve(self) -> None:
        """Serves the newest state in the bucket, as the job `shelve_state` does."""
        self.serve(self.published())

    def published(self) -> IncidentState:
        path = self.tmp.parent / "published.pt"
        assert self.bucket.download(STATE_KEY, path)
        return IncidentState.load(path)

    def store(self) -> Path:
        """The store of vectors in the bucket."""
        path = self.tmp.parent / "store.sqlite"
        path.unlink(missing_ok=True)
        assert self.bucket.download(STORE_KEY, path)
        return path

    def keys(self) -> Counter[str]:
        """The number of versions of each object."""
        return Counter(each.key for each in self.bucket.versions(""))

    def refresh(self, context: Lambda | None = None) -> dict[str, Any]:
        try:
            answer = refresh.handler({"time": "2026-11-26T07:04:05Z"}, context or Lambda())
        finally:
            assert list(self.tmp.iterdir()) == [], "it removes its files"
        assert json.loads(json.dumps(answer)) == answer
        return answer

    def asked(self) -> list[str]:
        """The paths that were requested from AIID since the last call."""
        paths = [path for path, _ in self.host.asked]
        self.host.asked.clear()
        return paths

    def lines(self, least: int = logging.INFO) -> list[Any]:
        """Our lines in the log since the last call."""
        ours = ("jobs.refresh", "similarity")
        found = [each for each in self.caplog.records if each.name.startswith(ours) and each.levelno >= least]
        self.caplog.clear()
        usual = vars(logging.makeLogRecord({}))
        for each in found:
            json.dumps({name: value for name, value in vars(each).items() if name not in usual})  # as in a Lambda's log
        return found

    def line(self) -> Any:
        [line] = self.lines()
        return line


@pytest.fixture
def service(
    deployed: Files,
    bucket: Bucket,
    host: Host,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> Service:
    """Serves a state of Monday's snapshot, all of whose vectors are computed. The page has that snapshot only."""
    caplog.set_level(logging.INFO)
    tmp = tmp_path / "tmp"
    tmp.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp))
    monkeypatch.setenv("SNAPSHOTS_URL", f"{host.url}{PAGE}")
    return Service(deployed, bucket, host, tmp, caplog)


def built(service: Service, path: Path, *options: str, keep: bool = False) -> IncidentState:
    """The state that a laptop builds of a snapshot. keep: its vectors go into the bucket."""
    out, cache = service.tmp.parent / "laptop.pt", service.tmp.parent / "laptop"
    model = str(service.files.model_dir)
    assert build_state.main([str(path), "--model", model, "--out", str(out), "--cache", str(cache), *options]) == 0
    if keep:
        service.bucket.upload(cache / "vectors.sqlite", STORE_KEY)
    return IncidentState.load(out)


@pytest.fixture
def computed(service: Service) -> Service:
    """Serves Monday's snapshot by computed vectors, which are in the bucket too. The next one waits on the page."""
    service.serve(built(service, service.offer(MONDAY, snapshot(TEXTS)), "--vectors", "computed", keep=True))
    service.offer(NEXT_MONDAY, snapshot(MORE))
    return service


def vectors_of(encoder: TorchEncoder, texts: Sequence[str]) -> dict[str, Vector]:
    return {text: encoder.encode(text).vector for text in texts}


def same(first: IncidentState, second: IncidentState, tolerance: float = 1e-6) -> None:
    """Fails unless the states differ by no more than the time of their build, and by rounding."""
    assert replace(first, built_at="").facts() == replace(second, built_at="").facts()
    assert first.incident_ids.tolist() == second.incident_ids.tolist()
    assert first.report_counts.tolist() == second.report_counts.tolist()
    assert (list(first.titles), list(first.dates)) == (list(second.titles), list(second.dates))
    np.testing.assert_allclose(first.means, second.means, rtol=0, atol=tolerance)
    same_fit(first.fit, second.fit)


def same_fit(first: Fit, second: Fit) -> None:
    """Rounding of vectors moves what is fitted to them by more than the vectors."""
    assert first.power == second.power
    assert first.whitening is not None
    assert second.whitening is not None
    np.testing.assert_allclose(first.whitening, second.whitening, rtol=0, atol=1e-3)
    assert first.words is not None
    assert second.words is not None
    assert list(first.words.words) == list(second.words.words)
    assert first.words.weights.tobytes() == second.words.weights.tobytes()
    assert first.calibration.keys() == second.calibration.keys()
    for metric, fitted in first.calibration.items():
        assert fitted.none_below == pytest.approx(second.calibration[metric].none_below, abs=0.01)


# When it must not act.


@pytest.mark.parametrize(
    "source",
    [
        {"kind": "csv", "name": "incidents.csv", "date": ""},
        {"kind": "records", "name": "ours", "date": ""},
        {"kind": "csv", "name": MONDAY, "date": MONDAYS[MONDAY]},
        {"kind": "other", "name": "cves.jsonl", "date": ""},
        {},
    ],
    ids=["csv", "records", "csv with a date", "another database", "unknown"],
)
def test_a_service_of_other_records_is_left_alone(source: dict[str, str], computed: Service) -> None:
    computed.serve(replace(computed.published(), source=source))
    before = computed.keys()
    answer = computed.refresh()
    assert (answer["published"], answer["snapshot"], computed.asked()) == (None, None, [])
    line = computed.line()
    assert (line.levelname, line.getMessage()) == ("INFO", "nothing to refresh")
    assert line.reason == answer["reason"]
    assert (source.get("kind") or "unknown data") in line.reason
    assert computed.keys() == before


def publish_unserved(service: Service, **source: str) -> None:
    """Publishes a state, which the job `shelve_state` hasn't served yet."""
    path = service.tmp.parent / "unserved.pt"
    replace(service.published(), source={"kind": "aiid-snapshot", "name": "other", "date": "", **source}).save(path)
    publish(service.bucket, path)


@pytest.mark.parametrize("kind", ["records", "other"])
def test_other_records_that_are_published_but_not_served_yet_are_left_alone(kind: str, computed: Service) -> None:
    publish_unserved(computed, kind=kind)
    before = computed.keys()
    answer = computed.refresh()
    assert (answer["published"], answer["snapshot"], computed.asked()) == (None, None, [])
    assert f"isn't served yet isn't made of a snapshot of AIID, but of {kind}" in answer["reason"]
    assert computed.keys() == before


def test_before_the_first_note_it_asks_nobody(service: Service) -> None:
    service.offer(NEXT_MONDAY, snapshot(MORE))
    assert service.refresh()["published"] is None
    assert service.asked() == []
    assert "no served.json yet" in service.line().reason
    assert not service.keys()


def test_without_a_newer_snapshot_it_ends_after_one_request(computed: Service) -> None:
    state = replace(
        computed.published(), source={"kind": "aiid-snapshot", "name": NEXT_MONDAY, "date": MONDAYS[NEXT_MONDAY]}
    )
    computed.serve(state)
    before = computed.keys()
    answer = computed.refresh()
    assert (answer["published"], answer["snapshot"]) == (None, NEXT_MONDAY)
    assert computed.asked() == [PAGE]
    assert computed.line().getMessage() == "nothing to refresh"
    assert computed.keys() == before


def test_a_snapshot_that_was_taken_back_waits_for_a_newer_one(computed: Service) -> None:
    Hold(MONDAYS[NEXT_MONDAY], frozenset({"0" * 16})).write(computed.bucket)
    answer = computed.refresh()
    assert answer["published"] is None
    assert computed.asked() == [PAGE]
    assert "rollback" in computed.line().reason
    computed.offer("backup-20261130100000.tar.bz2", snapshot(MORE))
    assert computed.refresh()["published"]
    assert computed.published().source["date"] == "2026-11-30T10:00:00Z"


def test_a_repeated_run_publishes_nothing_again(computed: Service) -> None:
    assert computed.refresh()["published"]
    computed.shelve()
    assert computed.refresh()["published"] is None
    assert computed.asked() == [PAGE, f"/{NEXT_MONDAY}", PAGE]


# What it publishes.


@pytest.mark.parametrize("engine", ["torch", "onnx"])
def test_it_publishes_the_state_that_a_laptop_would_build(
    engine: Engine, computed: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ENCODER_ENGINE", engine)
    answer = computed.refresh()
    state = computed.published()
    assert answer == {
        "published": state_version(computed.tmp.parent / "published.pt"),
        "reason": "",
        "snapshot": NEXT_MONDAY,
        "vectors": {"stored": 6, "computed": 2},
    }
    line = computed.line()
    assert (line.levelname, line.getMessage(), line.published) == ("INFO", "state published", answer["published"])
    assert state.built_at
    assert state.options == {"vectors": "computed", "responses": "include", "words": "title,description"}
    same(state, built(computed, computed.tmp.parent / NEXT_MONDAY, "--vectors", "computed"), 1e-5)
    keys = [each.key for each in computed.bucket.versions("")]
    assert keys.count(STORE_KEY) == keys.count(STATE_KEY) == 2


def test_it_puts_the_prefix_of_reports_before_each_text(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = TorchEncoder.load(service.files.model_dir)
    edit_config(service.files.model_dir, query_prefix="query: ", report_prefix="passage: ")
    monkeypatch.setenv("ENCODER_ENGINE", "torch")
    service.serve(built(service, service.offer(MONDAY, snapshot(TEXTS)), "--vectors", "computed"))
    service.offer(NEXT_MONDAY, snapshot(MORE))
    assert service.refresh()["vectors"] == {"computed": 8}
    state = service.published()
    [mean] = state.means[state.incident_ids == 30]
    report, query = (plain.encode(f"{prefix}: {NEW}").vector for prefix in ("passage", "query"))
    np.testing.assert_allclose(mean, report, rtol=0, atol=1e-5)
    assert np.abs(mean - query).max() > 1e-3


def test_with_the_same_vectors_it_publishes_the_same_state(computed: Service) -> None:
    expected = built(computed, computed.tmp.parent / NEXT_MONDAY, "--vectors", "computed", keep=True)
    assert computed.refresh()["vectors"] == {"stored": 8}
    same(computed.published(), expected)


def test_two_runs_make_the_same_state_to_the_bit(computed: Service) -> None:
    computed.refresh()
    first = computed.published()
    computed.refresh()  # Nothing has shelved the first one yet.
    second = computed.published()
    assert computed.keys()[STATE_KEY] == 3
    for each in dataclasses.fields(IncidentState):
        if each.name not in ("built_at", "fit"):
            one, other = getattr(first, each.name), getattr(second, each.name)
            assert one.tobytes() == other.tobytes() if isinstance(one, np.ndarray) else one == other
    assert content_of(replace(first, built_at="")) == content_of(replace(second, built_at=""))


# Enough incidents to fit to: each has two reports, and a title of its own.
MANY = {number: [f"Report {number} of a robot.", f"Another report, {number}."] for number in range(1, 31)}
MANY_MORE = {**MANY, 31: ["A drone fell.", "It hit a line."], 32: ["A lone report."]}


def test_a_refreshed_state_is_fitted_to_its_own_texts(service: Service) -> None:
    first = built(service, service.offer(MONDAY, snapshot(MANY)), "--vectors", "computed", keep=True)
    assert len(first.fit.calibration) == 4
    service.serve(first)
    expected = service.offer(NEXT_MONDAY, snapshot(MANY_MORE))
    answer = service.refresh()
    assert answer["vectors"] == {"stored": 60, "computed": 3}
    # Two new titles too.
    assert stored(service) == 60 + 30 + 3 + 2
    state = service.published()
    assert len(state.fit.calibration) == 4
    same(state, built(service, expected, "--vectors", "computed"), 1e-5)
    # With the vectors that it has kept, it comes to the same bits.
    service.serve(first)
    assert service.refresh()["published"]
    one, other = (content_of(replace(each, built_at="")) for each in (service.published(), state))
    assert one == other


def test_titles_wait_if_too_many_texts_would_be_computed(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    service.serve(built(service, service.offer(MONDAY, snapshot(MANY)), "--vectors", "computed", keep=True))
    service.offer(NEXT_MONDAY, snapshot(MANY_MORE))
    monkeypatch.setattr(refresher, "MOST_COMPUTED", 4)
    assert service.refresh()["published"]
    assert stored(service) == 60 + 30 + 4


@pytest.mark.parametrize(
    ("option", "expected"),
    [(None, "title,description"), ("reports", "reports"), ("gossip", "title,description")],
)
def test_the_words_are_from_the_parts_that_the_served_state_names(
    option: str | None, expected: str, service: Service
) -> None:
    """A state of an earlier version names none, and has nothing that was fitted."""
    first = built(service, service.offer(MONDAY, snapshot(MANY)), "--vectors", "computed", keep=True)
    options = {name: value for name, value in first.options.items() if name != "words"}
    service.serve(replace(first, options={**options, **({"words": option} if option else {})}, fit=Fit()))
    path = service.offer(NEXT_MONDAY, snapshot(MANY_MORE))
    assert service.refresh()["published"]
    state = service.published()
    assert state.options == {"vectors": "computed", "responses": "include", "words": expected}
    same(state, built(service, path, "--vectors", "computed", "--words", expected), 1e-5)


def test_incidents_stay_where_they_are_on_the_map_and_a_new_one_comes_beside_its_nearest(computed: Service) -> None:
    computed.serve(replace(computed.published(), points=PLACES))
    assert computed.refresh()["published"]
    state = computed.published()
    assert state.incident_ids.tolist() == [1, 4, 7, 10, 23, 30]
    assert state.points[:5].tobytes() == PLACES.tobytes()
    similarities = [each.similarity for each in sorted_matches(state, 30)]
    weights = np.array(similarities).clip(0)
    assert weights.any()
    np.testing.assert_allclose(state.points[5], weights @ PLACES / weights.sum(), rtol=0, atol=1e-5)


def sorted_matches(state: IncidentState, incident_id: int) -> list[Match]:
    """The others by `whitened`, in ascending order of id."""
    [matches] = [matches for each, matches in neighbours(state, -1, "whitened") if each == incident_id]
    return sorted(matches, key=lambda match: match.incident_id)


@pytest.mark.parametrize("trouble", ["no map", "another model", "not in the bucket"])
def test_without_a_map_to_keep_it_makes_one(trouble: str, computed: Service) -> None:
    before = replace(computed.published(), points=PLACES)
    if trouble == "no map":
        before = replace(before, points=no_points())
    served = computed.serve(before)
    if trouble == "another model":
        other = computed.serve(replace(before, model="other", model_fingerprint="0" * 64))
        facts = replace(served.state, version=other.state.version)
        replace(served, state=facts, version_id=other.version_id).write(computed.bucket)
    if trouble == "not in the bucket":
        replace(served, key="", version_id="").write(computed.bucket)
    assert computed.refresh()["published"]
    state = computed.published()
    assert np.array_equal(state.points, pca(Index(state.means, state.fit.whitening)))
    assert np.abs(state.points).max() == 1
    assert np.abs(state.points[:5] - PLACES).max() > 0.01


NAMED = {"collection": "A copy of AIID's", "record_url": "https://records.example/{id}", "licence": "CC0 1.0"}


def test_name_pages_and_licence_stay_those_of_the_served_state(computed: Service) -> None:
    computed.serve(replace(computed.published(), **NAMED))  # type: ignore[arg-type]
    assert computed.refresh()["published"]
    state = computed.published()
    assert state.source["name"] == NEXT_MONDAY
    assert {name: getattr(state, name) for name in NAMED} == NAMED
    assert state.url_of(0) == "https://records.example/1"


def test_a_note_of_an_earlier_version_means_aiids_name_pages_and_licence(computed: Service) -> None:
    content = computed.bucket.read_note(SERVED_KEY)
    assert content is not None
    for name in NAMED:
        del content["state"][name]
    put_by_hand(json.dumps(content).encode(), SERVED_KEY)
    assert computed.refresh()["published"]
    state = computed.published()
    assert (state.collection, state.url_of(0)) == ("AI Incident Database", "https://incidentdatabase.ai/cite/1")
    assert state.licence == "CC BY-SA 4.0"


def test_the_command_for_a_laptop_names_name_pages_and_licence(
    computed: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed.serve(replace(computed.published(), **NAMED))  # type: ignore[arg-type]
    monkeypatch.setattr(refresher, "MOST_COMPUTED", 1)
    computed.refresh()
    command = computed.line().remedy.split("; ")[1]
    arguments = ["--collection-name", NAMED["collection"], "--record-url", NAMED["record_url"]]
    arguments += ["--licence", NAMED["licence"]]
    assert shlex.split(command)[2:] == ["--latest", "--vectors", "computed", *arguments]


def test_the_command_for_a_laptop_names_other_words(computed: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    state = computed.published()
    computed.serve(replace(state, options={**state.options, "words": "title,reports"}))
    monkeypatch.setattr(refresher, "MOST_COMPUTED", 1)
    computed.refresh()
    assert "build_state.py --latest --vectors computed --words title,reports; " in computed.line().remedy


@pytest.fixture
def as_aiids(service: Service, monkeypatch: pytest.MonkeyPatch) -> Service:
    """The image's model is AIID's by name, and AIID cuts texts where the image does."""
    for module in ("refresh.build", "refresh.refresher"):
        monkeypatch.setattr(f"similarity.{module}.AIID_MAX_TOKENS", TINY_MAX_TOKENS)
    provenance = service.files.model_dir / "provenance.json"
    provenance.write_text(json.dumps({**json.loads(provenance.read_text()), "model": DEFAULT_MODEL_URI}))
    return service


def published_state(service: Service, encoder: TorchEncoder, responses: str = "include") -> IncidentState:
    path = service.offer(MONDAY, snapshot(TEXTS, vectors_of(encoder, all_of(TEXTS))))
    options = ("--vectors", "published", "--max-tokens", str(TINY_MAX_TOKENS), "--responses", responses)
    return built(service, path, *options)


def no_encoder(*args: object, **options: object) -> Any:
    raise AssertionError("no encoder is needed")


def test_a_state_of_published_vectors_needs_no_encoder_and_no_store(
    as_aiids: Service, tiny_encoder: TorchEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_aiids.serve(published_state(as_aiids, tiny_encoder))
    vectors = vectors_of(tiny_encoder, all_of(MORE))
    del vectors[NEW]
    as_aiids.offer(NEXT_MONDAY, snapshot({**MORE, 31: [TEXTS[1][0]]}, vectors))
    monkeypatch.setattr(refresher, "load_encoder", no_encoder)
    answer = as_aiids.refresh()
    assert answer["vectors"] == {"published": 8, "without": 1}
    assert as_aiids.published().incident_ids.tolist() == [1, 4, 7, 10, 23, 31]
    assert as_aiids.published().options["vectors"] == "published"
    assert as_aiids.keys()[STORE_KEY] == 0


def test_published_vectors_of_another_limit_need_the_tokenizer_and_compute_nothing(
    as_aiids: Service, tiny_encoder: TorchEncoder, monkeypatch: pytest.MonkeyPatch, encoded: list[str]
) -> None:
    state = published_state(as_aiids, tiny_encoder)
    as_aiids.serve(state)
    for module in ("refresh.build", "refresh.refresher"):
        monkeypatch.setattr(f"similarity.{module}.AIID_MAX_TOKENS", TINY_MAX_TOKENS + 1)
    vectors = vectors_of(tiny_encoder, all_of(MORE))
    as_aiids.offer(NEXT_MONDAY, snapshot(MORE, vectors))
    encoded.clear()
    monkeypatch.setenv("ENCODER_ENGINE", "torch")
    assert as_aiids.refresh()["vectors"] == {"published": 8}
    assert encoded == []
    assert as_aiids.keys()[STORE_KEY] == 0


def test_published_vectors_and_computed_ones_come_together(
    as_aiids: Service, tiny_encoder: TorchEncoder, tmp_path: Path
) -> None:
    vectors = vectors_of(tiny_encoder, all_of(TEXTS))
    path = as_aiids.offer(MONDAY, snapshot(TEXTS, vectors))
    as_aiids.serve(built(as_aiids, path, "--vectors", "auto", "--responses", "exclude"))
    later = as_aiids.offer(NEXT_MONDAY, snapshot(MORE, vectors))
    assert as_aiids.refresh()["vectors"] == {"published": 6, "computed": 2}
    same(as_aiids.published(), built(as_aiids, later, "--vectors", "auto", "--responses", "exclude"), 1e-5)
    assert as_aiids.published().options == {"vectors": "auto", "responses": "exclude", "words": "title,description"}


def test_an_image_of_int8_refreshes_a_state_of_float32(computed: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    export(computed.files.model_dir, "int8")
    monkeypatch.setenv("ENCODER_PRECISION", "int8")
    assert computed.refresh()["published"]
    same(computed.published(), built(computed, computed.tmp.parent / NEXT_MONDAY, "--vectors", "computed"), 1e-5)


WITHOUT_TORCH = """
import json, os, sys, boto3, moto
sys.path.insert(0, sys.argv[1])
sys.modules["torch"] = None
from pathlib import Path
with moto.mock_aws():
    client, bucket = boto3.client("s3"), os.environ["STATE_BUCKET"]
    region = {"LocationConstraint": os.environ["AWS_DEFAULT_REGION"]}
    client.create_bucket(Bucket=bucket, CreateBucketConfiguration=region)
    client.put_bucket_versioning(Bucket=bucket, VersioningConfiguration={"Status": "Enabled"})
    client.put_object(Bucket=bucket, Key="served.json", Body=Path(sys.argv[2]).read_bytes())
    from jobs import refresh
    class Context:
        def get_remaining_time_in_millis(self): return 900_000
    print(json.dumps(refresh.handler({}, Context())))
"""


def test_the_engine_onnx_computes_without_torch_and_prints_nothing(computed: Service, tmp_path: Path) -> None:
    note = tmp_path / "served.json"
    note.write_text(json.dumps(computed.bucket.read_note(SERVED_KEY)))
    command = [sys.executable, "-c", WITHOUT_TORCH, str(ROOT / "inference"), str(note)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert json.loads(done.stdout)["vectors"] == {"computed": 8}, done.stderr
    assert done.stderr == ""


def test_bad_documents_are_in_the_log_and_nothing_is_printed(
    computed: Service, capfd: pytest.CaptureFixture[str]
) -> None:
    good = snapshot(MORE)
    bad = [{**report(900 + each, f"Bad {each}"), "report_number": "many"} for each in range(9)]
    content = dump([*good.reports, *bad])
    computed.offer(NEXT_MONDAY, replace(good, changed={"aiidprod/reports.bson": content}))
    capfd.readouterr()
    assert computed.refresh()["published"]
    assert capfd.readouterr() == ("", "")
    warning, published = computed.lines()
    assert (warning.levelname, warning.getMessage()) == ("WARNING", "parts of the snapshot skipped")
    assert (warning.count, len(warning.first), warning.snapshot) == (9, 5, NEXT_MONDAY)
    assert "reports.bson, document 9" in warning.first[0]
    assert published.getMessage() == "state published"


# The store of vectors.


@pytest.mark.parametrize("damage", ["no store", "half a store", ""])
def test_a_damaged_store_is_replaced(damage: str, computed: Service) -> None:
    content = computed.store().read_bytes()
    broken = computed.tmp.parent / "broken"
    broken.write_bytes({"no store": b"no store", "half a store": content[: len(content) // 2], "": b""}[damage])
    computed.bucket.upload(broken, STORE_KEY)
    assert computed.refresh()["published"]
    warning, _ = computed.lines()
    assert (warning.levelname, warning.getMessage()) == ("WARNING", "store of vectors replaced")
    assert stored(computed) == 8
    computed.refresh()
    assert computed.line().vectors == {"stored": 8}


def stored(service: Service) -> int:
    with closing(sqlite3.connect(service.store())) as connection:
        return int(connection.execute("SELECT count(*) FROM vectors").fetchone()[0])


def test_without_a_store_it_makes_one(computed: Service) -> None:
    raw_client().delete_object(Bucket=BUCKET, Key=STORE_KEY)
    assert computed.refresh()["vectors"] == {"computed": 8}
    assert stored(computed) == 8


def while_built(monkeypatch: pytest.MonkeyPatch, do: Callable[[], object]) -> None:
    """Calls `do` once, when a state has just been built."""
    again: list[bool] = []

    def build_and_do(*args: Any, **options: Any) -> Any:
        result = build_state_of(*args, **options)
        if not again:
            again.append(True)
            do()
        return result

    monkeypatch.setattr(refresher, "build_state", build_and_do)


def test_vectors_that_others_put_into_the_bucket_meanwhile_stay(
    computed: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    def publish_from_a_laptop() -> None:
        content = snapshot({1: ["A text of the laptop's own."]}).write(computed.tmp.parent / "other.tar.bz2")
        built(computed, content, "--vectors", "computed", keep=True)

    while_built(monkeypatch, publish_from_a_laptop)
    assert computed.refresh()["published"]
    # Six of Monday, computed by torch; two by onnx; one of the laptop.
    assert stored(computed) == 9


def test_two_runs_at_once_both_end_well(computed: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    other = computed.tmp.parent / "other"
    other.mkdir()
    settings = Settings.from_environment()

    def run_another() -> None:
        result = Refresher(
            Bucket(BUCKET),
            settings,
            other,
            require_usable=FolderModel(settings).require_usable,
            remaining_s=lambda: 900.0,
        ).run()
        assert result.published

    while_built(monkeypatch, run_another)
    assert computed.refresh()["published"]
    assert computed.keys()[STATE_KEY] == 3
    assert stored(computed) == 8


# A person must act.


def test_too_many_texts_are_counted_before_the_first_is_computed(
    computed: Service, monkeypatch: pytest.MonkeyPatch, printed_metrics: Printed
) -> None:
    monkeypatch.setattr(refresher, "MOST_COMPUTED", 1)
    monkeypatch.setattr(TextEncoder, "encode_batch", no_encoder)
    before = computed.keys()
    answer = computed.refresh()
    line = computed.line()
    assert (line.levelname, line.getMessage()) == ("ERROR", "state not published")
    assert printed_metrics.lines() == [{"RefreshFailures": 1}]
    assert line.reason == answer["reason"] == "2 texts would have to be computed, but at most 1 are allowed."
    assert line.snapshot == answer["snapshot"] == NEXT_MONDAY
    assert line.remedy == (
        "On a laptop: python scripts/publish_state.py --fetch-vectors; python scripts/build_state.py --latest "
        "--vectors computed; python scripts/publish_state.py inference/model/incident_cls.pt"
    )
    assert (answer["published"], computed.keys()) == (None, before)


def test_the_sample_of_aiids_vectors_counts_too(
    as_aiids: Service, tiny_encoder: TorchEncoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    vectors = vectors_of(tiny_encoder, all_of(TEXTS))
    as_aiids.serve(built(as_aiids, as_aiids.offer(MONDAY, snapshot(TEXTS, vectors)), "--vectors", "auto"))
    as_aiids.offer(NEXT_MONDAY, snapshot(MORE, vectors))
    monkeypatch.setattr(refresher, "MOST_COMPUTED", 6)
    assert "7 texts would have to be computed" in as_aiids.refresh()["reason"]
    monkeypatch.setattr(refresher, "MOST_COMPUTED", 7)
    assert as_aiids.refresh()["published"]


def test_a_model_that_is_not_aiids_publishes_nothing(as_aiids: Service, tiny_encoder: TorchEncoder) -> None:
    vectors = vectors_of(tiny_encoder, all_of(TEXTS))
    as_aiids.serve(built(as_aiids, as_aiids.offer(MONDAY, snapshot(TEXTS, vectors)), "--vectors", "auto"))
    as_aiids.offer(NEXT_MONDAY, snapshot(MORE, {text: each + np.float32(1) for text, each in vectors.items()}))
    assert "the model doesn't make AIID's vectors" in as_aiids.refresh()["reason"]
    assert as_aiids.line().levelname == "ERROR"
    assert as_aiids.keys()[STATE_KEY] == 1


def test_a_precision_that_the_engine_lacks_names_the_laptops_command(computed: Service) -> None:
    served = Served.read(computed.bucket)
    assert served
    replace(served, state=replace(served.state, precision="bfloat16", max_tokens=100)).write(computed.bucket)
    answer = computed.refresh()
    line = computed.line()
    assert "bfloat16" in answer["reason"]
    assert "build_state.py --latest --vectors computed --precision bfloat16 --max-tokens 100;" in line.remedy
    assert computed.asked() == [PAGE]


def test_a_graph_that_the_image_lacks_names_the_laptops_command(computed: Service) -> None:
    (computed.files.model_dir / "encoder.onnx").unlink()
    assert "there is no graph" in computed.refresh()["reason"]
    assert computed.line().levelname == "ERROR"


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"fingerprint": "0" * 64}, "made with another model"),
        ({"max_tokens": 100}, "cut at 128 tokens, but here texts are cut at 100"),
    ],
)
def test_a_state_that_the_deployed_image_can_not_use_is_not_published(
    changed: dict[str, Any], reason: str, computed: Service
) -> None:
    served = Served.read(computed.bucket)
    assert served
    replace(served, deployed=replace(served.deployed, **changed)).write(computed.bucket)
    assert reason in computed.refresh()["reason"]
    line = computed.line()
    assert (line.levelname, line.getMessage()) == ("ERROR", "state not published")
    assert "python scripts/build_state.py --latest" in line.remedy
    assert computed.keys()[STATE_KEY] == 1


def test_a_state_that_the_jobs_own_image_can_not_use_is_not_published(
    computed: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = replace(computed.published(), max_tokens=100)
    state.save(computed.files.state_path)
    assert "cut at 128 tokens, but here texts are cut at 100" in computed.refresh()["reason"]
    assert computed.keys()[STATE_KEY] == 1


@pytest.mark.parametrize("in_bucket", [True, False])
def test_a_state_that_lost_many_incidents_is_not_published(in_bucket: bool, computed: Service) -> None:
    if not in_bucket:
        served = Served.read(computed.bucket)
        assert served
        replace(served, key="", version_id="").write(computed.bucket)
    computed.offer(NEXT_MONDAY, snapshot({each: texts for each, texts in TEXTS.items() if each != 7}))
    answer = computed.refresh()
    line = computed.line()
    assert (line.levelname, answer["published"]) == ("ERROR", None)
    assert ("(7)" if in_bucket else "4 incidents") in answer["reason"]
    assert line.remedy.endswith("incident_cls.pt --force, if the loss is right")
    assert computed.keys()[STATE_KEY] == 1


def test_a_state_of_unknown_options_is_not_replaced(computed: Service) -> None:
    served = Served.read(computed.bucket)
    assert served
    replace(served, state=replace(served.state, options={"vectors": "magic"})).write(computed.bucket)
    assert "doesn't say how it was built: vectors 'magic', responses None" in computed.refresh()["reason"]
    assert computed.line().levelname == "ERROR"


@pytest.mark.parametrize(("name", "value"), [("STATE_BUCKET", ""), ("ENCODER_ENGINE", "magic")])
def test_a_wrong_deployment_is_an_error(
    name: str, value: str, computed: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    assert name in computed.refresh()["reason"]
    assert computed.line().remedy == "Deploy again."


# What has changed while it ran.


@pytest.mark.parametrize("change", ["snapshot", "later", "kind", "hold", "gone"])
def test_it_gives_up_if_the_service_has_moved_on(
    change: str, computed: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    served = Served.read(computed.bucket)
    assert served

    def move_on() -> None:
        date = {"snapshot": MONDAYS[NEXT_MONDAY], "later": "2026-11-30T10:00:00Z"}.get(change, MONDAYS[MONDAY])
        source = {"kind": "csv" if change == "kind" else "aiid-snapshot", "name": "other", "date": date}
        replace(served, state=replace(served.state, source=source)).write(computed.bucket)
        if change == "hold":
            Hold(MONDAYS[NEXT_MONDAY]).write(computed.bucket)
        if change == "gone":
            raw_client().delete_object(Bucket=BUCKET, Key=SERVED_KEY)

    while_built(monkeypatch, move_on)
    answer = computed.refresh()
    line = computed.line()
    assert (line.levelname, line.getMessage()) == ("INFO", "nothing to refresh")
    assert answer["published"] is None
    assert answer["reason"].startswith("While the state was built: ")
    assert computed.keys()[STATE_KEY] == 1
    assert stored(computed) == 8, "what was computed isn't lost"


@pytest.mark.parametrize("source", [{"kind": "csv"}, {"date": "2026-11-30T10:00:00Z"}], ids=["csv", "later"])
def test_it_gives_up_if_a_state_was_published_that_is_not_served_yet(
    source: dict[str, str], computed: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    while_built(monkeypatch, lambda: publish_unserved(computed, **source))
    answer = computed.refresh()
    assert answer["published"] is None
    assert answer["reason"].startswith("While the state was built: A state that isn't served yet ")
    assert computed.keys()[STATE_KEY] == 2


def test_a_rollback_in_the_last_moment_wins(computed: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two runs have built a state of the same snapshot. That of the first one is taken back."""
    before = computed.published()
    computed.refresh()
    bad = computed.published()
    computed.serve(before)
    content = (computed.tmp.parent / "served.pt").read_bytes()
    upload = Bucket.upload

    def roll_back_first(bucket: Bucket, path: Path, key: str, *rest: Any, **options: Any) -> str:
        if key == STATE_KEY and path.is_relative_to(computed.tmp):
            Hold().with_taken_back(bad.facts()).write(bucket)
            put_by_hand(content + b" ")
        return upload(bucket, path, key, *rest, **options)

    monkeypatch.setattr(Bucket, "upload", roll_back_first)
    with pytest.raises(RefreshError, match="has been written meanwhile"):
        computed.refresh()
    assert computed.keys()[STATE_KEY] == 4
    computed.lines()
    assert "rollback" in computed.refresh()["reason"]


def test_what_the_image_can_not_use_is_replaced(computed: Service) -> None:
    """Nonsense, and a state of an earlier image."""
    path = computed.tmp.parent / "other.pt"
    path.write_bytes(b"nonsense")
    computed.bucket.upload(path, STATE_KEY)
    assert computed.refresh()["published"]
    replace(computed.published(), source={"kind": "csv", "name": "", "date": ""}, model_fingerprint="0" * 64).save(path)
    publish(computed.bucket, path)
    assert computed.refresh()["published"]


def test_a_state_that_came_meanwhile_is_compared_too(computed: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    def deploy_another_model() -> None:
        served = Served.read(computed.bucket)
        assert served
        replace(served, deployed=replace(served.deployed, fingerprint="0" * 64)).write(computed.bucket)

    while_built(monkeypatch, deploy_another_model)
    assert "made with another model" in computed.refresh()["reason"]
    assert computed.keys()[STATE_KEY] == 1


# Trouble that may pass.


def failure(service: Service, kind: type[Exception], context: Lambda | None = None) -> Any:
    """Runs the job, which must raise `kind` and publish nothing. Gives its last line in the log."""
    before = service.keys()[STATE_KEY]
    with pytest.raises(RefreshError) as error:
        service.refresh(context)
    assert isinstance(error.value.__cause__ or error.value, kind)
    assert service.keys()[STATE_KEY] == before
    line = service.lines()[-1]
    assert line.reason
    assert line.remedy
    return line


def then_it_works(service: Service) -> None:
    assert service.refresh()["published"]
    service.shelve()
    assert service.refresh()["published"] is None


@pytest.mark.parametrize("trouble", ["missing", "no links", "http elsewhere", "nobody answers"])
def test_a_page_that_can_not_be_used_raises(
    trouble: str, computed: Service, monkeypatch: pytest.MonkeyPatch, printed_metrics: Printed
) -> None:
    page = computed.host.pages.pop(PAGE)
    if trouble == "no links":
        computed.host.pages[PAGE] = "<p>soon"
    elif trouble == "http elsewhere":
        computed.host.pages[PAGE] = f'<a href="http://example.org/{NEXT_MONDAY}">'
    elif trouble == "nobody answers":
        monkeypatch.setenv("SNAPSHOTS_URL", "http://127.0.0.1:9/")
    line = failure(computed, SourceError)
    assert (line.levelname, line.getMessage()) == ("ERROR", "refresh failed")
    assert printed_metrics.lines() == [{"RefreshFailures": 1}]
    assert "python scripts/build_state.py FILE" in line.remedy
    computed.host.pages[PAGE] = page
    monkeypatch.setenv("SNAPSHOTS_URL", f"{computed.host.url}{PAGE}")
    then_it_works(computed)


def test_a_download_that_is_cut_off_goes_on(computed: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("similarity.sources.download.PAUSES_S", (0, 0, 0))
    computed.host.cuts[:] = [100, 200]
    assert computed.refresh()["published"]
    assert computed.host.ranges == [None, "bytes=100-", "bytes=300-"]


@pytest.mark.parametrize("damage", ["cut", "other file", "gone", "no dumps"])
def test_an_archive_that_can_not_be_read_raises(damage: str, computed: Service) -> None:
    path = f"/{NEXT_MONDAY}"
    whole = computed.host.files[path]
    if damage == "no dumps":
        computed.host.files[path] = snapshots._PACKERS[".bz2"](b"no tar")
    elif damage == "gone":
        computed.host.files = {f"/{MONDAY}": b""}
    else:
        computed.host.files[path] = whole[: len(whole) // 2] if damage == "cut" else b"<html>"
    assert failure(computed, SourceError).getMessage() == "refresh failed"
    computed.host.files[path] = whole
    then_it_works(computed)


@pytest.mark.parametrize("key", [SERVED_KEY, HOLD_KEY])
@pytest.mark.parametrize("content", [b"", b"\xff", b"[]", b"{}", b'{"source_date": 1, "versions": 2, "state": 3}'])
def test_notes_that_are_nonsense_raise(key: str, content: bytes, computed: Service) -> None:
    note = computed.bucket.read_note(key)
    put_by_hand(content, key)
    line = failure(computed, InboxError)
    assert key in line.reason
    assert computed.asked() == []
    if note is None:
        raw_client().delete_object(Bucket=BUCKET, Key=key)
    else:
        computed.bucket.write_note(key, note)
    then_it_works(computed)


def test_a_bucket_that_is_not_there_raises(computed: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STATE_BUCKET", "elsewhere")
    assert "elsewhere" in failure(computed, InboxError).reason


@pytest.mark.parametrize("where", ["download", "state"])
def test_a_full_disk_raises(where: str, computed: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object, **options: object) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        if where == "state":
            patch.setattr(IncidentState, "save", full)
            line = failure(computed, OSError)
        else:
            patch.setattr("similarity.sources.download.os.fsync", full)
            line = failure(computed, SourceError)
    assert "No space left on device" in line.reason
    then_it_works(computed)


def test_near_the_time_limit_it_stops_and_the_next_run_goes_on(
    computed: Service, monkeypatch: pytest.MonkeyPatch, printed_metrics: Printed
) -> None:
    monkeypatch.setattr("similarity.refresh.compute.PART_CHARS", 1)  # each text is a part of its own
    asked: list[int] = []
    encode_batch = TextEncoder.encode_batch

    class Running(Lambda):
        """After the first text, no time is left."""

        def get_remaining_time_in_millis(self) -> int:
            return 900_000 if not asked else 59_000

    def encode_and_note(*args: Any) -> Any:
        asked.append(1)
        return encode_batch(*args)

    monkeypatch.setattr(TextEncoder, "encode_batch", encode_and_note)
    line = failure(computed, OutOfTimeError, Running())
    assert (line.levelname, line.getMessage()) == ("WARNING", "refresh out of time")
    assert stored(computed) == 7
    assert computed.refresh()["vectors"] == {"stored": 7, "computed": 1}
    # Lambda calls it again, so that this is no failure.
    assert printed_metrics.lines() == []


def test_a_slow_download_stops_near_the_time_limit(computed: Service) -> None:
    line = failure(computed, OutOfTimeError, Lambda([59.0]))
    assert "before the snapshot was downloaded" in line.reason
    assert computed.keys()[STORE_KEY] == 1


class Killed(BaseException):
    """Nothing after it reaches the bucket."""


def test_wherever_a_run_is_killed_the_next_one_heals(computed: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run is killed before its first call of S3, before the second, and so on."""
    make = Bucket.__init__
    left = [0]

    class Dying:
        """A client of S3 that dies after some calls."""

        def __init__(self) -> None:
            self._client = raw_client()

        def __getattr__(self, name: str) -> Any:
            left[0] -= 1
            if left[0] < 0:
                raise Killed
            return getattr(self._client, name)

    before, stages = computed.keys(), set()
    for calls in range(100):
        left[0] = calls
        with monkeypatch.context() as patch:
            patch.setattr(Bucket, "__init__", lambda self, name, client=None: make(self, name, Dying()))
            try:
                computed.refresh()
            except Killed:
                pass
            else:
                break
        keys = computed.keys()
        stages.add((keys[STORE_KEY] - before[STORE_KEY], keys[STATE_KEY] - before[STATE_KEY]))
    assert stages == {(0, 0), (1, 0)}
    same(computed.published(), built(computed, computed.tmp.parent / NEXT_MONDAY, "--vectors", "computed"), 1e-5)
    assert stored(computed) == 8


def test_what_a_killed_run_left_on_the_disk_is_removed(computed: Service) -> None:
    left = computed.tmp / "refresh"
    left.mkdir()
    (left / f"{NEXT_MONDAY}.partial").write_bytes(b"BZh of another one")
    (left / "vectors.sqlite").write_bytes(b"half a store")
    (left / "served-1").mkdir()
    assert computed.refresh()["vectors"] == {"stored": 6, "computed": 2}


def test_all_files_are_in_the_folder_that_is_removed(computed: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[Path] = []
    download = Bucket.download

    def download_and_note(bucket: Bucket, key: str, path: Path, *version: str) -> Any:
        written.append(path)
        return download(bucket, key, path, *version)

    with monkeypatch.context() as patch:
        patch.setattr(Bucket, "download", download_and_note)
        assert computed.refresh()["published"]
    assert len(written) == 3, "the store, the served state, and the store again"
    assert tempfile.gettempdir() == str(computed.tmp)
    assert all((computed.tmp / "refresh") in path.parents for path in written)


def test_if_the_store_can_not_be_kept_the_first_error_counts(
    computed: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*args: object, **options: object) -> Any:
        raise InboxError("s3 refuses")

    def fail() -> None:
        raise StoreError("the first error")

    while_built(monkeypatch, fail)
    with monkeypatch.context() as patch:
        patch.setattr(Bucket, "upload", refuse)
        with pytest.raises(RefreshError, match="StoreError: the first error"):
            computed.refresh()
    warning, error = computed.lines()
    assert (warning.getMessage(), warning.computed, warning.reason) == ("vectors not kept", 2, "InboxError: s3 refuses")
    assert "the first error" in error.reason
    then_it_works(computed)


def test_the_answer_of_a_run_without_work_is_whole() -> None:
    assert dataclasses.asdict(Result()) == {"published": None, "reason": "", "snapshot": None, "vectors": {}}
