"""The sums, each against one computed by hand. `tests/infrastructure/test_costs.py` computes with the template."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from costing import usage
from costing.parts import Parts
from costing.ranges import Range
from costing.rows import Costs, at_rest
from costing.tables import notes, price_list, summary
from infrastructure.config import Config
from similarity.encoder.reports import Agreement, Report
from tiny import copy_inference

DEFAULT = Config(account="", region="")


@pytest.fixture(scope="module")
def inference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_inference(tmp_path_factory.mktemp("costs") / "inference")


def costs(inference: Path, **settings: object) -> Costs:
    return Costs(Parts.of(replace(DEFAULT, **settings), inference))  # type: ignore[arg-type]


def close(found: Range | None, low: float, high: float) -> bool:
    assert found is not None
    return (found.low, found.high) == pytest.approx((low, high), rel=0.005)


@pytest.mark.parametrize(
    ("tokens", "low", "high"),
    # 1,000 * (seconds * 0.00013177 + 0.0000002 + 0.000001 + 0.0000009)
    [(40, 0.00869, 0.01373), (700, 0.08775, 0.14842), (4096, 0.21820, 0.39082)],
)
def test_a_thousand_requests(tokens: int, low: float, high: float, inference: Path) -> None:
    assert close(costs(inference).requests(1000, tokens), low, high)


def test_requests_that_run_no_model(inference: Path) -> None:
    # 1,000 * (0.01 * 0.0000166667 + 0.0000021)
    assert close(costs(inference).light_requests(1000), 0.002267, 0.002267)


def test_requests_to_the_page_are_counted_with_the_data_that_leaves_aws(inference: Path) -> None:
    # 1,000 * (0.02 * 0.0000166667 + 0.0000021 + 75 KB or 210 KB at $0.09 a GB)
    assert close(costs(inference).page_requests(1000), 0.009183, 0.021333)


def test_arm64_costs_a_fifth_less_for_the_same_time(inference: Path) -> None:
    # 1,000 * (1.64 or 2.95 * 7.90625 * 0.0000133334 + 0.0000021)
    assert close(costs(inference, architecture="arm64").requests(1000, 4096), 0.17498, 0.31308)


def test_with_less_memory_seconds_grow_and_their_price_shrinks(inference: Path) -> None:
    # 1.64 s * 3538 / 3008 = 1.9290 s, at 2.9375 * 0.0000166667 = 0.0000489584; 2.95 * 1.17620 * 1.0721 = 3.7200 s.
    assert close(costs(inference, memory_mib=3008).requests(1000, 4096), 0.09654, 0.18422)
    assert costs(inference, memory_mib=256).requests(1000, 40) is None
    assert costs(inference, memory_mib=256).worst_hour() is None
    assert costs(inference, memory_mib=256).month(10, 40) is None


def test_a_cold_start_reads_the_state(inference: Path) -> None:
    # 0.64 or 3 * 0.00013177 + 0.0000002 + 0.005 GB * 0.03
    assert close(costs(inference).start_of(8096), 0.0002345, 0.0005455)


@pytest.mark.parametrize(
    ("settings", "low", "high"),
    [
        # 36,000 * (1.64 or 2.95 * 0.00013177 + 0.0000021)
        ({}, 7.8554, 14.0697),
        ({"throttle_rate": 1}, 0.78554, 1.40697),
        # 3 handlers * 1 copy for the hour, 3 * 3600 * 0.00013177 = 1.42312; the API takes 36,000 * 0.0000021 = 0.0756;
        # of 10 a second, 3 / 1.64 = 1.829 or 3 / 2.95 = 1.017 go there, and the others take 0.01 s each of the
        # small ones: 0.08204 or 0.08983 copies * 3600 * 0.0000166667.
        ({"max_concurrency": 1}, 1.42312 + 0.0756 + 0.004922, 1.42312 + 0.0756 + 0.00539),
        # A whole account's quota never stops, and API and logs take 36,000,000 * 0.0000021.
        ({"throttle_rate": 10_000}, 474.375 + 75.6, 474.375 + 75.6),
    ],
)
def test_the_worst_hour(settings: dict[str, object], low: float, high: float, inference: Path) -> None:
    assert close(costs(inference, **settings).worst_hour(), low, high)


def test_metrics_are_billed_by_the_hour_in_which_requests_come(inference: Path) -> None:
    found = costs(inference)
    assert found.metrics_a_month() == found.metrics_a_month(720) == found.metrics_a_month(100_000)
    assert close(found.metrics_a_month(), 0, 22 * 0.30)
    assert close(found.metrics_a_month(72), 0, 22 * 0.03)
    assert close(costs(inference, alarms=False).metrics_a_month(), 0, 21 * 0.30)


def test_a_month(inference: Path) -> None:
    """At rest, alarms and dashboard, requests, metrics, and cold starts."""
    found = costs(inference)
    low = 30 * 0.0061022 + 1.4 + 0.8775
    high = 30 * 0.0243054 + 2.4 + 3.0 + 1.4842 + 6.60 + 720 * 0.0005455
    assert close(found.month(10_000, 700), low, high)
    # Few requests bring few hours with metrics, and few cold starts.
    assert close(found.month(1, 700), 30 * 0.0061022 + 1.40009, 30 * 0.0243054 + 5.40015 + 22 * 0.30 / 720 + 0.0005455)


def test_the_phrase_for_other_commands(inference: Path) -> None:
    found = at_rest(DEFAULT, inference)
    assert close(found.usd_a_day, 0.0061022, 0.0243054)
    assert found.text == (
        "about $0.006 to $0.02 a day at rest, $0.20 to $0.70 a month, and $1.40 to $5.40 a month for alarms and "
        "dashboard"
    )
    nat = at_rest(replace(DEFAULT, nat_gateway=True, alarms=False), inference)
    assert nat.text == "about $1.20 a day at rest, $36 to $37 a month"


def test_options_are_counted_once(inference: Path) -> None:
    off, on = (
        summary(costs(inference)),
        summary(costs(inference, keep_warm_minutes=10, nat_gateway=True, model_on_efs=True)),
    )
    assert "counted at rest" not in off.replace("`refresh`, counted at rest", "")
    for name in ("KEEP_WARM_MINUTES=10", "NAT_GATEWAY=true", "MODEL_ON_EFS=true"):
        assert f"| `{name}`, counted at rest " in on
    rest, calm = (costs(inference, model_on_efs=is_on).at_rest_a_day for is_on in (True, False))
    # 0.51 GB: stored for a day, and read by three starts.
    assert rest.low - calm.low == pytest.approx(0.51 * 0.30 / 30 + 3 * 0.51 * 0.03)


def test_without_a_refresh_there_is_none(inference: Path) -> None:
    assert "| `refresh`, counted at rest                     | off " in summary(costs(inference, refresh_hours=0))
    lower = costs(inference, refresh_hours=0).at_rest_a_day
    assert costs(inference).at_rest_a_day.low - lower.low == pytest.approx(costs(inference).refresh_a_day.low)


def test_doubts_are_said(inference: Path) -> None:
    assert notes(costs(inference)) == []
    assert notes(costs(inference, region="us-east-1")) == []
    found = notes(costs(inference, region="eu-west-1", memory_mib=3008, architecture="arm64", encoder_precision="int8"))
    assert found == [
        "The prices of eu-west-1 may differ.",
        "3,008 MB buy 1.7 CPUs. The seconds follow from those on two CPUs.",
        "The seconds are those of x86_64. Nobody has measured arm64.",
        "The first seconds are those of a CPU that multiplies int8 natively, the second those of float32. AWS "
        "doesn't say which CPU a Lambda gets.",
    ]
    assert notes(costs(inference, memory_mib=1769)) == [
        "1,769 MB buy 1 CPU. The seconds follow from those on two CPUs.",
    ]
    assert notes(costs(inference, memory_mib=256)) == ["Nobody has measured an answer with less than 384 MB."]


def test_less_precision_costs_less_on_a_cpu_that_has_it(inference: Path) -> None:
    def usd(seconds: float) -> float:
        return 1000 * (seconds * 3538 / 1024 * 0.0000166667 + 0.0000021)

    of_700 = 0.64999 * usage.SHARES["int8"][700]
    found = costs(inference, memory_mib=3538, encoder_precision="int8").requests(1000, 700)
    assert close(found, usd(of_700), usd(1.11045))
    float32 = costs(inference, memory_mib=3538).requests(1000, 700)
    assert close(float32, usd(0.64999), usd(1.11045))


def test_int8_makes_the_image_larger(inference: Path) -> None:
    larger = costs(inference, encoder_precision="int8").parts.image_gb - costs(inference).parts.image_gb
    assert larger == pytest.approx(0.93 * 0.079)


@pytest.mark.parametrize("share", [1.0, 0.99])
def test_auto_counts_the_precision_that_the_model_in_the_folder_allows(share: float, tmp_path: Path) -> None:
    other = copy_inference(tmp_path / "inference")
    model = other / "model"
    model.mkdir()
    for name in ("model.safetensors", "encoder.int8.onnx", "encoder.int8.bin"):
        (model / name).write_bytes(bytes(1_000_000))
    report = Report(np.array([0]), np.ones(2, np.float32), 0.1, Agreement(share, 1.0, 0.9995, 989))
    (model / "encoder.int8.json").write_text(json.dumps(report.to_json()))
    found = costs(other, encoder_precision="auto")
    assert found.answer_s(700) == costs(other, encoder_precision="int8" if share == 1 else "float32").answer_s(700)
    assert ("the seconds are those of float32, because int8 doesn't agree" in " ".join(notes(found))) is (share < 1)
    # The image gets the files of int8 in any case.
    mb = {each: costs(other, encoder_precision=each).parts.model_gb for each in ("float32", "int8", "auto")}
    assert mb["float32"] == pytest.approx(0.001)
    assert mb["int8"] == mb["auto"] == pytest.approx(0.003, rel=0.001)


def test_auto_without_an_export_counts_float32_and_says_so(inference: Path) -> None:
    found = costs(inference, encoder_precision="auto")
    assert found.answer_s(700) == costs(inference).answer_s(700)
    assert notes(found) == ["ENCODER_PRECISION=auto: the seconds are those of float32, because int8 wasn't exported."]


def test_each_price_says_where_and_when_it_was_read() -> None:
    rows = price_list().splitlines()[2:]
    assert len(rows) == 17
    for row in rows:
        name, usd, unit, read = (cell.strip() for cell in row.strip("|").split("|"))
        assert name.endswith(("/pricing/)", "/pricing/on-demand/)"))
        assert "](https://aws.amazon.com/" in name
        assert float(usd) > 0
        assert unit
        assert read[:2] == "20"
        assert len(read) == 10


def test_the_model_and_the_state_in_the_folder_count(inference: Path, tmp_path: Path) -> None:
    other = copy_inference(tmp_path / "inference")
    model = other / "model"
    model.mkdir()
    (model / "model.safetensors").write_bytes(bytes(3_000_000))
    (model / "config.json").write_text('{"num_hidden_layers": 6, "hidden_size": 384}')
    (model / "incident_cls.pt").write_bytes(bytes(1_000_000))
    found = Parts.of(DEFAULT, other)
    assert (found.model_gb, found.state_gb) == pytest.approx((0.003, 0.001), rel=0.001)
    assert found.image_gb == pytest.approx((125 + 0.93 * 3 + 1) / 1000, rel=0.001)
    assert notes(Costs(found)) == [
        "The seconds are those of Longformer-base, but the model in inference/model has 6 layers of 384 numbers."
    ]
    usual = Parts.of(DEFAULT, inference)
    assert (usual.model_gb, usual.state_gb, usual.shape) == (0.51, 0.005, None)
    assert Parts.of(replace(DEFAULT, encoder_engine="torch"), inference).image_gb == pytest.approx(
        usual.image_gb + 0.173
    )
    (model / "config.json").write_text('{"num_hidden_layers": 12, "hidden_size": 768}')
    assert Parts.of(DEFAULT, other).shape is None
    (model / "config.json").write_text("nonsense")
    assert Parts.of(DEFAULT, other).shape is None
