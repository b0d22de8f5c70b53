"""The checks of model, graph, state and precision: all are there, are unchanged, and fit each other.

Without these checks, the build of the image and the first calls would find problems after minutes.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from deployment.findings import Finding, not_checked, note, ok, problem
from deployment.given import Given
from infrastructure.build_context import exported_files
from similarity.encoder.cpu import lack_of
from similarity.encoder.loading import choose
from similarity.encoder.model_folder import GRAPH_FILENAMES, INSTALLING_DIRNAME, ModelFiles, exported_filenames
from similarity.encoder.reports import read_report
from similarity.encoder.text_encoder import open_folder
from similarity.errors import ModelError, StateError, one_line
from similarity.inbox.notes import snapshot_date_of
from similarity.incidents.facts import StateFacts
from similarity.incidents.state import IncidentState
from similarity.settings import DEFAULT_MODEL_URI, DEFAULT_PRECISION, PRECISIONS, Precision, Settings
from similarity.shelf.usable import FolderModel, tried

QUICK_START_NAME = "sentence-transformers/all-MiniLM-L6-v2 as Longformer"
FETCH = "python scripts/fetch_model.py"
QUICK_START = "python scripts/convert_encoder.py --quick-start --out inference/model"
BUILD = "python scripts/build_state.py --latest"
BUILD_SAMPLE = "python scripts/build_state.py scripts/sample"


def model_findings(given: Given) -> Iterator[Finding]:
    """Of the model, of its graph, of the state, and of the precision. The export of a precision needs the state."""
    config = given.config
    settings = Settings.from_environment(
        {
            "MODEL_DIR": str(given.model_dir),
            "HF_MODEL_URI": config.hf_model_uri,
            "ENCODER_ENGINE": config.encoder_engine,
            "ENCODER_PRECISION": config.encoder_precision,
        }
    )
    model = FolderModel(settings)
    found = model_finding(given, model)
    yield found
    usable = not found.is_problem
    graph = graph_finding(given, model, usable)
    yield graph
    yield from state_findings(given, model, settings.state_path, usable)
    if usable and not graph.is_problem:
        yield from precision_findings(given, model.files)


def model_finding(given: Given, model: FolderModel) -> Finding:
    name, folder = "Model", given.model_dir
    for path in (folder, *model.files.paths):
        if leads_nowhere(path):
            return problem(name, _dangling(path, given), f"rm {_relative(path, given)}\nthen {_install_command(model)}")
    if (folder / INSTALLING_DIRNAME).is_dir():
        # Every command that writes to the folder first finishes the installation. This one downloads nothing.
        return problem(name, f"an installation in {_relative(folder, given)} was stopped halfway", _export_command())
    if not model.is_there():
        return problem(
            name,
            f"there is no model in {_relative(folder, given)}",
            f"{FETCH}\nor, for the small quick-start model: {QUICK_START}",
        )
    try:
        open_folder(folder, model.files.weights_filename)
        model.files.require_weights_unchanged()
        size = sum(path.stat().st_size for path in model.files.paths)
        return ok(name, f"{model.name}, {size / 1e6:.0f} MB")
    except ModelError as error:
        return problem(name, _detail(error, given), _install_command(model))
    except OSError as error:
        return problem(name, f"{_relative(folder, given)} can't be read: {error.strerror}", _install_command(model))


def graph_finding(given: Given, model: FolderModel, usable: bool) -> Finding:
    """Of the files of the export that the image gets. usable: whether the model is."""
    name, engine = "Graph", given.config.encoder_engine
    wanted = [model.files.folder / each for each in exported_files(given.config)]
    for path in wanted:
        if leads_nowhere(path):
            made_for = next(each for each in PRECISIONS[engine] if path.name in exported_filenames(each))
            remedy = f"rm {_relative(path, given)}\nthen {_export_command(made_for)}"
            return problem(name, _dangling(path, given), remedy)
    if not usable:
        return not_checked(name, "it needs a usable model")
    for precision in PRECISIONS[engine]:
        own = [path for path in wanted if path.name in exported_filenames(precision)]
        try:
            if own:
                _require_exported(given, model, precision, own)
        except ModelError as error:
            # Without the remedy, which the finding has.
            [detail, *_] = re.split("; (?:make|export) ", _detail(error, given))
            return problem(name, detail, _export_command(precision))
    if engine != "onnx":
        return ok(name, f"ENCODER_ENGINE={engine} needs none")
    # With auto, a graph may lack its weights. Then it wasn't checked.
    usable_graphs = {graph for each, graph in GRAPH_FILENAMES.items() if model.files.has_graph(each)}
    graphs = [path.name for path in wanted if path.name in usable_graphs]
    return ok(name, f"{' and '.join(graphs)} {'fit' if graphs[1:] else 'fits'} the model")


def _require_exported(given: Given, model: FolderModel, precision: Precision, paths: list[Path]) -> None:
    """Raises ModelError if a file of a precision is missing, changed, or of another model. paths: of its files."""
    config, files = given.config, model.files
    # The build of the image checks them too.
    for path in paths:
        if path.exists():
            files.require_graph_unchanged(path.name)
    if precision == DEFAULT_PRECISION:
        model.require_loadable(config.encoder_engine, precision)
    elif config.encoder_engine == "onnx" and (config.encoder_precision == precision or files.has_graph(precision)):
        files.require_graph_fits(files.graph(precision).name)
    read_report(files.folder, precision)


def precision_findings(given: Given, files: ModelFiles) -> Iterator[Finding]:
    """Of another precision than float32: whether it agrees with float32. Lambda's CPU isn't known."""
    name, engine, setting = "Precision", given.config.encoder_engine, given.config.encoder_precision
    if setting == DEFAULT_PRECISION:
        return
    precision = PRECISIONS[engine][-1]
    reason = choose(files, engine, "auto", any_cpu=True).reason
    report = read_report(files.folder, precision)
    if reason is None and report:
        # On any CPU, torch computes in bfloat16 if it was asked to.
        condition = "" if setting == "bfloat16" else " if Lambda's CPU multiplies it natively, else float32"
        yield ok(name, f"{precision}{condition}; {report.agreement}")
        return
    remedy = "ENCODER_PRECISION=float32" if setting == "auto" else "ENCODER_PRECISION=auto"
    if report is None or report.agreement is None or (engine == "onnx" and not files.has_graph(precision)):
        remedy = _export_command(precision)
        if precision == "int8" and lack_of(precision):
            remedy += f"\non another machine: this CPU doesn't multiply {precision} natively"
    if setting == "auto":
        yield note(name, f"float32 will serve: {reason}", remedy)
        return
    if report is None:
        reason = f"{precision}'s agreement with float32 wasn't measured"
    yield note(name, f"{precision} will serve, although {reason}", remedy)


def state_findings(given: Given, model: FolderModel, path: Path, usable: bool) -> Iterator[Finding]:
    """usable: whether the model is."""
    name, build = "State", _build_command(model)
    if leads_nowhere(path):
        yield problem(name, _dangling(path, given), f"rm {_relative(path, given)}\nthen {build}")
        return
    if not path.exists():
        yield problem(name, f"there is no state {_relative(path, given)}", build)
        return
    try:
        state = IncidentState.load(path)
        tried(state)
        if usable:
            model.require_usable(state)
    except (StateError, ModelError) as error:
        yield problem(name, _detail(error, given), build)
        return
    facts = state.facts()
    described = f"{facts.incidents:,} incidents {_origin(facts)}, built at {facts.built_at or 'an unknown time'}"
    yield ok(name, described) if usable else not_checked(name, f"{described}; whether it fits needs a usable model")
    yield from _age_findings(given, facts)


def _age_findings(given: Given, facts: StateFacts) -> Iterator[Finding]:
    config = given.config
    with suppress(ValueError):  # of "": the state isn't made of a snapshot, or its date isn't known
        date = datetime.fromisoformat(snapshot_date_of(facts)).replace(tzinfo=UTC)
        days = (datetime.now(UTC) - date).total_seconds() / 86400
        if days > config.max_state_age_days:
            rings = "; an alarm rings unless the refresh replaces the state" if _rings(given) else ""
            yield note(
                "State",
                f"its snapshot is {days:.0f} days old, more than MAX_STATE_AGE_DAYS={config.max_state_age_days}{rings}",
                BUILD,
            )


def _rings(given: Given) -> bool:
    """Whether the stack has the alarm about old states."""
    return given.config.alarms and given.config.refresh_hours > 0


def _origin(facts: StateFacts) -> str:
    if date := snapshot_date_of(facts):
        return f"of the snapshot of {date.partition('T')[0]}"
    source = one_line(facts.source.get("name", ""))
    return f"of {source}" if source else "of unknown data"


def leads_nowhere(path: Path) -> bool:
    """Whether it is a symbolic link to something that isn't there."""
    return path.is_symlink() and not path.exists()


def _dangling(path: Path, given: Given) -> str:
    return f"{_relative(path, given)} is a symbolic link to {one_line(str(path.readlink()))}, which isn't there"


def _relative(path: Path, given: Given) -> str:
    return str(path.relative_to(given.root))


def _detail(error: ModelError | StateError, given: Given) -> str:
    return error.detail.replace(f"{given.root}{os.sep}", "").rstrip(".")


def _export_command(precision: Precision = DEFAULT_PRECISION) -> str:
    option = "" if precision == DEFAULT_PRECISION else f" --precision {precision}"
    return f"python scripts/export_onnx.py inference/model{option}"


def _name(model: FolderModel) -> str:
    """The name that the model's folder says, "" if it can't be read."""
    try:
        return model.name
    except ModelError:
        return ""


def _install_command(model: FolderModel) -> str:
    name = _name(model)
    if name == QUICK_START_NAME:
        return QUICK_START
    return FETCH if name in ("", DEFAULT_MODEL_URI) else f"install {name} again (docs/models.md)\nor {FETCH}"


def _build_command(model: FolderModel) -> str:
    return BUILD_SAMPLE if _name(model) == QUICK_START_NAME else BUILD
