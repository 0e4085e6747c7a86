"""A real browser that can reach only one service, and a record of all that it did."""

import contextlib
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, Route, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
PROGRAM = next(filter(None, map(shutil.which, NAMES)), None)
OPTIONS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    # No part of the browser may look up a name.
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost",
]

needs_browser = pytest.mark.skipif(
    PROGRAM is None and not os.environ.get("CI"),
    reason="there is no Chromium (chromium, chromium-browser, google-chrome), and CI is not set",
)


@dataclass
class Visit:
    """One page of a browser, and what happened on it, in order.

    `requests` are all requests as "METHOD URL", including those that were `blocked` because they
    lead elsewhere. `console` holds "type: text", `errors` are uncaught exceptions of scripts, and
    `failed` are requests without an answer or with a status of 400 and more.
    """

    page: Page
    requests: list[str] = field(default_factory=list)
    blocked: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    console: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


def outside(origin: str) -> re.Pattern[str]:
    """The addresses that neither belong to the service at `origin` nor are made by the page."""
    own = re.escape(origin)
    return re.compile(f"^(?!{own}$|{own}/|data:|blob:{own}/)")


def watch(visit: Visit, origin: str) -> None:
    """Record what happens on the page, and block every request that does not go to `origin`."""

    def block(route: Route) -> None:
        visit.blocked.append(route.request.url)
        route.abort()

    page = visit.page
    page.context.route(outside(origin), block)
    page.context.route_web_socket("**", lambda socket: visit.blocked.append(socket.url))
    page.on("request", lambda request: visit.requests.append(f"{request.method} {request.url}"))
    page.on("requestfailed", lambda request: visit.failed.append(f"{request.url}: no answer"))
    page.on(
        "response",
        lambda response: (
            visit.failed.append(f"{response.url}: {response.status}")
            if response.status >= 400
            else None
        ),
    )
    page.on("console", lambda line: visit.console.append(f"{line.type}: {line.text}"))
    page.on("pageerror", lambda error: visit.errors.append(str(error)))


@contextlib.contextmanager
def browsing() -> Iterator[Browser]:
    """A browser for several visits."""
    with sync_playwright() as playwright:
        assert PROGRAM, "there is no Chromium"
        browser = playwright.chromium.launch(executable_path=PROGRAM, args=OPTIONS)
        try:
            yield browser
        finally:
            browser.close()


@contextlib.contextmanager
def visiting(origin: str, browser: Browser | None = None, **options: Any) -> Iterator[Visit]:
    """An empty page that can reach `origin`, such as "http://127.0.0.1:5000", and nothing else.

    It is one of `browser`, or of a browser of its own; `options` are Playwright's for a context.
    """
    with browsing() if browser is None else contextlib.nullcontext(browser) as opened:
        context = opened.new_context(service_workers="block", locale="en-US", **options)
        context.set_default_timeout(6_000)
        visit = Visit(context.new_page())
        watch(visit, origin)
        try:
            yield visit
        finally:
            context.close()
