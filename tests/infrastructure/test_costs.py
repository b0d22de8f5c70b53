"""The costs that `scripts/costs.py` computes are those of the stack: each number is computed again from the template.

Here stand AWS's list prices of us-east-1 in figures, so that a wrong one in `costing.prices` is found.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from costing.parts import Parts
from costing.ranges import Range
from costing.rows import Costs
from costing.tables import details
from infrastructure.config import Config
from infrastructure.metrics import USD_PER_GB_S
from stack import DEFAULT, OTHER, PAGES, REFRESH, SHELVING, Object, Synthesised, synthesise

WATCHED = "def handler(event, context): ...\n"


@pytest.fixture
def configs() -> dict[str, Config]:
    return {"default": DEFAULT, "other": OTHER}


@pytest.fixture(params=["default", "other"])
def stack(request: pytest.FixtureRequest) -> tuple[Synthesised, Costs]:
    """`other` has arm64, 3,008 MB, a NAT gateway, calls that keep warm, and the model on EFS."""
    synthesised: Synthesised = request.getfixturevalue(request.param)
    return synthesised, costs_of(synthesised, {"default": DEFAULT, "other": OTHER}[request.param])


def costs_of(synthesised: Synthesised, config: Config) -> Costs:
    return Costs(Parts.of(config, synthesised.handlers_dir))


def alarm_metrics(synthesised: Synthesised) -> int:
    """AWS bills each metric that an alarm reads, but not the sum of some."""
    alarms = synthesised.properties("AWS::CloudWatch::Alarm")
    return len([each for alarm in alarms for each in alarm.get("Metrics", [alarm]) if "Expression" not in each])


def require_same_parts(synthesised: Synthesised, costs: Costs) -> None:
    functions, parts = synthesised.functions(), costs.parts
    memory = {module: properties["MemorySize"] for module, properties in functions.items()}
    assert {f"jobs.{name}": mib for name, mib in parts.jobs.items()} == {
        module: mib for module, mib in memory.items() if module.startswith("jobs.")
    }
    assert sorted([*parts.encoding, *parts.light]) == sorted(
        mib for module, mib in memory.items() if not module.startswith("jobs.")
    )
    assert parts.alarm_metrics == alarm_metrics(synthesised)
    gb_s = {"x86_64": 0.0000166667, "arm64": 0.0000133334}
    for properties in functions.values():
        usd = properties["MemorySize"] / 1024 * gb_s[properties["Architectures"][0]]
        assert costs.second(properties["MemorySize"]) == pytest.approx(usd)


def test_the_parts_are_those_of_the_template(stack: tuple[Synthesised, Costs]) -> None:
    require_same_parts(*stack)


@pytest.mark.slow
@pytest.mark.parametrize("changed", [{"alarms": False}, {"refresh_hours": 0}, {"memory_mib": 512}])
def test_they_follow_the_settings(changed: dict[str, object], tmp_path: Path) -> None:
    config = replace(DEFAULT, **changed)  # type: ignore[arg-type]
    synthesised = synthesise(config, tmp_path, eleventh=WATCHED, small=f"MEMORY_MIB = 256\n{WATCHED}")
    costs = costs_of(synthesised, config)
    require_same_parts(synthesised, costs)
    assert costs.parts.handlers == 9
    dashboards = len(synthesised.resources("AWS::CloudWatch::Dashboard"))
    assert costs.dashboard_a_month == Range(0, 3 * dashboards)


@pytest.mark.slow
def test_only_handlers_that_state_no_memory_run_the_model(default: Synthesised) -> None:
    assert costs_of(default, DEFAULT).parts.encoding == (8096, 8096, 8096)
    assert costs_of(default, DEFAULT).parts.light == (1024, 1024, 1024, 1024)


def test_a_page_counts_where_it_is_deployed(stack: tuple[Synthesised, Costs]) -> None:
    synthesised, costs = stack
    pages = [synthesised.functions()[module]["MemorySize"] for module in PAGES & synthesised.expected]
    assert costs.parts.pages == tuple(pages)
    assert ("1,000 requests to the page" in details(costs)) == bool(pages)


def second(properties: Object) -> float:
    mib: int = properties["MemorySize"]
    return mib / 1024 * {"x86_64": 0.0000166667, "arm64": 0.0000133334}[properties["Architectures"][0]]


def test_the_cost_at_rest_follows_from_the_template(default: Synthesised) -> None:
    """A day, in USD. Seconds and sizes are those of docs/deploying.md#costs."""
    functions = default.functions()
    large = [second(each) for each in default.handlers().values() if each["MemorySize"] == 8096]
    small = [second(each) for each in default.handlers().values() if each["MemorySize"] == 1024]
    assert (len(large), len(small)) == (3, 4)
    image = (50 + 75 + 0.93 * 510 + 5) / 1000 * 0.10 / 30
    on_efs = 3 * 0.005 * 0.30 / 30
    bucket = 13 * 0.027 * 0.023 / 30 + 10 * 0.005 / 1000
    # Calls, and 5 MB from EFS for each.
    around = 7 * (0.0000002 + 0.005 * 0.03)
    starts = [sum(large) * low + sum(small) * other + around for low, other in ((0.64, 0.26), (3.0, 3.0))]
    shelving = 5 * second(functions[SHELVING]) + 0.0000002 + 0.015 * 0.03
    refresh = [
        5 * second(functions[REFRESH]) + 0.0000002 + seconds * second(functions[REFRESH]) / 7 for seconds in (60, 900)
    ]
    metrics = [0.0, 3 * 0.30 / 720]
    low, high = (image + on_efs + bucket + shelving + starts[i] + refresh[i] + metrics[i] for i in range(2))
    found = costs_of(default, DEFAULT).at_rest_a_day
    assert (found.low, found.high) == pytest.approx((low, high))


