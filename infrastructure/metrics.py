"""The numbers that alarms and dashboard read: AWS's own, and those that `similarity.metrics` writes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import aws_cdk as cdk
from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_lambda as lambda_

from infrastructure.config import Config

# A GB-second in us-east-1: https://aws.amazon.com/lambda/pricing/
USD_PER_GB_S = {"x86_64": 0.0000166667, "arm64": 0.0000133334}
# Those that one alarm can read: https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/alarm-limits.html
MOST_METRICS = 10
# Counted in the access log, because HTTP APIs have no metric for the status 429.
REFUSED_CALLS = "RefusedCalls"

FIVE_MINUTES, HOUR, DAY = cdk.Duration.minutes(5), cdk.Duration.hours(1), cdk.Duration.days(1)

Functions = Mapping[str, lambda_.Function]


class Metrics:
    """handlers and jobs: by name. A period is five minutes where none is given."""

    def __init__(self, *, api_id: str, handlers: Functions, jobs: Functions, config: Config) -> None:
        self._api_id = api_id
        self._namespace = config.stack_name
        self._usd_per_gb_ms = USD_PER_GB_S[config.architecture] / 1000
        self.handlers = list(handlers.values())
        self.jobs = dict(jobs)
        self.functions = [*self.handlers, *jobs.values()]

    def of_api(self, name: str, statistic: str) -> cloudwatch.Metric:
        """https://docs.aws.amazon.com/apigateway/latest/developerguide/http-api-metrics.html"""
        return cloudwatch.Metric(
            namespace="AWS/ApiGateway",
            metric_name=name,
            dimensions_map={"ApiId": self._api_id},
            statistic=statistic,
            period=FIVE_MINUTES,
        )

    def own(self, name: str, statistic: str, *, period: cdk.Duration = FIVE_MINUTES) -> cloudwatch.Metric:
        return cloudwatch.Metric(
            namespace=self._namespace,
            metric_name=name,
            statistic=statistic,
            period=period,
        )

    def by_dimensions(self, name: str, *dimensions: str) -> cloudwatch.MathExpression:
        """A metric of our own, a line for each combination that there is."""
        schema = ",".join((f'"{self._namespace}"', *dimensions))
        search = f"SEARCH('{{{schema}}} MetricName=\"{name}\"', 'Sum', {FIVE_MINUTES.to_seconds():g})"
        return cloudwatch.MathExpression(expression=search, label="", period=FIVE_MINUTES)

    def throttles(self) -> list[cloudwatch.MathExpression]:
        """The calls of handlers that Lambda refused, added up for as many functions as an alarm can read."""
        return _sums(self.handlers, "Throttles", lambda _: "1", FIVE_MINUTES, "refused")

    def usd(self) -> list[cloudwatch.MathExpression]:
        """What the functions' time costs in an hour, as above."""
        return _sums(self.functions, "Duration", self._usd_per_ms, HOUR, "USD")

    def _usd_per_ms(self, function: lambda_.Function) -> str:
        resource = function.node.default_child
        assert isinstance(resource, lambda_.CfnFunction)
        assert resource.memory_size is not None
        # Without an exponent, which CloudWatch's page doesn't mention.
        return f"{resource.memory_size / 1024 * self._usd_per_gb_ms:.14f}"


def _sums(
    functions: Sequence[lambda_.Function],
    metric: str,
    factor: Callable[[lambda_.Function], str],
    period: cdk.Duration,
    label: str,
) -> list[cloudwatch.MathExpression]:
    sums = []
    for start in range(0, len(functions), MOST_METRICS):
        # No name twice, because a graph shows all sums.
        part = {f"m{start + number}": each for number, each in enumerate(functions[start : start + MOST_METRICS])}
        sums.append(
            cloudwatch.MathExpression(
                # A function that nobody called has no number.
                expression=" + ".join(f"FILL({name}, 0) * {factor(function)}" for name, function in part.items()),
                using_metrics={
                    name: function.metric(metric, statistic="Sum", period=period) for name, function in part.items()
                },
                label=label,
                period=period,
            )
        )
    return sums
