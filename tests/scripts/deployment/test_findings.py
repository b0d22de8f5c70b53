"""What the checks before a deployment print."""

from __future__ import annotations

import pytest

from deployment.findings import Finding, Outcome, not_checked, note, ok, problem, summary


def test_a_finding_is_a_line() -> None:
    assert str(ok("Docker", "28.1 answers")) == "ok          Docker        28.1 answers"


def test_a_problem_has_its_remedy_below() -> None:
    found = str(problem("Bootstrap", "there is no stack CDKToolkit in eu-west-1", "npx aws-cdk@2 bootstrap"))
    assert found.splitlines() == [
        "problem     Bootstrap     there is no stack CDKToolkit in eu-west-1",
        "                          -> npx aws-cdk@2 bootstrap",
    ]


def test_the_lines_of_a_remedy_are_not_broken_so_that_they_can_be_copied() -> None:
    long = "aws service-quotas request-service-quota-increase " + "--option value " * 10 + "--last"
    found = str(problem("Network", "VPCs: 5 of 5 in use", f"{long}\nor remove one"))
    assert found.splitlines()[1:] == [f"{' ' * 26}-> {long}", f"{' ' * 26}   or remove one"]


@pytest.mark.parametrize(("columns", "widest"), [("80", 80), ("200", 120), ("30", 60)])
def test_lines_fit_the_terminal(columns: str, widest: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    lines = str(ok("Handlers", "word " * 60)).splitlines()
    assert widest - 5 < max(map(len, lines)) <= widest


def test_long_lines_are_wrapped_but_no_word_is_broken() -> None:
    url = "https://example.org/" + "a" * 200
    first, *rest = str(Finding("Model", Outcome.NOTE, "word " * 30 + url)).splitlines()
    assert len(first) <= 120
    assert all(line.startswith(" " * 26) for line in rest)
    assert url in [line.strip() for line in rest]


def test_the_summary_counts() -> None:
    found = [ok("a", "b"), problem("a", "b", "c"), problem("a", "b", "c"), not_checked("a", "b"), note("a", "b")]
    assert summary(found) == "1 ok, 1 note, 1 not checked, 2 problems."
