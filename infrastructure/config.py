"""What a deployment can be told: environment variables to a Config. Names no AWS construct."""

from __future__ import annotations

import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from dotenv import dotenv_values
from dotenv.parser import parse_stream

from similarity.api.routes import DEFAULT_ALLOWED_ORIGINS, MEMORY_MIB_RANGE, TIMEOUT_S_RANGE, HandlerFile
from similarity.settings import (
    DEFAULT_ENGINE,
    DEFAULT_MODEL_URI,
    DEFAULT_PRECISION,
    DEFAULT_STACK_NAME,
    PRECISIONS,
    REGION,
    STACK_NAME,
    Engine,
    PrecisionSetting,
)
from similarity.sources.page import SNAPSHOTS_URL

T = TypeVar("T", bound=str)
V = TypeVar("V")

ARCHITECTURES = ("x86_64", "arm64")
# 0 is off. Lambda takes what was idle for longer away anyway.
KEEP_WARM_MINUTES_RANGE = (0, 60)
# 0 is off. AIID makes a snapshot a week, so a week is the longest pause.
REFRESH_HOURS_RANGE = (0, 168)
# Requests a second that AWS gives an account in a region, and how many may come at once:
# https://docs.aws.amazon.com/apigateway/latest/developerguide/limits.html
THROTTLE_RATE_RANGE = (1, 10_000)
THROTTLE_BURST_RANGE = (1, 5000)
# 0 is off. 1,000 is an account's whole quota, unless AWS has raised it.
MAX_CONCURRENCY_RANGE = (0, 1000)
# AIID makes a snapshot a week.
MAX_STATE_AGE_DAYS_RANGE = (1, 365)
MAX_USD_PER_HOUR_RANGE = (0.01, 1000.0)

AUTHS = ("none", "iam")
_HOST = r"(?=.{4,253}$)([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z]{2,63}"
_CERTIFICATE = r"arn:aws[a-z-]*:acm:([a-z0-9-]+):[0-9]{12}:certificate/[A-Za-z0-9-]+"
# https://docs.aws.amazon.com/tag-editor/latest/userguide/best-practices-and-strats.html
# CloudFormation takes no empty value: https://docs.aws.amazon.com/AWSCloudFormation/latest/APIReference/API_Tag.html
_TAG = r"(?!(?i:aws):)([\w.:/+@-]{1,128})=([\w .:/=+@-]{1,256})"
# AWS takes 50 tags. A subnet has three of the CDK's.
_MOST_TAGS = 47


class ConfigError(Exception):
    """Settings that are missing or have bad values. The message has a line for each."""


