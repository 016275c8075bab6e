"""The module coatcheck.js in a real browser: one session, from its first file to its end."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.async_api import BrowserContext, Page, Request

from tests.e2e.house import (
    HOLD_COMMITS,
    MOST_BYTES,
    Front,
    House,
    put_a_chooser,
    until,
    with_module,
)

pytestmark = pytest.mark.anyio

HOUR_MS = 3_600_000
FAILED = "(error) => `${error.name} ${error.status}: ${error.message}`"


@pytest.fixture
async def user(page: Page, house: House, front: Front) -> Page:
    """A page of somebody's front end, with the module."""
    await page.goto(f"{front.url}/shop")
    await with_module(page, house)
    return page


@pytest.fixture
async def ours(page: Page, house: House) -> Page:
    """A page of the service's own origin, with the module."""
    await page.goto(f"{house.url}/healthz")
    await with_module(page, house)
    return page


async def uploaded(page: Page, *names: str) -> str:
    """The id of the page's session, once it has these files."""
    files = "names => Promise.all(names.map((name) => session.upload(new File([name], name))))"
    await page.evaluate(files, list(names))
    return str(await page.evaluate("session.id"))


async def test_files_at_once_make_one_session_and_each_its_own_name(
    user: Page, house: House
) -> None:
    before = house.standing()
    stored: list[dict[str, Any]] = await user.evaluate(
        """Promise.all(
            ["a", "bb", "ccc"].map((text) => session.upload(new File([text], "photo.jpg")))
        )"""
    )
    [session_id] = house.standing() - before
    assert house.files(session_id) == {"photo.jpg": 1, "photo (1).jpg": 2, "photo (2).jpg": 3}
    assert [file["name"] for file in stored] == ["photo.jpg", "photo (1).jpg", "photo (2).jpg"]
    assert httpx.get(stored[1]["url"]).text == "bb"
    assert await user.evaluate("session.state") == "active"
    left = await user.evaluate("session.expiresAt - Date.now()")
    assert 23.9 * HOUR_MS < left < 24.1 * HOUR_MS


async def test_progress_is_told_from_nothing_to_all(ours: Page) -> None:
    told: list[dict[str, Any]] = await ours.evaluate(
        """(async () => {
            const told = [];
            const onProgress = (progress) => told.push(progress);
            await session.upload(new Blob([new Uint8Array(8e6)]), {name: "a.bin", onProgress});
            await session.upload(new File([], "nothing"), {onProgress});
            return told;
        })()"""
    )
    assert {(each["name"], each["total"]) for each in told} == {("a.bin", 8e6), ("nothing", 0)}
    loaded = [each["loaded"] for each in told if each["name"] == "a.bin"]
    assert loaded == sorted(loaded)
    assert (loaded[0], loaded[-1]) == (0, 8e6)


async def test_an_aborted_upload_leaves_nothing_and_its_name_is_free(
    ours: Page, house: House
) -> None:
    session_id = await uploaded(ours, "other")
    with house.gate(HOLD_COMMITS):
        await ours.evaluate(
            """new Promise((sent) => {
                window.abort = new AbortController();
                const onProgress = ({loaded, total}) => loaded === total && sent();
                window.outcome = session
                    .upload(new File(["all of it"], "a.txt"), {onProgress, signal: abort.signal})
                    .catch((error) => error.name);
                window.waits = session
                    .upload(new File([""], "b.txt"), {signal: AbortSignal.abort()})
                    .catch((error) => error.name);
            })"""
        )
        await ours.evaluate("abort.abort()")
    assert await ours.evaluate("Promise.all([outcome, waits])") == ["AbortError"] * 2
    assert house.files(session_id) == {"other": 5}
    assert await ours.evaluate("session.files.map(({name}) => name)") == ["other"]
    await uploaded(ours, "a.txt")
    assert house.files(session_id) == {"other": 5, "a.txt": 5}


