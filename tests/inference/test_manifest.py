"""Versions: what is hashed, that every bit counts, and that the image's manifest is what its folder holds."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from lambdas import Image
from similarity import manifest
from similarity.manifest import ImageManifest, MismatchError, Version, digest_of


@pytest.mark.parametrize("size", [0, 1, 9, 10, 11, 25, 30])
def test_the_digest_is_the_hash_of_the_hashes_of_the_chunks(
    size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(manifest, "CHUNK_BYTES", 10)
    content = bytes(range(size))
    path = tmp_path / "file"
    path.write_bytes(content)
    hashes = [hashlib.sha256(content[start : start + 10]).digest() for start in range(0, size, 10)]
    assert digest_of(path) == hashlib.sha256(b"".join(hashes)).hexdigest()


def test_a_version_depends_on_names_sizes_and_content_alone(tmp_path: Path) -> None:
    def version(**files: str) -> str:
        folder = tmp_path / str(len(list(tmp_path.iterdir())))
        folder.mkdir()
        for name, content in files.items():
            (folder / name).write_text(content)
        return Version.of(folder.iterdir()).id

    assert version(a="1", b="2") == version(b="2", a="1")
    assert len({version(a="1"), version(b="1"), version(a="2"), version(a="1", b=""), version(a="11")}) == 5


def test_a_manifest_survives_being_written(image: Image) -> None:
    written = ImageManifest.of(image.model_dir)
    written.write(image.model_dir)
    assert image.manifest == written
    assert {entry.name for entry in written.model.files} == {
        "config.json",
        "tokenizer.json",
        "provenance.json",
        "model.safetensors",
        "encoder.onnx",
    }
    assert [entry.name for entry in written.state.files] == ["incident_cls.pt"]
    written.model.require_same(image.model_dir)


def test_the_command_writes_what_the_folder_holds(image: Image, capsys: pytest.CaptureFixture[str]) -> None:
    expected = image.manifest
    (image.model_dir / "manifest.json").unlink()
    assert ImageManifest.read(image.model_dir) is None
    assert manifest.main([str(image.model_dir)]) == 0
    assert image.manifest == expected
    assert capsys.readouterr().out == f"model {expected.model.id}\nstate {expected.state.id}\n"


def test_a_folder_that_has_changed_since_is_refused(image: Image) -> None:
    with (image.model_dir / "config.json").open("a") as file:
        file.write(" ")
    with pytest.raises(MismatchError, match=r"config\.json has \d+ bytes, not \d+"):
        ImageManifest.read(image.model_dir)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"model": {"files": [{}]}}', '{"model": {"files": 3}}'])
def test_a_broken_manifest_is_refused(content: str, image: Image) -> None:
    (image.model_dir / "manifest.json").write_text(content)
    with pytest.raises(MismatchError):
        ImageManifest.read(image.model_dir)


def test_every_bit_of_a_file_counts(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"seven")
    version = Version.of([path])
    for bit in range(5 * 8):
        content = bytearray(b"seven")
        content[bit // 8] ^= 1 << bit % 8
        path.write_bytes(content)
        with pytest.raises(MismatchError):
            version.require_same(tmp_path)
    path.write_bytes(b"seven")
    version.require_same(tmp_path)
    assert json.loads(json.dumps(version.to_json())) == version.to_json()


@pytest.mark.parametrize(("name", "said"), [("model.safetensors", "was installed"), ("encoder.onnx", "was exported")])
def test_a_changed_model_makes_no_image(name: str, said: str, image: Image, capsys: pytest.CaptureFixture[str]) -> None:
    folder = image.model_dir
    hashes = {
        each: hashlib.sha256((folder / each).read_bytes()).hexdigest() for each in ("model.safetensors", "encoder.onnx")
    }
    provenance = {"model": "tiny", "weights_sha256": hashes["model.safetensors"], "graph_sha256": hashes}
    (folder / "provenance.json").write_text(json.dumps(provenance))
    assert manifest.main([str(folder)]) == 0
    content = bytearray((folder / name).read_bytes())
    content[-1] ^= 1
    (folder / name).write_bytes(content)
    assert manifest.main([str(folder)]) == 1
    assert f"{name} isn't the file that {said}" in capsys.readouterr().err
