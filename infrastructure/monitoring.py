"""Alarms: what tells people that the service fails, costs too much, or serves an old state. And the dashboard.

`docs/operations.md` has a section for each alarm. AWS bills each metric that an alarm reads, and each dashboard. So
there are few.
"""

from __future__ import annotations

import re

from aws_cdk import aws_cloudwatch as cloudwatch
from aws_cdk import aws_cloudwatch_actions as cloudwatch_actions
from aws_cdk import aws_iam as iam
from aws_cdk import aws_logs as logs
from aws_cdk import aws_sns as sns
from aws_cdk import aws_sns_subscriptions as subscriptions
from constructs import Construct

from infrastructure.build_context import REFRESH_JOB, SHELVING_JOB
from infrastructure.config import Config
from infrastructure.dashboard import dashboard
from infrastructure.metrics import DAY, HOUR, MOST_METRICS, REFUSED_CALLS, Functions, Metrics
from similarity.metrics import Metric

RUNBOOK = "docs/operations.md"

_AT_LEAST = cloudwatch.ComparisonOperator.GREATER_THAN_OR_EQUAL_TO_THRESHOLD
_ABOVE = cloudwatch.ComparisonOperator.GREATER_THAN_THRESHOLD


class Monitoring(Construct):
    """handlers and jobs: by name. access_log: of the API, a line of JSON for each request.

    dashboard_url: where a browser shows the dashboard.
    """

    def __init__(
        self,
        scope: Construct,
        construct_id: str,
        *,
        api_id: str,
        access_log: logs.ILogGroup,
        handlers: Functions,
        jobs: Functions,
        config: Config,
    ) -> None:
        super().__init__(scope, construct_id)
        self._config = config
        self._metrics = Metrics(api_id=api_id, handlers=handlers, jobs=jobs, config=config)
        self._mail = self._mail_to(config.alarm_email) if config.alarm_email else None
        self._alarms: list[cloudwatch.Alarm] = []
        logs.MetricFilter(
            self,
            "RefusedCallsFilter",
            log_group=access_log,
            filter_pattern=logs.FilterPattern.number_value("$.status", "=", 429),
            metric_namespace=config.stack_name,
            metric_name=REFUSED_CALLS,
        )
        self._watch_answers()
        self._watch_jobs()
        self._watch_costs()
        # Unlike all else, a dashboard belongs to no region. One of the same name would take its place:
        # https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/API_PutDashboard.html
        name = f"{config.stack_name}-{config.region}"
        page = dashboard(self, "Dashboard", name=name, metrics=self._metrics, alarms=self._alarms)
        self.dashboard_url = (
            f"https://{_console(config.region)}/cloudwatch/home?region={config.region}#dashboards:name="
            f"{page.dashboard_name}"
        )

    def _mail_to(self, address: str) -> cloudwatch_actions.SnsAction:
        # SNS takes 100 characters. A stack's name may have 128.
        display_name = f"Alarms of {self._config.stack_name}"[:100]
        topic = sns.Topic(self, "Topic", display_name=display_name, enforce_ssl=True)
        # A policy of one's own replaces the one that lets CloudWatch publish.
        topic.add_to_resource_policy(
            iam.PolicyStatement(
                sid="AlarmsMayPublish",
                principals=[iam.ServicePrincipal("cloudwatch.amazonaws.com")],
                actions=["sns:Publish"],
                resources=[topic.topic_arn],
                conditions={"StringEquals": {"aws:SourceAccount": self._config.account}},
            )
        )
        topic.add_subscription(subscriptions.EmailSubscription(address))
        return cloudwatch_actions.SnsAction(topic)

    def _watch_answers(self) -> None:
        metrics = self._metrics
        self._alarm("ApiErrors", "The API answered with a status of 500 or more.", metrics.of_api("5xx", "Sum"), 1)
        self._alarm(
            "FailedAnswers",
            "A handler answered 500 or 503, or failed at its daily call: a fault, or no usable state or model.",
            metrics.own(Metric.FAILED_ANSWERS, "Sum"),
            1,
        )
        # A page that asks many times at once gets some. A caller who doesn't stop gets thousands.
        self._alarm(
            "RefusedCalls",
            "AWS refused 100 requests in 5 minutes with 429, because more came than THROTTLE_RATE allows.",
            metrics.own(REFUSED_CALLS, "Sum"),
            100,
        )
        for number, throttles in enumerate(metrics.throttles()):
            self._alarm(
                "Throttles",
                "Lambda refused calls: more copies are needed than MAX_CONCURRENCY or the account's quota allow.",
                throttles,
                1,
                number=number,
            )
        # Twice, because one slow start would else ring where few call.
        self._alarm(
            "SlowAnswers",
            "One answer in a hundred took more than 20 s. API Gateway gives up after 30 s.",
            metrics.of_api("Latency", "p99"),
            20_000,
            comparison=_ABOVE,
            breaching=2,
        )

    def _watch_jobs(self) -> None:
        metrics, max_days = self._metrics, self._config.max_state_age_days
        for kind, job in (("Shelving", SHELVING_JOB), ("Refresh", REFRESH_JOB)):
            queue = metrics.jobs[job].dead_letter_queue if job in metrics.jobs else None
            if queue is not None:
                self._alarm(
                    f"{kind}DeadLetters",
                    f"The job {job} failed with an event in all tries. The event is in its dead-letter queue.",
                    queue.metric_approximate_number_of_messages_visible(statistic="Maximum"),
                    1,
                    # A queue that nothing uses tells no number after six hours, though messages may lie in it:
                    # https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/sqs-available-cloudwatch-metrics.html
                    periods=1,
                    missing=cloudwatch.TreatMissingData.IGNORE,
                    anchor="dead-letters",
                )
        if REFRESH_JOB not in metrics.jobs:
            return
        self._alarm(
            "RefreshFailures",
            "The job refresh failed, or refused to publish the state that it built.",
            metrics.own(Metric.REFRESH_FAILURES, "Sum", period=HOUR),
            1,
            periods=1,
        )
        if self._config.refresh_hours:
            # A number comes once a day, at no fixed time, and CloudWatch looks at the last two days each time:
            # https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/alarm-evaluation-window.html
            # These have one number at least, and the oldest state of a day counts. So the alarm rings without a break
            # while the state is old, and ends within two days after a newer one, or one that isn't AIID's and has no
            # number.
            self._alarm(
                "OldState",
                f"The snapshot of which the served state was built is older than {max_days} days.",
                metrics.own(Metric.STATE_AGE_DAYS, "Maximum", period=DAY),
                max_days,
                comparison=_ABOVE,
                periods=2,
            )

    def _watch_costs(self) -> None:
        limit, parts = self._config.max_usd_per_hour, self._metrics.usd()
        who = "The Lambdas" if len(parts) == 1 else f"Up to {MOST_METRICS} of the Lambdas, without the others,"
        for number, usd in enumerate(parts):
            meaning = f"{who} cost more than {limit:g} USD in an hour."
            self._alarm("Costs", meaning, usd, limit, comparison=_ABOVE, periods=1, number=number)

    def _alarm(
        self,
        kind: str,
        meaning: str,
        metric: cloudwatch.IMetric,
        threshold: float,
        *,
        comparison: cloudwatch.ComparisonOperator = _AT_LEAST,
        periods: int = 3,
        breaching: int = 1,
        missing: cloudwatch.TreatMissingData = cloudwatch.TreatMissingData.NOT_BREACHING,
        anchor: str = "",
        number: int = 0,
    ) -> None:
        """number: of those of one kind, from 0. anchor: of the runbook; by default the kind's words.

        Of some `periods`, so many `breaching` ones ring. One of three, because numbers may come late:
        https://docs.aws.amazon.com/AmazonCloudWatch/latest/monitoring/CloudWatch_Embedded_Metric_Format_Alarms.html
        And trouble that comes and goes would else send two mails each time.
        """
        anchor = anchor or "-".join(re.findall("[A-Z][a-z]+", kind)).lower()
        name = f"{kind}{number + 1}" if number else kind
        alarm = cloudwatch.Alarm(
            self,
            name,
            alarm_name=f"{self._config.stack_name}-{name}",
            alarm_description=f"{meaning} See {RUNBOOK}#{anchor}",
            metric=metric,
            threshold=threshold,
            comparison_operator=comparison,
            evaluation_periods=periods,
            datapoints_to_alarm=breaching,
            treat_missing_data=missing,
        )
        if self._mail:
            alarm.add_alarm_action(self._mail)
            alarm.add_ok_action(self._mail)
        self._alarms.append(alarm)


def _console(region: str) -> str:
    """The host of AWS's console. GovCloud and China have their own.

    https://docs.aws.amazon.com/general/latest/gr/mgmt-console.html
    """
    for prefix, host in (("us-gov-", "console.amazonaws-us-gov.com"), ("cn-", "console.amazonaws.cn")):
        if region.startswith(prefix):
            return host
    return f"{region}.console.aws.amazon.com"
