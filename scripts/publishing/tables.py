"""The tables that `publish_state.py` prints: the list of states, and a state beside the one before it."""

from __future__ import annotations

from collections.abc import Sequence

from similarity.errors import StateError, one_line
from similarity.inbox.history import current_of
from similarity.inbox.notes import Deployed, Hold, Served
from similarity.inbox.publications import Publication
from similarity.incidents.facts import StateFacts

_LONGEST_MODEL = 28


def compared(before: StateFacts, new: StateFacts) -> str:
    """The table of the state that was served and the one that was published."""
    rows = [["", "before", "published"]]
    for name, of in (
        ("version", lambda facts: facts.version),
        ("incidents", lambda facts: str(facts.incidents)),
        ("reports", lambda facts: str(facts.reports)),
        ("built at", lambda facts: facts.built_at),
        ("source date", lambda facts: facts.source.get("date", "")),
    ):
        rows.append([name, of(before) or "unknown", of(new) or "unknown"])
    return _aligned(rows)


def listed(history: Sequence[Publication], served: Served | None, hold: Hold) -> str:
    """The table of all states, newest first, with marks."""
    rows = [["time", "version", "incidents", "reports", "source date", "model", ""]]
    shown = _place_of_served(history, served)
    newest = current_of(history, served.deployed) if served else None
    for each in history:
        marks = _marks_of(each, served.deployed if served else None, hold)
        if each is shown:
            marks.insert(0, "served")
        elif each is newest:
            marks.insert(0, "not served yet")
        facts = each.facts
        columns = ["-"] * 5
        if facts:
            date, model = facts.source.get("date", ""), one_line(facts.model.rpartition("/")[2])
            if len(model) > _LONGEST_MODEL:
                model = model[: _LONGEST_MODEL - 1] + "…"
            columns = [facts.version, str(facts.incidents), str(facts.reports), date or "-", model or "-"]
        rows.append([each.time or "-", *columns, ", ".join(marks)])
    return _aligned(rows)


def _place_of_served(history: Sequence[Publication], served: Served | None) -> Publication | None:
    """The served publication. A state may have been published several times; served.json says which one counts."""
    if served is None:
        return None
    place = (served.key, served.version_id)
    same = [each for each in history if each.facts and each.facts.version == served.state.version]
    return next((each for each in same if (each.stored.key, each.stored.version_id) == place), next(iter(same), None))


def _marks_of(publication: Publication, deployed: Deployed | None, hold: Hold) -> list[str]:
    marks = ["deployed"] if publication.is_deployed else []
    facts = publication.facts
    if facts is None:
        return [*marks, "unusable"]
    if facts.version in hold.versions:
        marks.append("taken back")
    if deployed and not deployed.can_use(facts):
        try:
            facts.require_made_by(deployed, deployed.model)
            marks.append("other limit")
        except StateError:
            marks.append("other model")
    return marks


def _aligned(rows: list[list[str]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (zip(row, widths, strict=True) for row in rows)
    return "\n".join("  ".join(cell.ljust(width) for cell, width in line).rstrip() for line in lines)
