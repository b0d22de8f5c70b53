"""Reads the dumps of AIID's collections into parts: incidents, reports, duplicates, English translations.

`documents` splits a dump. Each reader here reports bad documents to `problems` and leaves them out. It raises
SourceError if the file can't be read, or if too many documents are damaged.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import IO, Any

import numpy as np

from similarity.encoder.tokens import transliterate
from similarity.incidents.state import MAX_SIZE
from similarity.sources.database import Report, Responses, is_english
from similarity.sources.documents import Document, read_documents
from similarity.sources.markdown import without_markdown
from similarity.sources.parts import (
    RESPONSE,
    FoundDuplicate,
    FoundIncident,
    FoundReports,
    day,
    usual_size,
    whole_number,
)
from similarity.sources.problems import Problems
from similarity.vectors import Vector

# An incident's lists of ids. Editors fill those that start with editor, readers the one that starts with flagged.
_SIMILAR = ("editor_similar_incidents",)
_DISSIMILAR = ("editor_dissimilar_incidents", "flagged_dissimilar_incidents")


@dataclass(frozen=True)
class Text:
    """A report's text.

    language: AIID's code, e.g. "en"; "" if unknown. hashes: those of `text_hashes`.
    """

    text: str
    language: str
    hashes: frozenset[str]


@dataclass(frozen=True)
class Embedding:
    """AIID's vector of a text: float32 (numbers,). hash: of that text, hex, as AIID stores it."""

    vector: Vector
    hash: str


@dataclass(frozen=True)
class DumpedReports:
    """Reports in their own languages.

    texts, embeddings: of the reports that count, by report number. not_counted: the numbers of the other reports.
    """

    texts: dict[int, Text]
    embeddings: dict[int, Embedding]
    not_counted: set[int]

    def translated(self, translations: Mapping[int, Text]) -> FoundReports:
        """The reports in English; without a translation, in their own language. Vectors of other texts are left out."""
        found = FoundReports(not_counted=self.not_counted)
        for number, text in self.texts.items():
            if not is_english(text.language):
                text = translations.get(number, text)
            embedding = self.embeddings.get(number)
            published = embedding.vector if embedding and embedding.hash in text.hashes else None
            found.counted[number] = Report(number, text.text, text.language, published)
        return found


def read_bson_incidents(file: IO[bytes], name: str, problems: Problems) -> list[FoundIncident]:
    """The incidents, in the order of the dump. Raises SourceError."""
    incidents: dict[int, FoundIncident] = {}
    for number, document in read_documents(file, name, problems):
        incident_id = whole_number(document.get("incident_id"))
        if incident_id is None:
            problems.report(name, number, "incident_id isn't a whole number above 0", "document")
            continue
        if incident_id in incidents:
            problems.report(name, number, f"an earlier document has incident {incident_id} too", "document")
            continue
        reports = document.get("reports")
        numbers = [whole_number(entry) for entry in reports] if isinstance(reports, list) else [None]
        if None in numbers:
            reason = f"reports of incident {incident_id} isn't a list of report numbers"
            problems.report(name, number, reason, "document")
            continue
        incidents[incident_id] = FoundIncident(
            number,
            incident_id,
            _string(document, "title").strip(),
            day(document.get("date")),
            reports=[number for number in numbers if number is not None],
            description=_string(document, "description").strip(),
            dissimilar=_labels(_DISSIMILAR, document, incident_id, name, number, problems),
            similar=_labels(_SIMILAR, document, incident_id, name, number, problems),
        )
    return list(incidents.values())


def _labels(
    fields: Iterable[str], document: Document, incident_id: int, name: str, number: int, problems: Problems
) -> list[int]:
    labels = []
    for field in fields:
        entries = document.get(field)
        # AIID's own form leaves nulls in these lists.
        given = [entry for entry in entries if entry is not None] if isinstance(entries, list) else []
        ids = [each for entry in given if (each := whole_number(entry)) is not None]
        if len(ids) < len(given) or (entries is not None and not isinstance(entries, list)):
            reason = f"{field} of incident {incident_id} has an entry that isn't a whole number above 0"
            problems.report(name, number, reason, "document")
        labels += ids
    return labels


