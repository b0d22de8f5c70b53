"""The sums: what a deployment costs at rest, for requests, and in its worst hour.

`Costs` computes. `tables` prints. `at_rest` is for other commands.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from costing import prices, usage
from costing.parts import Parts
from costing.ranges import ZERO, Range, usd
from costing.usage import DAYS_A_MONTH, HOURS_A_DAY
from infrastructure.build_context import REFRESH_JOB, SHELVING_JOB
from infrastructure.config import Config

MILLION, THOUSAND, GB = 1_000_000, 1000, 1_000_000_000
HOUR_S = 3600
# Of Lambdas at once in an account, unless AWS has raised it.
QUOTA = 1000
# Shown where the settings leave the calls out.
USUAL_WARM_MINUTES = 5


@dataclass(frozen=True)
class AtRest:
    """usd_a_day: without alarms and dashboard. text: a phrase with all of it, without a full stop."""

    usd_a_day: Range
    text: str


def at_rest(config: Config, inference_dir: Path) -> AtRest:
    """What the stack costs while nobody calls it. Raises HandlerFileError or OSError."""
    costs = Costs(Parts.of(config, inference_dir))
    day, watching = costs.at_rest_a_day, costs.watching_a_month
    text = f"about {day.roughly()} a day at rest, {(day * DAYS_A_MONTH).roughly()} a month"
    if watching.high:
        text += f", and {watching.roughly()} a month for alarms and dashboard"
    return AtRest(day, text)


@dataclass(frozen=True)
class Part:
    """A part of the cost at rest. how: the quantities that it is made of."""

    name: str
    how: str
    usd_a_day: Range


class Costs:
    """USD, at the list prices of us-east-1."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self.config = parts.config
        self._call = prices.LAMBDA_CALLS.usd / MILLION
        self._request = prices.API_REQUESTS.usd / MILLION
        self.log_of_request = usage.REQUEST_LOG_BYTES / GB * prices.LOGS.usd

    def second(self, memory_mib: int) -> float:
        """A second of a Lambda."""
        return memory_mib / usage.MIB_A_GB * prices.GB_S[self.config.architecture].usd

    @cached_property
    def largest(self) -> int:
        """The memory of the largest handler that runs the model; 0 without one."""
        return max(self.parts.encoding, default=0)

    # At rest, a day.

    @cached_property
    def at_rest_parts(self) -> list[Part]:
        found = [self._image(), *self._stored(), self._daily_calls()]
        if SHELVING_JOB in self.parts.jobs:
            found.append(self._shelving())
        if self.parts.refreshes:
            found += [self._looks(), self._snapshots()]
        found.append(self._metrics())
        if self.config.keep_warm_minutes:
            found.append(self.keeping_warm(self.config.keep_warm_minutes))
        if self.config.model_on_efs:
            found += self.model_on_efs()
        if self.config.nat_gateway:
            found.append(self.nat_gateway())
        return found

    @property
    def at_rest_a_day(self) -> Range:
        return sum((part.usd_a_day for part in self.at_rest_parts), ZERO)

    def _image(self) -> Part:
        gb = self.parts.image_gb
        return Part("image in ECR", f"{gb:.2f} GB", _a_day(gb * prices.ECR_STORAGE.usd))

    def _stored(self) -> list[Part]:
        state_mb, kept = 1000 * self.parts.state_gb, usage.KEPT_STATES
        versions = usage.KEPT_DAYS // usage.DAYS_A_WEEK + 1
        gb = versions * (self.parts.state_gb + usage.STORE_MB / 1000)
        requests = usage.BUCKET_REQUESTS_A_DAY
        return [
            Part(
                "states on EFS",
                f"{kept} of {state_mb:.0f} MB",
                _a_day(kept * self.parts.state_gb * prices.EFS_STORAGE.usd),
            ),
            Part(
                "states and vectors in S3",
                f"{versions} a quarter, of {state_mb:.0f} and {usage.STORE_MB:.0f} MB",
                _a_day(gb * prices.S3_STORAGE.usd),
            ),
            Part(
                "requests to S3",
                f"{requests} a day, counted as ones that write",
                Range.of(requests * prices.S3_WRITES.usd / THOUSAND),
            ),
        ]

    def _daily_calls(self) -> Part:
        """Lambda keeps none of them for a day, so each call is a cold start."""
        start = usage.START_S[self.config.encoder_engine]
        each = [self.start_of(memory) for memory in self.parts.encoding]
        each += [self._start(memory, usage.LIGHT_START_S) for memory in self.parts.light]
        how = f"{self.parts.handlers} starts of {usage.LIGHT_START_S.low:g} to {start.high:g} s"
        return Part("a daily call to each handler", how, sum(each, ZERO))

    def start_of(self, memory_mib: int) -> Range:
        """A cold start of a handler that runs the model, beside the answer. It reads the state from EFS."""
        return self._start(memory_mib, usage.START_S[self.config.encoder_engine])

    def _start(self, memory_mib: int, seconds: Range) -> Range:
        reads = self.parts.state_gb * prices.EFS_READS.usd
        return seconds * self.second(memory_mib) + Range.of(self._call + reads)

    def _shelving(self) -> Part:
        memory, read_gb = self.parts.jobs[SHELVING_JOB], usage.KEPT_STATES * self.parts.state_gb
        cost = usage.SHELVING_S * self.second(memory) + self._call + read_gb * prices.EFS_READS.usd
        how = f"{usage.SHELVING_S:g} s at {memory:,} MB, {1000 * read_gb:.0f} MB from EFS"
        return Part("`shelve_state`, a daily call", how, Range.of(cost))

    def _looks(self) -> Part:
        memory, hours = self.parts.jobs[REFRESH_JOB], self.config.refresh_hours
        cost = HOURS_A_DAY / hours * (usage.REFRESH_LOOK_S * self.second(memory) + self._call)
        how = f"every {hours} hours, {usage.REFRESH_LOOK_S:g} s at {memory:,} MB"
        return Part("`refresh`, looks for a snapshot", how, Range.of(cost))

    @cached_property
    def snapshot(self) -> Range:
        """A run of the refresh job that builds a state."""
        return usage.REFRESH_RUN_S * self.second(self.parts.jobs[REFRESH_JOB])

    def _snapshots(self) -> Part:
        low, high = (seconds / 60 for seconds in (usage.REFRESH_RUN_S.low, usage.REFRESH_RUN_S.high))
        how = f"{low:g} to {high:g} minutes at {self.parts.jobs[REFRESH_JOB]:,} MB, {self.snapshot} each"
        return Part("`refresh`, a new snapshot a week", how, self.snapshot * (1 / usage.DAYS_A_WEEK))

    @property
    def refresh_a_day(self) -> Range:
        return self._looks().usd_a_day + self._snapshots().usd_a_day

    def _metrics(self) -> Part:
        hours = usage.METRIC_HOURS_AT_REST
        how = f"{hours} hours a day, or free"
        return Part("metrics of our own", how, Range(0.0, hours * self._metric_hour))

    @property
    def _metric_hour(self) -> float:
        return prices.METRICS.usd / (DAYS_A_MONTH * HOURS_A_DAY)

    @property
    def watching_a_month(self) -> Range:
        """Alarms and dashboard."""
        return self.alarms_a_month + self.dashboard_a_month

    @property
    def alarms_a_month(self) -> Range:
        metrics = self.parts.alarm_metrics
        billed = Range(max(0, metrics - prices.FREE_ALARM_METRICS), metrics)
        return billed * prices.ALARMS.usd

    @property
    def dashboard_a_month(self) -> Range:
        return Range(0.0, prices.DASHBOARD.usd if self.config.alarms else 0.0)

    # Options, a day.

    def keeping_warm(self, minutes: int) -> Part:
        calls = HOURS_A_DAY * 60 / minutes
        log = usage.WARM_LOG_BYTES / GB * prices.LOGS.usd
        encoding = [usage.WARM_S * self.second(memory) * usage.slowdown(memory) for memory in self.parts.encoding]
        light = [Range.of(usage.light_s(memory) * self.second(memory)) for memory in self.parts.light]
        cost = calls * (sum([*encoding, *light], ZERO) + Range.of(self.parts.handlers * (self._call + log)))
        how = f"{self.parts.handlers} handlers, {usage.WARM_S:g} s each, with logs"
        return Part(f"`KEEP_WARM_MINUTES={minutes}`", how, cost)

    def model_on_efs(self) -> list[Part]:
        gb, starts = self.parts.model_gb, len(self.parts.encoding)
        return [
            Part("`MODEL_ON_EFS=true`, storage", f"{gb:.2g} GB", _a_day(gb * prices.EFS_STORAGE.usd)),
            Part(
                "`MODEL_ON_EFS=true`, reads of the daily calls",
                f"{starts} starts a day, {usd(self.model_read)} each",
                Range.of(starts * self.model_read),
            ),
        ]

    @property
    def model_read(self) -> float:
        """What a cold start that reads the whole model from EFS adds."""
        return self.parts.model_gb * prices.EFS_READS.usd

    @staticmethod
    def nat_gateway() -> Part:
        each = prices.NAT_GATEWAY.usd + prices.PUBLIC_ADDRESS.usd
        how = f"a gateway and its address, and ${prices.NAT_DATA.usd} a GB"
        return Part("`NAT_GATEWAY=true`", how, Range.of(HOURS_A_DAY * each))

    # Requests.

    def answer_s(self, tokens: int) -> Range | None:
        """Seconds of an answer of the largest handler; None if nobody knows."""
        if not usage.is_known(self.largest):
            return None
        seconds = usage.answer_s(tokens, self.config.encoder_engine, self.parts.precision)
        return seconds * usage.slowdown(self.largest)

    def requests(self, number: float, tokens: int) -> Range | None:
        """Requests to `/similar`, with API and logs, without cold starts; None if nobody knows."""
        seconds = self.answer_s(tokens)
        return None if seconds is None else self._requests(number, seconds, self.largest)

    def light_requests(self, number: float) -> Range:
        """Requests to a handler that runs no model, with API and logs."""
        memory = max(self.parts.light, default=usage.LIGHT_MIB)
        return self._requests(number, Range.of(usage.light_s(memory)), memory)

    def page_requests(self, number: float) -> Range:
        """Requests to a page, with API, logs and the data that leaves AWS."""
        data = number * usage.PAGE_KB * (prices.DATA_OUT.usd / MILLION)
        return self._requests(number, Range.of(usage.PAGE_S), max(self.parts.pages)) + data

    def _requests(self, number: float, seconds: Range, memory_mib: int) -> Range:
        each = seconds * self.second(memory_mib) + Range.of(self.around_request)
        return number * each

    @property
    def around_request(self) -> float:
        """The API, the call of a Lambda, and the logs."""
        return self._call + self._request + self.log_of_request

    def metrics_a_month(self, requests: float | None = None) -> Range:
        """Metrics of our own, by the hour: none if all are free, at most one in each hour, or with each request."""
        hours = DAYS_A_MONTH * HOURS_A_DAY
        used = hours if requests is None else min(hours, requests)
        return Range(0.0, self.parts.own_metrics * used * self._metric_hour)

    def starts_a_month(self, requests: float) -> Range:
        """Cold starts: none, or one in each hour with requests."""
        each = self.start_of(self.largest).high + (self.model_read if self.config.model_on_efs else 0.0)
        return Range(0.0, most_starts(requests) * each)

    def month(self, requests: float, tokens: int) -> Range | None:
        answers = self.requests(requests, tokens)
        if answers is None:
            return None
        resting = self.at_rest_a_day * DAYS_A_MONTH + self.watching_a_month
        return resting + answers + self.metrics_a_month(requests) + self.starts_a_month(requests)

    def worst_hour(self, tokens: int = usage.LONGEST_TOKENS) -> Range | None:
        """The dearest hour that THROTTLE_RATE, MAX_CONCURRENCY and the account's quota allow."""
        seconds = self.answer_s(tokens)
        if seconds is None:
            return None
        return Range(self._hour(seconds.low), self._hour(seconds.high))

    def _hour(self, answer_s: float) -> float:
        rate, each = self.config.throttle_rate, self.config.max_concurrency
        memory = max(self.parts.light, default=0)
        most, most_light = (QUOTA if each is None else each * len(of) for of in (self.parts.encoding, self.parts.light))
        copies = min(rate * answer_s, most, QUOTA)
        # What is refused there may go to the other handlers.
        left = rate - copies / answer_s
        light = min(left * usage.light_s(memory), most_light, QUOTA - copies) if memory else 0.0
        lambdas = copies * self.second(self.largest) + light * self.second(memory)
        return HOUR_S * (lambdas + rate * self.around_request)


def most_starts(requests: float) -> float:
    """The cold starts in a month that are counted at most: one an hour."""
    return min(DAYS_A_MONTH * HOURS_A_DAY, requests)


def _a_day(usd_a_month: float) -> Range:
    return Range.of(usd_a_month / DAYS_A_MONTH)
