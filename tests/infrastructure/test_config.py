"""Settings: which there are, their defaults, and what is said of those that can't be."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from infrastructure.config import Config, ConfigError, env_file
from stack import DEFAULT, OTHER, REQUIRED
from tiny import ROOT

OPTIONAL = (
    "NAT_GATEWAY",
    "LAMBDA_MEMORY_MIB",
    "LAMBDA_TIMEOUT_S",
    "LAMBDA_ARCHITECTURE",
    "ALLOWED_ORIGINS",
    "HF_MODEL_URI",
    "ENCODER_ENGINE",
    "ENCODER_PRECISION",
    "KEEP_WARM_MINUTES",
    "MODEL_ON_EFS",
    "REFRESH_HOURS",
    "SNAPSHOTS_URL",
    "STACK_NAME",
    "TAGS",
    "TERMINATION_PROTECTION",
    "THROTTLE_RATE",
    "THROTTLE_BURST",
    "MAX_CONCURRENCY",
    "API_AUTH",
    "DOMAIN_NAME",
    "CERTIFICATE_ARN",
    "ALARMS",
    "ALARM_EMAIL",
    "MAX_STATE_AGE_DAYS",
    "MAX_USD_PER_HOUR",
)


def test_only_account_and_region_are_required() -> None:
    assert Config.from_environment(REQUIRED) == Config(
        account=REQUIRED["AWS_ACCOUNT_ID"],
        region=REQUIRED["AWS_REGION"],
        nat_gateway=False,
        memory_mib=8096,
        timeout_s=600,
        architecture="x86_64",
        allowed_origins=("http://localhost:3000",),
        hf_model_uri="allenai/longformer-base-4096",
        encoder_engine="onnx",
        encoder_precision="float32",
        keep_warm_minutes=0,
        model_on_efs=False,
        refresh_hours=24,
        snapshots_url="https://incidentdatabase.ai/research/snapshots/",
        stack_name="AiidSimilarIncidents",
        tags=(),
        termination_protection=False,
        throttle_rate=10,
        throttle_burst=20,
        max_concurrency=None,
        api_auth="none",
        domain_name="",
        certificate_arn="",
        alarms=True,
        alarm_email="",
        max_state_age_days=14,
        max_usd_per_hour=2,
    )


def test_all_problems_are_told_at_once() -> None:
    wrong = {"AWS_REGION": "Frankfurt", "LAMBDA_MEMORY_MIB": "8 GB", "ALARMS": "no", "THROTTLE_RATE": "5"}
    config, problems = Config.with_problems(wrong)
    assert [problem.split()[0] for problem in problems] == [
        "AWS_ACCOUNT_ID",
        "AWS_REGION",
        "LAMBDA_MEMORY_MIB",
        "ALARMS",
    ]
    assert config == Config(account="", region="", throttle_rate=5)
    with pytest.raises(ConfigError) as caught:
        Config.from_environment(wrong)
    assert str(caught.value).splitlines() == list(problems)


def test_every_setting_can_be_set() -> None:
    environment = {
        "AWS_ACCOUNT_ID": "210987654321",
        "AWS_REGION": "us-gov-west-1",
        "NAT_GATEWAY": "true",
        "LAMBDA_MEMORY_MIB": "3008",
        "LAMBDA_TIMEOUT_S": "30",
        "LAMBDA_ARCHITECTURE": "arm64",
        "ALLOWED_ORIGINS": "https://incidentdatabase.ai,http://localhost:8000",
        "HF_MODEL_URI": "some/model",
        "ENCODER_ENGINE": "torch",
        "ENCODER_PRECISION": "bfloat16",
        "KEEP_WARM_MINUTES": "5",
        "MODEL_ON_EFS": "true",
        "REFRESH_HOURS": "6",
        "SNAPSHOTS_URL": "https://snapshots.example/page",
        "STACK_NAME": "Staging-2",
        "TAGS": " stage=staging, owner=a team ,",
        "TERMINATION_PROTECTION": "true",
        "THROTTLE_RATE": "50",
        "THROTTLE_BURST": "100",
        "MAX_CONCURRENCY": "5",
        "API_AUTH": "iam",
        "DOMAIN_NAME": "similar.example.org",
        "CERTIFICATE_ARN": "arn:aws-us-gov:acm:us-gov-west-1:210987654321:certificate/"
        "01234567-89ab-cdef-0123-456789abcdef",
        "ALARMS": "false",
        "ALARM_EMAIL": "someone@example.org",
        "MAX_STATE_AGE_DAYS": "30",
        "MAX_USD_PER_HOUR": "0.5",
    }
    assert set(environment) == {*REQUIRED, *OPTIONAL}
    assert Config.from_environment(environment) == replace(OTHER, stack_name="Staging-2", alarms=False)


def test_every_setting_is_in_the_example_with_its_default() -> None:
    lines = (ROOT / ".env.example").read_text().splitlines()
    example = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    assert set(example) == {*REQUIRED, *OPTIONAL}
    assert Config.from_environment({**example, **REQUIRED}) == DEFAULT


@pytest.mark.parametrize(
    ("name", "value", "field", "expected"),
    [
        ("AWS_ACCOUNT_ID", " 000000000001 ", "account", "000000000001"),
        ("AWS_REGION", "us-east-1", "region", "us-east-1"),
        ("AWS_REGION", "ap-southeast-4", "region", "ap-southeast-4"),
        ("AWS_REGION", "us-iso-east-1", "region", "us-iso-east-1"),
        ("NAT_GATEWAY", "false", "nat_gateway", False),
        ("LAMBDA_MEMORY_MIB", "128", "memory_mib", 128),
        ("LAMBDA_MEMORY_MIB", "10240", "memory_mib", 10240),
        ("LAMBDA_TIMEOUT_S", "1", "timeout_s", 1),
        ("LAMBDA_TIMEOUT_S", "900", "timeout_s", 900),
        ("LAMBDA_ARCHITECTURE", "x86_64", "architecture", "x86_64"),
        ("ALLOWED_ORIGINS", "https://a.example", "allowed_origins", ("https://a.example",)),
        (
            "ALLOWED_ORIGINS",
            " https://a.example , http://b:1 ,",
            "allowed_origins",
            ("https://a.example", "http://b:1"),
        ),
        ("AWS_REGION", "eusc-de-east-1", "region", "eusc-de-east-1"),
        ("AWS_REGION", "us-isob-east-1", "region", "us-isob-east-1"),
        ("HF_MODEL_URI", "gpt2", "hf_model_uri", "gpt2"),
        ("ENCODER_ENGINE", "onnx", "encoder_engine", "onnx"),
        ("ENCODER_PRECISION", "int8", "encoder_precision", "int8"),
        ("ENCODER_PRECISION", "auto", "encoder_precision", "auto"),
        ("KEEP_WARM_MINUTES", "0", "keep_warm_minutes", 0),
        ("KEEP_WARM_MINUTES", "60", "keep_warm_minutes", 60),
        ("MODEL_ON_EFS", " true ", "model_on_efs", True),
        ("MODEL_ON_EFS", "false", "model_on_efs", False),
        ("REFRESH_HOURS", "0", "refresh_hours", 0),
        ("REFRESH_HOURS", "1", "refresh_hours", 1),
        ("REFRESH_HOURS", "168", "refresh_hours", 168),
        ("SNAPSHOTS_URL", " https://a.example ", "snapshots_url", "https://a.example"),
        ("SNAPSHOTS_URL", "https://a.example:8443/b/?c=d#e", "snapshots_url", "https://a.example:8443/b/?c=d#e"),
        ("STACK_NAME", "A" * 128, "stack_name", "A" * 128),
        ("TAGS", "cost:center/1=42 = x", "tags", (("cost:center/1", "42 = x"),)),
        ("THROTTLE_RATE", "1", "throttle_rate", 1),
        ("THROTTLE_RATE", "10000", "throttle_rate", 10000),
        ("THROTTLE_BURST", "5000", "throttle_burst", 5000),
        ("MAX_CONCURRENCY", "0", "max_concurrency", None),
        ("MAX_CONCURRENCY", "1000", "max_concurrency", 1000),
        ("API_AUTH", "none", "api_auth", "none"),
        ("ALARM_EMAIL", "a+b@c.example", "alarm_email", "a+b@c.example"),
        ("MAX_STATE_AGE_DAYS", "365", "max_state_age_days", 365),
        ("MAX_USD_PER_HOUR", "0.01", "max_usd_per_hour", 0.01),
        ("MAX_USD_PER_HOUR", "1000", "max_usd_per_hour", 1000),
    ],
)
def test_good_values(name: str, value: str, field: str, expected: object) -> None:
    assert getattr(Config.from_environment({**REQUIRED, name: value}), field) == expected


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("AWS_ACCOUNT_ID", "12345678901"),
        ("AWS_ACCOUNT_ID", "1234567890123"),
        ("AWS_ACCOUNT_ID", "1234-5678-9012"),
        ("AWS_ACCOUNT_ID", "١٢٣٤٥٦٧٨٩٠١٢"),
        ("AWS_REGION", "Frankfurt"),
        ("AWS_REGION", "us-east"),
        ("AWS_REGION", "us-east-1a"),
        ("AWS_REGION", "US-EAST-1"),
        ("NAT_GATEWAY", "yes"),
        ("NAT_GATEWAY", "True"),
        ("NAT_GATEWAY", "1"),
        ("LAMBDA_MEMORY_MIB", "127"),
        ("LAMBDA_MEMORY_MIB", "10241"),
        ("LAMBDA_MEMORY_MIB", "8 GB"),
        ("LAMBDA_MEMORY_MIB", "2048.5"),
        ("LAMBDA_MEMORY_MIB", "-2048"),
        ("LAMBDA_MEMORY_MIB", "9" * 5000),
        ("LAMBDA_TIMEOUT_S", "0"),
        ("LAMBDA_TIMEOUT_S", "901"),
        ("LAMBDA_TIMEOUT_S", "10m"),
        ("LAMBDA_ARCHITECTURE", "amd64"),
        ("LAMBDA_ARCHITECTURE", "ARM64"),
        ("ALLOWED_ORIGINS", "*"),
        ("ALLOWED_ORIGINS", "https://*.example"),
        ("ALLOWED_ORIGINS", "incidentdatabase.ai"),
        ("ALLOWED_ORIGINS", "https://incidentdatabase.ai/"),
        ("ALLOWED_ORIGINS", "https://incidentdatabase.ai/discover"),
        ("ALLOWED_ORIGINS", "ftp://incidentdatabase.ai"),
        ("HF_MODEL_URI", "a/b/c"),
        ("HF_MODEL_URI", "some model"),
        ("HF_MODEL_URI", "https://models.example/a"),
        ("ENCODER_ENGINE", "tensorflow"),
        ("ENCODER_ENGINE", "ONNX"),
        ("ENCODER_PRECISION", "bfloat16"),
        ("ENCODER_PRECISION", "fp32"),
        ("ENCODER_PRECISION", "AUTO"),
        ("KEEP_WARM_MINUTES", "61"),
        ("KEEP_WARM_MINUTES", "-1"),
        ("KEEP_WARM_MINUTES", "5m"),
        ("MODEL_ON_EFS", "yes"),
        ("MODEL_ON_EFS", "TRUE"),
        ("MODEL_ON_EFS", "0"),
        ("REFRESH_HOURS", "169"),
        ("REFRESH_HOURS", "-1"),
        ("REFRESH_HOURS", "0.5"),
        ("REFRESH_HOURS", "daily"),
        ("SNAPSHOTS_URL", "http://a.example/"),
        ("SNAPSHOTS_URL", "a.example"),
        ("SNAPSHOTS_URL", "https:///page"),
        ("SNAPSHOTS_URL", "https://a.example/a page"),
        ("STACK_NAME", "1st"),
        ("STACK_NAME", "my_stack"),
        ("STACK_NAME", "Größer"),
        ("STACK_NAME", "A" * 129),
        ("TAGS", "stage"),
        ("TAGS", "=production"),
        ("TAGS", "aws:a=b"),
        ("TAGS", "AWS:a=b"),
        ("TAGS", "a="),
        ("TAGS", "a;b=c"),
        ("TERMINATION_PROTECTION", "on"),
        ("THROTTLE_RATE", "0"),
        ("THROTTLE_RATE", "10001"),
        ("THROTTLE_RATE", "0.5"),
        ("THROTTLE_BURST", "0"),
        ("THROTTLE_BURST", "5001"),
        ("MAX_CONCURRENCY", "-1"),
        ("MAX_CONCURRENCY", "1001"),
        ("API_AUTH", "IAM"),
        ("API_AUTH", "jwt"),
        ("DOMAIN_NAME", "https://a.example.org"),
        ("DOMAIN_NAME", "localhost"),
        ("DOMAIN_NAME", "*.example.org"),
        ("DOMAIN_NAME", "Similar.example.org"),
        ("CERTIFICATE_ARN", "01234567-89ab-cdef-0123-456789abcdef"),
        ("CERTIFICATE_ARN", "arn:aws:iam::123456789012:server-certificate/a"),
        ("ALARMS", "email"),
        ("ALARM_EMAIL", "someone"),
        ("ALARM_EMAIL", "a@b.example,c@d.example"),
        ("MAX_STATE_AGE_DAYS", "0"),
        ("MAX_STATE_AGE_DAYS", "366"),
        ("MAX_USD_PER_HOUR", "0"),
        ("MAX_USD_PER_HOUR", "1001"),
        ("MAX_USD_PER_HOUR", "2e1"),
        ("MAX_USD_PER_HOUR", "$2"),
    ],
)
def test_a_bad_value_is_named_with_its_variable_in_one_line(name: str, value: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Config.from_environment({**REQUIRED, name: value})
    message = str(caught.value)
    assert message.startswith(name)
    assert f'"{value}"' in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ({"DOMAIN_NAME": "a.example.org"}, "go together"),
        ({"CERTIFICATE_ARN": "arn:aws:acm:eu-central-1:123456789012:certificate/a"}, "go together"),
        (
            {
                "DOMAIN_NAME": "a.example.org",
                "CERTIFICATE_ARN": "arn:aws:acm:us-east-1:123456789012:certificate/a",
            },
            "eu-central-1, the API's region, not us-east-1",
        ),
        ({"ENCODER_PRECISION": "bfloat16"}, 'float32, int8 or auto with ENCODER_ENGINE=onnx, not "bfloat16"'),
        (
            {"ENCODER_ENGINE": "torch", "ENCODER_PRECISION": "int8"},
            'float32, bfloat16 or auto with ENCODER_ENGINE=torch, not "int8"',
        ),
        ({"TAGS": "a=1,b=2,a=3"}, 'names "a" twice'),
        ({"TAGS": "Stage=1,b=2,stage=3"}, 'names "stage" twice'),
        ({"TAGS": ",".join(f"name{number}=a" for number in range(48))}, "47 tags at most, not 48"),
    ],
)
def test_settings_that_do_not_fit_each_other_are_refused(names: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Config.from_environment({**REQUIRED, **names})


def test_of_several_origins_the_bad_one_is_named() -> None:
    with pytest.raises(ConfigError, match=r"https://b\.example/path") as caught:
        Config.from_environment({**REQUIRED, "ALLOWED_ORIGINS": "https://a.example,https://b.example/path"})
    assert "https://a.example" not in str(caught.value)


@pytest.mark.parametrize("value", ["*", "https://*", "https://*.example", "https://a.example,*"])
def test_a_wildcard_is_refused_for_the_reason_that_browsers_have(value: str) -> None:
    with pytest.raises(ConfigError, match="the API allows credentials"):
        Config.from_environment({**REQUIRED, "ALLOWED_ORIGINS": value})


def test_an_origin_with_a_path_is_refused_for_another_reason() -> None:
    with pytest.raises(ConfigError, match="without a path") as caught:
        Config.from_environment({**REQUIRED, "ALLOWED_ORIGINS": "https://a.example/"})
    assert "credentials" not in str(caught.value)


@pytest.mark.parametrize("name", REQUIRED)
@pytest.mark.parametrize("value", [None, "", "  "])
def test_a_required_setting_that_is_missing_or_empty_is_named(name: str, value: str | None) -> None:
    for environment in (
        {**REQUIRED, name: value},
        {other_name: REQUIRED[other_name] for other_name in REQUIRED if other_name != name},
    ):
        with pytest.raises(ConfigError, match=f"^{name} is not set"):
            Config.from_environment(environment)


@pytest.mark.parametrize("value", [None, "", "  "])
def test_an_optional_setting_that_is_empty_counts_as_not_set(value: str | None) -> None:
    empty = {**REQUIRED, **dict.fromkeys(OPTIONAL, value)}
    assert Config.from_environment(empty) == DEFAULT


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_a_file_of_settings_may_begin_with_a_byte_order_mark(encoding: str, tmp_path: Path) -> None:
    lines = [f"{name}={value}" for name, value in REQUIRED.items()]
    (tmp_path / ".env").write_text("\n".join([*lines, "# née\n"]), encoding=encoding)
    assert env_file(tmp_path / ".env") == REQUIRED


@pytest.mark.parametrize("line", ['API_AUTH="iam', "API_AUTH='iam\n# it's", "API AUTH=iam"])
def test_a_line_that_cannot_be_read_is_not_passed_over(line: str, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text(f"# a remark\n\nAWS_REGION=eu-west-1\n{line}\n")
    with pytest.raises(ConfigError, match=r"^Line 4 of \.env isn't NAME=value"):
        env_file(tmp_path / ".env")


def test_a_missing_file_or_a_folder_of_that_name_sets_nothing(tmp_path: Path) -> None:
    assert env_file(tmp_path / ".env") == {}
    (tmp_path / ".env").mkdir()
    assert env_file(tmp_path / ".env") == {}
