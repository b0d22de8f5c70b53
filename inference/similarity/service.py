"""The encoder and the incident state of this process. `similarity.answering` makes the answers with them."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from similarity.answer import Answer, Embedding, Facts, Health, Ranked
from similarity.answering import (
    answer_to_incident,
    answer_to_text,
    answer_to_vector,
    embedding_of,
    require_text,
    require_usable,
    vector_warnings,
)
from similarity.asked import Asked
from similarity.encoder.loading import choose, load_serving_encoder
from similarity.encoder.text_encoder import Encoding, TextEncoder
from similarity.errors import ModelError, StateError
from similarity.incidents.facts import StateFacts
from similarity.incidents.ranking import Ranking
from similarity.incidents.state import IncidentState, state_version
from similarity.once import Once
from similarity.reloading import FromFiles
from similarity.settings import Precision, Settings
from similarity.shelf.models import load_from_shelf
from similarity.shelf.served import Look, ServedState
from similarity.shelf.usable import FolderModel


class Service:
    """Answers for one pair of model and state. Each is loaded when the first request needs it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._model = FolderModel(settings)
        self._shelved = ServedState(settings.shelf, self._model.require_usable) if settings.shelf else None
        model_paths = [*self._model.files.paths, *self._model.files.exported_paths]
        self._uncut = FromFiles(model_paths, self._load_uncut)
        self._encoder = FromFiles([*model_paths, settings.state_path], self._load_encoder)
        self._state = FromFiles([settings.state_path], self._load_own_state)
        self._pair = FromFiles([*model_paths, settings.state_path], self._load_pair)
        self._state_for_vectors = FromFiles([*model_paths, settings.state_path], self._load_state_for_vectors)
        self._checked_model = FromFiles(model_paths, self._check_model, keeps_last=False)
        self._checked_state = FromFiles([*model_paths, settings.state_path], self._check_own_state, keeps_last=False)

    def _load_uncut(self) -> TextEncoder:
        """For texts of up to the model's maximum."""
        settings = self._settings
        load = partial(
            load_serving_encoder,
            model_filename=settings.model_filename,
            engine=settings.engine,
            precision=settings.precision,
        )
        encoder = None
        if settings.shelf and settings.model_on_shelf:
            encoder = load_from_shelf(settings.shelf, self._model.files, load)
        return encoder or load(settings.model_dir)

    def _load_encoder(self) -> TextEncoder:
        """For texts alone and for states on the shelf."""
        uncut = self._uncut.get()
        return uncut.cut_at(self._model.max_tokens())

    def _load_own_state(self) -> Ranking:
        """The state of the image, or of the laptop's folder."""
        path = self._settings.state_path
        return Ranking(IncidentState.load(path), state_version(path))

    def _load_pair(self) -> tuple[TextEncoder, Ranking]:
        uncut, ranking = self._uncut.get(), self._state.get()
        ranking.state.require_made_by(uncut, uncut.name or self._settings.model_uri)
        return uncut.cut_at(ranking.state.max_tokens), ranking

    def _load_state_for_vectors(self) -> Ranking:
        """The state without loading the model, compared with the model's files if the folder has any."""
        ranking = self._state.get()
        if self._model.is_there():
            self._model.require_made(ranking.state)
        return ranking

    def _check_model(self) -> str:
        """The fingerprint of a model that can be loaded, without loading it."""
        self._model.require_loadable(self._settings.engine, self._settings.precision)
        return self._model.fingerprint

    def _check_own_state(self) -> Ranking:
        ranking = self._state.get()
        self._model.require_made(ranking.state)
        return ranking

    def _encoder_and_ranking(self) -> tuple[TextEncoder, Ranking]:
        if self._shelved:
            look = self._shelved.look()
            encoder = self._encoder.get()
            ranking = look.newest()
            if ranking:
                return encoder, ranking
        return self._pair.get()

    def ranking(self) -> Ranking:
        """The state that ranks a vector. Loads no model.

        Raises StateError, or ModelError if a file of the model is missing.
        """
        shelved = self._shelved.look().newest() if self._shelved else None
        return shelved or self._state_for_vectors.get()

    def dimension(self) -> int:
        """The dimension of the state's vectors. Raises as `ranking`."""
        return self.ranking().state.dimension

    def health(self) -> Answer[Health]:
        """The state and the model that would answer a text now. Runs and loads no model.

        Raises ModelError or StateError if a text couldn't be answered. A process that has loaded a good model or state
        serves it on, whatever has become of the files since.
        """
        look = self._shelved.look() if self._shelved else None
        try:
            fingerprint = self._checked_model.get()
        except ModelError:
            encoder = self._uncut.last
            if encoder is None:
                raise
            fingerprint = encoder.fingerprint
        fingerprint, ranking = self._pair_of_texts(look, fingerprint)
        return Answer(
            Health(ranking.facts, fingerprint, self._settings.engine, self._precision()),
            facts=Facts(state=ranking.facts.version or None),
        )

    def _precision(self) -> Precision:
        """The precision of this process's encoder; before it is loaded, the one that `choose` expects."""
        encoder = self._uncut.last
        if encoder is not None:
            return encoder.precision
        return choose(self._model.files, self._settings.engine, self._settings.precision).precision

    def _pair_of_texts(self, look: Look | None, fingerprint: str) -> tuple[str, Ranking]:
        """As `_encoder_and_ranking`, with the encoder's fingerprint. fingerprint: of the model in the folder."""
        shelved = look.newest() if look else None
        if shelved:
            return fingerprint, shelved
        try:
            return fingerprint, self._checked_state.get()
        except (ModelError, StateError):
            pair = self._pair.last
            if pair is None:
                raise
            return pair[0].fingerprint, pair[1]

    def facts(self) -> StateFacts:
        """The facts of the state that ranks a vector. Raises as `ranking`."""
        return self.ranking().facts

    def similar(self, query: str | int, asked: Asked) -> Answer[Ranked]:
        """`similar_to_text` for a text, `similar_to_incident` for the id of an incident."""
        if isinstance(query, str):
            return self.similar_to_text(query, asked)
        return self.similar_to_incident(query, asked)

    def similar_to_text(self, text: str, asked: Asked) -> Answer[Ranked]:
        """The incidents most like a text. Raises RequestError, ModelError or StateError."""
        encoder, ranking = self._encoder_and_ranking()
        require_usable(ranking, asked.metric)
        encoding = _encode(encoder, text)
        found = answer_to_text(encoder, ranking, text, encoding.tokens, encoding.vector, asked)
        of = found.facts
        facts = replace(_facts(encoding), ranking_s=of.ranking_s, state=of.state, match=of.match)
        return replace(found, facts=facts)

    def similar_to_incident(self, incident_id: int, asked: Asked) -> Answer[Ranked]:
        """The other incidents most like one of the state. Loads no model. Raises RequestError, or as `ranking`."""
        return answer_to_incident(self.ranking(), incident_id, asked)

    def similar_to_vector(self, vector: NDArray[np.float64], asked: Asked) -> Answer[Ranked]:
        """The incidents most like a CLS vector (hidden,). Loads no model. Raises RequestError, or as `ranking`."""
        return answer_to_vector(self.ranking(), vector, asked)

    def embedding(self, text: str) -> Answer[Embedding]:
        """A text's CLS vector with the SHA-1 of the prepared text. Raises RequestError or ModelError."""
        encoder = self._encoder.get()
        encoding = _encode(encoder, text)
        warnings = vector_warnings(encoder, encoding.tokens, text)
        return Answer(embedding_of(encoder, text, encoding.vector), warnings, _facts(encoding))


def _encode(encoder: TextEncoder, text: str) -> Encoding:
    encoding = encoder.encode(text)
    require_text(encoding.tokens)
    return encoding


def _facts(encoding: Encoding) -> Facts:
    return Facts(len(encoding.tokens.ids), encoding.tokenising_s, encoding.encoding_s)


@Once
def service() -> Service:
    """The service of this process, with the settings of its environment variables."""
    return Service(Settings.from_environment())
