"""Builds the incident state from AIID's data: an incident's mean is the mean of its reports' CLS vectors.

AIID publishes vectors of allenai/longformer-base-4096, for texts that were cut at 2,000 tokens. The other vectors are
computed by an encoder. `VectorsFrom` is the choice between them:

    published   only AIID's vectors. Reports without a vector are left out.
    computed    only computed vectors.
    auto        AIID's vectors, and computed ones for the other reports. First, some of AIID's vectors are computed too.
                If these differ, the encoder isn't AIID's, and the two kinds of vectors couldn't be compared.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from similarity.encoder.tokens import prepare
from similarity.incidents.state import IncidentState
from similarity.refresh.compute import Computer
from similarity.refresh.fitting import FEWEST, fitted
from similarity.refresh.questions import (
    DEFAULT_WORDS_FROM,
    Documents,
    Known,
    Question,
    ReportQuestions,
    WordsFrom,
    as_queries,
    has_title_to_ask,
    mean_of,
    title_questions,
)
from similarity.settings import AIID_MAX_TOKENS, DEFAULT_MODEL_URI, DEFAULT_TEXT_PREPARATION, TextPreparation
from similarity.sources.database import Database, Incident, Report, Responses
from similarity.sources.problems import SourceError
from similarity.vectors import Vector

VectorsFrom = Literal["auto", "published", "computed"]

# Cosines can't tell two models apart, because all of them exceed 0.99. Rounding makes much smaller differences.
LARGEST_DIFFERENCE = 0.01
# The number of AIID's vectors that are computed too, from the shortest text to the longest.
SAMPLE = 5

# The number of incidents that have their vectors in memory at a time.
_AT_ONCE = 1000


@dataclass(frozen=True)
class Built:
    """A new state, and the origin of its vectors.

    reports: number of reports by origin. A report in two incidents counts twice. The origins:
        published   AIID's vector
        stored      the vector of an earlier build
        computed    a vector computed now
        without     no vector; left out
        blank       left out too, because the prepared text is blank, e.g. only emoji once transliterated
    without: numbers of the reports without a vector, ascending, each once.
    left_out: ids of incidents without any vector.
    questions: the texts that the ranking and the confidence were fitted to.
    """

    state: IncidentState
    reports: Counter[str]
    without: tuple[int, ...]
    left_out: tuple[int, ...]
    questions: Sequence[Question]


@dataclass(frozen=True)
class _Prepared:
    """A report's prepared text, and AIID's vector of it if that is used."""

    text: str
    published: Vector | None


@dataclass(frozen=True)
class _Kept:
    """An incident with the number of its vectors and their mean (hidden,)."""

    incident: Incident
    count: int
    mean: Vector


def has_published(database: Database) -> bool:
    """Whether AIID publishes a vector of any report."""
    return any(report.published is not None for incident in database.incidents for report in incident.reports)


def token_limit(vectors: VectorsFrom, max_tokens: int, longest_input: int | None) -> int:
    """The limit at which the texts of a state are cut.

    max_tokens: the limit that the user wants. 0: AIID's if published vectors may be used, else the model's maximum.
    longest_input: the most tokens that the model takes, None without a model. Published vectors don't come from it.
    """
    if max_tokens:
        return max_tokens
    if longest_input is None or vectors == "published":
        return AIID_MAX_TOKENS
    return longest_input if vectors == "computed" else min(AIID_MAX_TOKENS, longest_input)


def build_state(
    database: Database,
    *,
    vectors: VectorsFrom,
    responses: Responses,
    max_tokens: int,
    computer: Computer | None = None,
    words_from: Sequence[WordsFrom] = DEFAULT_WORDS_FROM,
    told: Callable[[Known], object] = lambda _: None,
) -> Built:
    """The state of `database`.

    vectors: "computed" and "auto" need a computer. responses: as `database` was read; the state says it.
    max_tokens: the limit of this state, see `token_limit`. The computer's encoder must have it.
    words_from: the parts of an incident in the word index.
    told: gets each incident of the state, with the vectors of its reports.
    Raises SourceError if no incident has a vector, and if the encoder isn't AIID's. Published vectors of another limit
    than AIID's need an encoder, because its tokenizer counts the tokens. Without one, it raises SourceError too.
    Raises TooManyTextsError before it computes the first text; ModelError and StoreError.
    """
    if computer and computer.encoder.max_tokens != max_tokens:
        raise ValueError(f"the encoder cuts texts at {computer.encoder.max_tokens} tokens, not at {max_tokens}")
    if not computer and vectors != "published":
        raise ValueError(f'vectors "{vectors}" need an encoder')
    # AIID's vectors are of transliterated texts.
    by = computer.encoder.text_preparation if computer and vectors != "published" else DEFAULT_TEXT_PREPARATION
    prepared = [[_prepare(r, by, vectors, max_tokens, computer) for r in i.reports] for i in database.incidents]
    if vectors == "published":
        computer = None
    sample = _sample(database, prepared, computer) if vectors == "auto" and computer else []
    if computer:
        computer.require_few([*(each.text for each in sample), *_to_compute(prepared)])
        _require_aiids_model(sample, computer)
    computed = computer.compute(_to_compute(prepared)) if computer else frozenset()
    kept: list[_Kept] = []
    left_out: list[int] = []
    origins: Counter[str] = Counter()
    without: set[int] = set()
    documents = Documents(words_from, by)
    reports = ReportQuestions(documents, shared=_shared(database))
    for start in range(0, len(prepared), _AT_ONCE):
        some = slice(start, start + _AT_ONCE)
        found = computer.computed(_to_compute(prepared[some])) if computer else {}
        for incident, texts in zip(database.incidents[some], prepared[some], strict=True):
            given = [_given(each, found, computed) for each in texts]
            origins.update(origin for origin, _ in given)
            without.update(
                report.number or 0
                for report, (origin, _) in zip(incident.reports, given, strict=True)
                if origin == "without"
            )
            known = _known(incident, given)
            if known:
                reports.offer(known)
                told(known)
                kept.append(_Kept(incident, len(known.reports), known.mean))
            else:
                left_out.append(incident.incident_id)
    if computer:
        computer.keep(_to_compute(prepared))
    if not kept:
        raise SourceError(_NO_VECTORS if origins["without"] else _ALL_BLANK)
    options: dict[str, str] = {"vectors": vectors, "responses": responses, "words": ",".join(words_from)}
    state = _state(database, kept, options, max_tokens, computer)
    questions = _questions(reports.chosen(), kept, documents, computer)
    state = fitted(state, [documents.of(each.incident) for each in kept], questions)
    return Built(state, origins, tuple(sorted(without)), tuple(left_out), questions)


_ALL_BLANK = "no incident has a text: all texts are blank once they are prepared for the tokenizer."
_NO_VECTORS = "the source has no published vector of any report. AIID's snapshots have them, tables don't."


def _prepare(
    report: Report, by: TextPreparation, vectors: VectorsFrom, max_tokens: int, computer: Computer | None
) -> _Prepared:
    text = prepare(report.text, by)
    if not text.strip():
        return _Prepared("", None)
    if vectors == "computed" or report.published is None:
        return _Prepared(text, None)
    return _Prepared(text, report.published if _is_of_limit(text, max_tokens, computer) else None)


def _is_of_limit(text: str, max_tokens: int, computer: Computer | None) -> bool:
    """Whether AIID's vector, of the text's first AIID_MAX_TOKENS tokens, is that of its first `max_tokens` tokens."""
    if max_tokens == AIID_MAX_TOKENS:
        return True
    if not computer:
        raise SourceError(
            f"AIID's vectors are of texts that were cut at {AIID_MAX_TOKENS} tokens. With MAX_TOKENS={max_tokens}, the "
            "model's tokenizer must tell which of them can be used, but there is no model. Leave MAX_TOKENS out."
        )
    tokens = computer.encoder.tokenizer(text)
    return tokens.came_is_exact and tokens.came <= min(max_tokens, AIID_MAX_TOKENS)


def _to_compute(prepared: Sequence[Sequence[_Prepared]]) -> list[str]:
    return [each.text for reports in prepared for each in reports if each.text and each.published is None]


def _shared(database: Database) -> frozenset[str]:
    """The texts that stand in several incidents."""
    count = Counter(text for incident in database.incidents for text in set(incident.texts))
    return frozenset(text for text, incidents in count.items() if incidents > 1)


def _known(incident: Incident, given: Sequence[tuple[str, Vector | None]]) -> Known | None:
    """The incident with the reports that have a vector; None if there are none. given: of each report, see `_given`."""
    used = [(report, vector) for report, (_, vector) in zip(incident.reports, given, strict=True) if vector is not None]
    if not used:
        return None
    reports, vectors = zip(*used, strict=True)
    return Known(incident, reports, vectors, mean_of(vectors))


def _questions(
    reports: list[Question], kept: Sequence[_Kept], documents: Documents, computer: Computer | None
) -> list[Question]:
    """The reports to ask with, and titles too if their vectors can be computed."""
    titles = sum(has_title_to_ask(each.incident, documents.preparation) for each in kept)
    # No vector is computed for questions too few to fit to.
    if not computer or len(reports) + titles < FEWEST:
        return reports
    asked = title_questions([(each.incident, each.mean) for each in kept], documents, computer)
    return as_queries(reports, computer) + asked


def _given(each: _Prepared, found: dict[str, Vector], computed: frozenset[str]) -> tuple[str, Vector | None]:
    """A report's vector and its origin, as in `Built`."""
    if not each.text:
        return "blank", None
    if each.published is not None:
        return "published", each.published
    if each.text not in found:
        return "without", None
    return ("computed" if each.text in computed else "stored"), found[each.text]


