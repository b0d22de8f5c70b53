"""States for the page: a dozen incidents with dates, titles and places on the map, and states that lack parts."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from similarity.encoder.text_encoder import TextEncoder
from similarity.incidents.state import IncidentState
from tiny import fitted_state, state_of_texts


@dataclass(frozen=True)
class Incident:
    """x, y: its place on the map, from -1 to 1."""

    incident_id: int
    date: str
    title: str
    x: float
    y: float


# Far enough from each other for a finger, and in no line, so that each lies clearly in one direction of another.
INCIDENTS = (
    Incident(1, "2015-05-19", "A video service for children showed violence", -0.9, 0.8),
    Incident(4, "2018-03-18", "A car without a driver hit a pedestrian", 0.75, 0.7),
    Incident(6, "2016-03-24", "A chatbot learned to insult people", -0.25, 0.9),
    Incident(7, "2016-05-23", "Risk scores of a court were biased", 0.15, -0.85),
    Incident(10, "2010-05-08", "A trading program crashed the market", -0.7, -0.6),
    Incident(12, "2016-07-12", "A robot of a shopping centre ran over a child", 0.9, -0.1),
    Incident(16, "2015-06-29", "A photo service gave people insulting labels", -0.5, 0.3),
    Incident(23, "2018-12-05", "A robot in a warehouse hurt workers", 0.6, -0.45),
    Incident(31, "2019-02-11", "A chatbot gave wrong advice about medicines", 0.0, 0.45),
    Incident(37, "2018-10-10", "A program for applications favoured men", -0.05, -0.25),
    Incident(71, "2017-11-08", "A bus without a driver hit a lorry", 0.35, 0.2),
    Incident(101, "2018-09-01", "A program wrongly found fraud in benefits", -0.85, -0.05),
)
BY_ID = {incident.incident_id: incident for incident in INCIDENTS}
# Its words are those of incident 6.
TEXT = "The chatbot learned to insult people. When it had insulted thousands of users, it was withdrawn."


def mapped_state(encoder: TextEncoder) -> IncidentState:
    """INCIDENTS with all that a state can have. A text is likely about its first match, and about no other."""
    state = state_of_texts(encoder, {each.incident_id: each.title for each in INCIDENTS})
    return replace(
        fitted_state(state, 2.0),
        dates=[each.date for each in INCIDENTS],
        points=np.array([(each.x, each.y) for each in INCIDENTS], dtype=np.float32),
        source={"kind": "aiid-snapshot", "name": "backup-20261123100000.tar.bz2", "date": "2026-11-23T10:00:00Z"},
        built_at="2026-11-24T06:00:00Z",
    )
