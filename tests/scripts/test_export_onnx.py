"""The graph is exported from folders as people have them, and a folder keeps what it had where that fails."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable, Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from safetensors.torch import load_file, save_file

from export_onnx import main
from integer_products import int8_on_every_cpu
from longformers import save_longformer
from models import export as models_export
from models.export import export
from models.onnx_graph import encoder_graph
from reference import reference
from similarity.encoder.loading import load_encoder
from similarity.encoder.model_folder import ModelFiles
from similarity.encoder.torch_encoder import TorchEncoder
from similarity.errors import ModelError
from similarity.incidents.state import IncidentState
from similarity.settings import DEFAULT_MODEL_URI, Precision
from tiny import contents

TEXT = "A robot in a warehouse hurt workers"


@pytest.fixture(autouse=True)
def every_cpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with int8_on_every_cpu(monkeypatch):
        yield


@pytest.fixture
def folder(tiny_model_dir: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model without what the export made."""
    copy = tmp_path / "model"
    shutil.copytree(tiny_model_dir, copy)
    (copy / "encoder.onnx").unlink()
    (copy / "encoder.json").unlink()
    (copy / "provenance.json").write_text('{"model": "tiny", "revision": "r"}')
    return copy


def as_in_a_hub_cache(folder: Path) -> Path:
    """Every file is a link into ../blobs, as huggingface_hub keeps a model."""
    blobs = folder.parent / "blobs"
    blobs.mkdir()
    for number, path in enumerate(sorted(folder.iterdir())):
        path.rename(blobs / str(number))
        path.symlink_to(f"../blobs/{number}")
    return blobs


@pytest.mark.parametrize("tokens", [3, 4, 5, 6])
def test_a_model_that_takes_few_tokens_has_a_self_test_that_fits(tokens: int, tmp_path: Path) -> None:
    model, _ = save_longformer(tmp_path, max_position_embeddings=tokens + 2)
    test = json.loads((tmp_path / "encoder.json").read_bytes())["self_test"]
    assert len(test["ids"]) == min(tokens, 5)
    expected = reference(model, torch.tensor(test["ids"]))
    assert torch.allclose(torch.tensor(test["vector"]), expected, rtol=0, atol=1e-5)
    assert load_encoder(tmp_path).max_tokens == tokens


