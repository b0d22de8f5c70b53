"""The check of the settings: missing and wrong ones, and lines of .env that have no effect."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping

from deployment.findings import Finding, note, ok, problem
from deployment.given import Given
from infrastructure.config import Config, ConfigError, env_file
from similarity.errors import one_line


def settings_findings(given: Given) -> Iterator[Finding]:
    name = "Settings"
    known = known_settings()
    try:
        in_file = env_file(given.root / ".env")
    except ConfigError:  # given.problems has it
        in_file = {}
    copy = "" if (given.root / ".env").exists() else "cp .env.example .env\nthen "
    for sentence in given.problems:
        if variable := _unset(sentence):
            example = {"AWS_ACCOUNT_ID": "123456789012", "AWS_REGION": "us-east-1"}.get(variable, "…")
            yield problem(name, f"{variable} is not set", f"{copy}put a line like {variable}={example} into .env")
            copy = ""
        else:
            yield problem(name, one_line(sentence.removesuffix(".")), _remedy(sentence, given, in_file, known))
    for variable, value in in_file.items():
        if value is None and variable not in known:
            # It may be a key or a password that belongs elsewhere.
            yield note(name, "a line of .env has no equals sign, and isn't the name of a setting")
        elif variable.startswith("AWS_") and variable not in known:
            yield note(name, f"{one_line(variable)} in .env has no effect", f"export {one_line(variable)}=…")
        elif variable not in known:
            nearest = difflib.get_close_matches(variable.upper(), known, n=1)
            meant = f"; did you mean {nearest[0]}?" if nearest else ""
            yield note(name, f"{one_line(variable)} in .env isn't a setting{meant}")
    if not given.problems:
        config = given.config
        yield ok(name, f"account {config.account}, region {config.region}, stack {config.stack_name}")


class _Asked(Mapping[str, str | None]):
    """An empty environment that notes the names that it is asked for."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def __getitem__(self, name: str) -> str | None:
        self.names.append(name)
        raise KeyError(name)

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


def known_settings() -> list[str]:
    """The names of all settings."""
    asked = _Asked()
    Config.with_problems(asked)
    return sorted(set(asked.names))


def _unset(sentence: str) -> str:
    """The variable that a problem calls missing, "" if it is another problem."""
    found = re.match(r"(\w+) is not set:", sentence)
    return found[1] if found else ""


def _remedy(sentence: str, given: Given, in_file: Mapping[str, str | None], known: list[str]) -> str:
    """What to do about a wrong value."""
    # Behind the first quotation mark comes a value, which may be any text.
    variable = next((word for word in re.findall(r"\w+", sentence.partition('"')[0]) if word in known), "")
    if not variable:
        return "correct that line" if sentence.startswith("Line ") else "save .env as a text in UTF-8 that you may read"
    value = (given.environment.get(variable) or "").strip()
    if value == (in_file.get(variable) or "").strip():
        return f"correct {variable} in .env"
    option = " or --stack" if variable == "STACK_NAME" else ""
    return f"correct {variable} in the environment{option}, which wins over .env"