async def test_a_file_is_taken_out_again(user: Page, house: House) -> None:
    session_id = await uploaded(user, "a 100%.txt", "b")
    await user.evaluate("session.remove('a 100%.txt')")
    assert house.files(session_id) == {"b": 1}
    httpx.delete(f"{house.base}/{session_id}/files/b")
    await user.evaluate("session.remove('b')")
    assert await user.evaluate("session.files") == []


async def test_what_is_refused_is_said_in_the_services_words(
    user: Page, house: House, tmp_path: Path
) -> None:
    session_id = await uploaded(user, "a")
    long = "x" * 300
    said = await user.evaluate(f"session.upload(new File([''], '{long}')).catch({FAILED})")
    assert said.startswith("CoatcheckError 422: ")
    assert "255 bytes" in said
    with (tmp_path / "film.mp4").open("wb") as film:
        film.truncate(MOST_BYTES + 1)
    await put_a_chooser(user, tmp_path / "film.mp4")
    too_large = "session.upload(document.querySelector('input').files[0])"
    assert (await user.evaluate(f"{too_large}.catch({FAILED})")).startswith("CoatcheckError 413: ")
    assert house.files(session_id) == {"a": 1}


async def test_it_is_touched_halfway_to_its_end_and_when_it_is_seen_again(
    context: BrowserContext, house: House
) -> None:
    page = await context.new_page()
    await page.clock.install()
    await page.goto(f"{house.url}/healthz")
    await with_module(page, house)
    await uploaded(page, "a")
    touches: list[Request] = []
    page.on("request", lambda request: touches.append(request) if "/touch" in request.url else None)

    async def pass_hours(hours: int) -> int:
        touches.clear()
        await page.clock.fast_forward(hours * HOUR_MS)
        await page.evaluate("fetch('/healthz')")
        return len(touches)

    assert await pass_hours(11) == 0
    assert await pass_hours(2) == 1
    await until(lambda: touches[0].existing_response)
    assert await page.evaluate("session.expiresAt - Date.now()") > 23.9 * HOUR_MS

    seen = "Object.defineProperty(document, 'visibilityState', {value: '%s', configurable: true})"
    changed = "; document.dispatchEvent(new Event('visibilitychange'))"
    await page.evaluate(seen % "hidden" + changed)
    assert await pass_hours(13) == 0
    async with page.expect_request("**/touch"):
        await page.evaluate(seen % "visible" + changed)
    await page.close()


async def test_who_finds_it_ended_is_told_and_sends_the_files_again(
    user: Page, house: House
) -> None:
    first = await uploaded(user, "a", "b")
    httpx.delete(f"{house.base}/{first}")
    said = await user.evaluate(f"session.upload(new File([''], 'c')).catch({FAILED})")
    assert said.startswith("CoatcheckError 410: The session has ended: deleted")
    heard = await user.evaluate("heard")
    assert len(heard) == 1
    assert heard[0].startswith("The session has ended: deleted")
    assert await user.evaluate("session.state") == "ended"
    assert "resend()" in await user.evaluate(f"session.upload(new File([''], 'd')).catch({FAILED})")

    before = house.standing()
    await user.evaluate("session.remove('b')")
    await user.evaluate("session.resend()")
    [second] = house.standing() - before
    assert house.files(second) == {"a": 1, "c": 0}
    assert await user.evaluate("session.id") == second


async def test_what_could_not_be_sent_again_can_be_once_more(ours: Page, house: House) -> None:
    httpx.delete(f"{house.base}/{await uploaded(ours, 'a', 'b')}")
    await ours.evaluate("session.touch().catch(() => {})")
    await ours.route("**/files/b", lambda route: route.abort())
    assert "cannot be reached" in await ours.evaluate(f"session.resend().catch({FAILED})")
    await ours.unroute("**/files/b")
    states = "session.files.map(({name, state}) => [name, state])"
    assert await ours.evaluate(states) == [["a", "stored"], ["b", "lost"]]
    await ours.evaluate("session.resend()")
    assert house.files(await ours.evaluate("session.id")) == {"a": 1, "b": 1}


