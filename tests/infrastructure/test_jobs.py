"""The jobs that use the inbox: what invokes them, and what becomes of an event with which they fail."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from stack import DEFAULT, REFRESH, SHELVING, Object, Synthesised, only, synthesise, synthesise_from


def rules(synthesised: Synthesised) -> dict[str, Object]:
    """Properties of the rules that invoke jobs, by id."""
    found = synthesised.resources("AWS::Events::Rule")
    properties = {id_: rule["Properties"] for id_, rule in found.items()}
    return {id_: rule for id_, rule in properties.items() if invoked(synthesised, rule) in (SHELVING, REFRESH)}


def invoked(synthesised: Synthesised, rule: Object) -> str:
    """The module of the function that a rule invokes."""
    return synthesised.module(only(rule["Targets"])["Arn"]["Fn::GetAtt"][0])


def schedules(synthesised: Synthesised) -> set[tuple[str, str]]:
    return {
        (invoked(synthesised, rule), rule["ScheduleExpression"])
        for rule in rules(synthesised).values()
        if "ScheduleExpression" in rule
    }


def test_a_new_state_in_this_bucket_invokes_the_shelving_job_and_nothing_else_does(each: Synthesised) -> None:
    (bucket,) = each.resources("AWS::S3::Bucket")
    rule = only([rule for rule in rules(each).values() if "EventPattern" in rule])
    assert invoked(each, rule) == SHELVING
    # Other keys are written by the job itself: it would invoke itself without end.
    assert rule["EventPattern"] == {
        "source": ["aws.s3"],
        "detail-type": ["Object Created"],
        "detail": {"bucket": {"name": [{"Ref": bucket}]}, "object": {"key": ["states/incident_cls.pt"]}},
    }


def test_the_shelving_job_runs_every_day_and_the_refresh_job_as_often_as_asked_for(
    default: Synthesised, other: Synthesised
) -> None:
    assert schedules(default) == {(SHELVING, "rate(1 day)"), (REFRESH, "rate(1 day)")}
    assert schedules(other) == {(SHELVING, "rate(1 day)"), (REFRESH, "rate(6 hours)")}


@pytest.mark.slow
@pytest.mark.parametrize(("hours", "rate"), [(1, "rate(1 hour)"), (168, "rate(7 days)"), (36, "rate(36 hours)")])
def test_a_pause_is_a_rate_that_eventbridge_takes(hours: int, rate: str, tmp_path: Path) -> None:
    # "rate(1 hours)" would be refused.
    synthesised = synthesise(replace(DEFAULT, refresh_hours=hours), tmp_path)
    assert (REFRESH, rate) in schedules(synthesised)


def test_without_a_schedule_the_refresh_job_is_there_to_be_invoked_by_hand(
    default: Synthesised, tmp_path: Path
) -> None:
    synthesised = synthesise(replace(DEFAULT, refresh_hours=0), tmp_path)
    assert schedules(synthesised) == {(SHELVING, "rate(1 day)")}
    assert synthesised.functions()[REFRESH] == default.functions()[REFRESH]


def test_every_rule_is_on_hands_its_event_over_and_may_invoke_its_job(each: Synthesised) -> None:
    may_invoke = {
        found["SourceArn"]["Fn::GetAtt"][0]: each.module(found["FunctionName"]["Fn::GetAtt"][0])
        for found in each.properties("AWS::Lambda::Permission")
        if found["Principal"] == "events.amazonaws.com"
    }
    assert len(rules(each)) == 3
    for id_, rule in rules(each).items():
        assert rule["State"] == "ENABLED"
        # An empty event would be a deployment's.
        assert set(only(rule["Targets"])) == {"Arn", "Id"}
        assert may_invoke[id_] == invoked(each, rule)


def test_an_event_with_which_a_job_fails_is_tried_again_and_then_kept(each: Synthesised) -> None:
    functions = {each.module(id_): (id_, found["Properties"]) for id_, found in each.image_functions().items()}
    tries = {
        found["FunctionName"]["Ref"]: (found["Qualifier"], found["MaximumRetryAttempts"])
        for found in each.properties("AWS::Lambda::EventInvokeConfig")
    }
    assert tries == {functions[job][0]: ("$LATEST", 2) for job in (SHELVING, REFRESH)}
    queues = {
        module: properties["DeadLetterConfig"]["TargetArn"]["Fn::GetAtt"][0]
        for module, (_, properties) in functions.items()
        if "DeadLetterConfig" in properties
    }
    # A dead letter doesn't say which function it is from.
    assert set(queues) == {SHELVING, REFRESH}
    assert sorted(queues.values()) == sorted(each.resources("AWS::SQS::Queue"))
    for module, queue in queues.items():
        may_send = [found for found in each.statements(functions[module][1]) if "sqs:" in str(found["Action"])]
        assert may_send == [
            {"Effect": "Allow", "Action": "sqs:SendMessage", "Resource": {"Fn::GetAtt": [queue, "Arn"]}}
        ]


def test_the_queues_are_encrypted_keep_events_for_14_days_and_are_reached_by_tls_only(each: Synthesised) -> None:
    policies = {only(found["Queues"])["Ref"]: found for found in each.properties("AWS::SQS::QueuePolicy")}
    assert set(policies) == set(each.resources("AWS::SQS::Queue"))
    for id_, queue in each.resources("AWS::SQS::Queue").items():
        assert queue["Properties"] == {"SqsManagedSseEnabled": True, "MessageRetentionPeriod": 14 * 24 * 60 * 60}
        statement = only(policies[id_]["PolicyDocument"]["Statement"])
        assert (statement["Effect"], statement["Action"]) == ("Deny", "sqs:*")
        assert statement["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}


def test_the_refresh_job_has_room_for_a_snapshot_and_the_store(each: Synthesised) -> None:
    sizes = {module: found.get("EphemeralStorage", {}).get("Size") for module, found in each.functions().items()}
    assert sizes.pop(REFRESH) == 2048
    assert set(sizes.values()) == {None}


def test_the_refresh_job_has_the_memory_of_the_stack(default: Synthesised, other: Synthesised) -> None:
    assert default.functions()[REFRESH]["MemorySize"] == 8096
    assert other.functions()[REFRESH]["MemorySize"] == 3008


@pytest.mark.slow
def test_a_project_without_the_refresh_job_has_no_rule_for_it(tmp_path: Path) -> None:
    synthesised = synthesise(DEFAULT, tmp_path)
    (synthesised.handlers_dir / "jobs" / "refresh.py").unlink()
    again = synthesise_from(synthesised.handlers_dir, tmp_path / "again")
    assert REFRESH not in again.functions()
    assert schedules(again) == {(SHELVING, "rate(1 day)")}
