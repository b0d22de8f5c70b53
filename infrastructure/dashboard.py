"""The dashboard: what the service does and costs, on one page."""

from __future__ import annotations

from collections.abc import Sequence

import aws_cdk as cdk
from aws_cdk import aws_cloudwatch as cloudwatch
from constructs import Construct

from infrastructure.metrics import DAY, FIVE_MINUTES, REFUSED_CALLS, Metrics
from similarity.metrics import Metric

_IN_A_ROW = 3
# Of the 24 columns that a page has.
_WIDTH = 24 // _IN_A_ROW


def dashboard(
    scope: Construct, construct_id: str, *, name: str, metrics: Metrics, alarms: Sequence[cloudwatch.IAlarm]
) -> cloudwatch.Dashboard:
    """A graph for each question of the runbook, below the state of all alarms."""
    page = cloudwatch.Dashboard(
        scope,
        construct_id,
        dashboard_name=name,
        default_interval=cdk.Duration.days(7),
        # CloudWatch would choose periods by the length of the view. Then "USD an hour" wouldn't be of an hour.
        period_override=cloudwatch.PeriodOverride.INHERIT,
    )
    page.add_widgets(cloudwatch.AlarmStatusWidget(title="Alarms", alarms=list(alarms), width=24, height=3))
    widgets = [
        cloudwatch.GraphWidget(title=title, left=list(lines), width=_WIDTH) for title, lines in _graphs(metrics).items()
    ]
    for start in range(0, len(widgets), _IN_A_ROW):
        page.add_widgets(*widgets[start : start + _IN_A_ROW])
    return page


def _labelled(metric: cloudwatch.Metric) -> cloudwatch.Metric:
    """CloudWatch would call two statistics of a metric by the same name."""
    return metric.with_(label=f"{metric.metric_name} {metric.statistic}")


def _graphs(metrics: Metrics) -> dict[str, Sequence[cloudwatch.IMetric]]:
    def own(name: str, statistic: str, **options: cdk.Duration) -> cloudwatch.Metric:
        return _labelled(metrics.own(name, statistic, **options))

    def of_api(name: str, statistic: str) -> cloudwatch.Metric:
        return _labelled(metrics.of_api(name, statistic))

    queues = [queue for job in metrics.jobs.values() if (queue := job.dead_letter_queue)]
    return {
        "Answers by route and status": [metrics.by_dimensions(Metric.REQUESTS, "Route", "Status")],
        "Requests to the API, and those with a status of 400 or 500 and more": [
            of_api("Count", "SampleCount"),
            of_api("4xx", "Sum"),
            of_api("5xx", "Sum"),
        ],
        "Refused calls, and failed answers": [own(REFUSED_CALLS, "Sum"), own(Metric.FAILED_ANSWERS, "Sum")],
        "Milliseconds of a request": [of_api("Latency", "p50"), of_api("Latency", "p99")],
        "Milliseconds of each part, p99": [
            own(part, "p99") for part in (Metric.TOKENISING_TIME, Metric.ENCODING_TIME, Metric.RANKING_TIME)
        ],
        "Tokens of a text": [own(Metric.TOKENS, "p50"), own(Metric.TOKENS, "p99")],
        "Cold starts, and texts without a match": [own(Metric.COLD_STARTS, "Sum"), own(Metric.NO_MATCH, "Sum")],
        "Milliseconds of each Lambda, p99": [
            function.metric_duration(statistic="p99", period=FIVE_MINUTES) for function in metrics.functions
        ],
        "Copies of each Lambda at once": [
            function.metric("ConcurrentExecutions", statistic="Maximum") for function in metrics.functions
        ],
        "Calls that Lambda refused": metrics.throttles(),
        "USD an hour": metrics.usd(),
        "Days since the date of the snapshot": [own(Metric.STATE_AGE_DAYS, "Maximum", period=DAY)],
        "States refused, refreshes failed, dead letters": [
            own(Metric.STATES_REFUSED, "Sum"),
            own(Metric.REFRESH_FAILURES, "Sum"),
            *(queue.metric_approximate_number_of_messages_visible(statistic="Maximum") for queue in queues),
        ],
    }
