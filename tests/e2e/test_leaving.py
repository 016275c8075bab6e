"""Whoever leaves takes the session along: by whatever way, and while files are still being sent."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.async_api import Browser, Page

from tests.e2e.house import SLOW_PREFLIGHT, Front, House, with_module

pytestmark = pytest.mark.anyio

UPLINK = 20 << 20  # bytes a second: the big file takes ten seconds
WAYS = ("navigates away", "closes the tab", "closes the page")
ORIGINS = ("same origin", "across origins", "across origins, slowly")
EVERY_WAY = [(way, origin) for way in WAYS for origin in ORIGINS]


@dataclass
class Try:
    """One user, with a browser profile of their own, who uploads and leaves."""

    chromium: Browser
    house: House
    front: Front
    big: Path

    async def gone_after(self, way: str, origin: str) -> float:
        """Seconds from leaving until the session's directory is gone; at most 10."""
        context = await self.chromium.new_context()
        try:
            page = await context.new_page()
            with self.house.gate(SLOW_PREFLIGHT, origin == "across origins, slowly"):
                await self._begin(page, "/healthz" if origin == "same origin" else "")
                if way == "closes the page":
                    await self._send_big(page)
                [directory] = [self.house.root / name for name in self.house.standing()]
                await self._leave(page, way)
                began = time.monotonic()
                while directory.exists() and time.monotonic() < began + 10:
                    time.sleep(0.005)
                return time.monotonic() - began
        finally:
            await context.close()

    async def _begin(self, page: Page, path: str) -> None:
        await page.goto(self.house.url + path if path else self.front.url)
        await with_module(page, self.house)
        await page.evaluate("session.upload(new File(['two seats'], 'order.txt'))")

    async def _send_big(self, page: Page) -> None:
        """Returns when it is on its way, and far from its end."""
        await page.evaluate(
            "document.body.append(Object.assign(document.createElement('input'), {type: 'file'}))"
        )
        await page.set_input_files("input", self.big)
        client = await page.context.new_cdp_session(page)
        line = {
            "offline": False,
            "latency": 0,
            "downloadThroughput": -1,
            "uploadThroughput": UPLINK,
        }
        await client.send("Network.emulateNetworkConditions", line)
        await page.evaluate(
            """new Promise((resolve, reject) => {
                const onProgress = ({loaded}) => loaded > 1e6 && resolve();
                const file = document.querySelector("input").files[0];
                session.upload(file, {onProgress}).then(() => reject("it is there"), reject);
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
def attempt(chromium: Browser, house: House, front: Front, big: Path) -> Try:
    return Try(chromium, house, front, big)


@pytest.mark.parametrize(("way", "origin"), EVERY_WAY)
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
