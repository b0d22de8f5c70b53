"""`scripts/costs.py`: its output is what README and docs show, and it follows the settings of a deployment."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

import costs
from costing import prices, usage
from costing.parts import Parts
from costing.ranges import usd
from costing.rows import Costs, at_rest
from costing.tables import details, price_list, summary
from infrastructure.config import Config
from pages import DEPLOYING, DOCS, OPERATIONS, README, SHELF, spans, table, text_of
from tiny import copy_inference

DEFAULT = Config(account="", region="")
SETTINGS = ("AWS_ACCOUNT_ID", "AWS_REGION", "LAMBDA_MEMORY_MIB", "ALARMS", "THROTTLE_RATE", "MAX_CONCURRENCY")


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder without a model and without .env, and no settings."""
    copy_inference(tmp_path / "inference")
    monkeypatch.setattr(costs, "ROOT", tmp_path)
    monkeypatch.setattr(costs, "INFERENCE_DIR", tmp_path / "inference")
    for name in SETTINGS:
        monkeypatch.delenv(name, raising=False)
    return tmp_path


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[str]:
    """The blocks: heading, tables, notes."""
    assert costs.main(list(arguments)) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return out.rstrip("\n").split("\n\n")


def default(project: Path) -> Costs:
    return Costs(Parts.of(DEFAULT, project / "inference"))


def section(page: Path) -> str:
    _, _, found = text_of(page).partition("\n## Costs\n")
    return found.partition("\n## ")[0]


def tables_in(text: str) -> list[str]:
    return [found.rstrip("\n") for found in re.findall(r"^(?:\|.*\n)+", text, re.MULTILINE)]