_REMEDY = "Give --vectors published or --vectors computed."


@dataclass(frozen=True)
class _Sampled:
    """A report that has AIID's vector, which is computed too. text: prepared."""

    number: int
    text: str
    published: Vector


def _sample(database: Database, prepared: Sequence[Sequence[_Prepared]], computer: Computer) -> list[_Sampled]:
    """Some reports with AIID's vectors. Raises SourceError if the encoder has another dimension."""
    published = [
        _Sampled(report.number or 0, each.text, each.published)
        for incident, reports in zip(database.incidents, prepared, strict=True)
        for report, each in zip(incident.reports, reports, strict=True)
        if each.published is not None
    ]
    by_length = sorted(published, key=lambda each: (len(each.text), each.number, each.text))
    places = np.linspace(0, len(by_length) - 1, min(SAMPLE, len(by_length)))
    sample = [by_length[round(place)] for place in places]
    for each in sample:
        if len(each.published) != computer.encoder.dimension:
            raise SourceError(
                f"AIID's vectors have {len(each.published)} dimensions, but the model's have "
                f"{computer.encoder.dimension}, so they can't be compared. {_REMEDY}"
            )
    return sample


def _require_aiids_model(sample: Sequence[_Sampled], computer: Computer) -> None:
    """Raises SourceError if the encoder's vectors aren't AIID's."""
    texts = [each.text for each in sample]
    computer.compute(texts)
    ours = computer.computed(texts)
    for each in sample:
        difference = float(np.abs(ours[each.text] - each.published).max())
        if not difference <= LARGEST_DIFFERENCE:  # NaN isn't
            raise SourceError(
                f"the model{_in_precision(computer)} doesn't make AIID's vectors: that of report {each.number} differs "
                f"by {difference:.3f}; at most {LARGEST_DIFFERENCE} is allowed. {_REMEDY}"
            )