@dataclass(frozen=True)
class Config:
    """What a deployment can be told, each field from the variable of its name in capitals.

    memory_mib and timeout_s are those of every Lambda whose file asks for nothing else; memory_mib is also the most
    that a file gets (LAMBDA_MEMORY_MIB, LAMBDA_TIMEOUT_S). architecture is LAMBDA_ARCHITECTURE, account and region are
    AWS_ACCOUNT_ID and AWS_REGION. keep_warm_minutes is the pause between two invocations that keep a Lambda warm; 0
    calls them once a day only. model_on_efs puts the model on the file system too. refresh_hours is the pause between
    two runs of the job `refresh`; 0 means that it runs only when somebody invokes it. snapshots_url is the page that
    links to AIID's snapshots.

    throttle_rate and throttle_burst are requests a second to the API, and requests at once. max_concurrency is how many
    copies of a route's Lambda may run at once; None means that nothing is reserved. api_auth is "none", or "iam" for
    requests that must be signed. domain_name and certificate_arn are both empty or both set.

    alarms leaves out alarms and dashboard if false. alarm_email is empty if nobody is told. max_state_age_days is
    counted from the state's snapshot. max_usd_per_hour is what the Lambdas may cost.
    """

    account: str
    region: str
    nat_gateway: bool = False
    memory_mib: int = 8096
    timeout_s: int = 600
    architecture: str = "x86_64"
    allowed_origins: tuple[str, ...] = DEFAULT_ALLOWED_ORIGINS
    hf_model_uri: str = DEFAULT_MODEL_URI
    encoder_engine: Engine = DEFAULT_ENGINE
    encoder_precision: PrecisionSetting = DEFAULT_PRECISION
    keep_warm_minutes: int = 0
    model_on_efs: bool = False
    refresh_hours: int = 24
    snapshots_url: str = SNAPSHOTS_URL
    stack_name: str = DEFAULT_STACK_NAME
    tags: tuple[tuple[str, str], ...] = ()
    termination_protection: bool = False
    throttle_rate: int = 10
    throttle_burst: int = 20
    max_concurrency: int | None = None
    api_auth: str = "none"
    domain_name: str = ""
    certificate_arn: str = ""
    alarms: bool = True
    alarm_email: str = ""
    max_state_age_days: int = 14
    max_usd_per_hour: float = 2.0

    @classmethod
    def from_environment(cls, environment: Mapping[str, str | None]) -> Config:
        """Raises ConfigError with all problems. An empty variable counts as one that is not set."""
        config, problems = cls.with_problems(environment)
        if problems:
            raise ConfigError("\n".join(problems))
        return config

    @classmethod
    def with_problems(cls, environment: Mapping[str, str | None]) -> tuple[Config, tuple[str, ...]]:
        """A Config, and a sentence for each setting that is missing or has a bad value.

        These settings have their defaults in the Config. Account and region have none: they are "" there.
        """
        given = _Variables(environment)
        engine = given.one_of("ENCODER_ENGINE", tuple(PRECISIONS), cls.encoder_engine)
        account = given.matching("AWS_ACCOUNT_ID", r"[0-9]{12}", "the 12 digits of an AWS account")
        region = given.matching("AWS_REGION", REGION, "an AWS region such as us-east-1")
        domain_name, certificate_arn = given.domain(region)
        config = cls(
            account=account,
            region=region,
            nat_gateway=given.flag("NAT_GATEWAY", cls.nat_gateway),
            memory_mib=given.integer("LAMBDA_MEMORY_MIB", MEMORY_MIB_RANGE, cls.memory_mib),
            timeout_s=given.integer("LAMBDA_TIMEOUT_S", TIMEOUT_S_RANGE, cls.timeout_s),
            architecture=given.one_of("LAMBDA_ARCHITECTURE", ARCHITECTURES, cls.architecture),
            allowed_origins=given.origins("ALLOWED_ORIGINS", cls.allowed_origins),
            hf_model_uri=given.matching("HF_MODEL_URI", r"[\w.-]+(/[\w.-]+)?", "a model's name", cls.hf_model_uri),
            encoder_engine=engine,
            encoder_precision=given.one_of(
                "ENCODER_PRECISION",
                (*PRECISIONS[engine], "auto"),
                cls.encoder_precision,
                f" with ENCODER_ENGINE={engine}",
            ),
            keep_warm_minutes=given.integer("KEEP_WARM_MINUTES", KEEP_WARM_MINUTES_RANGE, cls.keep_warm_minutes),
            model_on_efs=given.flag("MODEL_ON_EFS", cls.model_on_efs),
            refresh_hours=given.integer("REFRESH_HOURS", REFRESH_HOURS_RANGE, cls.refresh_hours),
            snapshots_url=given.matching(
                "SNAPSHOTS_URL",
                r"https://[^\s/?#]+([/?#]\S*)?",
                "an address that begins with https://",
                cls.snapshots_url,
            ),
            stack_name=given.matching(
                "STACK_NAME", STACK_NAME, "letters, digits and hyphens, with a letter first", cls.stack_name
            ),
            tags=given.tags("TAGS"),
            termination_protection=given.flag("TERMINATION_PROTECTION", cls.termination_protection),
            throttle_rate=given.integer("THROTTLE_RATE", THROTTLE_RATE_RANGE, cls.throttle_rate),
            throttle_burst=given.integer("THROTTLE_BURST", THROTTLE_BURST_RANGE, cls.throttle_burst),
            max_concurrency=given.integer("MAX_CONCURRENCY", MAX_CONCURRENCY_RANGE, 0) or None,
            api_auth=given.one_of("API_AUTH", AUTHS, cls.api_auth),
            domain_name=domain_name,
            certificate_arn=certificate_arn,
            alarms=given.flag("ALARMS", cls.alarms),
            alarm_email=given.optional("ALARM_EMAIL", r"[^@\s,]+@[^@\s,]+\.[^@\s,]+", "one e-mail address"),
            max_state_age_days=given.integer("MAX_STATE_AGE_DAYS", MAX_STATE_AGE_DAYS_RANGE, cls.max_state_age_days),
            max_usd_per_hour=given.number("MAX_USD_PER_HOUR", MAX_USD_PER_HOUR_RANGE, cls.max_usd_per_hour),
        )
        return config, tuple(given.problems)

    def memory_of(self, handler: HandlerFile) -> int:
        """The memory of a Lambda, in MiB. The setting is also a limit: new accounts get 3,008 MB at most."""
        return min(handler.memory_mib or self.memory_mib, self.memory_mib)

    def deploys(self, handler: HandlerFile) -> bool:
        """Whether a handler becomes a Lambda. A browser can't sign its requests, so it couldn't open a page."""
        return not (handler.page and self.api_auth == "iam")