def test_options_cost_what_the_template_has(default: Synthesised, other: Synthesised) -> None:
    config = replace(OTHER, nat_gateway=False)
    without = Costs(Parts.of(config, other.handlers_dir)).at_rest_a_day
    gateways, addresses = (len(other.resources(f"AWS::EC2::{kind}")) for kind in ("NatGateway", "EIP"))
    added = costs_of(other, OTHER).at_rest_a_day.low - without.low
    assert added == pytest.approx(24 * (gateways * 0.045 + addresses * 0.005)) == pytest.approx(1.20)
    for kind in ("NatGateway", "EIP"):
        assert default.resources(f"AWS::EC2::{kind}") == {}

    rules = [each for each in other.properties("AWS::Events::Rule") if each["Description"] == "Keeps the Lambda warm"]
    assert [each["ScheduleExpression"] for each in rules] == 6 * ["rate(5 minutes)"]
    # 3,008 MB are 1.7 of the two CPUs on which 50 ms were measured.
    handlers = other.handlers().values()
    large = sum(0.05 * 3538 / 3008 * second(each) for each in handlers if each["MemorySize"] == 3008)
    small = sum(0.01 * second(each) for each in handlers if each["MemorySize"] == 1024)
    calls = 24 * 60 / 5 * (large + small + 6 * (0.0000002 + 700e-9 * 0.50))
    assert costs_of(other, OTHER).keeping_warm(5).usd_a_day.low == pytest.approx(calls)

    variables = {each["Environment"]["Variables"].get("MODEL_ON_EFS") for each in handlers}
    assert variables == {"true"}
    stored, read = (part.usd_a_day.low for part in costs_of(other, OTHER).model_on_efs())
    assert (stored, read) == pytest.approx((0.51 * 0.30 / 30, 3 * 0.51 * 0.03))


def test_refreshes_cost_as_often_as_they_run(default: Synthesised, other: Synthesised) -> None:
    each = 5 * second(other.functions()[REFRESH]) + 0.0000002
    [rule] = [rule for rule in other.properties("AWS::Events::Rule") if "newest snapshot" in rule["Description"]]
    assert rule["ScheduleExpression"] == "rate(6 hours)"
    weekly = 60 * second(other.functions()[REFRESH]) / 7
    assert costs_of(other, OTHER).refresh_a_day.low == pytest.approx(4 * each + weekly)


def test_the_alarm_counts_with_the_same_price() -> None:
    for architecture, usd in USD_PER_GB_S.items():
        costs = Costs(Parts.of(replace(DEFAULT, architecture=architecture), Path("nowhere")))
        assert costs.second(1024) == usd
