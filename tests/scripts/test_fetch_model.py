"""Models are installed from a hub of the tests' own or from a folder, and encode as transformers' own LongformerModel.

What goes wrong on the way from the hub is in test_hub.py, how checkpoints are read in test_checkpoints.py.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LongformerModel

from checkpoint_files import CONFIG_OF_2020, write_longformer_of_2020
from fetch_model import is_installed, main
from hub_server import COMMIT, Hub, Repository, fetch
from reference import TOLERANCE, load_longformer, reference_of_text
from similarity.encoder.loading import load_encoder
from similarity.encoder.model_folder import ModelFiles
from similarity.encoder.torch_encoder import TorchEncoder
from tiny import LONGFORMER_DIR, RunsCode, contents, edit_config

LONGFORMER = "allenai/longformer-base-4096"
# The main branch on the hub, as its page shows it.
LONGFORMER_REVISION = "301e6a42cb0d9976a6d6a26a079fef81c18aa895"
TEXT = "A robot in a warehouse hurt workers"
PT = {"format": "pt"}


@dataclass(frozen=True)
class Published:
    """A Longformer in a folder, as allenai published theirs in 2020, and transformers' model of it."""

    folder: Path
    encoder: LongformerModel

    def vector(self, text: str = TEXT) -> torch.Tensor:
        return reference_of_text(self.encoder, self.folder, text)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Published:
    """Shared: don't write to its folder."""
    folder = tmp_path_factory.mktemp("published")
    return Published(folder, write_longformer_of_2020(folder))


@pytest.fixture
def copied(published: Published, tmp_path: Path) -> Path:
    """The same folder, for the test to break."""
    return Path(shutil.copytree(published.folder, tmp_path / "copied"))


def encodes_as(out: Path, published: Published, text: str = TEXT) -> bool:
    found = torch.from_numpy(TorchEncoder.load(out).encode(text).vector)
    return bool((found - published.vector(text)).abs().max() < TOLERANCE)


# From the hub.


@pytest.mark.slow
def test_longformer_as_it_is_on_the_hub_is_fetched_at_the_pinned_revision_and_only_once(
    hub: Hub, published: Published, tmp_path: Path
) -> None:
    files = contents(published.folder)
    assert set(files) == {"config.json", "merges.txt", "pytorch_model.bin", "tokenizer.json", "vocab.json"}
    assert files["pytorch_model.bin"].startswith(b"\x80\x02"), "a bare pickle, no zip"
    # A hub that knows the pinned revision only: asking for any other is a 404.
    hub.repositories[LONGFORMER] = Repository({LONGFORMER_REVISION: LONGFORMER_REVISION}, files)
    out = tmp_path / "model"
    ran = fetch(hub.url, out)
    assert ran.code == 0, ran.stderr
    assert ran.stdout == f"{out}: {LONGFORMER}, revision {LONGFORMER_REVISION}\n"
    assert "verified" not in ran.stderr
    assert hub.asked[0].path == f"/api/models/{LONGFORMER}/revision/{LONGFORMER_REVISION}"
    for text in ("", TEXT, TEXT * 3):
        assert encodes_as(out, published, text), text
    assert TorchEncoder.load(out).name == LONGFORMER
    provenance = json.loads((out / "provenance.json").read_text())
    assert (provenance["revision"], provenance["commit"]) == (LONGFORMER_REVISION, LONGFORMER_REVISION)
    made = {"config.json", "tokenizer.json", "model.safetensors", "provenance.json", "encoder.onnx", "encoder.json"}
    assert {path.name for path in out.iterdir()} == made, "no leftovers"
    assert load_longformer(out).config.hidden_size == 32

    hub.asked.clear()
    before = contents(out)
    ran = fetch(hub.url, out)
    assert ran.code == 0, ran.stderr
    assert ran.stdout == (
        f"{out}: {LONGFORMER}, revision {LONGFORMER_REVISION}, is installed already; nothing was downloaded\n"
    )
    assert hub.asked == []
    assert contents(out) == before