class _Variables:
    """Environment variables, each read with its rule. One that breaks its rule is a problem, and has its default."""

    def __init__(self, environment: Mapping[str, str | None]) -> None:
        self._environment = environment
        self.problems: list[str] = []

    def _get(self, name: str) -> str:
        return (self._environment.get(name) or "").strip()

    def _or(self, default: V, problem: str) -> V:
        self.problems.append(problem)
        return default

    def matching(self, name: str, pattern: str, meaning: str, default: str = "") -> str:
        value = self._get(name) or default
        if not value:
            return self._or("", f"{name} is not set: give {meaning}, in the environment or in .env (see .env.example).")
        if not re.fullmatch(pattern, value, re.ASCII):
            return self._or(default, f'{name} must be {meaning}, not "{value}".')
        return value

    def optional(self, name: str, pattern: str, meaning: str) -> str:
        """ "" if it isn't set."""
        return self.matching(name, pattern, meaning) if self._get(name) else ""

    def one_of(self, name: str, allowed: Sequence[T], default: T, condition: str = "") -> T:
        """condition: the setting that allows these values, for the message."""
        value = self._get(name) or default
        for known in allowed:
            if value == known:
                return known
        *most, last = allowed
        meaning = f"{', '.join(most)} or {last}{condition}"
        return self._or(default, f'{name} must be {meaning}, not "{value}".')

    def flag(self, name: str, default: bool) -> bool:
        return self.one_of(name, ("true", "false"), "true" if default else "false") == "true"

    def integer(self, name: str, limits: tuple[int, int], default: int) -> int:
        value = self._get(name) or str(default)
        low, high = limits
        if not re.fullmatch(r"[0-9]{1,6}", value, re.ASCII) or not low <= int(value) <= high:
            return self._or(default, f'{name} must be a whole number from {low} to {high}, not "{value}".')
        return int(value)

    def number(self, name: str, limits: tuple[float, float], default: float) -> float:
        value = self._get(name) or f"{default:g}"
        low, high = limits
        if not re.fullmatch(r"[0-9]{1,6}(\.[0-9]{1,6})?", value, re.ASCII) or not low <= float(value) <= high:
            return self._or(default, f'{name} must be a number from {low:g} to {high:g}, not "{value}".')
        return float(value)

    def tags(self, name: str) -> tuple[tuple[str, str], ...]:
        tags: dict[str, str] = {}
        for tag in filter(None, (part.strip() for part in self._get(name).split(","))):
            found = re.fullmatch(_TAG, tag)
            if not found:
                return self._or(
                    (),
                    f'{name} must list tags such as stage=production,owner=me, not "{tag}": a name can\'t begin with '
                    '"aws:", and has letters, digits and . : / + @ - _ only. A value can\'t be empty.',
                )
            key, value = found.groups()
            # The stack's roles are tagged too, and to IAM "Stage" and "stage" are the same:
            # https://docs.aws.amazon.com/IAM/latest/UserGuide/id_tags.html
            if key.lower() in map(str.lower, tags):
                return self._or((), f'{name} names "{key}" twice: capitals make no difference.')
            tags[key] = value
        if len(tags) > _MOST_TAGS:
            return self._or((), f"{name} must list {_MOST_TAGS} tags at most, not {len(tags)}.")
        return tuple(tags.items())

    def domain(self, region: str) -> tuple[str, str]:
        """The domain's name and its certificate's ARN; both "" without them. region: "" if it isn't known."""
        before = len(self.problems)
        name = self.optional("DOMAIN_NAME", _HOST, "a domain's name in small letters, such as similar.example.org")
        arn = self.optional("CERTIFICATE_ARN", _CERTIFICATE, "the ARN of a certificate in AWS Certificate Manager")
        if len(self.problems) > before:
            return "", ""
        if bool(name) != bool(arn):
            return self._or(("", ""), "DOMAIN_NAME and CERTIFICATE_ARN go together: set both or neither.")
        if arn and region and (found := re.fullmatch(_CERTIFICATE, arn)) and found[1] != region:
            return self._or(
                ("", ""), f"CERTIFICATE_ARN must be of a certificate in {region}, the API's region, not {found[1]}."
            )
        return name, arn

    def origins(self, name: str, default: tuple[str, ...]) -> tuple[str, ...]:
        origins = tuple(origin.strip() for origin in self._get(name).split(",") if origin.strip()) or default
        for origin in origins:
            # https://fetch.spec.whatwg.org/#cors-protocol-and-credentials
            if "*" in origin:
                return self._or(
                    default,
                    f'{name} can\'t have a wildcard, as in "{origin}": the API allows credentials, and a wildcard '
                    "doesn't go with those. List each origin, such as https://example.org.",
                )
            if not re.fullmatch(r"https?://[^\s/]+", origin):
                return self._or(
                    default, f'{name} must list origins such as https://example.org, without a path, not "{origin}".'
                )
        return origins