def _in_precision(computer: Computer) -> str:
    """Names a precision that may be the reason for other vectors."""
    precision = computer.encoder.precision
    return "" if precision == "float32" else f", in {precision},"


def _state(
    database: Database, kept: Sequence[_Kept], options: dict[str, str], max_tokens: int, computer: Computer | None
) -> IncidentState:
    encoder = computer.encoder if computer else None
    dates, urls = [each.incident.date for each in kept], [each.incident.url for each in kept]
    source = database.source
    try:
        return IncidentState(
            incident_ids=np.array([each.incident.incident_id for each in kept]),
            report_counts=np.array([each.count for each in kept]),
            means=np.stack([each.mean for each in kept]),
            titles=[each.incident.title for each in kept],
            model=(encoder.name or "") if encoder else DEFAULT_MODEL_URI,
            model_fingerprint=encoder.fingerprint if encoder else "",
            precision=encoder.precision if encoder else "float32",
            dates=dates if any(dates) else [],
            source={"kind": source.kind, "name": source.name, "date": source.date},
            options=options,
            max_tokens=max_tokens,
            text_preparation=encoder.text_preparation if encoder else DEFAULT_TEXT_PREPARATION,
            duplicates=_pairs(sorted(database.duplicates.items())),
            dissimilar=_pairs(sorted(database.dissimilar)),
            collection=database.collection,
            record_url=database.record_url,
            urls=urls if any(urls) else [],
            licence=database.licence,
        )
    except ValueError as error:
        raise SourceError(f"the vectors don't make a usable state: {error}") from error


def _pairs(pairs: Sequence[tuple[int, int]]) -> NDArray[np.int64]:
    return np.array(pairs, dtype=np.int64).reshape(-1, 2)