def test_the_config_above_has_the_keys_of_the_published_one() -> None:
    if not LONGFORMER_DIR.is_dir():
        pytest.skip(f"{LONGFORMER_DIR} is not there")
    real = json.loads((LONGFORMER_DIR / "config.json").read_text())
    assert real.keys() == CONFIG_OF_2020.keys()
    assert len(real["attention_window"]) == len(CONFIG_OF_2020["attention_window"])


@pytest.mark.slow
def test_a_branch_is_fetched_again_only_when_it_has_moved(
    hub: Hub, tiny_files: dict[str, bytes], tiny_encoder: TorchEncoder, tmp_path: Path
) -> None:
    files = {**tiny_files, "pytorch_model.bin": b"no weights", "README.md": b"# A model"}
    hub.repositories["some/model"] = Repository({"main": COMMIT, COMMIT: COMMIT}, files)
    out = tmp_path / "model"
    ran = fetch(hub.url, out, "--model", "some/model")
    assert ran.code == 0, ran.stderr
    # Safetensors where a model has both.
    assert np.array_equal(TorchEncoder.load(out).encode(TEXT).vector, tiny_encoder.encode(TEXT).vector)
    assert hub.asked[0].path == "/api/models/some/model/revision/main"
    # The branch may move between two files; the commit that it named first does not.
    resolved = [asked.path for asked in hub.asked if "/resolve/" in asked.path]
    assert {path.split("/")[4] for path in resolved} == {COMMIT}
    assert {path.split("/")[5] for path in resolved} == set(tiny_files)
    provenance = json.loads((out / "provenance.json").read_text())
    assert (provenance["revision"], provenance["commit"]) == ("main", COMMIT)

    hub.asked.clear()
    ran = fetch(hub.url, out, "--model", "some/model")
    assert ran.stdout == f"{out}: some/model, revision main, is installed already; nothing was downloaded\n"
    assert [asked.path for asked in hub.asked] == ["/api/models/some/model/revision/main"]

    moved = COMMIT[::-1]
    hub.repositories["some/model"] = Repository({"main": moved, moved: moved}, files)
    ran = fetch(hub.url, out, "--model", "some/model")
    assert ran.stdout == f"{out}: some/model, revision main\n"
    assert json.loads((out / "provenance.json").read_text())["commit"] == moved


@pytest.mark.slow
def test_shards_and_the_two_files_of_an_older_tokenizer_are_fetched(
    hub: Hub, published: Published, tmp_path: Path
) -> None:
    files = contents(published.folder)
    whole = torch.load(published.folder / "pytorch_model.bin", weights_only=True)
    names = sorted(whole)
    parts = {f"pytorch_model-{n:05}-of-00002.bin": names[n - 1 :: 2] for n in (1, 2)}
    for part, keys in parts.items():
        torch.save({key: whole[key].clone() for key in keys}, tmp_path / part)
        files[part] = (tmp_path / part).read_bytes()
    weight_map = {key: part for part, keys in parts.items() for key in keys}
    files["pytorch_model.bin.index.json"] = json.dumps({"metadata": {}, "weight_map": weight_map}).encode()
    files["tokenizer_config.json"] = b'{"model_max_length": 4096}'
    del files["pytorch_model.bin"], files["tokenizer.json"]
    hub.repositories["some/model"] = Repository({"v1": COMMIT, COMMIT: COMMIT}, files)
    out = tmp_path / "model"
    ran = fetch(hub.url, out, "--model", "some/model", "--revision", "v1")
    assert ran.code == 0, ran.stderr
    assert encodes_as(out, published)
    assert {name for name in files if hub.gets(name)} == set(files)


# Tensors that no text touches are left out, and the model stays the same one.


def installed_from(source: Path, out: Path) -> Path:
    assert main(["--from", str(source), "--out", str(out)]) == 0
    return out


def sizes(folder: Path) -> int:
    return len(load_file(folder / "model.safetensors"))