@pytest.mark.parametrize("same_disk", [True, False])
@pytest.mark.parametrize("through_a_link", [False, True])
def test_a_folder_of_links_can_be_exported(
    same_disk: bool,
    through_a_link: bool,
    folder: Path,
    tiny_encoder: TorchEncoder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    blobs = as_in_a_hub_cache(folder)
    before = contents(blobs)
    if through_a_link:
        (tmp_path / "link").symlink_to(folder)
        folder = tmp_path / "link"
    if not same_disk:

        def refuse(*_: object) -> None:
            raise OSError(18, "Invalid cross-device link")

        monkeypatch.setattr("os.link", refuse)
    assert main([str(folder)]) == 0
    assert "was a link to" in capsys.readouterr().err
    assert np.allclose(load_encoder(folder).encode(TEXT).vector, tiny_encoder.encode(TEXT).vector, atol=1e-5)
    assert not (folder / "model.safetensors").is_symlink()
    assert contents(blobs) == before
    assert {path.name for path in folder.iterdir()} == {
        "config.json", "tokenizer.json", "provenance.json", "model.safetensors", "encoder.onnx", "encoder.json"
    }  # fmt: skip


def test_a_link_within_the_folder_stays(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "weights")
    (folder / "model.safetensors").symlink_to("weights")
    export(folder)
    assert (folder / "model.safetensors").is_symlink()
    load_encoder(folder)


def test_a_link_to_nothing_is_refused_in_one_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").symlink_to("../blobs/1")
    assert main([str(folder)]) == 1
    [line] = capsys.readouterr().err.splitlines()
    assert "links to a file that isn't there" in line


def test_the_hash_of_each_graph_is_noted(folder: Path) -> None:
    export(folder)
    export(folder, "int8")
    provenance = json.loads((folder / "provenance.json").read_bytes())
    assert (provenance["model"], provenance["revision"]) == ("tiny", "r")
    names = {"encoder.onnx", "encoder.json", "encoder.int8.onnx", "encoder.int8.bin", "encoder.int8.json"}
    assert provenance["graph_sha256"] == {name: sha256((folder / name).read_bytes()).hexdigest() for name in names}
    precisions: tuple[Precision, ...] = ("float32", "int8")
    for precision in precisions:
        load_encoder(folder, precision=precision)


def test_a_folder_without_provenance_can_be_exported(folder: Path) -> None:
    (folder / "provenance.json").unlink()
    export(folder)
    assert load_encoder(folder).name is None
    assert json.loads((folder / "provenance.json").read_bytes()).keys() == {"graph_sha256"}


def serialized(model: onnx.ModelProto) -> bytes:
    content: bytes = model.SerializeToString()
    return content


def moved(content: bytes) -> bytes:
    """The graph, with the first weight's place in the weights file moved by one row."""
    model = onnx.load_from_string(content)
    external = next(tensor for tensor in model.graph.initializer if tensor.external_data)
    for entry in external.external_data:
        if entry.key == "offset":
            entry.value = str(int(entry.value) + 128)
    return serialized(model)


def without_metadata(content: bytes) -> bytes:
    model = onnx.load_from_string(content)
    del model.metadata_props[:]
    return serialized(model)


def with_other_names(content: bytes) -> bytes:
    return content.replace(b"\x03cls", b"\x03out")


def with_other_shape(content: bytes) -> bytes:
    """A matrix of one row in place of the vector."""
    model = onnx.load_from_string(content)
    model.graph.node[-1].op_type = "Identity"
    del model.graph.node[-1].input[1:]
    shape = model.graph.output[0].type.tensor_type.shape
    shape.dim.insert(0, type(shape.dim[0])(dim_value=1))
    return serialized(model)


def with_words_in_letters(content: bytes) -> bytes:
    model = onnx.load_from_string(content)
    next(each for each in model.metadata_props if each.key == "vocabulary_size").value = "many"
    return serialized(model)


CHANGES: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "weights elsewhere": (moved, "isn't the file that was exported"),
    "no metadata": (without_metadata, "isn't a graph that this project exported"),
    "other outputs": (with_other_names, "isn't a graph that this project exported"),
    "another shape": (with_other_shape, "isn't a graph that this project exported"),
    "a number in letters": (with_words_in_letters, "isn't a graph that this project exported"),
    "a pointer of Git LFS": (lambda _: b"version https://git-lfs.github.com/spec/v1\n", "can't be loaded"),
}


# Where nothing says what the graph was, other places of weights can't be told from right ones.
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "noted"),
    [(name, noted) for name in CHANGES for noted in (True, False) if noted or name != "weights elsewhere"],
)
def test_a_graph_that_was_changed_is_refused(name: str, noted: bool, folder: Path) -> None:
    export(folder)
    change, reason = CHANGES[name]
    path = folder / "encoder.onnx"
    path.write_bytes(change(path.read_bytes()))
    if not noted:
        (folder / "provenance.json").unlink()
    with pytest.raises(ModelError) as caught:
        load_encoder(folder)
    assert ("isn't the file that was exported" if noted else reason) in caught.value.detail
    assert "export it again with scripts/export_onnx.py" in caught.value.detail
    export(folder)
    load_encoder(folder)


