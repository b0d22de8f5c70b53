"""Which states a process can use: those whose texts were made into vectors as this process makes them.

The model in its folder tells, and the limit of tokens, which is that of the state in the same folder. No model is
loaded for it.
"""

from __future__ import annotations

from similarity.encoder.model_folder import ModelFiles
from similarity.encoder.tokens import TEXT_PREPARATION
from similarity.errors import StateError
from similarity.incidents.state import IncidentState
from similarity.settings import Settings


class FolderModel:
    """The model in the folder that the settings name, as far as a state is compared with it: reads 2 MB."""

    def __init__(self, settings: Settings) -> None:
        self.files = ModelFiles(settings.model_dir, settings.model_filename)
        self._model_uri = settings.model_uri
        self._own_state_path = settings.state_path

    def is_there(self) -> bool:
        return any(path.exists() for path in self.files.paths)

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
        return TEXT_PREPARATION

    def max_tokens(self) -> int:
        """Where texts are cut: where those of the folder's own state were; without one, at the model's maximum.

        Raises StateError where that state can't be read or has a limit that the model doesn't take.
        """
        if not self._own_state_path.exists():
            return self.longest_input
        own = IncidentState.load(self._own_state_path)
        own.require_limit_within(self.longest_input)
        return own.max_tokens or self.longest_input

    def require_made(self, state: IncidentState) -> None:
        """Raises StateError for a state that was made with another model, ModelError without a model."""
        state.require_made_by(self, self.files.name() or self._model_uri)

    def require_usable(self, state: IncidentState) -> None:
        """Raises as `require_made`, and StateError where texts are cut at another limit than those of the state."""
        self.require_made(state)
        limit, here = state.max_tokens or self.longest_input, self.max_tokens()
        if limit != here:
            raise StateError(
                f"the texts of the state were cut at {limit} tokens, but texts are cut at {here} here, as those of the "
                f"state in the model's folder were: build the state with MAX_TOKENS={here}, or deploy an image that "
                "has the state"
            )
