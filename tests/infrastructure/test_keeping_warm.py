"""Invoking Lambdas on a schedule."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from stack import DEFAULT, Object, Synthesised, only, synthesise


def warming_rules(synthesised: Synthesised) -> dict[str, Object]:
    """Those that send the event which a handler takes for warming, by id."""
    rules = synthesised.resources("AWS::Events::Rule")
    return {id_: rule for id_, rule in rules.items() if "warm" in str(rule["Properties"]["Targets"][0].get("Input"))}


def rates(synthesised: Synthesised) -> set[str]:
    return {rule["Properties"]["ScheduleExpression"] for rule in warming_rules(synthesised).values()}


def test_every_handler_is_called_once_a_day_or_as_often_as_is_asked_for(
    default: Synthesised, other: Synthesised
) -> None:
    """A function in a VPC that nobody calls for weeks becomes inactive, and the next call fails."""
    assert rates(default) == {"rate(1 day)"}
    assert rates(other) == {"rate(5 minutes)"}


def test_every_handler_is_called_by_a_rule_that_may_invoke_it(each: Synthesised) -> None:
    rules = warming_rules(each)
    warmed = {}
    for id_, rule in rules.items():
        assert rule["Properties"]["State"] == "ENABLED"
        target = only(rule["Properties"]["Targets"])
        assert json.loads(target["Input"]) == {"warm": True}
        warmed[id_] = each.module(target["Arn"]["Fn::GetAtt"][0])
    assert sorted(warmed.values()) == sorted(each.expected)
    may_invoke = {
        found["SourceArn"]["Fn::GetAtt"][0]: each.module(found["FunctionName"]["Fn::GetAtt"][0])
        for found in each.properties("AWS::Lambda::Permission")
        if found["Principal"] == "events.amazonaws.com" and found["SourceArn"]["Fn::GetAtt"][0] in rules
    }
    assert may_invoke == warmed


def test_a_function_kept_warm_every_minute_has_a_rate_that_eventbridge_takes(tmp_path: Path) -> None:
    # "rate(1 minutes)" would be refused.
    assert rates(synthesise(replace(DEFAULT, keep_warm_minutes=1), tmp_path)) == {"rate(1 minute)"}
