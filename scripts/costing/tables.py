"""The tables that `costs.py` prints, in Markdown that a terminal shows well too."""

from __future__ import annotations

from collections.abc import Sequence

from costing import prices, usage
from costing.ranges import ZERO, Range, usd
from costing.rows import MILLION, USUAL_WARM_MINUTES, Costs, most_starts
from costing.usage import DAYS_A_MONTH, LONGEST_TOKENS, SHORT_TOKENS
from similarity.settings import DEFAULT_PRECISION

Rows = Sequence[Sequence[str]]
USUAL_TOKENS = 700
_UNKNOWN = "not known"


def heading(costs: Costs) -> str:
    config = costs.config
    return (
        f"AWS's list prices, for handlers with {costs.largest:,} MB on {config.architecture}. A month has "
        f"{DAYS_A_MONTH} days."
    )


def summary(costs: Costs, tokens: int = USUAL_TOKENS, requests: int | None = None) -> str:
    """The table of a few lines."""
    rest = costs.at_rest_a_day
    rows = [
        ("at rest", f"{rest} a day, {rest * DAYS_A_MONTH} a month"),
        ("`refresh`, counted at rest", f"{costs.refresh_a_day} a day" if costs.parts.refreshes else "off"),
        ("alarms and dashboard; an account has some free", monthly(costs.watching_a_month)),
        *(_requests(costs, each) for each in sorted({SHORT_TOKENS, USUAL_TOKENS, LONGEST_TOKENS, tokens})),
        ("logs, counted above, and metrics", _logs_and_metrics(costs)),
        ("a cold start, beside its answer", str(costs.start_of(costs.largest))),
        _warm(costs),
        _model(costs),
        _nat(costs),
        ("the worst hour under the limits", _or_unknown(costs.worst_hour())),
    ]
    if requests is not None:
        rows += [
            (f"{requests:,} requests of {tokens:,} tokens", _or_unknown(costs.requests(requests, tokens))),
            (f"their metrics, and up to {most_starts(requests):,} cold starts", str(_beside(costs, requests))),
            ("the month: these, at rest, alarms, dashboard", _or_unknown(costs.month(requests, tokens))),
        ]
    return table(("what", "price in us-east-1"), rows)


def details(costs: Costs) -> str:
    """The parts of the cost at rest and of requests, with their quantities."""
    seconds = [(tokens, costs.answer_s(tokens)) for tokens in (SHORT_TOKENS, USUAL_TOKENS, LONGEST_TOKENS)]
    parts = costs.parts
    rows = [
        *((part.name, part.how, monthly(part.usd_a_day * DAYS_A_MONTH)) for part in costs.at_rest_parts),
        ("at rest", "the sum of the above", f"{costs.at_rest_a_day * DAYS_A_MONTH} a month"),
        ("alarms", _alarms(costs), monthly(costs.alarms_a_month)),
        ("dashboard", "an account's first three are free", monthly(costs.dashboard_a_month)),
        *((f"Lambda, 1,000 texts of {tokens:,} tokens", *_lambda(costs, each)) for tokens, each in seconds),
        ("1,000 requests that run no model", *_light(costs)),
        *([("1,000 requests to the page", *_page(costs))] if parts.pages else []),
        ("HTTP API, 1,000 requests", "", usd(prices.API_REQUESTS.usd / 1000)),
        ("Lambda, 1,000 calls", "", usd(prices.LAMBDA_CALLS.usd / 1000)),
        ("logs, 1,000 requests", f"{usage.REQUEST_LOG_BYTES / 1000:g} KB each", usd(1000 * costs.log_of_request)),
        ("metrics of our own", f"about {parts.own_metrics}, or free", monthly(costs.metrics_a_month())),
        ("a cold start", _start(costs), str(costs.start_of(costs.largest))),
    ]
    return table(("part", "how it is counted", "price in us-east-1"), rows)


def price_list() -> str:
    rows = [
        (f"[{price.name}]({price.source})", f"{price.usd:.10f}".rstrip("0").rstrip("."), price.unit, price.read)
        for price in prices.ALL
    ]
    return table(("list price", "USD", "unit", "text of"), rows)


