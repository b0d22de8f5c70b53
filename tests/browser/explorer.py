"""The page in a browser: what a person finds on it, what it asks for, and what goes wrong in it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import urlsplit

from playwright.sync_api import ConsoleMessage, Error, Locator, Page, Request, Route, expect

from browser.made import Made
from processes import wait_until
from similarity.api.answers import Document

WIDTHS = (1280, 375)
SCHEMES: tuple[Literal["light", "dark"], ...] = ("light", "dark")
HEIGHT = 900

# For each document, before its own scripts: whatever the policy keeps from happening is to be seen in the console.
TELL_VIOLATIONS = """addEventListener("securitypolicyviolation", event =>
    console.error(`violation: ${event.violatedDirective} ${event.blockedURI} ${event.sample}`))"""
# Chromium's own line about an answer that isn't good, which the page shows in words.
_NO_TROUBLE = "Failed to load resource"
# Hovers over the whole map, and returns for each incident that the tip names the middle of the places where it does.
_SWEEP = """async () => {
    await new Promise(resolve => requestAnimationFrame(() => requestAnimationFrame(resolve)));  // until it is drawn
    const map = document.getElementById("map"), tip = document.getElementById("tip"), found = {}, step = 7;
    const {left, top, right, bottom} = map.getBoundingClientRect();
    const hover = (type, x, y) =>
        map.dispatchEvent(new PointerEvent(type, {clientX: x, clientY: y, bubbles: true, pointerType: "mouse"}));
    for (let y = top + 1; y < bottom; y += step) {
        for (let x = left + 1; x < right; x += step) {
            hover("pointermove", x, y);
            const [, number] = tip.hidden ? [] : /Incident ([0-9]+)(?=[^0-9]|$)/.exec(tip.lastChild.textContent) ??
                /Incident ([0-9]+)/.exec(tip.textContent);
            if (number) (found[number] ??= []).push([x, y]);
        }
    }
    hover("pointerleave", left, top);
    const mean = (places, axis) => places.reduce((sum, place) => sum + place[axis], 0) / places.length;
    return Object.entries(found).map(([number, places]) => [Number(number), mean(places, 0), mean(places, 1)]);
}"""


@dataclass
class Service:
    """Stands in the place of /similar. Without an answer that is ready, a request waits."""

    ready: list[Made] = field(default_factory=list)
    asked: list[dict[str, Any]] = field(default_factory=list)
    waiting: dict[int, Route] = field(default_factory=dict)

    def take(self, route: Route) -> None:
        self.waiting[len(self.asked)] = route
        self.asked.append(json.loads(route.request.post_data or "null"))
        if self.ready:
            self.answer(self.ready.pop(0))

    def answer(self, made: Made, number: int | None = None) -> None:
        """number: of the request, from 0; the latest one if it isn't given."""
        route = self.waiting.pop(max(self.waiting) if number is None else number)
        if made.status is None:
            route.abort("connectionreset")
        else:
            route.fulfill(status=made.status, body=made.content, content_type=made.media_type)


