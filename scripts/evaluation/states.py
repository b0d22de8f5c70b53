"""The state that queries are asked of: made in memory, or read from a file and then searched for the queries' texts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np

from similarity.encoder.text_encoder import TextEncoder
from similarity.incidents.state import IncidentState
from similarity.refresh.compute import Computer
from similarity.refresh.vector_store import VectorStore
from similarity.sources.problems import SourceError

# Two vectors come from the same text if their distance is at most this share of their length. bfloat16 differs from
# float32 by 0.006. With the original model, the nearest two of 78 real reports differ by 0.057.
SAME_TEXT = 0.01


def state_of(
    text_of: Mapping[int, str],
    encoder: TextEncoder,
    store_path: Path,
    progress: Callable[[int, int], None],
) -> IncidentState:
    """A state of incidents with one text each. text_of: by incident's id, prepared; incidents without one are left out.

    store_path: of the vectors' store, so that a stopped evaluation resumes. progress: as for `Computer`.
    encoder: computes in float32. Raises SourceError without any text, ModelError, StoreError.
    """
    text_of = {incident_id: text for incident_id, text in sorted(text_of.items()) if text.strip()}
    if not text_of:
        raise SourceError("no incident has a text: all texts are blank once they are prepared for the tokenizer.")
    texts = list(text_of.values())
    with VectorStore(store_path) as store:
        computer = Computer(encoder, store, progress=progress, equals=("torch", "onnx"))
        computer.compute(texts)
        vector_of = computer.computed(texts)
        computer.keep(texts)
    return IncidentState(
        incident_ids=np.array(list(text_of), dtype=np.int64),
        report_counts=np.ones(len(text_of), dtype=np.int64),
        means=np.stack([vector_of[text] for text in texts]),
        titles=[""] * len(text_of),
        model=encoder.name or "",
        model_fingerprint=encoder.fingerprint,
        max_tokens=encoder.max_tokens,
        text_preparation=encoder.text_preparation,
    )


def made_from(
    texts: Iterable[tuple[int, str]], encoder: TextEncoder, state: IncidentState, progress: Callable[[int, int], None]
) -> set[tuple[int, str]]:
    """Those of the texts that are the only report of their incident in the state. encoder: in float32.

    texts: ids of incidents, each with a text. Those of incidents with several reports are never found, because the
    state has only the mean of their vectors. progress: gets the number of texts that are done, and that of all.
    """
    known = zip(state.incident_ids.tolist(), state.means.astype(np.float64), state.report_counts.tolist(), strict=True)
    report_of = {incident_id: mean for incident_id, mean, count in known if count == 1}
    todo = sorted({(incident_id, text) for incident_id, text in texts if incident_id in report_of})
    found = set()
    encoder = encoder.for_reports()
    for done, (incident_id, text) in enumerate(todo, start=1):
        report = report_of[incident_id]
        if np.linalg.norm(encoder.encode(text).vector - report) <= SAME_TEXT * np.linalg.norm(report):
            found.add((incident_id, text))
        progress(done, len(todo))
    return found
