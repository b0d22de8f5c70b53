"""Reads the metrics that Lambdas print, and checks each line against the embedded metric format.

https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html
"""

from __future__ import annotations

import json
import time
from typing import Any

import pytest

from similarity.metrics import NAMESPACE_VARIABLE, Metric

NAMESPACE = "AStack"
UNITS = {
    Metric.TOKENISING_TIME: "Milliseconds",
    Metric.ENCODING_TIME: "Milliseconds",
    Metric.RANKING_TIME: "Milliseconds",
    Metric.STATE_AGE_DAYS: "None",
}


class Printed:
    """The metrics that were printed since the last call of `lines`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        monkeypatch.setenv(NAMESPACE_VARIABLE, NAMESPACE)
        self._capsys = capsys

    def lines(self) -> list[dict[str, Any]]:
        """As `parsed`, of each line."""
        return [parsed(line) for line in self._capsys.readouterr().out.splitlines()]


def parsed(line: str, namespace: str = NAMESPACE) -> dict[str, Any]:
    """Metrics and dimensions of a line, by name."""
    content = json.loads(line)
    about = content.pop("_aws")
    assert set(about) == {"Timestamp", "CloudWatchMetrics"}
    assert abs(about["Timestamp"] / 1000 - time.time()) < 3600
    (directive,) = about["CloudWatchMetrics"]
    assert directive["Namespace"] == namespace
    (dimensions,) = directive["Dimensions"]
    assert all(isinstance(content[name], str) for name in dimensions)
    units = {metric["Name"]: metric["Unit"] for metric in directive["Metrics"]}
    assert units == {name: UNITS.get(Metric(name), "Count") for name in units}
    assert set(content) == {*dimensions, *units}
    return {name: value if name in dimensions else sum(value) for name, value in content.items()}
