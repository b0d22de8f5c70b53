"""The encoder and the incident state of this process, and the answers made with them."""

from __future__ import annotations

import hashlib
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from similarity.encoder.loading import load_encoder
from similarity.encoder.model_folder import ModelFiles
from similarity.encoder.text_encoder import Encoding, TextEncoder
from similarity.encoder.tokens import transliterated
from similarity.errors import RequestError
from similarity.incidents.ranking import Match, Metric, Ranking
from similarity.incidents.state import IncidentState
from similarity.once import Once
from similarity.reloading import FromFiles
from similarity.settings import Settings


class Service:
    """Answers for one pair of model and state. Each is loaded when the first request needs it."""

    def __init__(self, settings: Settings) -> None:
        self._files = ModelFiles(settings.model_dir, settings.model_filename)
        self._model_uri = settings.model_uri
        self._model = _ModelInFolder(self._files, settings.model_uri)
        model_paths = [*self._files.paths, *self._files.graph_paths]
        load = partial(
            load_encoder,
            settings.model_dir,
            settings.model_filename,
            engine=settings.engine,
            precision=settings.precision,
        )
        self._encoder = FromFiles(model_paths, load)
        self._state = FromFiles([settings.state_path], lambda: Ranking(IncidentState.load(settings.state_path)))
        self._pair = FromFiles([*model_paths, settings.state_path], self._load_pair)
        self._state_for_vectors = FromFiles([*model_paths, settings.state_path], self._load_state_for_vectors)

    def _load_pair(self) -> tuple[TextEncoder, Ranking]:
        encoder, ranking = self._encoder.get(), self._state.get()
        ranking.state.require_made_by(encoder, encoder.name or self._model_uri)
        return encoder, ranking

    def _load_state_for_vectors(self) -> Ranking:
        """Without the model, but no state that a text would not be compared with. A folder may have no model at all."""
        ranking = self._state.get()
        if self._model.is_there():
            self._model.require_made(ranking.state)
        return ranking

    def dimension(self) -> int:
        """How many numbers a vector to compare has. Raises StateError, or ModelError for a folder with half a model."""
        return self._state_for_vectors.get().state.dimension

    def similar_to_text(self, text: str, num: int, metric: Metric) -> tuple[list[Match], list[str]]:
        """The incidents most like a text, and warnings. Raises RequestError, ModelError or StateError."""
        encoder, ranking = self._pair.get()
        encoding = _encode(encoder, text)
        return ranking.most_similar(encoding.vector, num, metric), encoding.tokens.warnings()

    def similar_to_vector(self, vector: NDArray[np.float64], num: int, metric: Metric) -> list[Match]:
        """The incidents most like a CLS vector (hidden,). Loads no model. Raises as `dimension`."""
        return self._state_for_vectors.get().most_similar(vector, num, metric)

    def embedding(self, text: str) -> tuple[dict[str, Any], list[str]]:
        """A text's CLS vector with the SHA-1 of the transliterated text, and warnings.

        Raises RequestError or ModelError.
        """
        encoding = _encode(self._encoder.get(), text)
        digest = hashlib.sha1(usedforsecurity=False)
        for piece in transliterated(text):
            digest.update(piece.encode())
        embedding = {"vector": encoding.vector.tolist(), "from_text_hash": digest.hexdigest()}
        return embedding, encoding.tokens.warnings()

    def prime(self, *, model: bool, state: bool) -> None:
        """Loads what a handler needs and tries it. Raises ModelError or StateError."""
        if model and state:
            self.similar_to_text("warm", 1, "cosine")
        elif model:
            self.embedding("warm")
        elif state:
            self.dimension()


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


@Once
def service() -> Service:
    """The service of this process, as its environment variables say."""
    return Service(Settings.from_environment())
