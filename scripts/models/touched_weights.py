"""Takes the tensors that no text touches out of a weights file. For Longformer-base that is a seventh of the file.

The original service uses the Longformer without global attention. So no vector needs the projections for global
attention, the pooler or a head. `similarity.encoder.weights_identity` describes the note that keeps the fingerprint.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

from similarity.encoder.config import LongformerConfig
from similarity.encoder.safetensors_header import read_header
from similarity.encoder.weights_identity import NOTE_KEY, make_note

_GLOBAL = re.compile(r"\.attention\.self\.(query|key|value)_global\.")


def is_touched(name: str, config: LongformerConfig) -> bool:
    """Whether a text's vector depends on the tensor."""
    if not name.startswith(("embeddings.", "encoder.")):
        return False
    return config.global_attention_on_cls or not _GLOBAL.search(name)


def keep_touched(path: Path, config: LongformerConfig, note: str = "") -> None:
    """Rewrites a safetensors file without the tensors that no text touches, and with a note about the whole file.

    note: that of the file that the tensors come from, if it lacks them already. Raises ModelError or OSError.
    """
    places = read_header(path)
    left_out = {name for name in places if not is_touched(name, config)}
    if left_out:
        note = make_note(path, left_out)
    elif not note:
        return
    header: dict[str, object] = {"__metadata__": {"format": "pt", NOTE_KEY: note}}
    kept = sorted((place.start, place.end, name) for name, place in places.items() if name not in left_out)
    end = 0
    for start, stop, name in kept:
        first, end = end, end + stop - start
        header[name] = {
            "dtype": places[name].dtype, "shape": places[name].shape, "data_offsets": [first, end]
        }  # fmt: skip
    content = json.dumps(header, separators=(",", ":")).encode()
    content += b" " * (-len(content) % 8)  # as safetensors does, so that numbers are aligned
    smaller = path.with_name(f"{path.name}.smaller")
    with path.open("rb") as whole, smaller.open("wb") as file:
        file.write(len(content).to_bytes(8, "little") + content)
        for start, stop, _ in kept:
            whole.seek(start)
            file.write(whole.read(stop - start))
    smaller.replace(path)
