"""A model's folder is written whole or not at all, in a form that transformers and other users can read."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from integer_products import int8_on_every_cpu
from models.export import export
from models.install_files import finish_install, writing_to
from models.write_model import write_model
from reference import TOLERANCE, load_longformer, reference
from similarity.encoder import model_folder
from similarity.encoder.loading import load_encoder
from similarity.encoder.model_folder import EXPORTED_FILENAMES, ModelFiles, sha256_of
from similarity.encoder.reports import Report
from similarity.encoder.torch_encoder import TorchEncoder
from similarity.errors import ModelError
from similarity.incidents.ranking import Ranking
from similarity.settings import Precision
from similarity.vectors import Vector
from tiny import ROOT, TINY_TEXTS, contents, state_of_texts, write_tiny_longformer

EXPORTED = {"encoder.onnx", "encoder.json"}
FILES = {"config.json", "tokenizer.json", *EXPORTED, "model.safetensors", "provenance.json"}
QUERY_KEY_VALUE = ("query", "key", "value")


@pytest.fixture
def every_cpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with int8_on_every_cpu(monkeypatch):
        yield


def parts(model_dir: Path) -> dict[str, Any]:
    return {
        "config": json.loads((model_dir / "config.json").read_bytes()),
        "tokenizer_json": (model_dir / "tokenizer.json").read_bytes(),
        "weights": load_file(model_dir / "model.safetensors"),
        "source": {"model": "some/model", "revision": "abc"},
    }


def test_the_sha256_is_that_of_the_bytes(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"abc")
    # The first example of FIPS 180-2.
    assert sha256_of(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_what_was_written_encodes_as_what_it_was_made_of(
    tiny_model_dir: Path, tiny_encoder: TorchEncoder, tmp_path: Path
) -> None:
    out = tmp_path / "a folder" / "that is not there yet"
    write_model(out, **parts(tiny_model_dir))
    assert {path.name for path in out.iterdir()} == FILES
    text = "A robot in a warehouse"
    assert np.array_equal(TorchEncoder.load(out).encode(text).vector, tiny_encoder.encode(text).vector)


def test_the_folder_says_what_it_is(tiny_model_dir: Path, tmp_path: Path) -> None:
    write_model(tmp_path, **parts(tiny_model_dir))
    provenance = json.loads((tmp_path / "provenance.json").read_text())
    weights_sha256 = hashlib.sha256((tmp_path / "model.safetensors").read_bytes()).hexdigest()
    graph_sha256 = {name: hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() for name in EXPORTED}
    assert provenance == {
        "model": "some/model",
        "revision": "abc",
        "weights_sha256": weights_sha256,
        "graph_sha256": graph_sha256,
    }
    assert ModelFiles(tmp_path).name() == "some/model"


def test_transformers_will_read_the_weights(tiny_model_dir: Path, tmp_path: Path) -> None:
    write_model(tmp_path, **parts(tiny_model_dir))
    with safe_open(tmp_path / "model.safetensors", framework="pt") as file:
        assert file.metadata()["format"] == "pt"


def whole_folder(folder: Path, model_dir: Path, **config: object) -> Path:
    """A model as earlier versions installed it: with all tensors, and a note of their hash alone."""
    given = parts(model_dir)
    folder.mkdir()
    (folder / "tokenizer.json").write_bytes(given["tokenizer_json"])
    (folder / "config.json").write_text(json.dumps({**given["config"], **config}))
    save_file(given["weights"], folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "provenance.json").write_text(
        json.dumps({**given["source"], "weights_sha256": sha256_of(folder / "model.safetensors")})
    )
    export(folder)
    return folder


def test_what_no_text_touches_is_left_out_and_the_model_stays_the_same(tiny_model_dir: Path, tmp_path: Path) -> None:
    whole = whole_folder(tmp_path / "whole", tiny_model_dir)
    smaller = tmp_path / "smaller"
    write_model(smaller, **parts(tiny_model_dir))
    names = [load_file(folder / "model.safetensors").keys() for folder in (whole, smaller)]
    attention = [f"encoder.layer.{layer}.attention.self" for layer in range(3)]
    modules = [*(f"{name}.{part}_global" for name in attention for part in QUERY_KEY_VALUE), "pooler.dense"]
    assert names[0] - names[1] == {f"{module}.{part}" for module in modules for part in ("weight", "bias")}
    assert not names[1] - names[0]
    assert ModelFiles(whole).fingerprint() == ModelFiles(smaller).fingerprint()
    for maker, server in ((whole, smaller), (smaller, whole)):
        state = state_of_texts(load_encoder(maker), TINY_TEXTS)
        encoder = load_encoder(server)
        state.require_made_by(encoder, encoder.name or "")
        assert Ranking(state).most_similar(encoder.encode(TINY_TEXTS[7]).vector, 1)[0].incident_id == 7


def test_the_same_tensors_make_the_same_bytes(tiny_model_dir: Path, tmp_path: Path) -> None:
    for name in ("1", "2"):
        write_model(tmp_path / name, **parts(tiny_model_dir))
    assert contents(tmp_path / "1") == contents(tmp_path / "2")


def test_a_model_with_global_attention_keeps_its_tensors(tiny_model_dir: Path, tmp_path: Path) -> None:
    whole = whole_folder(tmp_path / "whole", tiny_model_dir, global_attention_on_cls=True)
    given = parts(tiny_model_dir)
    given["config"]["global_attention_on_cls"] = True
    write_model(tmp_path / "out", **given)
    written = load_file(tmp_path / "out" / "model.safetensors")
    assert given["weights"].keys() - written.keys() == {"pooler.dense.weight", "pooler.dense.bias"}
    assert ModelFiles(whole).fingerprint() == ModelFiles(tmp_path / "out").fingerprint()
    ids = torch.arange(40)
    expected = reference(load_longformer(tmp_path / "out"), ids, global_attention_on_cls=True)
    assert (TorchEncoder.load(tmp_path / "out").cls_vector(ids) - expected).abs().max() < TOLERANCE


@pytest.mark.parametrize("graph_of", ["whole", "smaller"])
def test_a_graph_fits_only_the_form_of_the_weights_that_it_was_made_for(
    graph_of: str, tiny_model_dir: Path, tmp_path: Path
) -> None:
    whole_folder(tmp_path / "whole", tiny_model_dir)
    write_model(tmp_path / "smaller", **parts(tiny_model_dir))
    folder = tmp_path / ("smaller" if graph_of == "whole" else "whole")
    shutil.copyfile(tmp_path / graph_of / "encoder.onnx", folder / "encoder.onnx")
    (folder / "provenance.json").unlink()  # it has the hash of the right graph
    for use in (load_encoder, lambda folder: ModelFiles(folder).require_graph_fits("encoder.onnx")):
        with pytest.raises(ModelError) as caught:
            use(folder)
        assert "export it again with scripts/export_onnx.py" in caught.value.detail
    export(folder)
    ModelFiles(folder).require_graph_fits("encoder.onnx")


def test_other_users_may_read_every_file(tiny_model_dir: Path, tmp_path: Path) -> None:
    write_model(tmp_path, **parts(tiny_model_dir))
    assert {path.name: oct(path.stat().st_mode & 0o044) for path in tmp_path.iterdir()} == dict.fromkeys(FILES, "0o44")


def test_a_transposed_tensor_is_written_as_it_looks(tiny_model_dir: Path, tmp_path: Path) -> None:
    given = parts(tiny_model_dir)
    name = "encoder.layer.0.attention.self.query.weight"
    given["weights"][name] = given["weights"][name].t()
    write_model(tmp_path, **given)
    assert torch.equal(
        load_file(tmp_path / "model.safetensors")[name], load_file(tiny_model_dir / "model.safetensors")[name].t()
    )


def test_a_write_that_fails_leaves_the_model_that_was_there(tiny_model_dir: Path, tmp_path: Path) -> None:
    write_model(tmp_path, **parts(tiny_model_dir))
    before = contents(tmp_path)
    given = parts(tiny_model_dir)
    # The weights are written by then: what fails is the last file.
    given["config"] = {**given["config"], "no JSON": object()}
    with pytest.raises(TypeError):
        write_model(tmp_path, **given)
    assert contents(tmp_path) == before


def with_shared_tensors(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The same numbers, as conversion recipes and tied embeddings leave them: several tensors in one memory."""
    shared = dict(weights)
    for name in weights:
        if ".query_global." in name:
            shared[name] = weights[name] = weights[name.replace(".query_global.", ".query.")]
    rows = torch.cat([weights["embeddings.position_embeddings.weight"]] * 2)
    shared["embeddings.position_embeddings.weight"] = rows[: len(rows) // 2]
    name = "encoder.layer.1.intermediate.dense.weight"
    shared[name] = weights[name].t().contiguous().t()
    return shared


def test_tensors_that_share_memory_are_written_as_they_look(tiny_model_dir: Path, tmp_path: Path) -> None:
    given = parts(tiny_model_dir)
    given["weights"] = with_shared_tensors(given["weights"])
    write_model(tmp_path / "out", **given)
    written = load_file(tmp_path / "out" / "model.safetensors")
    left_out = {name for name in given["weights"] if "_global." in name or name.startswith("pooler.")}
    assert written.keys() == given["weights"].keys() - left_out
    assert all(torch.equal(tensor, given["weights"][name]) for name, tensor in written.items())
    ids = torch.arange(40)
    expected = reference(load_longformer(tmp_path / "out"), ids)
    assert (TorchEncoder.load(tmp_path / "out").cls_vector(ids) - expected).abs().max() < TOLERANCE


NOT_FINITE = {
    "a NaN": (torch.float32, torch.nan),
    "an infinity": (torch.float32, -torch.inf),
    "an infinity of float16": (torch.float16, torch.inf),
    "a NaN of bfloat16": (torch.bfloat16, torch.nan),
    "a double that float32 can't hold": (torch.float64, 1e300),
}


@pytest.mark.parametrize("name", NOT_FINITE)
def test_weights_that_are_not_finite_are_refused(name: str, tiny_model_dir: Path, tmp_path: Path) -> None:
    dtype, value = NOT_FINITE[name]
    write_model(tmp_path, **parts(tiny_model_dir))
    before = contents(tmp_path)
    given = parts(tiny_model_dir)
    tensor = given["weights"]["encoder.layer.1.output.dense.bias"].to(dtype)
    tensor[3] = value
    given["weights"]["encoder.layer.1.output.dense.bias"] = tensor
    with pytest.raises(ModelError) as caught:
        write_model(tmp_path, **given)
    assert caught.value.detail.startswith("1 numbers of the weights encoder.layer.1.output.dense.bias are NaN")
    assert contents(tmp_path) == before


def test_a_new_model_takes_the_exported_files_of_the_old_one_away(
    tiny_model_dir: Path, tmp_path: Path, every_cpu: None
) -> None:
    write_model(tmp_path, **parts(tiny_model_dir))
    export(tmp_path, "int8")
    export(tmp_path, "bfloat16")
    assert all((tmp_path / name).exists() for name in EXPORTED_FILENAMES)
    (tmp_path / "incident_cls.pt").write_bytes(b"a state")
    given = parts(tiny_model_dir)
    given["weights"] = {name: -tensor for name, tensor in given["weights"].items()}
    write_model(tmp_path, **given)
    assert {path.name for path in tmp_path.iterdir()} == {*FILES, "incident_cls.pt"}
    assert load_encoder(tmp_path).encode("a text")


# Kills. Each happens in a process of its own, right before it renames, removes or syncs something.


@dataclass(frozen=True)
class Killed:
    """What the processes left, a folder each; see killed_writers.py."""

    folders: list[Path]
    old: Vector
    new: Vector
    precision: Precision


@pytest.fixture(scope="module", params=["first", "replacement", "export", "int8"])
def killed(request: pytest.FixtureRequest, tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Killed:
    root = tmp_path_factory.mktemp("killed")
    other = write_tiny_longformer(tmp_path_factory.mktemp("other"), seed=1)
    command = [sys.executable, str(Path(__file__).with_name("killed_writers.py")), request.param]
    ran = subprocess.run(
        [*command, str(tiny_model_dir), str(other), str(root)],
        env=os.environ
        | {"PYTHONPATH": os.pathsep.join(str(ROOT / name) for name in ("inference", "scripts", "tests"))},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    folders = sorted(root.iterdir())
    # The last one wasn't killed.
    assert len(folders) == int(ran.stdout) >= 10
    if request.param == "int8":
        with pytest.MonkeyPatch.context() as patch, int8_on_every_cpu(patch):
            vector = load_encoder(folders[-1], precision="int8").encode("a text").vector
        return Killed(folders, vector, vector, "int8")
    new = tiny_model_dir if request.param == "export" else other
    old_vector, new_vector = (load_encoder(folder).encode("a text").vector for folder in (tiny_model_dir, new))
    return Killed(folders, old_vector, new_vector, "float32")


def found_in(folder: Path, killed: Killed) -> str:
    """What somebody who opens the folder finds."""
    try:
        vector = load_encoder(folder, precision=killed.precision).encode("a text").vector
    except ModelError as error:
        return "halfway" if "was stopped halfway" in error.detail else error.detail.replace(str(folder), "FOLDER")
    assert any(np.array_equal(vector, known) for known in (killed.old, killed.new)), folder
    return "new" if np.array_equal(vector, killed.new) else "old"


@pytest.mark.slow
def test_a_writer_that_is_killed_leaves_the_old_model_or_says_so(
    killed: Killed, request: pytest.FixtureRequest, every_cpu: None
) -> None:
    found = [state for state, _ in itertools.groupby(found_in(folder, killed) for folder in killed.folders)]
    match request.node.callspec.params["killed"]:
        case "first":
            assert found[0].startswith("there is no model in FOLDER")
            assert found[1:] == ["halfway", "new"]
        case "replacement":
            assert found == ["old", "halfway", "new"]
        case "export":  # of the same model, so that old and new are alike
            assert found == ["new", "halfway", "new"]
        case "int8":
            assert found[0].startswith("there is no graph FOLDER/encoder.int8.onnx")
            assert found[1:] == ["halfway", "new"]
            for folder in killed.folders:
                if not (folder / ".installing").exists():
                    load_encoder(folder)


@pytest.mark.slow
def test_the_next_writer_goes_on_after_a_kill(killed: Killed, every_cpu: None, tmp_path: Path) -> None:
    folders = [Path(shutil.copytree(folder, tmp_path / folder.name)) for folder in killed.folders]
    halfway = [folder for folder in folders if (folder / ".installing").exists()]
    assert halfway
    for folder in folders:
        finish_install(folder)
        if folder in halfway:
            encoder = load_encoder(folder, precision=killed.precision)
            assert np.array_equal(encoder.encode("a text").vector, killed.new), folder
        with writing_to(folder):
            pass
        assert not [path.name for path in folder.iterdir() if path.name.startswith(".")], folder


def test_two_writers_do_not_meet(tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    other = {**parts(tiny_model_dir), "source": {"model": "the second"}}
    second: list[str] = []

    def export_and_meet(folder: Path) -> Report:
        # The first writer has its files in hand, and the second comes.
        with pytest.raises(OSError, match="another process is writing") as caught:
            write_model(tmp_path, **other)
        second.append(str(caught.value))
        return export(folder)

    monkeypatch.setattr("models.write_model.export", export_and_meet)
    write_model(tmp_path, **parts(tiny_model_dir))
    assert len(second) == 1
    assert ModelFiles(tmp_path).name() == "some/model"
    assert load_encoder(tmp_path).encode("a text")
    monkeypatch.undo()
    write_model(tmp_path, **other)
    assert ModelFiles(tmp_path).name() == "the second"


@pytest.mark.slow
@pytest.mark.parametrize("moved", range(7))
def test_no_image_is_built_of_two_models(
    moved: int, tiny_model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The build gets no hidden file, so that it can't see that an installation was stopped."""
    given = parts(tiny_model_dir)
    write_model(tmp_path / "old", **given)
    # It differs from the old one in every file.
    given["config"] = {**given["config"], "attention_window": [8, 8, 8]}
    given["tokenizer_json"] += b"\n"
    given["weights"] = {name: -tensor for name, tensor in given["weights"].items()}
    write_model(tmp_path / "new", **given)
    folder = tmp_path / "model"
    shutil.copytree(tmp_path / "old", folder)
    (folder / "incident_cls.pt").write_bytes(b"a state")
    shutil.copytree(tmp_path / "new", folder / ".installing")
    replace, left = os.replace, [moved]

    def replace_some(*args: Any, **options: Any) -> None:
        if not left[0]:
            raise KeyboardInterrupt
        left[0] -= 1
        replace(*args, **options)

    with monkeypatch.context() as patch, contextlib.suppress(KeyboardInterrupt):
        patch.setattr("os.replace", replace_some)
        finish_install(folder)
    image = tmp_path / "image"
    shutil.copytree(folder, image, ignore=shutil.ignore_patterns(".*"))
    found = contents(image)
    del found["incident_cls.pt"]
    is_whole = found in (contents(tmp_path / "old"), contents(tmp_path / "new"))
    assert is_whole == (moved in (0, 6))
    assert (model_folder.main([str(image)]) == 0) == is_whole
