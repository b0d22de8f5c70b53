"""`build_state.py --latest` makes a state of the newest snapshot, and nothing where the state is made of it already."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import build_state
from similarity.encoder.torch_encoder import TorchEncoder
from similarity.incidents.state import IncidentState
from snapshot_server import Host
from snapshots import Snapshot, embedding, form_hash, incident, report
from tiny import write_tiny_longformer

pytestmark = pytest.mark.usefixtures("cache_dir", "one_thread")

PAGE = "/research/snapshots/"
FIRST, SECOND = "backup-20261116100000.tar.bz2", "backup-20261123100000.tar.bz2"
TEXTS = {11: "A robot hurt a worker.", 12: "Two planes went down.", 13: "A court's risk scores were biased."}

Publish = Callable[..., None]
Run = Callable[..., int]


@pytest.fixture
def publish(host: Host, tmp_path: Path, tiny_encoder: TorchEncoder, monkeypatch: pytest.MonkeyPatch) -> Publish:
    """Puts a snapshot with these reports on the host; the first one has a vector of AIID's."""
    monkeypatch.setenv("SNAPSHOTS_URL", host.url + PAGE)

    def publish(name: str, *numbers: int) -> None:
        vector = tiny_encoder.encode(TEXTS[numbers[0]]).vector.tolist()
        fields = {numbers[0]: {"embedding": embedding(vector, form_hash(TEXTS[numbers[0]]))}}
        reports = [report(number, TEXTS[number], **fields.get(number, {})) for number in numbers]
        path = Snapshot([incident(number - 10, [number]) for number in numbers], reports).write(tmp_path / name)
        host.files[f"/{name}"] = path.read_bytes()
        path.unlink()
        host.pages[PAGE] = host.pages.get(PAGE, "") + f'<a href="{host.url}/{name}">{name}</a>'

    return publish


@pytest.fixture
def run(out: Path, tiny_model_dir: Path, host: Host) -> Run:
    def run(*options: str, model: Path = tiny_model_dir) -> int:
        host.asked.clear()
        return build_state.main(["--latest", "--model", str(model), "--out", str(out), *options])

    return run


def asked(host: Host) -> list[str]:
    return [path for path, _ in host.asked]


