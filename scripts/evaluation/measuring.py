"""Measures a task: encodes its texts, fits the states that are asked, asks them, and computes the figures."""

from __future__ import annotations

from shared.command import progress_bar

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from evaluation.asking import FOLDS, Compared, answers, cross_fitted, unmatched
from evaluation.encoding import encode, vectors_of
from evaluation.results import Plotted, Result, plotted, result_of
from evaluation.tasks import Task
from evaluation.texts import Unrelated
from models.agreement import agreement
from similarity.encoder.reports import Agreement
from similarity.encoder.text_encoder import TextEncoder
from similarity.incidents.ranking import Ranking
from similarity.incidents.state import IncidentState
from similarity.refresh.fitting import fitted_to
from similarity.refresh.questions import Question
from similarity.settings import DEFAULT_TEXT_PREPARATION


@dataclass(frozen=True)
class Encoders:
    """encoder: of the texts to ask with. reference: the same in float32."""

    encoder: TextEncoder
    reference: TextEncoder

    @property
    def is_reduced(self) -> bool:
        return self.encoder.precision != self.reference.precision


@dataclass(frozen=True)
class Measured:
    """agreement: None for float32."""

    result: Result
    plots: Mapping[Compared, Plotted]
    agreement: Agreement | None


def measure(task: Task, encoders: Encoders | None, unrelated: Sequence[Unrelated], store_path: Path) -> Measured:
    """encoders: None if all queries have a vector; then no unrelated text is asked. Raises ModelError, StoreError."""
    if encoders is None:
        unrelated, vectors, of_unrelated = [], vectors_of(task.queries, None, store_path), []
    else:
        unrelated = [*unrelated, *task.unrelated]
        vectors = vectors_of(task.queries, encoders.encoder, store_path)
        of_unrelated = encode([each.text for each in unrelated], encoders.encoder, store_path)
    if task.questions is None:
        rankings = [Ranking(task.state)] * FOLDS
    else:
        rankings = fitted_rankings(task.state, task.questions(vectors))
    preparation = encoders.encoder.text_preparation if encoders else DEFAULT_TEXT_PREPARATION
    with progress_bar(len(task.queries), "queries") as progress:
        found = answers(task.queries, vectors, rankings, preparation, progress.update)
    no_match = unmatched([each.text for each in unrelated], of_unrelated, rankings, preparation)
    powers = [ranking.state.fit.power for ranking in rankings]
    result = result_of(task.queries, found, unrelated, no_match, task.state.report_counts, powers)
    plots = {name: plotted(each, no_match[name], result.metrics[name]) for name, each in found.items()}
    compared = None
    if encoders and encoders.is_reduced:
        float32 = vectors_of(task.queries, encoders.reference, store_path)
        compared = agreement(vectors, float32, Ranking(task.state))
    return Measured(result, plots, compared)


def fitted_rankings(state: IncidentState, questions: Sequence[Question]) -> list[Ranking]:
    """For each fold, the state fitted to the questions about the incidents of the other folds."""

    def fitted_without(incident_ids: frozenset[int]) -> IncidentState:
        chosen = [each for each in questions if each.incident_id in incident_ids]
        progress.update()
        return fitted_to(chosen, state, state.fit.words)

    with progress_bar(FOLDS, "fits") as progress:
        return cross_fitted(fitted_without, {each.incident_id for each in questions})
