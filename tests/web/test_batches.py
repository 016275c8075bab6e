"""Touches and DELETEs that come at once are carried out at once, and each has its own answer."""

import asyncio
import gc
import threading
import weakref
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any, cast

import httpx
import pytest

from ledger import LedgerUnavailable, SessionLedger
from tests.web.services import UPLOAD, Service, wait_for
from web import uploads
from web.batches import MOST, Batches
from web.shapes import SessionOut

# Batches of any ledger: what is acted on it is the test's.
LEDGER, OTHER = (cast(SessionLedger, type("Ledger", (), {})()) for _ in range(2))


class Held:
    """Acts in batches, of which each is held up until the test lets it go on."""

    def __init__(self, *, knows: Callable[[str], bool] = lambda _: True) -> None:
        self.batches: list[tuple[SessionLedger, list[str]]] = []
        self.go_on = threading.Semaphore(0)
        self.error: Exception | None = None
        self._knows = knows
        self.asked = Batches(self._act)

    def _act(self, sessions: SessionLedger, ids: Sequence[str]) -> dict[str, str]:
        self.batches.append((sessions, list(ids)))
        assert self.go_on.acquire(timeout=30)
        if self.error is not None:
            raise self.error
        return {name: f"done: {name}" for name in ids if self._knows(name)}

    async def begun(self, number: int) -> None:
        """Returns once so many batches have begun."""
        await asyncio.to_thread(wait_for, lambda: len(self.batches) >= number)

    async def ask(self, *names: str, of: SessionLedger = LEDGER) -> list[asyncio.Task[str | None]]:
        """All of them ask, and wait."""
        tasks = [asyncio.create_task(self.asked.act(of, name)) for name in names]
        await asyncio.sleep(0)
        return tasks

    def let_go(self, batches: int = 100) -> None:
        self.go_on.release(batches)


def in_time(act: Callable[[], Coroutine[Any, Any, None]]) -> None:
    asyncio.run(asyncio.wait_for(act(), 30))


# Batches


def test_who_asks_while_one_is_under_way_is_in_the_next() -> None:
    held = Held()

    async def act() -> None:
        first = await held.ask("a")
        await held.begun(1)
        others = await held.ask("b", "c", "d")
        held.let_go()
        told = await asyncio.gather(*first, *others)
        assert told == ["done: a", "done: b", "done: c", "done: d"]

    in_time(act)
    assert [ids for _, ids in held.batches] == [["a"], ["b", "c", "d"]]


def test_nobody_is_answered_before_his_is_done() -> None:
    held = Held()

    async def act() -> None:
        first = await held.ask("a")
        await held.begun(1)
        [second] = await held.ask("b")
        held.let_go(1)
        assert await asyncio.gather(*first) == ["done: a"]
        await held.begun(2)
        assert not second.done()
        held.let_go()
        assert await second == "done: b"

    in_time(act)


def test_a_batch_has_each_session_once() -> None:
    held = Held()

    async def act() -> None:
        first = await held.ask("a")
        await held.begun(1)
        asks = await held.ask("b", "b", "c")
        held.let_go()
        await asyncio.gather(*first, *asks)

    in_time(act)
    assert held.batches == [(LEDGER, ["a"]), (LEDGER, ["b", "c"]), (LEDGER, ["b"])]


def test_a_ledger_that_is_away_holds_up_no_other() -> None:
    held = Held()

    async def act() -> None:
        first = await held.ask("a")
        await held.begun(1)
        others = await held.ask("b", "c", of=OTHER)
        await held.begun(2)  # while the first one is still under way
        held.let_go()
        await asyncio.gather(*first, *others)

    in_time(act)
    assert held.batches == [(LEDGER, ["a"]), (OTHER, ["b", "c"])]


def test_a_ledger_that_is_closed_and_forgotten_is_kept_by_no_queue() -> None:
    held = Held()
    ledger = type("Ledger", (), {})()
    known = weakref.ref(ledger)

    async def act(of: Any) -> None:
        held.let_go()
        await asyncio.gather(*await held.ask("a", of=of))
        held.batches.clear()

    def is_gone() -> bool:
        gc.collect()
        return known() is None

    asyncio.run(act(ledger))
    del ledger
    wait_for(is_gone)  # the last thread that it was lent to may still be ending