def env_file(path: Path) -> dict[str, str | None]:
    """The variables in a .env file, none where there is no such file. Raises ConfigError."""
    not_utf8 = ConfigError(f"{path.name} is not in UTF-8: save it as UTF-8 (Windows PowerShell writes UTF-16).")
    try:
        text = path.read_text(encoding="utf-8-sig")
    # A folder of that name may be a virtual environment.
    except (FileNotFoundError, IsADirectoryError):
        return {}
    except OSError as error:
        raise ConfigError(f"{path.name} can't be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise not_utf8 from error
    if "\0" in text:  # UTF-16 without a byte order mark
        raise not_utf8
    # dotenv leaves such a line out. With it the setting would have its default, e.g. an API that anybody may call.
    for line in parse_stream(io.StringIO(text)):
        if line.error:
            raise ConfigError(
                f"Line {line.original.line} of {path.name} isn't NAME=value: correct it. A quotation mark may lack the "
                "other one."
            )
    return dotenv_values(stream=io.StringIO(text))


def settings(environment: Mapping[str, str], path: Path) -> dict[str, str | None]:
    """The variables of a .env file and of the environment, which wins. Raises ConfigError.

    A variable that is empty in the environment counts as not set there, so it doesn't hide the line in the file.
    """
    return {**env_file(path), **{name: value for name, value in environment.items() if value.strip()}}