def test_a_folder_of_an_earlier_version_is_made_smaller(tiny_model_dir: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_model_dir, tmp_path / "model"))
    before = ModelFiles(folder).fingerprint()
    vector = load_encoder(folder).encode(TEXT).vector
    tensors = sizes(folder)
    installed_from(folder, folder)
    # Of three layers: weight and bias of three projections. And those of the pooler.
    assert sizes(folder) == tensors - 3 * 6 - 2
    assert np.array_equal(load_encoder(folder).encode(TEXT).vector, vector)
    assert load_encoder(folder).name == "tiny"
    # The pooler isn't read from a checkpoint, so it never counted in an installed model.
    weights = load_file(tiny_model_dir / "model.safetensors")
    whole = Path(shutil.copytree(tiny_model_dir, tmp_path / "whole"))
    save_file({name: each for name, each in weights.items() if "pooler" not in name}, whole / "model.safetensors", PT)
    assert ModelFiles(folder).fingerprint() == ModelFiles(whole).fingerprint() != before
    again = installed_from(whole, tmp_path / "again")
    assert contents(again)["model.safetensors"] == contents(folder)["model.safetensors"]


def test_a_smaller_folder_is_installed_as_it_is(published: Published, tmp_path: Path) -> None:
    first = installed_from(published.folder, tmp_path / "1")
    second = installed_from(first, tmp_path / "2")
    assert contents(first)["model.safetensors"] == contents(second)["model.safetensors"]
    assert ModelFiles(first).fingerprint() == ModelFiles(second).fingerprint()
    assert encodes_as(second, published)


@pytest.mark.slow
def test_a_smaller_folder_on_the_hub_is_installed_as_it_is(hub: Hub, published: Published, tmp_path: Path) -> None:
    first = installed_from(published.folder, tmp_path / "1")
    hub.repositories["some/model"] = Repository({COMMIT: COMMIT}, contents(first))
    ran = fetch(hub.url, tmp_path / "2", "--model", "some/model", "--revision", COMMIT)
    assert ran.code == 0, ran.stderr
    assert contents(first)["model.safetensors"] == contents(tmp_path / "2")["model.safetensors"]
    assert is_installed(tmp_path / "2", "some/model", COMMIT)


def test_global_attention_needs_the_whole_weights(
    published: Published, copied: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    smaller = installed_from(published.folder, tmp_path / "smaller")
    edit_config(smaller, global_attention_on_cls=True)
    edit_config(copied, global_attention_on_cls=True)
    assert main(["--from", str(smaller), "--out", str(tmp_path / "out")]) == 1
    assert "have no tensor encoder.layer.0.attention.self.query_global.weight; install the whole weights" in (
        capsys.readouterr().err
    )
    installed_from(copied, tmp_path / "out")


# What counts as installed.

INSTALLED = {"model": "some/model", "revision": "main", "made_by": "fetch_model.py", "commit": COMMIT}


@pytest.fixture
def installed(tiny_model_dir: Path, tmp_path: Path) -> Path:
    """A folder as a fetch of some/model leaves it."""
    from similarity.encoder.model_folder import sha256_of

    out = Path(shutil.copytree(tiny_model_dir, tmp_path / "model"))
    write_provenance(out, **INSTALLED, weights_sha256=sha256_of(out / "model.safetensors"))
    return out


def write_provenance(out: Path, **changes: object) -> None:
    """Changes values; None takes one away."""
    path = out / "provenance.json"
    values = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({key: value for key, value in values.items() if value is not None}))


def test_a_whole_folder_of_the_same_commit_is_installed(installed: Path) -> None:
    assert is_installed(installed, "some/model", COMMIT)


def test_a_folder_from_before_commits_were_noted_is_known_by_its_revision(installed: Path) -> None:
    write_provenance(installed, revision=COMMIT, commit=None)
    assert is_installed(installed, "some/model", COMMIT)


