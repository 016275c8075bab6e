"""Whoever leaves takes the session along: by whatever way, and while files are still being sent."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.async_api import BrowserContext, Page, Playwright

from ledger import SessionLedger, Settings
from tests.e2e.house import (
    CHROMIUM,
    HOLD_COMMITS,
    LIKE_PEOPLE,
    QUIET,
    SLOW_PREFLIGHT,
    Front,
    House,
    browsers_of,
    put_a_chooser,
    slow_line,
    until,
    with_module,
)

pytestmark = pytest.mark.anyio

WAYS = ("navigates away", "closes the tab", "closes the page")
ORIGINS = ("same origin", "across origins", "across origins, slowly")
EVERY_WAY = [(way, origin) for way in WAYS for origin in ORIGINS]
# Who gets through with a slow preflight does with a quick one.
EVERY_DAY = [(way, origin) for way, origin in EVERY_WAY if origin != ORIGINS[1]]


@dataclass
class Try:
    """A user who uploads and leaves."""

    context: BrowserContext
    house: House
    front: Front
    big: Path

    async def gone_after(self, way: str, origin: str) -> float:
        """Seconds from leaving until the session's directory is gone; at most 10."""
        async with AsyncExitStack() as stack:
            stack.enter_context(self.house.gate(SLOW_PREFLIGHT, origin == "across origins, slowly"))
            before = self.house.standing()
            page = await self.context.new_page()
            stack.push_async_callback(page.close)
            await self._begin(page, "/healthz" if origin == "same origin" else "")
            if way == "closes the page":
                await stack.enter_async_context(slow_line(page))
                await self._send_big(page)
            [session_id] = self.house.standing() - before
            await self._leave(page, way)
            began = time.monotonic()
            while session_id in self.house.standing() and time.monotonic() < began + 10:
                await asyncio.sleep(0.005)
            assert "film.mp4 201" not in self.house.process.log
            return time.monotonic() - began

    async def _begin(self, page: Page, path: str) -> None:
        await page.goto(self.house.url + path if path else self.front.url)
        await with_module(page, self.house)
        await page.evaluate("session.upload(new File(['two seats'], 'order.txt'))")

    async def _send_big(self, page: Page) -> None:
        """Returns when it is on its way, and far from its end."""
        await put_a_chooser(page, self.big)
        await page.evaluate(
            """new Promise((resolve, reject) => {
                const onProgress = ({loaded}) => loaded > 1e6 && resolve();
                const film = document.querySelector("input").files[0];
                session.upload(film, {onProgress}).then(() => reject("it is there"), reject);
            })"""
        )

    async def _leave(self, page: Page, way: str) -> None:
        if way == "navigates away":
            await page.goto(self.front.url + "/elsewhere", wait_until="commit")
        elif way == "closes the tab":
            await page.close(run_before_unload=True)
        else:
            await page.close()


@pytest.fixture
def attempt(context: BrowserContext, house: House, front: Front, big: Path) -> Try:
    return Try(context, house, front, big)


@pytest.mark.parametrize(("way", "origin"), EVERY_DAY)
async def test_who_leaves_takes_the_session_along(attempt: Try, way: str, origin: str) -> None:
    assert await attempt.gone_after(way, origin) < 2


@pytest.mark.torture
@pytest.mark.parametrize(("way", "origin"), EVERY_WAY)
async def test_twenty_of_twenty_take_it_along(attempt: Try, way: str, origin: str) -> None:
    took = sorted([await attempt.gone_after(way, origin) for _ in range(20)])
    print(
        f"{way}, {origin}: {sum(each < 2 for each in took)} of 20, the last after {took[-1]:.2f} s"
    )
    assert took[-1] < 2


async def test_leaving_while_the_session_is_made_leaves_none(page: Page, house: House) -> None:
    """The page cannot delete it, having no id yet; the service sees that nobody is there."""
    before = house.standing()
    incoming = house.root / ".coatcheck/incoming"
    await page.goto(f"{house.url}/healthz")
    await with_module(page, house)
    with house.gate(HOLD_COMMITS):
        await page.evaluate("session.upload(new File(['x'], 'a')).catch(() => {}), null")
        await until(lambda: list(incoming.iterdir()))
        connected = house.connections()
        await page.goto("about:blank")
        await until(lambda: house.connections() < connected)
    await until(lambda: "POST /api/v1/upload 499" in house.process.log)
    assert not house.standing() - before


async def test_leaving_stops_all_uploads_at_once(page: Page, house: House, big: Path) -> None:
    """More are on their way than the browser has connections."""
    before = house.standing()
    await page.goto(f"{house.url}/healthz")
    await with_module(page, house)
    await put_a_chooser(page, big)
    async with slow_line(page):
        await page.evaluate(
            """new Promise((resolve) => {
                const film = document.querySelector("input").files[0];
                const onProgress = ({loaded}) => loaded && resolve();
                for (let n = 0; n < 9; n++) session.upload(film, {onProgress}).catch(() => {});
            })"""
        )
        assert len(house.standing() - before) == 1
        await page.goto("about:blank")
        await until(lambda: not house.standing() - before, 2)
    await until(lambda: not list((house.root / ".coatcheck/incoming").iterdir()))


async def test_a_killed_browser_says_nothing_and_the_sweep_comes(
    playwright: Playwright, house: House, tmp_path: Path
) -> None:
    browser = await playwright.chromium.launch_persistent_context(
        tmp_path, executable_path=CHROMIUM, args=QUIET, ignore_default_args=LIKE_PEOPLE
    )
    page = browser.pages[0]
    await page.goto(f"{house.url}/healthz")
    await with_module(page, house)
    before = house.standing()
    await page.evaluate("session.upload(new File(['two seats'], 'order.txt'))")
    [session_id] = house.standing() - before
    [killed] = browsers_of(tmp_path)
    os.kill(killed, signal.SIGKILL)
    await until(lambda: not browsers_of(tmp_path))
    assert session_id in house.standing()

    def is_swept() -> bool:
        sessions.cleanup_stale_sessions(max_age_hours=0.0001)
        return session_id not in house.standing()

    settings = Settings(root=house.root, ledger=f"sqlite:///{house.root.parent}/ledger.db")
    with SessionLedger.open(settings) as sessions:
        await until(is_swept)
