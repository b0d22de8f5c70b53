"""The encoder and the incident state of this process, and the answers made with them."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from functools import partial
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from similarity.answer import Answer, Facts
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

    def similar_to_text(self, text: str, num: int, metric: Metric) -> Answer[list[Match]]:
        """The incidents most like a text. Raises RequestError, ModelError or StateError."""
        encoder, ranking = self._pair.get()
        encoding = _encode(encoder, text)
        found = _ranked(ranking, encoding.vector, num, metric)
        facts = replace(_facts(encoding), ranking_s=found.facts.ranking_s, state=found.facts.state)
        return Answer(found.value, encoding.tokens.warnings(), facts)

    def similar_to_vector(self, vector: NDArray[np.float64], num: int, metric: Metric) -> Answer[list[Match]]:
        """The incidents most like a CLS vector (hidden,). Loads no model. Raises as `dimension`."""
        return _ranked(self._state_for_vectors.get(), vector, num, metric)

    def embedding(self, text: str) -> Answer[dict[str, Any]]:
        """A text's CLS vector with the SHA-1 of the transliterated text. Raises RequestError or ModelError."""
        encoding = _encode(self._encoder.get(), text)
        digest = hashlib.sha1(usedforsecurity=False)
        for piece in transliterated(text):
            digest.update(piece.encode())
        embedding = {"vector": encoding.vector.tolist(), "from_text_hash": digest.hexdigest()}
        return Answer(embedding, encoding.tokens.warnings(), _facts(encoding))


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


def _facts(encoding: Encoding) -> Facts:
    return Facts(len(encoding.tokens.ids), encoding.tokenising_s, encoding.encoding_s)


def _ranked(ranking: Ranking, vector: NDArray[np.floating[Any]], num: int, metric: Metric) -> Answer[list[Match]]:
    start_s = perf_counter()
    matches = ranking.most_similar(vector, num, metric)
    return Answer(matches, facts=Facts(ranking_s=perf_counter() - start_s, state=ranking.version or None))


@Once
def service() -> Service:
    """The service of this process, as its environment variables say."""
    return Service(Settings.from_environment())
