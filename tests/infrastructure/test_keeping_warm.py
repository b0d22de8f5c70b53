"""Invoking Lambdas on a schedule."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from stack import DEFAULT, HANDLERS, Object, Synthesised, only, synthesise


def warming_rules(synthesised: Synthesised) -> dict[str, Object]:
    rules = synthesised.resources("AWS::Events::Rule")
    return {id_: rule for id_, rule in rules.items() if rule["Properties"]["Description"] == "Keeps the Lambda warm"}


def test_by_default_nothing_is_kept_warm(default: Synthesised) -> None:
    assert warming_rules(default) == {}


def test_every_handler_can_be_kept_warm_by_a_rule_that_may_invoke_it(other: Synthesised) -> None:
    rules = warming_rules(other)
    warmed = {}
    for id_, rule in rules.items():
        assert (rule["Properties"]["ScheduleExpression"], rule["Properties"]["State"]) == ("rate(5 minutes)", "ENABLED")
        target = only(rule["Properties"]["Targets"])
        assert json.loads(target["Input"]) == {"warm": True}
        warmed[id_] = other.module(target["Arn"]["Fn::GetAtt"][0])
    assert sorted(warmed.values()) == sorted(HANDLERS)
    may_invoke = {
        found["SourceArn"]["Fn::GetAtt"][0]: other.module(found["FunctionName"]["Fn::GetAtt"][0])
        for found in other.properties("AWS::Lambda::Permission")
        if found["Principal"] == "events.amazonaws.com" and found["SourceArn"]["Fn::GetAtt"][0] in rules
    }
    assert may_invoke == warmed


def test_a_function_kept_warm_every_minute_has_a_rate_that_eventbridge_takes(tmp_path: Path) -> None:
    # "rate(1 minutes)" would be refused.
    synthesised = synthesise(replace(DEFAULT, keep_warm_minutes=1), tmp_path)
    assert {rule["Properties"]["ScheduleExpression"] for rule in warming_rules(synthesised).values()} == {
        "rate(1 minute)"
    }