def test_the_table_in_readme_is_the_output(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, found = printed(capsys)
    assert tables_in(section(README)) == [found]
    assert len(found.splitlines()) <= 14


def test_the_tables_of_the_page_are_the_output(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, _, parts, prices = printed(capsys, "--all")
    prose = re.sub(r"^```.*?^```$", "", section(DEPLOYING), flags=re.MULTILINE | re.DOTALL)
    assert tables_in(prose) == [parts, prices]


def test_the_month_on_the_page_is_the_output(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    [(arguments, shown)] = re.findall(r"^\$ python scripts/costs.py (.*)\n…\n((?:\|.*\n)+)", section(DEPLOYING), re.M)
    _, found = printed(capsys, *arguments.split())
    assert found.splitlines()[-3:] == shown.splitlines()


def test_the_lower_prices_on_the_page_follow(project: Path) -> None:
    for settings, *shown in table(DEPLOYING, "| settings | 40 tokens | 700 tokens | 4,096 tokens |"):
        config, _ = Config.with_problems(dict(setting.split("=") for setting in spans(settings)))
        parts = Parts.of(config, project / "inference")
        if config.encoder_precision == "auto":  # for a model that agrees
            parts = replace(parts, precision="int8")
        assert shown == [str(Costs(parts).requests(1000, tokens)) for tokens in (40, 700, 4096)], settings


def test_the_arithmetic_of_the_lower_price_is_right() -> None:
    """By hand, from the seconds of docs/speed.md and AWS's prices."""
    [rows] = [table(DEPLOYING, "| 700 tokens on x86_64 | CPU seconds | Lambda | API, call, logs | all |")]
    a_cpu_second = 1769 / 1024 * 0.0000166667
    around = 1000 * (0.0000002 + 0.000001 + 1800e-9 * 0.50)
    measured = [2 * usage.answer_s(700, "onnx").low, 2 * usage.answer_s(700, "onnx", "int8").low]
    *two_cpus, one_thread = rows
    for (name, cpu_s, *shown), seconds in zip(two_cpus, measured, strict=True):
        assert name in ("float32", "int8")
        assert cpu_s == f"{seconds:.2f}"
        usd_of_lambda = 1000 * seconds * a_cpu_second
        assert shown == [f"${usd:.4f}" for usd in (usd_of_lambda, around, usd_of_lambda + around)]
    # A range, from its seconds.
    name, cpu_s, *shown = one_thread
    assert "one thread" in name
    ends = [1000 * a_cpu_second * float(seconds) for seconds in cpu_s.split(" to ")]
    of_lambda, total = (" to ".join(f"${usd + more:.4f}" for usd in ends) for more in (0, around))
    assert shown == [of_lambda, f"${around:.4f}", total]


def test_the_phrases_in_readme_follow(project: Path) -> None:
    costs_now = default(project)
    intro = " ".join(text_of(README).partition("\n## ")[0].split())
    low, high = re.findall(r"\$([\d.]+)", (30 * costs_now.at_rest_a_day).roughly())
    assert f"costs {100 * float(low):.0f} to {100 * float(high):.0f} cents a month while nobody calls it" in intro
    assert f"{costs_now.watching_a_month} for alarms and dashboard" in intro
    assert f"${low} to ${high} a month" in at_rest(DEFAULT, project / "inference").text


def test_the_prices_of_an_hour_in_security_follow(project: Path) -> None:
    found = default(project)
    rows = table(DOCS / "security.md", "| calls | price of an hour |")
    longest, short, light, page, quota = (price for _, price in rows)
    names = [name for name, _ in rows]
    for tokens, name, price in ((4096, names[0], longest), (40, names[1], short)):
        seconds = found.answer_s(tokens)
        assert seconds is not None
        assert f"({seconds.low:.3g} to {seconds.high:.3g} s)" in name
        assert price == str(found.worst_hour(tokens))
    assert light == str(found.light_requests(10 * 3600))
    assert f"({usage.light_s(1024):g} s)" in names[2]
    assert page == str(found.page_requests(10 * 3600))
    data = f"({usage.PAGE_S:g} s), with {usage.PAGE_KB.low:g} to {usage.PAGE_KB.high:g} KB that leave AWS"
    assert data in names[3]
    # 1,000 Lambdas for an hour, by hand: 1,000 * 3,600 * 7.90625 * 0.0000166667.
    assert quota == "$474"
    text = " ".join(text_of(DOCS / "security.md").split())
    assert f"${1_000_000 * found.log_of_request:.2f} for the logs of a million requests" in text
    assert f"refuses cost ${usage.REFUSED_LOG_BYTES / 1000 * 0.50:.2f}, for their lines in the log" in text
    # 36,000 answers of 380 KB.
    assert f"another {usd(36_000 * 380e-6 * prices.DATA_OUT.usd)}" in text
    assert f"costs ${prices.DATA_OUT.usd} a GB" in text
    assert "3,600 s \N{MULTIPLICATION SIGN} 7.9 GB \N{MULTIPLICATION SIGN} $0.0000166667 = $2.37" in text
    assert 5 * 3600 * found.second(8096) == pytest.approx(2.37, abs=0.005)


def test_other_pages_name_the_same_prices(project: Path) -> None:
    found = default(project)
    prices = [row[2] for row in table(SHELF, "| | image | EFS |") if row[0].startswith("price")]
    stored, read = (30 * part.usd_a_day for part in found.model_on_efs())
    assert prices == [f"${found.model_read:.3f}", f"{stored} a month", f"{read} a month"]
    assert f"An hour at 8,096 MB costs ${3600 * found.second(8096):.2f}" in text_of(OPERATIONS)
    nat = f"It costs ${found.nat_gateway().usd_a_day.low:.2f} a day"
    assert nat in (Path(costs.__file__).parent.parent / ".env.example").read_text(encoding="utf-8")


def test_settings_come_from_the_file_and_from_the_environment(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (project / ".env").write_text("LAMBDA_MEMORY_MIB=3008\nALARMS=true\n")
    monkeypatch.setenv("ALARMS", "false")
    heading, found, note = printed(capsys)
    assert "with 3,008 MB on x86_64" in heading
    assert "| nothing " in found
    assert "1.7 CPUs" in note


def test_account_and_region_do_not_matter(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    without = printed(capsys)
    monkeypatch.setenv("AWS_ACCOUNT_ID", "1234-5678")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    assert printed(capsys) == without


def test_wrong_settings_are_all_named(
    project: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALARMS", "perhaps")
    monkeypatch.setenv("LAMBDA_MEMORY_MIB", "much")
    assert costs.main([]) == 1
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        'costs: LAMBDA_MEMORY_MIB must be a whole number from 128 to 10240, not "much".',
        'costs: ALARMS must be true or false, not "perhaps".',
    ]


def test_a_broken_handler_is_named(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (project / "inference" / "broken.py").write_text("def handler(:\n")
    assert costs.main([]) == 1
    assert capsys.readouterr().err.startswith("costs: broken.py, line 1 is not valid Python")


def test_a_length_of_ones_own_has_its_row(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, found = printed(capsys, "--tokens", "2048")
    # 1,000 * (1.62 or 2.53 * 0.00013177 + 0.0000021)
    assert "| 1,000 requests to `/similar` of 2,048 tokens   | $0.22 to $0.34 " in found


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--tokens", "4097"], "--tokens must be from 1 to 4,096, not 4097: a longer text is cut"),
        (["--tokens", "0"], "--tokens must be from 1 to 4,096, not 0"),
        (["--requests", "0"], "--requests must be from 1 to 300,000,000, not 0"),
        (["--requests", "300000001"], "--requests must be from 1 to 300,000,000, not 300000001"),
    ],
)
def test_wrong_arguments(arguments: list[str], said: str, project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        costs.main(arguments)
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


def test_columns_are_as_wide_as_a_terminal_needs(project: Path) -> None:
    for found in (summary(default(project)), details(default(project)), price_list()):
        assert len({len(line) for line in found.splitlines()}) == 1