async def test_a_claimed_session_stays_where_it_was_put(user: Page, house: House) -> None:
    session_id = await uploaded(user, "a")
    (house.claims / "taken").mkdir(parents=True, exist_ok=True)
    said = await user.evaluate(f"session.claim('taken').catch({FAILED})")
    assert said.startswith("CoatcheckError 409: ")
    claimed = await user.evaluate("session.claim('by module')")
    assert (claimed["session_id"], claimed["state"]) == (session_id, "claimed")
    assert await user.evaluate("session.state") == "claimed"
    assert "make a new one" in await user.evaluate(f"session.touch().catch({FAILED})")
    await user.goto("about:blank")
    assert (house.claims / "by module/a").read_text() == "a"
    assert "discard" not in house.process.log.partition(session_id[:8])[2]


async def test_a_claim_that_was_refused_is_no_claim(ours: Page, house: House) -> None:
    session_id = await uploaded(ours, "a")
    await ours.evaluate(f"session.claim('../x').catch({FAILED})")
    await ours.goto("about:blank")
    await until(lambda: session_id not in house.standing(), 2)


async def test_a_kept_session_is_left_alone(user: Page, house: House) -> None:
    session_id = await uploaded(user, "a")
    await user.evaluate("session.keep()")
    await user.goto("about:blank")
    await user.goto(f"{house.url}/healthz")
    assert session_id in house.standing()


async def test_a_kept_session_that_the_backend_claims_has_not_ended_but_is_claimed(
    user: Page, house: House
) -> None:
    session_id = await uploaded(user, "a")
    await user.evaluate("session.keep()")
    url = f"{house.url}/api/v1/upload/{session_id}/claim"
    assert httpx.post(url, json={"into": f"by-backend-{session_id}"}).status_code == 200
    heard = await user.evaluate(
        """(async () => {
            let heard = 0;
            session.addEventListener("ended", () => heard++);
            await session.touch().catch(() => {});
            return heard;
        })()"""
    )
    assert heard == 0
    assert await user.evaluate("session.state") == "claimed"


async def test_a_discarded_session_is_gone_with_what_was_on_its_way(
    user: Page, house: House
) -> None:
    before = house.standing()
    await user.evaluate("session.open()")
    with house.gate(HOLD_COMMITS):
        said = await user.evaluate(
            f"""(async () => {{
                const upload = session.upload(new File(["x"], "a")).catch({FAILED});
                await session.discard();
                return upload;
            }})()"""
        )
    assert said == "CoatcheckError 0: The session was discarded."
    assert not house.standing() - before
    assert await user.evaluate("[session.state, session.id, heard.length]") == [
        "discarded",
        None,
        0,
    ]
    # One that is discarded while it is being made is gone as well.
    await user.evaluate("fresh(); session.upload(new File([''], 'a')).catch(() => {})")
    await user.evaluate("session.discard()")
    await until(lambda: not house.standing() - before)


async def test_who_comes_back_is_told_and_sends_the_files_again(
    user: Page, house: House, front: Front
) -> None:
    first = await uploaded(user, "a", "b")
    await user.evaluate("addEventListener('pageshow', ({persisted}) => window.back = persisted)")
    await user.goto(f"{front.url}/elsewhere")
    await until(lambda: first not in house.standing(), 2)
    await user.go_back(wait_until="commit")
    assert await user.evaluate("back") is True
    assert await user.evaluate("heard") == ["The page was left, so its files were deleted."]
    await user.evaluate("session.resend()")
    second = await user.evaluate("session.id")
    assert house.files(second) == {"a": 1, "b": 1}
    await user.go_forward(wait_until="commit")
    await until(lambda: second not in house.standing(), 2)


async def test_ids_are_in_memory_alone(ours: Page) -> None:
    session_id = await uploaded(ours, "a")
    kept = await ours.evaluate(
        """(async () => JSON.stringify([
            location.href, document.cookie, history.state, name, {...localStorage},
            {...sessionStorage}, await indexedDB.databases(), await caches.keys(),
        ]))()"""
    )
    assert session_id not in kept
