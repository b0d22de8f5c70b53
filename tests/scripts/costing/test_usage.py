"""Seconds and sizes are those that the pages have from measurements, and what lies between follows from them."""

from __future__ import annotations

import importlib
import json
import logging
import re
from itertools import chain

import pytest

from costing import usage
from costing.ranges import Range
from infrastructure.inbox import Inbox
from pages import DEPLOYING, DOCS, table, text_of
from similarity.metrics import NAMESPACE_VARIABLE
from similarity.settings import Precision
from similarity.shelf.writer import KEPT_STATES
from tiny import Deployed

SPEED = DOCS / "speed.md"
# What AWS writes about a call of a Lambda, and about a request to the API, each a line.
REQUEST_ID = "8286a188-ba32-4475-8077-530cd35c09a9"
START = (
    f'{{"time":"2026-11-26T07:04:05.123Z","type":"platform.start","record":{{"requestId":"{REQUEST_ID}",'
    '"version":"$LATEST"}}'
)
REPORT = (
    f'{{"time":"2026-11-26T07:04:06.347Z","type":"platform.report","record":{{"requestId":"{REQUEST_ID}","metrics":'
    '{"durationMs":1223.456,"billedDurationMs":1224,"memorySizeMB":8096,"maxMemoryUsedMB":1062},"status":"success"}}'
)
ACCESS = (
    '{"status":200,"requestId":"JKJaXmPLvHcESHA=","time":"26/Nov/2026:07:04:05 +0000","ip":"203.0.113.7","route":'
    '"POST /similar","latencyMs":"1240","integrationLatencyMs":"1230","integrationStatus":"200","error":"-",'
    '"integrationError":"-","responseBytes":"1234"}'
)


def number(cell: str) -> float:
    return float(cell.replace(",", ""))


def encoder_tables() -> list[dict[str, dict[int, float]]]:
    """Seconds by engine and tokens, of the newer CPU and of the older one."""
    found = []
    for header, body in re.findall(
        r"^\| (tokens \| torch s \| onnx s .*?) \|\n\|[-|]+\|\n((?:\|.*\n)+)", text_of(SPEED), re.M
    ):
        columns = header.split(" | ")
        rows = [[number(cell) for cell in line.strip("| ").split(" | ")] for line in body.splitlines()]
        found.append(
            {engine: {int(row[0]): row[columns.index(f"{engine} s")] for row in rows} for engine in ("onnx", "torch")}
        )
    return found


def test_the_seconds_of_a_text_are_the_measured_ones() -> None:
    newer, older = encoder_tables()
    assert {
        engine: {tokens: (newer[engine][tokens], older[engine][tokens]) for tokens in newer[engine]} for engine in newer
    } == usage.ENCODING_S


def test_the_shares_of_less_precision_are_the_measured_ones() -> None:
    rows = table(
        SPEED, "| tokens | onnx s | onnx int8 s | int8 / onnx | torch s | torch bfloat16 s | bfloat16 / torch |"
    )
    assert {precision: shares for precision, shares in usage.SHARES.items() if precision != "float32"} == {
        "int8": {int(number(row[0])): number(row[3]) for row in rows},
        "bfloat16": {int(number(row[0])): number(row[6]) for row in rows},
    }
    for row in rows:
        assert number(row[3]) == pytest.approx(number(row[2]) / number(row[1]), rel=0.02)
        assert number(row[6]) == pytest.approx(number(row[5]) / number(row[4]), rel=0.02)


@pytest.mark.parametrize(("engine", "precision"), [("onnx", "int8"), ("torch", "bfloat16")])
def test_less_precision_takes_its_share_on_a_newer_cpu_and_all_of_it_on_an_older_one(
    engine: str, precision: Precision
) -> None:
    for tokens, share in usage.SHARES[precision].items():
        less, full = usage.answer_s(tokens, engine, precision), usage.answer_s(tokens, engine)
        if tokens > usage.SHORT_TOKENS:
            assert less.low == pytest.approx(share * full.low)
        assert less.high == full.high


def test_the_answers_of_a_handler_are_the_measured_ones() -> None:
    [similar, light] = table(
        SPEED, "| handler | peak MiB | s at 8,096 MB | $ per 1,000 | smallest setting | s | $ per 1,000 |"
    )
    assert {"onnx": {40: 0.05, 4096: number(similar[2])}} == usage.ANSWER_S
    assert "Later answers took 0.05 s." in text_of(SPEED)
    assert (f"{usage.SMALLEST_MIB} MB", usage.SMALLEST_S) == (similar[4], number(similar[5]))
    assert light[4].startswith(f"{usage.LIGHT_MIB} MB")
    assert number(light[5]) == usage.LIGHT_S
    [first, _, embed] = table(SPEED, "| handler | files | runtime | import | load | to first answer |")
    # Beside the answer.
    assert usage.START_S["onnx"].low == pytest.approx(number(first[5]) - 0.05)
    assert usage.LIGHT_START_S.low == pytest.approx(number(embed[5]), abs=0.015)


