"""The page at /, led through a session's whole life; the docs' pictures of it are taken here."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal

import pytest
from playwright.async_api import BrowserContext, Page, expect
from pydantic import SecretStr

from ledger import Settings
from tests.cli import cc
from tests.e2e.clients import axe
from tests.e2e.house import BIG, Front, House, slow_line, until
from tests.web.services import listening
from web.app import create_app

pytestmark = pytest.mark.anyio

DESK, PHONE = 980, 360
Scheme = Literal["light", "dark"]


@asynccontextmanager
async def looking(
    context: BrowserContext, url: str, scheme: Scheme = "light", width: int = DESK
) -> AsyncIterator[Page]:
    """The page in a window of its own; it complains of nothing and asks nobody else."""
    page = await context.new_page()
    await page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
    await page.set_viewport_size({"width": width, "height": 780})
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda said: wrong.append(said.text) if _is_ours(said.text) else None)
    page.on("request", lambda asked: None if asked.url.startswith(url) else wrong.append(asked.url))
    await page.goto(url)
    yield page
    await page.close()
    assert wrong == []


def _is_ours(said: str) -> bool:
    """Chromium itself tells of each status from 400 on."""
    return not said.startswith("Failed to load resource: the server responded")


@pytest.fixture
def picture(tmp_path: Path) -> Callable[[str], Path]:
    """Where a picture goes: into the docs for `make pictures`, else nowhere."""
    place = Path(os.environ.get("PICTURES") or tmp_path)
    return lambda name: place / f"{name}.png"


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    made = []
    for name, size in (("letter.pdf", 184_300), ("passport.jpg", 3_412_000), ("notes.txt", 2_140)):
        path = tmp_path / name
        with path.open("wb") as file:
            file.truncate(size)
        made.append(path)
    return made


async def on_its_way(page: Page, share: float) -> None:
    progress = "document.querySelector('.sending progress')?.value ?? 0"
    while await page.evaluate(progress) < share:
        await asyncio.sleep(0.02)


async def stored(page: Page, number: int) -> None:
    await expect(page.locator("#list li.stored")).to_have_count(number, timeout=30_000)


async def told(page: Page) -> str:
    await page.wait_for_selector("#outcome:not([hidden])")
    return await page.inner_text("#outcome")


async def test_files_are_handed_in_and_claimed(
    context: BrowserContext,
    house: House,
    big: Path,
    files: list[Path],
    picture: Callable[[str], Path],
) -> None:
    async with looking(context, house.url) as page:
        await page.set_input_files("#choose", files)
        await stored(page, 3)
        async with slow_line(page):
            await page.set_input_files("#choose", big)
            await on_its_way(page, 0.1)
            assert await page.is_disabled("#claim button")
            assert "of 210 MB" in await page.inner_text("li.sending")
            await page.screenshot(path=picture("page"), full_page=True)
        await stored(page, 4)
        await page.click("text=Take out >> nth=0")
        await stored(page, 3)
        assert await page.evaluate("document.activeElement.ariaLabel") == "Take out passport.jpg"
        assert "3 files · 213 MB" in await page.inner_text("#files")
        assert await page.inner_text("#time-left") in ("24 h 0 min", "23 h 59 min")
        [session_id] = [name for name in house.standing() if "passport.jpg" in house.files(name)]
        await page.fill("#into", "spring")
        await page.press("#into", "Enter")
        assert "3 files, 213 MB, are kept as “spring”" in await told(page)
        claimed = {path.name: path.stat().st_size for path in (house.claims / "spring").iterdir()}
        assert claimed == {"passport.jpg": 3_412_000, "notes.txt": 2_140, "film.mp4": BIG}
        assert session_id not in house.standing()
        await page.click("text=Start anew")
        await page.set_input_files("#choose", files[0])
        await stored(page, 1)
        await page.fill("#into", "spring")
        await page.press("#into", "Enter")
        await expect(page.locator("#claim-words")).to_contain_text("spring")
        assert await page.get_attribute("#claim-words", "class") == "failed"


async def test_dropped_files_are_sent_and_discarded(context: BrowserContext, house: House) -> None:
    before = house.standing()
    async with looking(context, house.url) as page:
        await page.evaluate(
            """() => {
                const dataTransfer = new DataTransfer();
                for (const text of ["a", "b"])
                    dataTransfer.items.add(new File([text], "a.txt"));
                for (const kind of ["dragover", "drop"])
                    document.body.dispatchEvent(new DragEvent(kind, {dataTransfer, bubbles: true}));
            }"""
        )
        await stored(page, 2)
        [session_id] = house.standing() - before
        assert house.files(session_id) == {"a.txt": 1, "a (1).txt": 1}
        await page.click("#discard")
        assert "deleted" in await told(page)
        assert not house.standing() - before


async def test_who_comes_back_sends_the_files_again(
    context: BrowserContext, house: House, front: Front, files: list[Path], big: Path
) -> None:
    before = house.standing()
    async with looking(context, house.url) as page:
        await page.set_input_files("#choose", files)
        await stored(page, 3)
        async with slow_line(page):
            await page.set_input_files("#choose", big)
            await on_its_way(page, 0.01)
            await page.goto("about:blank")
            await until(lambda: not house.standing() - before, 2)
        await page.go_back(wait_until="commit")
        assert "The page was left" in await told(page)
        await expect(page.locator("li.lost")).to_have_count(4)
        await page.click("text=Forget >> nth=3")
        await page.click("#resend")
        await stored(page, 3)
        [session_id] = house.standing() - before
        assert house.files(session_id) == {path.name: path.stat().st_size for path in files}


async def test_a_file_on_its_way_is_cancelled_and_a_refused_one_says_why(
    context: BrowserContext, house: House, big: Path, tmp_path: Path
) -> None:
    too_big = tmp_path / "too big.iso"
    with too_big.open("wb") as file:
        file.truncate(2 * BIG)
    async with looking(context, house.url) as page:
        async with slow_line(page):
            await page.set_input_files("#choose", big)
            await page.click("text=Cancel")
            await expect(page.locator("#list li")).to_have_count(0)
        await page.set_input_files("#choose", too_big)
        await expect(page.locator("li.failed .state")).to_contain_text("268435456")
        await page.click("text=Try again")
        await page.click("text=Forget")
        await expect(page.locator("#list li")).to_have_count(0)


@pytest.mark.slow
@pytest.mark.parametrize(("scheme", "width"), [("light", DESK), ("dark", PHONE)])
async def test_everybody_can_use_it(
    context: BrowserContext,
    house: House,
    npm: None,
    files: list[Path],
    scheme: Scheme,
    width: int,
    picture: Callable[[str], Path],
) -> None:
    """No complaint of axe, nothing cut off at the side, and all of it by keyboard."""
    async with looking(context, house.url, scheme, width) as page:

        async def is_fit() -> None:
            assert await page.evaluate("document.documentElement.scrollWidth") <= width
            found: dict[str, Any] = await page.evaluate("axe.run()")
            assert [(each["id"], each["nodes"][0]["html"]) for each in found["violations"]] == []

        await page.evaluate(axe())
        await page.keyboard.press("Tab")
        async with page.expect_file_chooser() as opened:
            await page.keyboard.press("Space")
        await (await opened.value).set_files(files)
        await stored(page, 3)
        await is_fit()
        if scheme == "dark":
            await page.evaluate("document.activeElement.blur()")
            await page.screenshot(path=picture("page-phone"), full_page=True)
        for _ in range(4):
            await page.keyboard.press("Tab")
        await page.keyboard.type(f"by keyboard, {scheme}")
        await page.keyboard.press("Tab")
        await page.keyboard.press("Tab")
        assert await page.evaluate("document.activeElement.id") == "discard"
        await page.keyboard.press("Shift+Tab")
        await page.keyboard.press("Enter")
        await told(page)
        await is_fit()
        assert await page.evaluate("document.activeElement.id") == "outcome"
        await page.click("footer a")
        await page.wait_for_url(f"{house.url}/docs")
        assert (house.claims / f"by keyboard, {scheme}").is_dir()


@pytest.mark.slow
async def test_what_only_the_operator_can_do_is_said(
    context: BrowserContext, front: Front, tmp_path: Path, files: list[Path]
) -> None:
    """A pile that waits for consent, then claims that need the token."""
    (tmp_path / "data/temp/old").mkdir(parents=True)
    settings = Settings(claim_needs_token=True, operator_token=SecretStr("a-token"))
    with listening(create_app(settings)) as url:
        async with looking(context, url) as page:
            await page.wait_for_selector("#trouble:not([hidden])")
            assert "coatcheck adopt" in await page.inner_text("#trouble")
            await page.set_input_files("#choose", files[0])
            await expect(page.locator("#trouble")).to_contain_text("tried again in 5 seconds")
            assert cc("adopt", "--yes").code == 0
            await stored(page, 1)
            assert await page.is_hidden("#trouble")
            await page.fill("#into", "spring")
            await page.press("#into", "Enter")
            words = page.locator("#claim-words.failed")
            await expect(words).to_contain_text("Claiming is the operator's here")
