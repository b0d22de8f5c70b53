"""Checks whether a process can use a state: its model must have made the state. The model isn't loaded for this."""

from __future__ import annotations

from similarity.encoder.model_folder import ModelFiles
from similarity.incidents.state import IncidentState
from similarity.settings import Settings


class FolderModel:
    """The model in the settings' folder, to compare states with. Reads 2 MB of it."""

    def __init__(self, settings: Settings) -> None:
        self.files = ModelFiles(settings.model_dir, settings.model_filename)
        self._model_uri = settings.model_uri

    def is_there(self) -> bool:
        return any(path.exists() for path in self.files.paths)

    @property
    def dimension(self) -> int:
        return self.files.config().hidden_size

    @property
    def fingerprint(self) -> str:
        return self.files.fingerprint()

    def require_made(self, state: IncidentState) -> None:
        """Raises StateError if another model made the state, ModelError without a usable model."""
        state.require_made_by(self, self.files.name() or self._model_uri)
