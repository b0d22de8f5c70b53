"""Region, name and model of the stack: from the environment, else from the file `.env` that deploys it."""

from __future__ import annotations

import re
from argparse import ArgumentTypeError
from collections.abc import Mapping
from pathlib import Path

from dotenv import dotenv_values

from similarity.errors import one_line
from similarity.settings import DEFAULT_MODEL_URI, DEFAULT_STACK_NAME, REGION, STACK_NAME


class SettingError(Exception):
    """A setting that is missing or has a bad value. The message is one sentence."""


def region_of(environment: Mapping[str, str], env_file: Path) -> str:
    """The region of the environment, else that of the file `.env`. Raises SettingError."""
    given = _setting("AWS_REGION", environment, env_file, "AWS_DEFAULT_REGION")
    if not given:
        raise SettingError(
            "AWS_REGION isn't set: give the region of the stack, such as us-east-1, in the environment or in .env"
        )
    if not re.fullmatch(REGION, given, re.ASCII):
        raise SettingError(f"AWS_REGION must be an AWS region such as us-east-1, not {given!r}")
    return given


def stack_name_of(environment: Mapping[str, str], env_file: Path) -> str:
    """The STACK_NAME of the environment, else that of the file `.env`, else the default. Raises SettingError."""
    given = _setting("STACK_NAME", environment, env_file) or DEFAULT_STACK_NAME
    if not re.fullmatch(STACK_NAME, given, re.ASCII):
        raise SettingError(f"STACK_NAME must be letters, digits and hyphens, with a letter first, not {given!r}")
    return given


def model_uri_of(environment: Mapping[str, str], env_file: Path) -> str:
    """The HF_MODEL_URI of the environment, else that of the file `.env`, else the default. Raises SettingError."""
    return _setting("HF_MODEL_URI", environment, env_file) or DEFAULT_MODEL_URI


def require_stack_name(value: str) -> str:
    """The value of an option that names a stack. Raises argparse's error for one that can't be a name."""
    if not re.fullmatch(STACK_NAME, value, re.ASCII):
        raise ArgumentTypeError(f"{value!r} isn't the name of a stack")
    return value


def _setting(name: str, environment: Mapping[str, str], env_file: Path, *others: str) -> str:
    """others: names that count in the environment alone. "" if nothing is set."""
    for each in (name, *others):
        if given := (environment.get(each) or "").strip():
            return given
    try:
        return (dotenv_values(env_file, encoding="utf-8-sig").get(name) or "").strip()
    except (OSError, ValueError) as error:
        raise SettingError(f"{env_file} can't be read: {one_line(str(error))}") from error
