"""One browser and one local server for all tests of the page; each test has a page of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest
from playwright.sync_api import Browser, BrowserContext

from browser.chromium import NoBrowserError, is_required, running_chromium
from browser.explorer import HEIGHT, WIDTHS, Explorer
from browser.states import mapped_state
from serving import Server, serving
from similarity.encoder.torch_encoder import TorchEncoder
from similarity.incidents.state import IncidentState


class Opens(Protocol):
    """Makes an Explorer. touch: a finger in the place of a mouse."""

    def __call__(self, *, width: int = ..., scheme: Any = ..., touch: bool = ...) -> Explorer: ...


@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    try:
        with running_chromium() as chromium:
            yield chromium
    except NoBrowserError as error:
        if is_required():
            pytest.fail(str(error))
        pytest.skip(str(error))


@pytest.fixture(scope="package")
def mapped(tiny_encoder: TorchEncoder) -> IncidentState:
    return mapped_state(tiny_encoder)


@pytest.fixture(scope="package")
def server(mapped: IncidentState, tiny_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The real service. Its log is that of a Lambda, and it has a line for each request."""
    folder = tmp_path_factory.mktemp("explored")
    mapped.save(folder / "state.pt")
    with serving(folder, "--model", tiny_model_dir, "--state", folder / "state.pt", "--verbose") as found:
        yield found


@pytest.fixture
def opens(browser: Browser, server: Server) -> Iterator[Opens]:
    """In no test may the page's script fail, its policy be violated, or a request go elsewhere."""
    made: list[tuple[BrowserContext, Explorer]] = []

    def open_one(*, width: int = WIDTHS[0], scheme: Any = "light", touch: bool = False) -> Explorer:
        context = browser.new_context(
            viewport={"width": width, "height": HEIGHT}, color_scheme=scheme, has_touch=touch, is_mobile=touch
        )
        explorer = Explorer(context, server.url)
        made.append((context, explorer))
        return explorer

    yield open_one
    for context, explorer in made:
        context.close()
        assert explorer.trouble == []
        assert explorer.foreign_requests == []


@pytest.fixture
def explorer(opens: Opens) -> Explorer:
    """At the width of a desk, in light."""
    return opens()
