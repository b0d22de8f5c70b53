"""The encoder and the incident state of this process, and the answers made with them."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from similarity.cached import open_files
from similarity.encoding import Encoding, TextEncoder, load_encoder
from similarity.errors import RequestError
from similarity.index import Metric
from similarity.model_files import ModelFiles
from similarity.once import Once
from similarity.ranking import Match, most_similar
from similarity.reloading import FromFiles
from similarity.settings import Settings
from similarity.state import IncidentState
from similarity.tokens import transliterated

CITE_URL = "https://incidentdatabase.ai/cite/"


class Service:
    """Answers for one pair of model and state. Each is loaded when the first request needs it."""

    def __init__(self, settings: Settings) -> None:
        files = ModelFiles(settings.model_dir, settings.model_filename)
        self._model_uri = settings.model_uri
        self._model = _ModelInFolder(files, settings.model_uri)
        self._files = open_files(settings, lambda path: self._model.require_made(IncidentState.load(path)))
        model_paths, state_paths = [*files.paths, *files.graph_paths], self._files.state_paths
        load = partial(
            load_encoder,
            model_filename=settings.model_filename,
            engine=settings.engine,
            precision=settings.precision,
        )
        self._encoder = FromFiles(model_paths, lambda: self._files.load_model(load))
        self._state = FromFiles(state_paths, lambda: IncidentState.load(self._files.state_path()))
        self._pair = FromFiles([*model_paths, *state_paths], self._load_pair)
        self._state_for_vectors = FromFiles([*model_paths, *state_paths], self._load_state_for_vectors)

    def _load_pair(self) -> tuple[TextEncoder, IncidentState]:
        encoder, state = self._encoder.get(), self._state.get()
        state.require_made_by(encoder, encoder.name or self._model_uri)
        return encoder, state

    def _load_state_for_vectors(self) -> IncidentState:
        """Without the model, but no state that a text would not be compared with. A folder may have no model at all."""
        state = self._state.get()
        if self._model.is_there():
            self._model.require_made(state)
        return state

    def dimension(self) -> int:
        """How many numbers a vector to compare has. Raises StateError, or ModelError for a folder with half a model."""
        self._files.refresh(state=True)
        return self._state_for_vectors.get().dimension

    def similar_to_text(self, text: str, num: int, metric: Metric) -> tuple[list[Match], list[str]]:
        """The incidents most like a text, and warnings. Raises RequestError, ModelError or StateError."""
        self._files.refresh(state=True)
        encoder, state = self._pair.get()
        encoding = _encode(encoder, text)
        matches = most_similar(encoding.vector, state, num, metric)
        self._files.fill_later()
        return matches, encoding.tokens.warnings()

    def similar_to_vector(self, vector: NDArray[np.float64], num: int, metric: Metric) -> list[Match]:
        """The incidents most like a CLS vector (hidden,). Loads no model. Raises as `dimension`."""
        self._files.refresh(state=True)
        matches = most_similar(vector, self._state_for_vectors.get(), num, metric)
        self._files.fill_later()
        return matches

    def embedding(self, text: str) -> tuple[dict[str, Any], list[str]]:
        """A text's CLS vector with the SHA-1 of the transliterated text, and warnings.

        Raises RequestError or ModelError.
        """
        self._files.refresh(state=False)
        encoding = _encode(self._encoder.get(), text)
        digest = hashlib.sha1(usedforsecurity=False)
        for piece in transliterated(text):
            digest.update(piece.encode())
        self._files.fill_later()
        embedding = {"vector": encoding.vector.tolist(), "from_text_hash": digest.hexdigest()}
        return embedding, encoding.tokens.warnings()

    def prime(self, *, model: bool, state: bool) -> None:
        """Loads what a handler needs, tries it, and fills the cache. Raises ModelError or StateError."""
        if model and state:
            self.similar_to_text("warm", 1, "cosine")
        elif model:
            self.embedding("warm")
        elif state:
            self.dimension()
        self._files.prime()


class _ModelInFolder:
    """What a state is compared with where no model is loaded: reads the 2 MB of a folder that tell models apart."""

    def __init__(self, files: ModelFiles, model_uri: str) -> None:
        self._files = files
        self._model_uri = model_uri

    def is_there(self) -> bool:
        return any(path.exists() for path in self._files.paths)

    @property
    def dimension(self) -> int:
        return self._files.config().hidden_size

    @property
    def fingerprint(self) -> str:
        return self._files.fingerprint()

    def require_made(self, state: IncidentState) -> None:
        """Raises StateError for a state that was made with another model, ModelError without a model."""
        state.require_made_by(self, self._files.name() or self._model_uri)


def _encode(encoder: TextEncoder, text: str) -> Encoding:
    encoding = encoder.encode(text)
    if encoding.tokens.is_blank:  # emoji alone, say, which have no transliteration
        raise RequestError("Error! Valid input text not provided!")
    return encoding


def answer(matches: Sequence[Match]) -> dict[str, Any]:
    """The fields in which a caller gets matches: `msg`, `best_url`, `incidents`.

    `msg` stays what callers have always parsed: a Python literal that becomes JSON when its parentheses are replaced.
    """
    return {
        "msg": str([(match.similarity, match.incident_id) for match in matches]),
        "best_url": f"{CITE_URL}{matches[0].incident_id}" if matches else None,
        "incidents": [
            {
                "incident_id": match.incident_id,
                "similarity": match.similarity,
                "title": match.title or None,
                "url": f"{CITE_URL}{match.incident_id}",
            }
            for match in matches
        ],
    }


@Once
def service() -> Service:
    """The service of this process, as its environment variables say."""
    return Service(Settings.from_environment())
