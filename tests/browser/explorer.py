"""The page in a browser: what a person finds on it, what it asks for, and what goes wrong in it."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from playwright.sync_api import BrowserContext, ConsoleMessage, Locator, Request, Route, expect

from browser.chromium import PATIENCE_MS
from browser.made import Made
from processes import wait_until
from similarity.api.answers import Document

WIDTHS = (1280, 375)
SCHEMES = ("light", "dark")
HEIGHT = 900

# Whatever a policy keeps from happening is to be seen in the console as well.
_TELL_VIOLATIONS = """addEventListener("securitypolicyviolation", event =>
    console.error(`violation: ${event.violatedDirective} ${event.blockedURI} ${event.sample}`))"""
# Chromium's own line about an answer that isn't good, which the page shows in words.
_NO_TROUBLE = "Failed to load resource"
# Hovers over the whole map, and returns for each incident that the tip names the middle of the places where it does.
_SWEEP = """() => {
    const map = document.getElementById("map"), tip = document.getElementById("tip"), found = {}, step = 5;
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

    def __init__(self, context: BrowserContext, origin: str) -> None:
        self.origin = origin
        self.requests: list[str] = []
        self.trouble: list[str] = []
        self.service = Service()
        context.set_default_timeout(PATIENCE_MS)
        context.add_init_script(_TELL_VIOLATIONS)
        # Requests to elsewhere are noted, and go nowhere.
        context.route(lambda url: not self.is_own(url), lambda route: route.abort())
        self.page = context.new_page()
        self.page.on("request", self._note_request)
        self.page.on("console", self._note_line)
        self.page.on("pageerror", lambda error: self.trouble.append(str(error)))

    def _note_request(self, request: Request) -> None:
        self.requests.append(request.url)

    def _note_line(self, line: ConsoleMessage) -> None:
        if line.type == "error" and not line.text.startswith(_NO_TROUBLE):
            self.trouble.append(line.text)

    def is_own(self, url: str) -> bool:
        return url.startswith((f"{self.origin}/", "data:"))

    @property
    def foreign_requests(self) -> list[str]:
        return [url for url in self.requests if not self.is_own(url)]

    # What the tests put in the place of the service.

    def answer_with(self, *made: Made) -> Service:
        """The next requests for matches get these answers. Later ones wait for `Service.answer`."""
        self.service.ready.extend(made)
        self.page.route("**/similar", self.service.take)
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