class Explorer:
    """A page of a browser on /explore.

    requests: the URLs of all requests. trouble: errors of the script, and violations of the policy.
    """

    def __init__(self, page: Page, origin: str) -> None:
        self.page = page
        self.origin = origin
        self.requests: list[str] = []
        self.trouble: list[str] = []
        self.service: Service | None = None
        # Requests to elsewhere are noted, and go nowhere.
        page.route(lambda url: not self.is_own(url), lambda route: route.abort())
        page.on("request", self._note_request)
        page.on("console", self._note_line)
        page.on("pageerror", self._note_error)

    def leave(self) -> None:
        """Makes the page one for another Explorer. No request and no script of this one is left."""
        self.page.goto("about:blank")
        self.page.unroute_all(behavior="ignoreErrors")
        self.page.remove_listener("request", self._note_request)
        self.page.remove_listener("console", self._note_line)
        self.page.remove_listener("pageerror", self._note_error)

    def require_no_trouble(self) -> None:
        """In no test may the page's script fail, its policy be violated, or a request go elsewhere."""
        assert self.trouble == []
        assert self.foreign_requests == []

    def _note_request(self, request: Request) -> None:
        self.requests.append(request.url)

    def _note_line(self, line: ConsoleMessage) -> None:
        if line.type == "error" and not line.text.startswith(_NO_TROUBLE):
            self.trouble.append(line.text)

    def _note_error(self, error: Error) -> None:
        self.trouble.append(str(error))

    def is_own(self, url: str) -> bool:
        return url.startswith((f"{self.origin}/", "data:", "about:"))

    @property
    def foreign_requests(self) -> list[str]:
        return [url for url in self.requests if not self.is_own(url)]

    # What the tests put in the place of the service.

    def answer_with(self, *made: Made) -> Service:
        """The next requests for matches get these answers. Later ones wait for `Service.answer`."""
        if not self.service:
            self.service = Service()
            self.page.route("**/similar", self.service.take)
        self.service.ready.extend(made)
        return self.service

    def show(self, document: Document) -> None:
        """The page is this one, with its headers."""
        headers = {"Content-Type": document.media_type, **document.headers}
        self.page.route(
            lambda url: urlsplit(url).path == "/explore",
            lambda route: route.fulfill(status=document.status, headers=headers, body=document.content),
        )

    # What a person does.

    def open(self, fragment: str = "") -> None:
        self.page.goto(f"{self.origin}/explore{fragment}")

    def find(self, text: str) -> None:
        self.text.fill(text)
        self.page.get_by_role("button", name="Find incidents").click()

    def show_incident(self, number: int | str) -> None:
        self.number.fill(str(number))
        self.page.get_by_role("button", name="Show incident").click()

    def until(self, condition: Callable[[], bool], what: str) -> None:
        """Waits, and lets the browser go on meanwhile."""

        def holds() -> bool:
            self.page.evaluate("0")
            return condition()

        wait_until(holds, what)

    # What a person finds.

    @property
    def text(self) -> Locator:
        return self.page.get_by_label("Text of a report")

    @property
    def number(self) -> Locator:
        return self.page.get_by_label("Number of an incident")

    @property
    def status(self) -> Locator:
        return self.page.locator("#status")

    @property
    def error(self) -> Locator:
        return self.page.locator("#error")

    @property
    def try_again(self) -> Locator:
        return self.page.get_by_role("button", name="Try again")

    @property
    def verdict(self) -> Locator:
        return self.page.locator("#verdict")

    @property
    def matches(self) -> Locator:
        return self.page.locator("#matches > li").filter(visible=True)

    @property
    def map(self) -> Locator:
        return self.page.locator("#map")

    @property
    def tip(self) -> Locator:
        return self.page.locator("#tip")

    def data(self) -> Mapping[str, Any]:
        """What the server has written into the page."""
        written: Mapping[str, Any] = json.loads(self.page.locator("#data").text_content() or "")
        return written

    def places(self) -> dict[int, tuple[float, float]]:
        """Where on the screen each incident of the map in view is, in pixels, by its number."""
        self.map.scroll_into_view_if_needed()
        return {number: (x, y) for number, x, y in self.page.evaluate(_SWEEP)}

    def is_amid(self, place: tuple[float, float]) -> bool:
        """Whether a place on the screen is on the map, away from its edge."""
        box, (x, y), edge = self.map.bounding_box(), place, 20
        assert box
        return edge < x - box["x"] < box["width"] - edge and edge < y - box["y"] < box["height"] - edge

    def scale(self) -> float:
        """The pixels between two incidents in the middle of the map."""
        places = self.places()
        return math.dist(places[31], places[37])

    def expect_matches(self, *ids: int) -> None:
        """Waits for these matches, in this order."""
        expect(self.matches).to_have_count(len(ids))
        for match, incident_id in zip(self.matches.all(), ids, strict=True):
            button = match.get_by_role("button", name=f"Neighbours of incident {incident_id}", exact=True)
            expect(button).to_be_visible()