def fail(*_: object, **__: object) -> Any:
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize("precision", ["float32", "int8"])
@pytest.mark.parametrize("had_a_graph", [True, False])
@pytest.mark.parametrize(
    "where",
    [
        "models.export.encoder_graph",
        "models.export.OnnxEncoder.from_graph",
        "models.export.json.dumps",
        "pathlib.Path.write_bytes",
        "os.fsync",
    ],
)
def test_an_export_that_fails_leaves_the_folder_as_it_was(
    where: str, had_a_graph: bool, precision: Precision, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.export.texts_of", lambda _: [np.arange(4, 60)])  # takes less time than the sample
    if had_a_graph:
        export(folder, precision)
    before = contents(folder)
    with monkeypatch.context() as patch:
        patch.setattr(where, fail)
        assert main([str(folder), "--precision", precision]) == 1
    assert contents(folder) == before


@pytest.mark.parametrize("precision", ["float32", "int8", "bfloat16"])
def test_a_disk_that_is_full_at_any_file_leaves_the_folder_as_it_was(
    precision: Precision, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("models.export.texts_of", lambda _: [np.arange(4, 60)])
    before, write = contents(folder), Path.write_bytes
    for room in range(100):
        left = [room]

        def write_while_there_is_room(path: Path, content: bytes, left: list[int] = left) -> int:
            if not left[0]:
                write(path, content[: len(content) // 2])
                raise OSError(28, "No space left on device")
            left[0] -= 1
            return write(path, content)

        with monkeypatch.context() as patch:
            patch.setattr(Path, "write_bytes", write_while_there_is_room)
            code = main([str(folder), "--precision", precision])
        if code == 0:
            break
        assert "No space left on device" in capsys.readouterr().err
        assert contents(folder) == before, f"room for {room} files"
    # Once to try it, and once for good.
    assert room == {"float32": 1 + 2, "int8": 2 + 3, "bfloat16": 1}[precision]
    load_encoder(folder, engine="torch" if precision == "bfloat16" else "onnx", precision=precision)


def test_a_cpu_without_int8_refuses_the_export_with_the_reason(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = contents(folder)
    monkeypatch.setattr("models.export.lack_of", lambda precision: f"this CPU lacks {precision}")
    assert main([str(folder), "--precision", "int8"]) == 1
    assert capsys.readouterr().err == "export_onnx: this CPU lacks int8; export on another machine\n"
    assert contents(folder) == before
    # It can compute the others.
    assert main([str(folder)]) == 0
    assert main([str(folder), "--precision", "bfloat16"]) == 0


@pytest.mark.parametrize("precision", ["int8", "bfloat16"])
@pytest.mark.parametrize("named", [True, False])
def test_the_agreement_is_measured_with_the_state(
    named: bool,
    precision: Precision,
    folder: Path,
    tiny_encoder: TorchEncoder,
    tiny_state: IncidentState,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "state.pt" if named else folder / "incident_cls.pt"
    tiny_state.save(path)
    export(folder)
    assert main([str(folder), "--precision", precision, *(["--state", str(path)] if named else [])]) == 0
    *_, printed, taken = capsys.readouterr().out.splitlines()
    written = json.loads((folder / f"encoder.{precision}.json").read_bytes())["agreement"]
    encoder = load_encoder(folder, engine="onnx" if precision == "int8" else "torch", precision=precision)
    pairs = [(encoder.encode(title).vector, tiny_encoder.encode(title).vector) for title in tiny_state.titles]
    smallest = min(float(a @ b / np.linalg.norm(a) / np.linalg.norm(b)) for a, b in pairs)
    assert written["texts"] == 5
    assert written["smallest_cosine"] == pytest.approx(smallest, abs=1e-6)
    firsts = [[int(np.argmax(unit_rows(tiny_state.means) @ vector)) for vector in pair] for pair in pairs]
    assert written["cosine"] == sum(a == b for a, b in firsts) / 5
    assert printed.startswith(f"same first incident as float32: {written['cosine']:.4f} by cosine")
    uses = "uses" if min(written["cosine"], written["centered"]) >= 0.995 else "doesn't use"
    assert taken == f"ENCODER_PRECISION=auto {uses} it (needed: 0.995)"


def unit_rows(values: np.ndarray) -> np.ndarray:
    rows = values.astype(np.float64)
    unit: np.ndarray = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit


def test_without_a_state_it_says_that_auto_needs_one(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(folder), "--precision", "bfloat16"]) == 0
    assert "agreement not measured, because there is no state" in capsys.readouterr().out


def test_a_state_without_titles_leaves_the_agreement_unmeasured(
    folder: Path, tiny_state: IncidentState, capsys: pytest.CaptureFixture[str]
) -> None:
    """AIID's state.csv gives such a state. The precision can serve all the same, if it is asked for by name."""
    dataclasses.replace(tiny_state, titles=[""] * len(tiny_state)).save(folder / "incident_cls.pt")
    assert main([str(folder), "--precision", "bfloat16"]) == 0
    assert "agreement not measured, because there is no state with titles" in capsys.readouterr().out
    assert json.loads((folder / "encoder.bfloat16.json").read_bytes())["agreement"] is None


def test_a_state_of_another_model_is_refused(
    folder: Path, tiny_state: IncidentState, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataclasses.replace(tiny_state, model_fingerprint="0" * 64).save(tmp_path / "state.pt")
    before = contents(folder)
    assert main([str(folder), "--precision", "int8", "--state", str(tmp_path / "state.pt")]) == 1
    assert main([str(folder), "--precision", "int8", "--state", str(tmp_path / "nowhere.pt")]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 2
    assert contents(folder) == before


def test_a_model_without_a_name_is_the_default_one(folder: Path, tiny_state: IncidentState) -> None:
    """As for those who serve it. A state of AIID's own vectors names its model, and has no fingerprint."""
    (folder / "provenance.json").unlink()
    state = dataclasses.replace(tiny_state, model=DEFAULT_MODEL_URI, model_fingerprint="")
    state.save(folder / "incident_cls.pt")
    assert main([str(folder), "--precision", "bfloat16"]) == 0
    assert json.loads((folder / "encoder.bfloat16.json").read_bytes())["agreement"]["texts"] == len(state)


def test_a_state_has_no_use_for_float32(folder: Path) -> None:
    with pytest.raises(SystemExit) as caught:
        main([str(folder), "--state", "state.pt"])
    assert caught.value.code == 2


def test_a_graph_that_gives_other_vectors_is_not_kept(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:

    def make_a_wrong_one(*args: Any, **options: Any) -> onnx.ModelProto:
        model = encoder_graph(*args, **options)
        return onnx.load_from_string(moved(serialized(model)))

    monkeypatch.setattr(models_export, "encoder_graph", make_a_wrong_one)
    before = contents(folder)
    with pytest.raises(ModelError, match="could not be loaded") as caught:
        export(folder)
    assert "gives another vector than the weights" in caught.value.detail
    assert contents(folder) == before


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_weights_that_are_not_finite_are_refused(value: float, folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    # A row of a token that the export's own text doesn't have.
    weights["embeddings.word_embeddings.weight"][3, 5] = value
    save_file(weights, folder / "model.safetensors")
    before = contents(folder)
    with pytest.raises(ModelError) as caught:
        export(folder)
    assert "1 numbers of the weights embeddings.word_embeddings.weight are NaN, infinite" in caught.value.detail
    assert contents(folder) == before


def test_a_failed_export_leaves_links_as_they_are(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights["embeddings.word_embeddings.weight"][3, 5] = torch.nan
    save_file(weights, folder / "model.safetensors")
    as_in_a_hub_cache(folder)
    with pytest.raises(ModelError):
        export(folder)
    assert all(path.is_symlink() for path in folder.iterdir())


def test_what_lies_above_the_encoder_need_not_be_finite(folder: Path, tiny_encoder: TorchEncoder) -> None:
    weights = load_file(folder / "model.safetensors")
    save_file({**weights, "lm_head.bias": torch.full((600,), torch.nan)}, folder / "model.safetensors")
    export(folder)
    assert np.allclose(load_encoder(folder).encode(TEXT).vector, tiny_encoder.encode(TEXT).vector, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.int8, torch.int64, torch.float8_e4m3fn])
def test_weights_that_are_not_plain_numbers_are_refused(dtype: torch.dtype, folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    name = "encoder.layer.1.output.dense.weight"
    save_file({**weights, name: weights[name].to(dtype)}, folder / "model.safetensors")
    with pytest.raises(ModelError) as caught:
        export(folder)
    assert f"tensor {name} has the type {str(dtype).removeprefix('torch.')}; it must be" in caught.value.detail


@pytest.mark.parametrize("noted", [None, [], "x"])
def test_a_provenance_without_hashes_gets_them(noted: object, folder: Path) -> None:
    (folder / "provenance.json").write_text(json.dumps({"model": "tiny", "graph_sha256": noted}))
    export(folder)
    provenance = json.loads((folder / "provenance.json").read_bytes())
    assert provenance["graph_sha256"].keys() == {"encoder.onnx", "encoder.json"}
    assert load_encoder(folder).name == "tiny"


def test_weights_that_were_changed_are_refused(folder: Path) -> None:
    (folder / "provenance.json").write_text(json.dumps({"model": "tiny", "weights_sha256": "0" * 64}))
    with pytest.raises(ModelError) as caught:
        export(folder)
    assert "isn't the file that was installed" in caught.value.detail
    assert ModelFiles(folder).name() == "tiny"
