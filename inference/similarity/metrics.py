"""Metrics: numbers that a Lambda writes into its log, and CloudWatch reads from there. Their names are in `Metric`.

A metric is a line in CloudWatch's embedded metric format (EMF). It needs no call of an API and no permission:
https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Specification.html

Each combination of dimensions counts as a metric of its own, which AWS bills. So only REQUESTS has dimensions. A metric
never holds a caller's text.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from enum import StrEnum

# powertools' own variable. The stack sets it to its name; without it, as on a laptop, nothing is written.
NAMESPACE_VARIABLE = "POWERTOOLS_METRICS_NAMESPACE"

log = logging.getLogger(__name__)


class Metric(StrEnum):
    """Names in CloudWatch. Without a unit in the comment, it is a count."""

    REQUESTS = "Requests"  # dimensions: Route, Status
    FAILED_ANSWERS = "FailedAnswers"  # those with status 500 or 503, and daily calls of a handler that isn't ready
    TOKENS = "Tokens"  # encoded, of an answer
    TOKENISING_TIME = "TokenisingTime"  # milliseconds
    ENCODING_TIME = "EncodingTime"  # milliseconds
    RANKING_TIME = "RankingTime"  # milliseconds
    COLD_STARTS = "ColdStarts"
    NO_MATCH = "NoMatch"  # answers of which `match` is "none"
    STATES_REFUSED = "StatesRefused"
    REFRESH_FAILURES = "RefreshFailures"
    STATE_AGE_DAYS = "StateAgeDays"  # days since the date of the served state's snapshot


_UNITS = {
    Metric.TOKENISING_TIME: "Milliseconds",
    Metric.ENCODING_TIME: "Milliseconds",
    Metric.RANKING_TIME: "Milliseconds",
    Metric.STATE_AGE_DAYS: "None",
}


def write_metrics(values: Mapping[Metric, float], dimensions: Mapping[str, str] | None = None) -> None:
    """Writes one line of metrics to stdout. Raises nothing: a number is no reason to withhold an answer."""
    namespace = os.environ.get(NAMESPACE_VARIABLE)
    if not namespace or not values:
        return
    try:
        # Not at the top: importing it takes time, and a laptop does without.
        from aws_lambda_powertools.metrics import EphemeralMetrics

        # Without a service: powertools would make it a dimension, and no alarm would find the metric.
        metrics = EphemeralMetrics(namespace=namespace, service="")
        for name, value in (dimensions or {}).items():
            metrics.add_dimension(name, value)
        for metric, number in values.items():
            metrics.add_metric(metric, _UNITS.get(metric, "Count"), number)
        line = json.dumps(metrics.serialize_metric_set(), separators=(",", ":"))
        # In one piece, unlike powertools, because threads write too: CloudWatch takes nothing else beside the object.
        sys.stdout.write(f"{line}\n")
    except Exception:
        # Else nobody would know why no alarm rings.
        with suppress(Exception):
            log.warning("metrics not written", exc_info=True)