@pytest.mark.slow
def test_an_installation_that_was_stopped_halfway_is_ended_without_the_hub(
    hub: Hub, installed: Path, tiny_encoder: TorchEncoder
) -> None:
    write_provenance(installed, revision=COMMIT)
    (installed / ".installing").mkdir()
    for name in ("model.safetensors", "provenance.json"):
        (installed / name).rename(installed / ".installing" / name)
    # As it was when the process died: the old graph is gone or not yet there.
    (installed / "encoder.onnx").rename(installed / ".installing" / "encoder.onnx")
    ran = fetch(hub.url, installed, "--model", "some/model", "--revision", COMMIT)
    assert ran.code == 0, ran.stderr
    assert "nothing was downloaded" in ran.stdout
    assert hub.asked == []
    assert np.array_equal(TorchEncoder.load(installed).encode(TEXT).vector, tiny_encoder.encode(TEXT).vector)


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    "change",
    [
        lambda out: write_provenance(out, commit=COMMIT[::-1]),
        lambda out: write_provenance(out, model="another/model"),
        lambda out: write_provenance(out, made_by="convert_encoder.py, window 512"),
        lambda out: write_provenance(out, weights_sha256=None),
        lambda out: (out / "provenance.json").write_text("[]"),
        lambda out: (out / "provenance.json").unlink(),
        lambda out: flip_a_bit(out / "model.safetensors"),
        lambda out: (out / "model.safetensors").unlink(),
        lambda out: (out / "config.json").write_text("{"),
        lambda out: (out / "tokenizer.json").unlink(),
        lambda out: (out / "encoder.onnx").unlink(),
        shutil.rmtree,
    ],
    ids=[
        "another commit", "another model", "made by another script", "no checksum", "a list for provenance",
        "no provenance", "a flipped bit", "no weights", "a cut config", "no tokenizer", "no graph", "no folder",
    ],
)  # fmt: skip
def test_a_folder_that_is_not_whole_or_not_that_revision_is_not_installed(
    change: Callable[[Path], object], installed: Path
) -> None:
    change(installed)
    assert not is_installed(installed, "some/model", COMMIT)


# From a folder: no hub, so it runs in this process.


