"""Alarms, the mail about them, and the dashboard."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from infrastructure.metrics import MOST_METRICS, REFUSED_CALLS
from similarity.metrics import NAMESPACE_VARIABLE, Metric
from stack import DEFAULT, HANDLERS, JOBS, OTHER, REFRESH, SHELVING, Object, Synthesised, only, synthesise

NAMESPACE = "AiidSimilarIncidents"
HANDLER = "def handler(event, context): ...\n"

# Name -> metric or functions, statistic, seconds of a period, comparison and threshold, data points of periods.
OF_API = {"ApiErrors": "5xx", "SlowAnswers": "Latency"}
OWN = {
    "FailedAnswers": Metric.FAILED_ANSWERS,
    "RefusedCalls": REFUSED_CALLS,
    "RefreshFailures": Metric.REFRESH_FAILURES,
    "OldState": Metric.STATE_AGE_DAYS,
}
QUEUES = {"ShelvingDeadLetters": SHELVING, "RefreshDeadLetters": REFRESH}
SUMS = {"Throttles": ("Throttles", HANDLERS), "Costs": ("Duration", HANDLERS | JOBS)}


def alarms(synthesised: Synthesised) -> dict[str, Object]:
    """Properties by name, without the stack's name before it."""
    found = synthesised.properties("AWS::CloudWatch::Alarm")
    return {alarm["AlarmName"].removeprefix(f"{NAMESPACE}-"): alarm for alarm in found}


def rule(alarm: Object) -> tuple[str, float, int, int]:
    """When it rings: comparison, threshold, and how many of how many periods."""
    periods: int = alarm["EvaluationPeriods"]
    return alarm["ComparisonOperator"], alarm["Threshold"], alarm.get("DatapointsToAlarm") or periods, periods


def test_there_is_an_alarm_for_each_trouble(each: Synthesised) -> None:
    assert set(alarms(each)) == {*OF_API, *OWN, *QUEUES, *SUMS}


def test_alarms_watch_this_api(each: Synthesised) -> None:
    (api,) = each.resources("AWS::ApiGatewayV2::Api")
    for name, metric in OF_API.items():
        alarm = alarms(each)[name]
        assert (alarm["Namespace"], alarm["MetricName"]) == ("AWS/ApiGateway", metric)
        assert alarm["Dimensions"] == [{"Name": "ApiId", "Value": {"Ref": api}}]


def test_alarms_read_the_metrics_that_the_functions_write(each: Synthesised) -> None:
    namespaces = {f["Environment"]["Variables"][NAMESPACE_VARIABLE] for f in each.functions().values()}
    assert namespaces == {NAMESPACE}
    for name, metric in OWN.items():
        alarm = alarms(each)[name]
        assert (alarm["Namespace"], alarm["MetricName"]) == (NAMESPACE, metric)
        # Those that alarms read are written without dimensions.
        assert "Dimensions" not in alarm


def test_alarms_watch_the_queues_of_both_jobs(each: Synthesised) -> None:
    for name, module in QUEUES.items():
        alarm = alarms(each)[name]
        queue = each.functions()[module]["DeadLetterConfig"]["TargetArn"]["Fn::GetAtt"][0]
        assert (alarm["Namespace"], alarm["MetricName"]) == ("AWS/SQS", "ApproximateNumberOfMessagesVisible")
        assert alarm["Dimensions"] == [{"Name": "QueueName", "Value": {"Fn::GetAtt": [queue, "QueueName"]}}]


def test_each_alarm_rings_when_it_should(default: Synthesised, other: Synthesised) -> None:
    at_least, above = "GreaterThanOrEqualToThreshold", "GreaterThanThreshold"
    expected: dict[str, tuple[str, float, int, int]] = {
        "ApiErrors": (at_least, 1, 1, 3),
        "FailedAnswers": (at_least, 1, 1, 3),
        "RefusedCalls": (at_least, 100, 1, 3),
        "Throttles": (at_least, 1, 1, 3),
        "SlowAnswers": (above, 20_000, 2, 3),
        "ShelvingDeadLetters": (at_least, 1, 1, 1),
        "RefreshDeadLetters": (at_least, 1, 1, 1),
        "RefreshFailures": (at_least, 1, 1, 1),
        "OldState": (above, 14, 1, 2),
        "Costs": (above, 2, 1, 1),
    }
    assert {name: rule(alarm) for name, alarm in alarms(default).items()} == expected
    expected |= {"OldState": (above, 30, 1, 2), "Costs": (above, 0.5, 1, 1)}
    assert {name: rule(alarm) for name, alarm in alarms(other).items()} == expected


