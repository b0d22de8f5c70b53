"""One browser and one local server for all tests of the page."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest
from playwright.sync_api import Browser, Page

from browser.chromium import PATIENCE_MS, NoBrowserError, is_required, running_chromium
from browser.explorer import HEIGHT, SCHEMES, TELL_VIOLATIONS, WIDTHS, Explorer
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


def new_page(browser: Browser, width: int, scheme: Any, touch: bool) -> Page:
    size: Any = {"width": width, "height": HEIGHT}
    context = browser.new_context(viewport=size, color_scheme=scheme, has_touch=touch, is_mobile=touch)
    context.set_default_timeout(PATIENCE_MS)
    context.add_init_script(TELL_VIOLATIONS)
    return context.new_page()


@pytest.fixture
def opens(browser: Browser, server: Server) -> Iterator[Opens]:
    made: list[Explorer] = []

    def open_one(*, width: int = WIDTHS[0], scheme: Any = "light", touch: bool = False) -> Explorer:
        made.append(Explorer(new_page(browser, width, scheme, touch), server.url))
        return made[-1]

    yield open_one
    for explorer in made:
        explorer.page.context.close()
    for explorer in made:
        explorer.require_no_trouble()


@pytest.fixture(scope="package")
def desk(browser: Browser) -> Iterator[Page]:
    """At the width of a desk, in light."""
    page = new_page(browser, WIDTHS[0], SCHEMES[0], touch=False)
    yield page
    page.context.close()


@pytest.fixture
def explorer(desk: Page, server: Server) -> Iterator[Explorer]:
    """On `desk`, since a page of its own would take most of a test's time."""
    explorer = Explorer(desk, server.url)
    yield explorer
    explorer.leave()
    desk.set_viewport_size({"width": WIDTHS[0], "height": HEIGHT})
    desk.emulate_media(color_scheme=SCHEMES[0])
    explorer.require_no_trouble()
