"""Real data of the AI Incident Database: the real model's vectors give the incidents and cosines known for them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import embed_to_db_similar
from build_state import main as build_state
from similarity.service import service
from tiny import AIID_DIR

pytestmark = pytest.mark.skipif(not AIID_DIR.is_dir(), reason="the AI Incident Database's data is not here")

# What the contract gives for incident 1's report.
EXPECTED = [(1, 0.997579), (55, 0.996880), (39, 0.996624)]


@pytest.fixture
def real_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "incident_cls.pt"
    assert build_state([str(AIID_DIR / "state.csv"), "--out", str(path)]) == 0
    monkeypatch.setenv("INCIDENTS_FILENAME", str(path))
    monkeypatch.setenv("MODEL_DIR", str(tmp_path))  # where there is no model that the vectors could be of
    service.cache_clear()
    return path


def test_the_real_embedding_finds_its_incident(real_state: Path) -> None:
    embed = json.loads((AIID_DIR / "embedding_incident_1.json").read_text())["embed"]
    body = embed_to_db_similar.handler({"embed": embed}, None)["body"]
    assert [incident["incident_id"] for incident in body["incidents"]] == [number for number, _ in EXPECTED]
    assert [incident["similarity"] for incident in body["incidents"]] == pytest.approx(
        [cosine for _, cosine in EXPECTED], abs=1e-6
    )
    assert body["best_url"] == "https://incidentdatabase.ai/cite/1"


def test_centering_spreads_the_real_scores(real_state: Path) -> None:
    embed = json.loads((AIID_DIR / "embedding_incident_1.json").read_text())["embed"]
    body = embed_to_db_similar.handler({"embed": embed, "num": 2, "metric": "centered"}, None)["body"]
    first, second = (incident["similarity"] for incident in body["incidents"])
    assert body["incidents"][0]["incident_id"] == 1
    assert (round(first, 2), round(second, 2)) == (0.57, 0.46)