def test_without_a_loop_of_asyncio_each_is_acted_on_by_itself() -> None:
    with pytest.raises(StopIteration) as told:
        Held().asked.act(LEDGER, "a").send(None)
    assert told.value.value is None


class Worded(Exception):
    def __init__(self, name: str) -> None:
        super().__init__(f"no {name}")


class Keyed(Exception):
    def __init__(self, *, name: str) -> None:
        super().__init__(name)


@pytest.mark.parametrize("error", [Worded("place"), Keyed(name="place")], ids=["worded", "keyed"])
def test_an_error_that_cannot_be_copied_is_told_all_the_same(error: Exception) -> None:
    held = Held()
    held.error = error

    async def act() -> None:
        held.let_go()
        errors = await asyncio.gather(*await held.ask("a", "b"), return_exceptions=True)
        assert errors == [error, error]

    in_time(act)


def test_no_batch_is_larger_than_it_may_be() -> None:
    held = Held()
    names = [f"{number}" for number in range(2 * MOST + 1)]

    async def act() -> None:
        first = await held.ask("a")
        await held.begun(1)
        others = await held.ask(*names)
        held.let_go()
        assert len(await asyncio.gather(*first, *others)) == 2 * MOST + 2

    in_time(act)
    assert [len(ids) for _, ids in held.batches] == [1, MOST, MOST, 1]


def test_whoever_is_left_out_is_told_so() -> None:
    held = Held(knows=lambda name: name != "b")

    async def act() -> None:
        held.let_go()
        assert await asyncio.gather(*await held.ask("a", "b")) == ["done: a", None]

    in_time(act)


def test_what_fails_for_all_each_is_told_by_an_error_of_its_own() -> None:
    held = Held()
    held.error = LedgerUnavailable("The ledger stayed locked; try again.")

    async def act() -> None:
        held.let_go()
        asks = await held.ask("a", "b", "c")
        errors = await asyncio.gather(*asks, return_exceptions=True)
        assert [str(each) for each in errors] == ["The ledger stayed locked; try again."] * 3
        assert {type(each) for each in errors} == {LedgerUnavailable}
        assert len({id(each) for each in errors}) == 3
        held.error = None
        assert await asyncio.gather(*await held.ask("a")) == ["done: a"]

    in_time(act)


def test_who_no_longer_waits_holds_nobody_up() -> None:
    held = Held()

    async def act() -> None:
        [first, second] = await held.ask("a", "b")
        await held.begun(1)
        [third, fourth] = await held.ask("c", "d")
        first.cancel()
        third.cancel()
        held.let_go()
        assert await second == "done: b"
        assert await fourth == "done: d"
        ends = await asyncio.gather(first, third, return_exceptions=True)
        assert [type(each) for each in ends] == [asyncio.CancelledError] * 2

    in_time(act)


def test_a_loop_that_ends_leaves_nobody_waiting_and_the_next_begins_anew() -> None:
    held = Held()

    async def end_early() -> None:
        waiting.extend(await held.ask("a"))
        await held.begun(1)
        waiting.extend(await held.ask("b"))
        held.let_go(1)

    async def act() -> None:
        held.let_go()
        assert await asyncio.gather(*await held.ask("c")) == ["done: c"]

    waiting: list[asyncio.Task[str | None]] = []
    in_time(end_early)
    assert waiting[0].done()  # in time, or not
    assert waiting[1].cancelled()
    in_time(act)