def notes(costs: Costs) -> list[str]:
    """Sentences about what the settings make uncertain."""
    config, found = costs.config, []
    if config.region not in ("", "us-east-1"):
        found.append(f"The prices of {config.region} may differ.")
    if not usage.is_known(costs.largest):
        found.append(f"Nobody has measured an answer with less than {usage.SMALLEST_MIB} MB.")
    elif costs.largest < usage.TWO_CPUS_MIB:
        cpus = f"{2 * costs.largest / usage.TWO_CPUS_MIB:.2g}"
        bought = f"{cpus} CPU" if cpus == "1" else f"{cpus} CPUs"
        found.append(f"{costs.largest:,} MB buy {bought}. The seconds follow from those on two CPUs.")
    if config.architecture != "x86_64":
        found.append(f"The seconds are those of x86_64. Nobody has measured {config.architecture}.")
    if costs.parts.why_not:
        found.append(f"ENCODER_PRECISION=auto: the seconds are those of float32, because {costs.parts.why_not}.")
    elif costs.parts.precision != DEFAULT_PRECISION:
        found.append(
            f"The first seconds are those of a CPU that multiplies {costs.parts.precision} natively, the second those "
            "of float32. AWS doesn't say which CPU a Lambda gets."
        )
    if costs.parts.shape:
        layers, hidden = costs.parts.shape
        found.append(
            f"The seconds are those of Longformer-base, but the model in inference/model has {layers} layers of "
            f"{hidden} numbers."
        )
    return found


def table(header: Sequence[str], rows: Rows) -> str:
    """Markdown, with columns as wide as their longest cell."""
    widths = [max(len(row[column]) for row in (header, *rows)) for column in range(len(header))]
    lines = [
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
        for row in (header, *rows)
    ]
    return "\n".join([lines[0], "|" + "|".join("-" * (width + 2) for width in widths) + "|", *lines[1:]])


def monthly(amount: Range) -> str:
    return f"{amount} a month" if amount.high else str(amount)


def _requests(costs: Costs, tokens: int) -> tuple[str, str]:
    return f"1,000 requests to `/similar` of {tokens:,} tokens", _or_unknown(costs.requests(1000, tokens))


def _or_unknown(amount: Range | None) -> str:
    return _UNKNOWN if amount is None else str(amount)


def _logs_and_metrics(costs: Costs) -> str:
    return f"{usd(MILLION * costs.log_of_request)} a million requests, {monthly(costs.metrics_a_month())}"


def _warm(costs: Costs) -> tuple[str, str]:
    minutes = costs.config.keep_warm_minutes
    part = costs.keeping_warm(minutes or USUAL_WARM_MINUTES)
    return _counted(part.name, bool(minutes)), f"{part.usd_a_day * DAYS_A_MONTH} a month"


def _model(costs: Costs) -> tuple[str, str]:
    monthly = DAYS_A_MONTH * sum((part.usd_a_day for part in costs.model_on_efs()), ZERO)
    price = f"{monthly} a month, {usd(costs.model_read)} a cold start"
    return _counted("`MODEL_ON_EFS=true`", costs.config.model_on_efs), price


def _nat(costs: Costs) -> tuple[str, str]:
    part = costs.nat_gateway()
    return _counted(part.name, costs.config.nat_gateway), f"{part.usd_a_day} a day, ${prices.NAT_DATA.usd} a GB"


def _counted(name: str, is_on: bool) -> str:
    return f"{name}, counted at rest" if is_on else name


def _beside(costs: Costs, requests: int) -> Range:
    return costs.metrics_a_month(requests) + costs.starts_a_month(requests)


def _alarms(costs: Costs) -> str:
    return f"{costs.parts.alarm_metrics} metrics; an account's first {prices.FREE_ALARM_METRICS} are free"


def _lambda(costs: Costs, seconds: Range | None) -> tuple[str, str]:
    if seconds is None:
        return "", _UNKNOWN
    how = f"{seconds.low:.3g} to {seconds.high:.3g} s at {costs.largest:,} MB"
    return how, str(1000 * seconds * costs.second(costs.largest))


def _light(costs: Costs) -> tuple[str, str]:
    memory = max(costs.parts.light, default=usage.LIGHT_MIB)
    how = f"{usage.light_s(memory):.2g} s at {memory:,} MB, with API and logs"
    return how, str(costs.light_requests(1000))


def _page(costs: Costs) -> tuple[str, str]:
    how = f"{usage.PAGE_S:g} s, {usage.PAGE_KB.low:g} to {usage.PAGE_KB.high:g} KB to the internet, with API and logs"
    return how, str(costs.page_requests(1000))


def _start(costs: Costs) -> str:
    start = usage.START_S[costs.config.encoder_engine]
    return f"{start.low:g} to {start.high:g} s at {costs.largest:,} MB, {1000 * costs.parts.state_gb:.0f} MB from EFS"