def test_silence_rings_no_alarm_but_one_for_a_queue_goes_on(each: Synthesised) -> None:
    for name, alarm in alarms(each).items():
        assert alarm["TreatMissingData"] == ("ignore" if name in QUEUES else "notBreaching")


HOUR, DAY = 3600, 24 * 3600
# When the ages were written: once a day, up to an hour early or late, and once more for a new state after 20 days.
AGES = [(number * DAY + late * HOUR, number + 1.0) for number, late in zip(range(20), [0, 1, -1, 0.5] * 5, strict=True)]
NEW = 19 * DAY + 9 * HOUR
AGES += [(NEW, 2.0), *((NEW + number * DAY, 2.0 + number) for number in range(1, 6))]


def rings(alarm: Object, now_s: float, ages: list[tuple[float, float]]) -> bool:
    """As CloudWatch decides at a time, with windows that end then."""
    choose = {"Minimum": min, "Maximum": max}[alarm["Statistic"]]
    breaching = 0
    for period in range(alarm["EvaluationPeriods"]):
        end = now_s - period * alarm["Period"]
        there = [age for at, age in ages if end - alarm["Period"] < at <= end]
        # Nothing doesn't breach.
        breaching += int(bool(there) and choose(there) > alarm["Threshold"])
    return bool(breaching >= alarm["DatapointsToAlarm"])


def hours_of_ringing(alarm: Object, ages: list[tuple[float, float]]) -> list[float]:
    return [hour for hour in range(2 * 24, 26 * 24) if rings(alarm, hour * HOUR, ages)]


def test_an_old_state_rings_without_a_break_until_two_days_after_a_newer_one(default: Synthesised) -> None:
    alarm = alarms(default)["OldState"]
    hours = hours_of_ringing(alarm, AGES)
    # From the first number above 14, which is the 15th.
    assert 0 <= hours[0] * HOUR - AGES[14][0] < HOUR
    assert hours == list(range(int(hours[0]), int(hours[-1]) + 1))
    assert NEW < hours[-1] * HOUR < NEW + 2 * DAY


def test_an_old_state_does_not_ring_for_ever_if_data_of_one_s_own_takes_its_place(default: Synthesised) -> None:
    alarm = alarms(default)["OldState"]
    hours = hours_of_ringing(alarm, AGES[:20])
    assert hours == list(range(int(hours[0]), int(hours[-1]) + 1))
    assert hours[-1] * HOUR < AGES[19][0] + 2 * DAY


def test_without_a_schedule_of_the_refresh_no_alarm_says_that_the_state_is_old(tmp_path: Path) -> None:
    assert "OldState" not in alarms(synthesise(replace(DEFAULT, refresh_hours=0), tmp_path))


def terms(alarm: Object, synthesised: Synthesised) -> dict[str, tuple[str, float]]:
    """Of a sum over functions: metric and factor, by module."""
    *metrics, expression = sorted(alarm["Metrics"], key=lambda part: "Expression" in part)
    assert expression["ReturnData"] is not False
    written = re.findall(r"FILL\((\w+), 0\) \* ([0-9.]+)", expression["Expression"])
    assert expression["Expression"] == " + ".join(f"FILL({name}, 0) * {factor}" for name, factor in written)
    factors = {name: float(factor) for name, factor in written}
    found = {}
    for part in metrics:
        assert part["ReturnData"] is False
        metric = part["MetricStat"]["Metric"]
        assert (metric["Namespace"], part["MetricStat"]["Stat"]) == ("AWS/Lambda", "Sum")
        function = only(metric["Dimensions"])["Value"]["Ref"]
        found[synthesised.module(function)] = (metric["MetricName"], factors.pop(part["Id"]))
    assert factors == {}
    return found


def test_refused_calls_of_all_route_s_functions_are_added_up(each: Synthesised) -> None:
    assert terms(alarms(each)["Throttles"], each) == dict.fromkeys(each.expected, ("Throttles", 1.0))