def test_the_newest_snapshot_is_downloaded_and_built_once(
    publish: Publish,
    run: Run,
    host: Host,
    out: Path,
    cache_dir: Path,
    encoded: list[str],
    capsys: pytest.CaptureFixture[str],
) -> None:
    publish(FIRST, 11, 12)
    assert run() == 0
    assert asked(host) == [PAGE, f"/{FIRST}"]
    assert (cache_dir / "snapshots" / FIRST).read_bytes() == host.files[f"/{FIRST}"]
    state = IncidentState.load(out)
    assert state.incident_ids.tolist() == [1, 2]
    assert state.source == {"kind": "aiid-snapshot", "name": FIRST, "date": "2026-11-16T10:00:00Z"}
    before = out.read_bytes()
    capsys.readouterr()

    assert run() == 0
    assert capsys.readouterr().out == f"{out}: already made of {FIRST}, the newest snapshot; nothing to do\n"
    assert asked(host) == [PAGE]
    assert out.read_bytes() == before

    publish(SECOND, 11, 12, 13)
    encoded.clear()
    assert run() == 0
    assert asked(host) == [PAGE, f"/{SECOND}"]
    assert IncidentState.load(out).source["name"] == SECOND
    assert encoded == [TEXTS[13]]
    lines = capsys.readouterr().out.splitlines()
    assert lines[1:] == [
        "Fitted: whitening power 0.125, word index of 2 words, no confidence, because there are too few reports and "
        "titles that could be asked",
        "Vectors: 1 published by AIID, 1 from earlier builds, 1 computed now; 66.7% of the work was saved",
        "Incidents: 1 (3) added, 0 changed, 0 removed",
    ]


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        ["--vectors", "computed"],
        ["--vectors", "published"],
        ["--responses", "exclude"],
        ["--max-tokens", "50"],
        ["--vectors", "computed", "--precision", "bfloat16"],
        ["another model"],
    ],
    ids=" ".join,
)
def test_other_options_make_another_state_of_the_same_snapshot(
    options: list[str],
    publish: Publish,
    run: Run,
    host: Host,
    out: Path,
    tmp_path: Path,
    tiny_model_dir: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    publish(FIRST, 11, 12)
    model = tiny_model_dir
    first = ["--vectors", "computed"] if options == ["another model"] else []
    assert run(*first) == 0
    if options == ["another model"]:
        options, model = first, write_tiny_longformer(tmp_path / "other", seed=1)
    # As it was, and back again.
    for arguments, folder in ((options, model), (first, tiny_model_dir)):
        before = out.read_bytes()
        assert run(*arguments, model=folder) == 0
        assert asked(host) == [PAGE], "the snapshot of the run before is used"
        assert out.read_bytes() != before
        capsys.readouterr()
        assert run(*arguments, model=folder) == 0
        assert capsys.readouterr().out.endswith("nothing to do\n")


def test_without_a_model_the_first_state_is_of_published_vectors_and_a_model_adds_the_rest(
    publish: Publish, run: Run, out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    publish(FIRST, 11, 12)
    assert run(model=tmp_path / "no model") == 0
    assert len(IncidentState.load(out)) == 1
    for options in ([], ["--vectors", "published"]):
        capsys.readouterr()
        assert run(*options, model=tmp_path / "no model") == 0
        assert capsys.readouterr().out.endswith("nothing to do\n")
    assert run() == 0
    state = IncidentState.load(out)
    assert (len(state), state.options["vectors"]) == (2, "auto")


@pytest.mark.parametrize("what", ["nothing", "no state", "a state of a table"])
def test_a_state_of_something_else_is_replaced(what: str, publish: Publish, run: Run, out: Path) -> None:
    publish(FIRST, 11, 12)
    if what == "no state":
        out.write_bytes(b"no state")
    elif what == "a state of a table":
        means = np.ones((1, 32), dtype=np.float32)
        IncidentState(np.array([1]), np.array([1]), means, ["A title"]).save(out)
    assert run() == 0
    assert IncidentState.load(out).source["name"] == FIRST


@pytest.mark.parametrize("what", ["no page", "no links", "no server", "not https", "no archive"])
def test_where_there_is_no_snapshot_one_sentence_says_so_and_the_old_state_stays(
    what: str,
    publish: Publish,
    run: Run,
    host: Host,
    out: Path,
    cache_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    publish(FIRST, 11, 12)
    out.write_bytes(b"an old state")
    if what == "no page":
        host.pages.clear()
    elif what == "no links":
        host.pages[PAGE] = "<p>No snapshots today.</p>"
    elif what == "no server":
        monkeypatch.setenv("SNAPSHOTS_URL", "http://127.0.0.1:1/")
    elif what == "not https":
        host.pages[PAGE] = f'<a href="http://bucket.example/{SECOND}">{SECOND}</a>'
    else:
        host.files[f"/{FIRST}"] = b"<html>Come back later.</html>"
    assert run() == 1
    output = capsys.readouterr()
    [line] = [line for line in output.err.splitlines() if line.startswith("build_state: ")]
    assert output.err.rstrip().endswith(line)
    assert "Traceback" not in output.err
    assert output.out == ""
    assert out.read_bytes() == b"an old state"
    assert not list(cache_dir.rglob("backup-*"))


@pytest.mark.parametrize("arguments", [[], ["--latest", "scripts"]])
def test_either_a_source_or_the_latest_is_given(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        build_state.main(arguments)
    assert exit_.value.code == 2
    assert "give a source or --latest" in capsys.readouterr().err