def test_the_sizes_are_the_measured_ones() -> None:
    sizes = {name.partition(";")[0]: number(mb) for name, mb in table(DEPLOYING, "| layer | MB |")}
    assert sizes["model"] == usage.MODEL_MB
    assert (
        pytest.approx(sizes["base: Debian with Python, a stand-in for `python:3.11-slim`"] / 3, abs=1.5)
        == usage.BASE_MB
    )
    assert sizes["dependencies"] > usage.PACKAGES_MB
    assert usage.KEPT_STATES == KEPT_STATES
    assert f"{usage.KEPT_DAYS} days" in str(Inbox.__doc__)


@pytest.mark.parametrize(
    ("tokens", "engine", "seconds"),
    [
        (40, "onnx", (0.05, 0.0778 + 8 / 96 * 0.1252)),
        (1, "onnx", (0.05, 0.0778 + 8 / 96 * 0.1252)),
        (128, "onnx", (0.117, 0.203)),
        (700, "onnx", (0.491 + 188 / 512 * 0.433, 1.11045)),
        (4096, "onnx", (1.64, 2.95)),
        (700, "torch", (0.477 + 188 / 512 * 0.387, 0.924 + 188 / 512 * 0.676)),
        (4096, "torch", (1.47, 2.55)),
    ],
)
def test_a_length_between_two_lies_on_the_line(tokens: int, engine: str, seconds: tuple[float, float]) -> None:
    found = usage.answer_s(tokens, engine)
    assert (found.low, found.high) == pytest.approx(seconds, rel=1e-4)


@pytest.mark.parametrize(
    ("engine", "precision"),
    [("onnx", "float32"), ("onnx", "int8"), ("torch", "float32"), ("torch", "bfloat16")],
)
def test_a_longer_text_never_takes_less_time(engine: str, precision: Precision) -> None:
    lengths = chain(range(1, 300), range(300, 4097, 61), [4096])
    found = [usage.answer_s(tokens, engine, precision) for tokens in lengths]
    for values in ([each.low for each in found], [each.high for each in found]):
        assert values == sorted(values)


def test_less_memory_takes_longer_by_its_share_of_two_cpus() -> None:
    assert usage.slowdown(8096) == usage.slowdown(3538) == Range(1, 1)
    half = usage.slowdown(1769)
    # 16.2 s at 384 MB were measured, and 15.1 s would be the share.
    assert (half.low, half.high) == pytest.approx((2, 2 * 16.2 / 15.1102), rel=1e-3)
    longest = usage.answer_s(4096, "onnx") * usage.slowdown(384)
    assert longest.low < 16.2 < longest.high
    assert usage.is_known(384)
    assert not usage.is_known(383)
    assert [usage.light_s(mib) for mib in (128, 256, 1024)] == [0.04, 0.02, 0.01]


@pytest.mark.slow
def test_the_log_of_a_call_is_as_long_as_counted(
    deployed: Deployed,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(NAMESPACE_VARIABLE, "AiidSimilarIncidents")
    usual = {*vars(logging.makeLogRecord({})), "message", "asctime"}
    handler = importlib.import_module("similar").handler

    def lines(event: object, message: str) -> list[str]:
        """Those of our code."""
        caplog.clear()
        with caplog.at_level(logging.INFO, logger="similarity"):
            handler(event, None)
        [record] = [record for record in caplog.records if record.getMessage() == message]
        fields = {name: value for name, value in vars(record).items() if name not in usual}
        known = {"timestamp": "2026-11-26T07:04:05Z", "level": "INFO", "message": message, "logger": record.name}
        return [json.dumps({**known, "requestId": REQUEST_ID, **fields}), *capsys.readouterr().out.splitlines()]

    def size(found: list[str]) -> int:
        """As AWS counts: https://docs.aws.amazon.com/AmazonCloudWatch/latest/logs/cloudwatch_limits_cwl.html"""
        return sum(len(line) + 26 for line in found)

    handler({"text": "a"}, None)  # not the first call, which is a cold start
    capsys.readouterr()
    answered = lines({"text": "a"}, "answered")
    assert len(answered) == 3
    assert size([START, REPORT, ACCESS, *answered]) == pytest.approx(usage.REQUEST_LOG_BYTES, rel=0.1)
    assert size([START, REPORT, *lines({"warm": True}, "warmed")]) == pytest.approx(usage.WARM_LOG_BYTES, rel=0.1)
    assert size([ACCESS]) == pytest.approx(usage.REFUSED_LOG_BYTES, rel=0.1)
