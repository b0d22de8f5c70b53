"""The check of the settings: good ones, missing and wrong ones, and lines of .env that have no effect."""

from __future__ import annotations

from pathlib import Path

from deployment.findings import Outcome, note, ok, problem
from deployment.given import Given
from deployment.machine.settings import known_settings, settings_findings
from tiny import ROOT

ACCOUNT = {"AWS_ACCOUNT_ID": "123456789012", "AWS_REGION": "eu-west-1"}
ENV = "AWS_ACCOUNT_ID=123456789012\nAWS_REGION=eu-west-1\n"


def given_in(root: Path, **environment: str) -> Given:
    return Given.read(environment, root)


def test_good_settings_are_ok(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(f"{ENV}STACK_NAME=Staging\n")
    assert list(settings_findings(given_in(tmp_path))) == [
        ok("Settings", "account 123456789012, region eu-west-1, stack Staging")
    ]


def test_the_example_names_all_settings_and_no_others() -> None:
    lines = (ROOT / ".env.example").read_text().splitlines()
    assert known_settings() == sorted(line.partition("=")[0] for line in lines if line and not line.startswith("#"))


def test_without_a_file_it_is_copied(tmp_path: Path) -> None:
    found = list(settings_findings(given_in(tmp_path)))
    # Copied once: the second time would take back what was filled in.
    assert found == [
        problem(
            "Settings",
            "AWS_ACCOUNT_ID is not set",
            "cp .env.example .env\nthen put a line like AWS_ACCOUNT_ID=123456789012 into .env",
        ),
        problem("Settings", "AWS_REGION is not set", "put a line like AWS_REGION=us-east-1 into .env"),
    ]


def test_a_file_without_a_line_gets_it(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("AWS_ACCOUNT_ID=123456789012\nAWS_REGION=\n")
    [found] = settings_findings(given_in(tmp_path))
    assert found.remedy == "put a line like AWS_REGION=us-east-1 into .env"
    assert not found.detail.endswith(".")


def test_each_problem_is_a_finding_that_says_where_to_correct_it(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(f'{ENV}THROTTLE_RATE="AWS_REGION"\nTAGS=a\nALARMS=maybe\nDOMAIN_NAME=example.org\n')
    given = Given.read({"ALARMS": "yes", "TAGS": " "}, tmp_path, stack_name="bad name")
    assert {each.detail.split()[0]: each.remedy for each in settings_findings(given)} == {
        "THROTTLE_RATE": "correct THROTTLE_RATE in .env",
        "TAGS": "correct TAGS in .env",
        "ALARMS": "correct ALARMS in the environment, which wins over .env",
        "DOMAIN_NAME": "correct DOMAIN_NAME in .env",
        "STACK_NAME": "correct STACK_NAME in the environment or --stack, which wins over .env",
    }


def test_a_file_that_cannot_be_read_is_one_problem(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(ENV.encode("utf-16"))
    [found] = settings_findings(given_in(tmp_path, **ACCOUNT))
    assert found.detail.startswith(".env is not in UTF-8")
    assert found.remedy == "save .env as a text in UTF-8 that you may read"


def test_a_line_that_nobody_reads_is_a_note_with_the_nearest_name(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(f"{ENV}LAMBDA_MEMORY=3008\nalarm_email=me@example.org\nCOLOUR\n")
    assert [each for each in settings_findings(given_in(tmp_path)) if each.outcome is Outcome.NOTE] == [
        note("Settings", "LAMBDA_MEMORY in .env isn't a setting; did you mean LAMBDA_MEMORY_MIB?"),
        note("Settings", "alarm_email in .env isn't a setting; did you mean ALARM_EMAIL?"),
        note("Settings", "a line of .env has no equals sign, and isn't the name of a setting"),
    ]


def test_a_secret_on_a_line_of_its_own_is_not_printed(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(f"{ENV}wJalrXUtnFEMI/K7MDENG\n")
    assert "wJalr" not in "".join(map(str, settings_findings(given_in(tmp_path))))


def test_variables_of_aws_that_only_the_environment_can_set_are_told(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(f"{ENV}AWS_PROFILE=production\n")
    assert next(iter(settings_findings(given_in(tmp_path)))) == note(
        "Settings", "AWS_PROFILE in .env has no effect", "export AWS_PROFILE=…"
    )


def test_a_line_that_cannot_be_read_is_a_problem_with_its_number(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(f'{ENV}API_AUTH="iam\n')
    [found] = settings_findings(given_in(tmp_path, **ACCOUNT))
    assert found == problem(
        "Settings",
        "Line 3 of .env isn't NAME=value: correct it. A quotation mark may lack the other one",
        "correct that line",
    )


def test_variables_of_the_environment_may_be_anybody_s(tmp_path: Path) -> None:
    assert [each.outcome for each in settings_findings(given_in(tmp_path, **ACCOUNT, LAMBDA_MEMORY="1"))] == [
        Outcome.OK
    ]