def refusal(source: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> str:
    """What `--from` says when it refuses, in one line, without touching what was there."""
    before = contents(out) if out.is_dir() else None
    assert main(["--from", str(source), "--out", str(out)]) == 1
    output = capsys.readouterr()
    assert output.out == ""
    [line] = output.err.splitlines()
    assert line.startswith("fetch_model: ")
    assert (contents(out) if out.is_dir() else None) == before
    return line.removeprefix("fetch_model: ")


def test_a_folder_on_this_machine_is_taken_over(
    published: Published, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "model"
    assert main(["--from", str(published.folder), "--out", str(out)]) == 0
    assert capsys.readouterr().out == f"{out}: {LONGFORMER}, revision as in {published.folder}\n"
    assert encodes_as(out, published)
    assert TorchEncoder.load(out).name == LONGFORMER
    provenance = json.loads((out / "provenance.json").read_text())
    assert provenance["revision"] == ""
    assert "commit" not in provenance


def test_a_folder_without_tokenizer_json_is_taken_over(copied: Path, published: Published, tmp_path: Path) -> None:
    (copied / "tokenizer.json").unlink()
    out = tmp_path / "model"
    assert main(["--from", str(copied), "--out", str(out)]) == 0
    assert encodes_as(out, published)


def test_a_lightning_checkpoint_is_taken_over(copied: Path, published: Published, tmp_path: Path) -> None:
    weights = torch.load(copied / "pytorch_model.bin", weights_only=True)
    checkpoint = {
        "epoch": 3,
        "state_dict": {f"model.{name}": tensor for name, tensor in weights.items()},
        "optimizer_states": [{"state": {0: {"step": torch.tensor(7.0)}}}],
    }
    torch.save(checkpoint, copied / "pytorch_model.bin")
    out = tmp_path / "model"
    assert main(["--from", str(copied), "--out", str(out)]) == 0
    assert encodes_as(out, published)


def test_a_folder_can_be_taken_over_by_itself(
    tiny_files: dict[str, bytes], tiny_encoder: TorchEncoder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, content in tiny_files.items():
        (tmp_path / name).write_bytes(content)
    (tmp_path / "encoder.bfloat16.json").touch()
    assert main(["--from", str(tmp_path), "--out", str(tmp_path), "--model", "my/model"]) == 0
    assert "removed; make them again with scripts/export_onnx.py --precision bfloat16." in capsys.readouterr().err
    encoder = TorchEncoder.load(tmp_path)
    assert encoder.name == "my/model"
    assert np.array_equal(encoder.encode(TEXT).vector, tiny_encoder.encode(TEXT).vector)


def test_a_model_of_this_projects_own_keeps_its_name(tiny_model_dir: Path, tmp_path: Path) -> None:
    assert main(["--from", str(tiny_model_dir), "--out", str(tmp_path / "model")]) == 0
    assert TorchEncoder.load(tmp_path / "model").name == "tiny"


def test_a_folder_that_was_left_halfway_can_be_taken_over_by_itself(tiny_model_dir: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(tiny_model_dir, tmp_path / "model"))
    (out / ".installing").mkdir()
    (out / "tokenizer.json").rename(out / ".installing" / "tokenizer.json")
    assert main(["--from", str(out), "--out", str(out)]) == 0
    TorchEncoder.load(out)


@pytest.mark.parametrize("form", ["zip", "legacy"])
def test_a_pickle_that_would_run_code_is_refused_and_does_not(
    form: str, copied: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, trace = copied / "pytorch_model.bin", tmp_path / "trace"
    content = {"longformer.embeddings.word_embeddings.weight": RunsCode(trace)}
    torch.save(content, path, _use_new_zipfile_serialization=form == "zip")
    assert refusal(copied, tmp_path / "model", capsys) == (
        f"the weights {path} can't be read: they contain posix.system, but only tensors are read from a pickle; "
        "load them where they were made and save only the state_dict."
    )
    assert not trace.exists()
    # What makes this a test: the file is whole, and without the protection its code runs.
    torch.load(path, weights_only=False)
    assert trace.exists()


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "pytorch_model.bin"])
@pytest.mark.parametrize("damage", ["missing", "cut", "empty", "a folder", "a pointer of Git LFS"])
def test_a_broken_folder_is_refused_in_one_line(
    name: str,
    damage: str,
    copied: Path,
    tiny_model_dir: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    out = Path(shutil.copytree(tiny_model_dir, tmp_path / "model"))
    path = copied / name
    content = path.read_bytes()
    path.unlink()
    if name == "tokenizer.json":
        (copied / "vocab.json").unlink()
    if damage == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif damage == "empty":
        path.touch()
    elif damage == "a folder":
        path.mkdir()
    elif damage == "a pointer of Git LFS":
        path.write_text(f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 123456\n")
    line = refusal(copied, out, capsys)
    assert str(copied) in line
    assert ("git lfs pull" in line) == (damage == "a pointer of Git LFS")


def encoder_config(path: Path, kind: str) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), "model_type": kind}))


@pytest.mark.parametrize("kind", ["bert", "roberta", "xlm-roberta", "camembert"])
def test_an_encoder_that_can_be_converted_is_sent_to_the_script_that_does(
    kind: str, copied: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    encoder_config(copied / "config.json", kind)
    assert refusal(copied, tmp_path / "model", capsys) == (
        f"{copied} isn't a usable Longformer: {copied / 'config.json'}: model_type is '{kind}', not 'longformer'; "
        "convert it with scripts/convert_encoder.py."
    )


@pytest.mark.slow
@pytest.mark.parametrize("depth", [100, 400, 900, 100_000])
def test_a_config_that_is_nested_deep_is_used_or_refused(
    depth: int, copied: Path, published: Published, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = json.dumps(CONFIG_OF_2020)[:-1] + ', "deep": ' + '{"a": ' * depth + "1" + "}" * depth + "}"
    (copied / "config.json").write_text(config)
    out = tmp_path / "model"
    if main(["--from", str(copied), "--out", str(out)]) == 0:
        assert depth < 100_000
        assert encodes_as(out, published)
    else:
        [line] = capsys.readouterr().err.splitlines()
        assert "nested too deep" in line
        assert depth > 100


@pytest.mark.parametrize("arguments", [["--from", "nothing"], ["--unknown"]], ids=" ".join)
def test_arguments_that_make_no_sense_exit_with_2(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as exit_:
        main([*arguments, "--out", "model"])
    assert exit_.value.code == 2
    assert "error: " in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
