"""Which states a process can use: those made with the model in its folder. No model is loaded for it."""

from __future__ import annotations

from similarity.encoder.model_folder import ModelFiles
from similarity.incidents.state import IncidentState
from similarity.settings import Settings


class FolderModel:
    """The model in the folder that the settings name, as far as a state is compared with it: reads 2 MB."""

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
        """Raises StateError for a state that was made with another model, ModelError without a model."""
        state.require_made_by(self, self.files.name() or self._model_uri)
