"""Two stacks, each synthesised once for all tests."""

from __future__ import annotations

import pytest

from stack import DEFAULT, OTHER, Synthesised, synthesise


@pytest.fixture(scope="session")
def default(tmp_path_factory: pytest.TempPathFactory) -> Synthesised:
    """With the two required settings only."""
    return synthesise(DEFAULT, tmp_path_factory.mktemp("default"))


@pytest.fixture(scope="session")
def other(tmp_path_factory: pytest.TempPathFactory) -> Synthesised:
    """With every setting changed."""
    return synthesise(OTHER, tmp_path_factory.mktemp("other"))


@pytest.fixture(params=["default", "other"])
def each(request: pytest.FixtureRequest) -> Synthesised:
    """What holds whatever the settings are."""
    synthesised = request.getfixturevalue(request.param)
    assert isinstance(synthesised, Synthesised)
    return synthesised
