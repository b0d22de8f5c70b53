"""Checks whether a process can use a state: the state's vectors must be made as this process makes them.

That means the same model, the same preparation of texts and the same limit of tokens. The limit is that of the state
in the model's folder. The model isn't loaded for this.
"""

from __future__ import annotations

from threading import Lock

from similarity.encoder.loading import choose
from similarity.encoder.model_folder import ModelFiles
from similarity.encoder.text_encoder import open_folder
from similarity.errors import ModelError, StateError
from similarity.incidents.ranking import Ranking
from similarity.incidents.state import IncidentState
from similarity.settings import DEFAULT_PRECISION, Engine, PrecisionSetting, Settings


class FolderModel:
    """The model in the settings' folder, to compare states with. Reads 2 MB of it."""

    def __init__(self, settings: Settings) -> None:
        self.files = ModelFiles(settings.model_dir, settings.model_filename)
        self._model_uri = settings.model_uri
        self._own_state_path = settings.state_path
        # Inode, size and time of the folder's own state, and its limit. A start asks several times, in two threads.
        self._own_limit: tuple[tuple[int, int, int], int] | None = None
        self._lock = Lock()

    def is_there(self) -> bool:
        return any(path.exists() for path in self.files.paths)

    @property
    def name(self) -> str:
        return self.files.name() or self._model_uri

    @property
    def dimension(self) -> int:
        return self.files.config().hidden_size

    @property
    def fingerprint(self) -> str:
        return self.files.fingerprint()

    @property
    def longest_input(self) -> int:
        return self.files.config().max_tokens

    @property
    def text_preparation(self) -> str:
        return self.files.config().text_preparation

    def max_tokens(self) -> int:
        """The limit of tokens of the folder's own state. Without a state: the model's maximum.

        Raises StateError if that state can't be read, or if its limit is more than the model takes.
        """
        if not self._own_state_path.exists():
            return self.longest_input
        with self._lock:
            stat = self._own_state_path.stat()
            seen, known = (stat.st_ino, stat.st_size, stat.st_mtime_ns), self._own_limit
            if known is None or known[0] != seen:
                own = IncidentState.load(self._own_state_path)
                own.facts().require_limit_within(self.longest_input)
                known = self._own_limit = seen, own.max_tokens
        return known[1] or self.longest_input

    def require_loadable(self, engine: Engine, precision: PrecisionSetting) -> None:
        """Raises ModelError if the engine lacks a file, or if a file is cut off or doesn't fit the others.

        It reads the tokenizer, a small graph and 2 MB of the weights.
        """
        files, _, _ = open_folder(self.files.folder, self.files.weights_filename)
        files.name()
        found = choose(files, engine, precision).precision
        if engine != "onnx":
            return
        try:
            files.require_graph_fits(files.graph(found).name)
        except ModelError:
            if found == DEFAULT_PRECISION:
                raise
            # float32 serves where another precision can't.
            files.require_graph_fits(files.graph(DEFAULT_PRECISION).name)

    def require_made(self, state: IncidentState) -> None:
        """Raises StateError if another model made the state, ModelError without a usable model."""
        state.require_made_by(self, self.name)

    def require_usable(self, state: IncidentState) -> None:
        """Raises as `require_made`, and StateError if the state has another limit of tokens than this process."""
        self.require_made(state)
        state.facts().require_limit(self.max_tokens(), self.longest_input)


def tried(state: IncidentState, version: str = "") -> Ranking:
    """The ranking of a state, after a first query. version: as for `Ranking`. Raises StateError if the query fails."""
    try:
        ranking = Ranking(state, version)
        ranking.most_similar(state.means[0], 1)
    except (ArithmeticError, MemoryError, ValueError) as error:
        raise StateError(f"the state can't be ranked: {error or type(error).__name__}") from error
    return ranking
