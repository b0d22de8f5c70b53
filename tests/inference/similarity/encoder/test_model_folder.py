"""The check with which the build of an image ends."""

from __future__ import annotations

import hashlib
import json

import pytest

from similarity.encoder import model_folder
from tiny import Deployed


@pytest.mark.parametrize(("name", "said"), [("model.safetensors", "was installed"), ("encoder.onnx", "was exported")])
def test_a_changed_model_makes_no_image(
    name: str, said: str, deployed: Deployed, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = deployed.model_dir
    hashes = {
        each: hashlib.sha256((folder / each).read_bytes()).hexdigest() for each in ("model.safetensors", "encoder.onnx")
    }
    provenance = {"model": "tiny", "weights_sha256": hashes["model.safetensors"], "graph_sha256": hashes}
    (folder / "provenance.json").write_text(json.dumps(provenance))
    assert model_folder.main([str(folder)]) == 0
    content = bytearray((folder / name).read_bytes())
    content[-1] ^= 1
    (folder / name).write_bytes(content)
    assert model_folder.main([str(folder)]) == 1
    assert f"{name} isn't the file that {said}" in capsys.readouterr().err
