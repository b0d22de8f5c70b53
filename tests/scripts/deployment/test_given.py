"""The settings of a deployment: those that `app.py` reads, also if some are wrong."""

from __future__ import annotations

from pathlib import Path

from deployment.given import Given

ACCOUNT = {"AWS_ACCOUNT_ID": "123456789012", "AWS_REGION": "eu-west-1"}


def test_the_environment_wins_over_the_file_and_an_argument_over_both(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("STACK_NAME=Filed\nLAMBDA_MEMORY_MIB=3008\nAWS_REGION=us-east-1\n")
    given = Given.read({**ACCOUNT, "STACK_NAME": "Set", "LAMBDA_MEMORY_MIB": " "}, tmp_path)
    assert (given.config.region, given.config.memory_mib, given.config.stack_name) == ("eu-west-1", 3008, "Set")
    assert given.problems == ()
    assert Given.read(ACCOUNT, tmp_path, "Named").config.stack_name == "Named"


def test_nothing_is_set(tmp_path: Path) -> None:
    given = Given.read({}, tmp_path)
    assert (given.config.account, given.config.region) == ("", "")
    assert [problem.split()[0] for problem in given.problems] == ["AWS_ACCOUNT_ID", "AWS_REGION"]


def test_a_file_that_cannot_be_read_is_a_problem(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes("AWS_REGION=eu-west-1\n".encode("utf-16"))
    assert Given.read(ACCOUNT, tmp_path).problems == (
        ".env is not in UTF-8: save it as UTF-8 (Windows PowerShell writes UTF-16).",
    )
