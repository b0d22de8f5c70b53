"""What the checks before a deployment print."""

from __future__ import annotations

from deployment.findings import Finding, Outcome, not_checked, note, ok, problem, summary


def test_a_finding_is_a_line() -> None:
    assert str(ok("Docker", "28.1 answers")) == "ok          Docker        28.1 answers"


def test_a_problem_has_its_remedy_below() -> None:
    found = str(problem("Bootstrap", "there is no stack CDKToolkit in eu-west-1", "npx aws-cdk@2 bootstrap"))
    assert found.splitlines() == [
        "problem     Bootstrap     there is no stack CDKToolkit in eu-west-1",
        "                          -> npx aws-cdk@2 bootstrap",
    ]


def test_long_lines_are_wrapped_but_no_word_is_broken() -> None:
    url = "https://example.org/" + "a" * 200
    first, *rest = str(Finding("Model", Outcome.NOTE, "word " * 30 + url)).splitlines()
    assert len(first) <= 120
    assert all(line.startswith(" " * 26) for line in rest)
    assert url in [line.strip() for line in rest]


def test_the_summary_counts() -> None:
    found = [ok("a", "b"), problem("a", "b", "c"), problem("a", "b", "c"), not_checked("a", "b"), note("a", "b")]
    assert summary(found) == "1 ok, 1 note, 1 not checked, 2 problems."
