"""The fixtures of the tests in a real browser: one of each for all tests of a process."""

from __future__ import annotations

import asyncio
import functools
import os
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest
from playwright.async_api import Browser, BrowserContext, Page, Playwright, async_playwright

from tests.e2e.clients import install
from tests.e2e.house import (
    BIG,
    CHROMIUM,
    LIKE_PEOPLE,
    MOST_BYTES,
    QUIET,
    Front,
    House,
    a_front,
    a_house,
)

PATIENCE_S = 60


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What waits for ever ends by itself, in its own loop, which an alarm would leave hanging."""
    for item in items:
        if not isinstance(item, pytest.Function) or item.path.parent != Path(__file__).parent:
            continue
        if asyncio.iscoroutinefunction(item.obj) and not item.get_closest_marker("torture"):
            item.obj = _in_time(item.obj)


def _in_time(test: Callable[..., Awaitable[None]]) -> Callable[..., Awaitable[None]]:
    @functools.wraps(test)
    async def timed(*given: object, **named: object) -> None:
        async with asyncio.timeout(PATIENCE_S):
            await test(*given, **named)

    return timed


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="session")
async def playwright(anyio_backend: str) -> AsyncIterator[Playwright]:
    if not os.path.exists(CHROMIUM):
        pytest.skip(f"there is no {CHROMIUM}; on Debian or Ubuntu: apt install chromium")
    async with async_playwright() as playwright:
        yield playwright


@pytest.fixture(scope="session")
async def chromium(playwright: Playwright) -> AsyncIterator[Browser]:
    browser = await launched(playwright)
    yield browser
    await browser.close()


async def launched(playwright: Playwright) -> Browser:
    return await playwright.chromium.launch(
        executable_path=CHROMIUM, args=QUIET, ignore_default_args=LIKE_PEOPLE
    )


@pytest.fixture(scope="session")
async def context(chromium: Browser) -> BrowserContext:
    """One profile for all: a new one costs as much as ten pages."""
    return await chromium.new_context()


@pytest.fixture(scope="session")
async def only_page(context: BrowserContext) -> Page:
    return await context.new_page()


@pytest.fixture
async def page(only_page: Page) -> Page:
    """An empty page, the same for all tests: a new one costs more than all they do with it."""
    await only_page.goto("about:blank")
    return only_page


@pytest.fixture(scope="session")
def front() -> Iterator[Front]:
    with a_front() as front:
        yield front


@pytest.fixture(scope="session")
def house(tmp_path_factory: pytest.TempPathFactory, front: Front) -> Iterator[House]:
    folder = tmp_path_factory.mktemp("house")
    settings = {"cors_origins": front.url, "max_session_bytes": str(MOST_BYTES)}
    with a_house(folder, **settings) as house:
        yield house
    shutil.rmtree(folder)


@pytest.fixture(scope="session")
def npm() -> None:
    install()


@pytest.fixture(scope="session")
def big(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of 200 MB that takes no room."""
    path = tmp_path_factory.mktemp("big") / "film.mp4"
    with path.open("wb") as file:
        file.truncate(BIG)
    return path