def test_an_hour_s_price_is_that_of_the_memory_and_the_milliseconds_of_all_functions(
    default: Synthesised, other: Synthesised
) -> None:
    # https://aws.amazon.com/lambda/pricing/: a GB-second on x86 and on arm64.
    for synthesised, price in ((default, 0.0000166667), (other, 0.0000133334)):
        found = terms(alarms(synthesised)["Costs"], synthesised)
        assert {metric for metric, _ in found.values()} == {"Duration"}
        assert set(found) == synthesised.expected | JOBS
        # Each function runs for 1,000 s in an hour.
        usd = sum(factor * 1_000_000 for _, factor in found.values())
        gb = sum(function["MemorySize"] for function in synthesised.functions().values()) / 1024
        assert usd == pytest.approx(gb * 1000 * price, rel=1e-4)
        assert {part["MetricStat"]["Period"] for part in _stats(alarms(synthesised)["Costs"])} == {3600}


def _stats(alarm: Object) -> list[Object]:
    return [part for part in alarm["Metrics"] if "MetricStat" in part]


@pytest.mark.slow
def test_more_functions_than_an_alarm_can_read_have_a_further_alarm(tmp_path: Path) -> None:
    more = {f"handler_{number}": HANDLER for number in range(MOST_METRICS)}
    synthesised = synthesise(DEFAULT, tmp_path, **more)
    found = alarms(synthesised)
    for name, (_, functions) in SUMS.items():
        parts = [found[name], found[f"{name}2"]]
        modules = [terms(part, synthesised).keys() for part in parts]
        assert not modules[0] & modules[1]
        assert modules[0] | modules[1] == functions | set(more)
        assert all(len(_stats(part)) <= MOST_METRICS for part in parts)
        assert rule(parts[0]) == rule(parts[1])
        assert parts[0]["AlarmDescription"] == parts[1]["AlarmDescription"]
    assert "Up to 10 of the Lambdas" in found["Costs"]["AlarmDescription"]


def test_calls_that_the_api_refused_are_counted_in_its_access_log(each: Synthesised) -> None:
    counted = only(each.properties("AWS::Logs::MetricFilter"))
    stage = only(each.properties("AWS::ApiGatewayV2::Stage"))
    assert counted["LogGroupName"]["Ref"] == stage["AccessLogSettings"]["DestinationArn"]["Fn::GetAtt"][0]
    assert counted["FilterPattern"] == "{ $.status = 429 }"
    # A number there: the pattern doesn't fit a string.
    assert '"status":$context.status,' in stage["AccessLogSettings"]["Format"]
    assert counted["MetricTransformations"] == [
        {"MetricNamespace": NAMESPACE, "MetricName": REFUSED_CALLS, "MetricValue": "1"}
    ]


def test_alarms_cost_what_the_page_says(default: Synthesised, other: Synthesised) -> None:
    """AWS bills each metric that an alarm reads. docs/deploying.md names the number. The other stack has no page."""
    for synthesised, metrics in ((default, 24), (other, 22)):
        found = alarms(synthesised).values()
        assert sum(len(_stats(alarm)) if "Metrics" in alarm else 1 for alarm in found) == metrics


def test_nobody_is_told_without_an_address(default: Synthesised) -> None:
    default.template.resource_count_is("AWS::SNS::Topic", 0)
    for alarm in alarms(default).values():
        assert "AlarmActions" not in alarm


def test_an_address_is_told_of_each_alarm_and_of_its_end(other: Synthesised) -> None:
    (topic,) = other.resources("AWS::SNS::Topic")
    for alarm in alarms(other).values():
        assert alarm["AlarmActions"] == alarm["OKActions"] == [{"Ref": topic}]
    subscription = only(other.properties("AWS::SNS::Subscription"))
    assert (subscription["Protocol"], subscription["Endpoint"]) == ("email", "someone@example.org")