def read_bson_reports(file: IO[bytes], name: str, problems: Problems, responses: Responses) -> DumpedReports:
    """The reports. If one vector has another length than most, it is left out. Raises SourceError."""
    found = DumpedReports({}, {}, set())
    # The number of each report's document that has a vector.
    places: dict[int, int] = {}
    for number, report_number, document in _numbered(file, name, problems):
        if report_number in found.texts or report_number in found.not_counted:
            problems.report(name, number, f"an earlier document has report {report_number} too", "document")
            continue
        tags = document.get("tags")
        is_response = isinstance(tags, list) and RESPONSE in tags
        # A report of class "issue" should not belong to an incident.
        if document.get("is_incident_report") is False or (is_response and responses == "exclude"):
            found.not_counted.add(report_number)
            continue
        text = _text(document, _string(document, "language").strip())
        if text is None and _string(document, "title").strip():
            problems.report(name, number, f"report {report_number} is empty", "document")
        elif text is None:
            found.not_counted.add(report_number)  # A variant has neither text nor title.
        else:
            found.texts[report_number] = text
            embedding = document.get("embedding")
            if not isinstance(embedding, dict) or not embedding.get("vector"):
                continue
            vector = _vector(embedding["vector"])
            if vector is None:
                problems.report(name, number, _not_a_vector(report_number), "document", _NOT_USED)
            else:
                places[report_number] = number
                found.embeddings[report_number] = Embedding(vector, _string(embedding, "from_text_hash").lower())
    size = usual_size(embedding.vector for embedding in found.embeddings.values())
    for report_number, number in places.items():
        if len(found.embeddings[report_number].vector) != size:
            problems.report(name, number, _not_a_vector(report_number, f"{size} "), "document", _NOT_USED)
            del found.embeddings[report_number]
    return found


# The report itself counts.
_NOT_USED = "the vector isn't used"


def _not_a_vector(report_number: int, size: str = "") -> str:
    return (
        f"the vector of report {report_number} isn't a list of {size}numbers from -{MAX_SIZE:,.0f} to {MAX_SIZE:,.0f}"
    )


def read_bson_translations(file: IO[bytes], name: str, problems: Problems) -> dict[int, Text]:
    """The English texts, by report number. Raises SourceError."""
    texts: dict[int, Text] = {}
    for _, report_number, document in _numbered(file, name, problems):
        text = _text(document, "en")
        if text is not None:
            texts.setdefault(report_number, text)
    return texts


def read_bson_duplicates(file: IO[bytes], name: str, problems: Problems) -> list[FoundDuplicate]:
    """The merged incidents, in the order of the dump. Raises SourceError."""
    duplicates = []
    fields = ("duplicate_incident_number", "true_incident_number")
    for number, document in read_documents(file, name, problems):
        merged, became = (whole_number(document.get(field)) for field in fields)
        if merged is None or became is None:
            problems.report(name, number, f"{' or '.join(fields)} isn't a whole number above 0", "document")
        else:
            duplicates.append(FoundDuplicate(number, merged, became))
    return duplicates


def _numbered(file: IO[bytes], name: str, problems: Problems) -> Iterator[tuple[int, int, Document]]:
    for number, document in read_documents(file, name, problems):
        report_number = whole_number(document.get("report_number"))
        if report_number is None:
            problems.report(name, number, "report_number isn't a whole number above 0", "document")
        else:
            yield number, report_number, document


def _text(document: Document, language: str) -> Text | None:
    """plain_text, which AIID embeds. If it is blank, `text` without its Markdown. None if both are blank."""
    raw = _string(document, "text")
    plain = _string(document, "plain_text")
    text = plain if plain.strip() else without_markdown(raw) if raw.strip() else ""
    if not text.strip():
        return None
    return Text(text, language, text_hashes(text, raw))


def text_hashes(plain: str, raw: str) -> frozenset[str]:
    """SHA-1 hashes of a text, hex. AIID stores one of them with its vector of the text.

    plain: the text without Markdown. AIID's form hashes it after transliteration. raw: the text with Markdown. AIID's
    daily job hashed it.
    """
    return frozenset(
        hashlib.sha1(each.encode(), usedforsecurity=False).hexdigest() for each in (transliterate(plain), raw)
    )


def _vector(value: object) -> Vector | None:
    """(numbers,), float32. None if `value` isn't a list of numbers that can be compared."""
    try:
        vector = np.array(value)
    except ValueError:  # a list of lists of several lengths
        return None
    if vector.ndim != 1 or vector.dtype.kind not in "fi":
        return None
    # A comparison with NaN is false. The smallest int64 has no absolute value.
    return vector.astype(np.float32) if ((vector >= -MAX_SIZE) & (vector <= MAX_SIZE)).all() else None


def _string(document: Mapping[str, Any], field: str) -> str:
    value = document.get(field)
    return value if isinstance(value, str) else ""