def test_two_loops_at_once_do_not_meet() -> None:
    held = Held()

    async def ask() -> None:
        told.extend(await asyncio.gather(*await held.ask("a", "b")))

    told: list[str | None] = []
    threads = [threading.Thread(target=in_time, args=(ask,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    wait_for(lambda: len(held.batches) == 2)
    held.let_go()
    for thread in threads:
        thread.join(30)
    assert sorted(map(str, told)) == ["done: a", "done: a", "done: b", "done: b"]


# By a service


def asked_at_once(service: Service, asks: Sequence[tuple[str, str]]) -> list[httpx.Response]:
    """The answers to all of these: methods, and paths below the uploads'."""
    with ThreadPoolExecutor(16) as pool:
        return list(pool.map(lambda ask: service.http.request(ask[0], UPLOAD + ask[1]), asks))


def test_of_many_that_delete_a_session_one_has_done_it(on_both: Service) -> None:
    ids = [on_both.create(("a.txt", b"a")) for _ in range(8)]
    answers = asked_at_once(on_both, [("DELETE", f"/{name}") for name in ids * 4])
    for name in ids:
        its = [each.status_code for each in answers if each.url.path.endswith(name)]
        assert Counter(its) == {204: 1, 404: 3}
    assert on_both.standing().isdisjoint(ids)


def test_among_many_that_are_touched_each_is_answered_for_itself(on_both: Service) -> None:
    live, ended = ([on_both.create(("a.txt", b"abc")) for _ in range(4)] for _ in range(2))
    for name in ended:
        on_both.http.delete(f"{UPLOAD}/{name}")
    began = datetime.now(UTC)
    asks = [("POST", f"/{name}/touch") for name in (live + ended + ["never-there"]) * 4]
    for answer in asked_at_once(on_both, asks):
        name = answer.url.path.split("/")[-2]
        told = answer.json()
        if name in live:
            assert (answer.status_code, told["session_id"], told["state"]) == (200, name, "active")
            assert [file["name"] for file in told["files"]] == ["a.txt"]
            assert datetime.fromisoformat(told["last_touch_at"]) >= began
        elif name in ended:
            assert (answer.status_code, "The session has ended" in told["detail"]) == (410, True)
        else:
            assert (answer.status_code, told["detail"]) == (404, "Session 'never-there' not found")


def test_a_touch_that_is_answered_is_in_the_ledger(on_both: Service) -> None:
    ids = [on_both.create() for _ in range(4)]

    def touched(name: str) -> bool:
        told = on_both.http.post(f"{UPLOAD}/{name}/touch").json()
        kept = on_both.sessions.get(name).last_touch_at
        return kept >= datetime.fromisoformat(told["last_touch_at"])

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(touched, ids * 16))


@pytest.mark.parametrize(
    ("method", "path", "bulk"),
    [("POST", "/{}/touch", "touch_all"), ("DELETE", "/{}", "delete_all")],
)
def test_while_the_ledger_is_locked_all_are_told_to_try_again(
    service: Service, monkeypatch: pytest.MonkeyPatch, method: str, path: str, bulk: str
) -> None:
    ids = [service.create() for _ in range(4)]

    def refuse(*_: object, **__: object) -> None:
        raise LedgerUnavailable("The ledger stayed locked; try again.")

    with monkeypatch.context() as patch:
        patch.setattr(SessionLedger, bulk, refuse)
        for answer in asked_at_once(service, [(method, path.format(name)) for name in ids]):
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
    answers = asked_at_once(service, [(method, path.format(name)) for name in ids])
    assert {each.status_code for each in answers} == {204 if method == "DELETE" else 200}


def test_nobody_waits_for_the_list_of_anothers_many_files(service: Service) -> None:
    few, many = service.create(), service.create()
    for number in range(65):
        (service.root / many / f"{number}.txt").write_text("a")
    told = uploads._touch_all(service.sessions, [few, many])
    assert isinstance(told[few], SessionOut)
    assert not isinstance(told[many], SessionOut)  # only that it is touched
    answers = asked_at_once(service, [("POST", f"/{name}/touch") for name in (few, many)])
    assert [len(each.json()["files"]) for each in answers] == [0, 65]


def test_a_damaged_row_is_told_to_whoever_asks_for_it_and_to_nobody_else(service: Service) -> None:
    sound, damaged = service.create(), service.create()
    service.alter(damaged, origin="nowhere")
    both = [sound, damaged]
    assert uploads._touch_all(service.sessions, both) == {}  # so each is asked about by itself
    assert uploads._delete_all(service.sessions, both) == {}
    for method, path, done in (("POST", "/{}/touch", 200), ("DELETE", "/{}", 204)):
        told = asked_at_once(service, [(method, path.format(name)) for name in both])
        assert [each.status_code for each in told] == [done, 503]
        assert "is damaged" in told[1].json()["detail"]
    assert (service.root / damaged).is_dir()
    service.alter(damaged, origin="created")


def test_one_whose_directory_vanished_is_told_so(service: Service) -> None:
    here, gone = service.create(), service.create()
    (service.root / gone).rmdir()
    told = asked_at_once(service, [("POST", f"/{here}/touch"), ("POST", f"/{gone}/touch")])
    assert [each.status_code for each in told] == [200, 410]