def test_cloudwatch_of_this_account_may_publish_and_only_with_tls(other: Synthesised) -> None:
    policy = only(other.properties("AWS::SNS::TopicPolicy"))
    by_effect = {found["Effect"]: found for found in policy["PolicyDocument"]["Statement"]}
    allowed, denied = by_effect["Allow"], by_effect["Deny"]
    assert len(policy["PolicyDocument"]["Statement"]) == 2
    assert allowed["Principal"] == {"Service": "cloudwatch.amazonaws.com"}
    assert allowed["Condition"] == {"StringEquals": {"aws:SourceAccount": OTHER.account}}
    assert denied["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
    assert {allowed["Action"], denied["Action"]} == {"sns:Publish"}


@pytest.mark.slow
def test_what_is_called_by_the_stack_is_not_called_too_long_by_the_longest_one(tmp_path: Path) -> None:
    name = "A" * 128
    synthesised = synthesise(replace(OTHER, stack_name=name), tmp_path)
    # https://docs.aws.amazon.com/sns/latest/dg/sns-create-topic.html
    display_name = only(synthesised.properties("AWS::SNS::Topic"))["DisplayName"]
    assert display_name.startswith("Alarms of A")
    assert len(display_name) <= 100
    for kind, property_ in (("Alarm", "AlarmName"), ("Dashboard", "DashboardName")):
        for found in synthesised.properties(f"AWS::CloudWatch::{kind}"):
            assert found[property_].startswith(f"{name}-")
            assert len(found[property_]) <= 255


@pytest.mark.slow
def test_without_alarms_there_is_no_dashboard_and_no_filter_either(tmp_path: Path) -> None:
    synthesised = synthesise(replace(OTHER, alarms=False), tmp_path)
    for kind in ("CloudWatch::Alarm", "CloudWatch::Dashboard", "SNS::Topic", "Logs::MetricFilter"):
        synthesised.template.resource_count_is(f"AWS::{kind}", 0)
    assert synthesised.template.find_outputs("dashboardUrl") == {}


def body(synthesised: Synthesised) -> Any:
    """The dashboard as CloudWatch gets it, with logical ids in the place of references."""
    parts = only(synthesised.properties("AWS::CloudWatch::Dashboard"))["DashboardBody"]["Fn::Join"][1]
    return json.loads("".join(part if isinstance(part, str) else str(list(part.values())[0]) for part in parts))  # noqa: RUF015


def test_the_dashboard_shows_all_alarms_and_every_metric_of_our_own(each: Synthesised) -> None:
    alarm_widget, *graphs = body(each)["widgets"]
    assert len(alarm_widget["properties"]["alarms"]) == len(alarms(each))
    lines = [line for graph in graphs for line in graph["properties"]["metrics"]]
    shown = {line[1] for line in lines if line[0] == NAMESPACE}
    searches = [line[0]["expression"] for line in lines if isinstance(line[0], dict) and "expression" in line[0]]
    search = f"SEARCH('{{\"{NAMESPACE}\",Route,Status}} MetricName=\"{Metric.REQUESTS}\"', 'Sum', 300)"
    assert search in searches
    assert shown == {*Metric, REFUSED_CALLS} - {Metric.REQUESTS}


def test_the_dashboard_has_the_form_that_cloudwatch_reads(each: Synthesised) -> None:
    # https://docs.aws.amazon.com/AmazonCloudWatch/latest/APIReference/CloudWatch-Dashboard-Body-Structure.html
    # Else the periods would depend on the length of the view.
    assert body(each)["periodOverride"] == "inherit"
    widgets = body(each)["widgets"]
    taken: set[tuple[int, int]] = set()
    for widget in widgets:
        assert widget["type"] in ("metric", "alarm")
        assert widget["properties"]["title"]
        cells = {
            (widget["x"] + column, widget["y"] + row)
            for column in range(widget["width"])
            for row in range(widget["height"])
        }
        assert max(column for column, _ in cells) < 24
        assert not cells & taken
        taken |= cells
    titles = [widget["properties"]["title"] for widget in widgets]
    assert len(set(titles)) == len(titles)
    for widget in widgets[1:]:
        assert widget["properties"]["metrics"]
        assert widget["properties"]["region"]


def test_a_dashboard_has_the_region_in_its_name_because_an_account_has_one_of_a_name(
    default: Synthesised, other: Synthesised
) -> None:
    for synthesised, config in ((default, DEFAULT), (other, OTHER)):
        dashboard = only(synthesised.properties("AWS::CloudWatch::Dashboard"))
        assert dashboard["DashboardName"] == f"{NAMESPACE}-{config.region}"


def test_the_dashboard_s_address_is_put_out(default: Synthesised, other: Synthesised) -> None:
    consoles = ["eu-central-1.console.aws.amazon.com", "console.amazonaws-us-gov.com"]
    for synthesised, console, config in zip((default, other), consoles, (DEFAULT, OTHER), strict=True):
        (output,) = synthesised.template.find_outputs("dashboardUrl").values()
        start, dashboard = output["Value"]["Fn::Join"][1]
        assert start == f"https://{console}/cloudwatch/home?region={config.region}#dashboards:name="
        (id_,) = synthesised.resources("AWS::CloudWatch::Dashboard")
        assert dashboard == {"Ref": id_}
