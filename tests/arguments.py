"""Whether a script takes arguments, without doing what they ask for."""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Sequence

import pytest


def require_parsed(
    module: str, arguments: Sequence[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Fails if the `main` of a script's module doesn't take these arguments."""

    class ParsedError(Exception):
        pass

    parse = argparse.ArgumentParser.parse_args

    def parse_and_stop(parser: argparse.ArgumentParser, given: list[str]) -> None:
        parse(parser, given)
        raise ParsedError

    main = importlib.import_module(module).main
    with monkeypatch.context() as patch:
        patch.setattr(argparse.ArgumentParser, "parse_args", parse_and_stop)
        try:
            with pytest.raises(ParsedError):
                main(list(arguments))
        except SystemExit:
            pytest.fail(capsys.readouterr().err)
