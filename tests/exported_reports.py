"""Changes the export's reports."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from models.install_files import write_provenance
from similarity.encoder.model_folder import REPORT_FILENAMES, ModelFiles, sha256_of
from similarity.settings import Precision


def edit_report(folder: Path, precision: Precision, edit: Callable[[dict[str, Any]], object]) -> None:
    """Changes a report as if the export had written it so: provenance.json gets its new hash."""
    path = folder / REPORT_FILENAMES[precision]
    values = json.loads(path.read_bytes())
    edit(values)
    path.write_text(json.dumps(values))
    provenance = ModelFiles(folder).provenance()
    if provenance:
        provenance["graph_sha256"][path.name] = sha256_of(path)
        write_provenance(folder, provenance)


def set_agreement(folder: Path, precision: Precision, **values: float) -> None:
    edit_report(folder, precision, lambda report: report["agreement"].update(values))
