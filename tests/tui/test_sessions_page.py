"""The keys of the sessions' page, pressed on a real ledger and root."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from textual.widgets import Input

from tests.tui.worlds import World, shown, until, until_shown, world_of
from tui.screens.confirm import Confirm
from tui.screens.sessions import SessionsPage
from tui.table import SessionTable

pytestmark = pytest.mark.anyio
SIZE = (100, 24)


def table_of(app: Any) -> SessionTable:
    page = next(s for s in app.screen_stack if isinstance(s, SessionsPage))
    return page.query_one(SessionTable)


def under_cursor(app: Any) -> str | None:
    row = table_of(app).current
    return row.label if row else None


async def test_new_and_changed_sessions_show_by_themselves(world: World) -> None:
    async with world.dashboard().run_test(size=SIZE, notifications=True) as pilot:
        await until_shown(pilot, "There are no sessions.")
        session = world.create("order 17", a=10)
        await until_shown(pilot, "order 17", "1 of 1")
        world.sessions.delete_session(session.id)
        await until_shown(pilot, "deleted")


async def test_the_cursor_keeps_its_session_and_its_line_while_others_come(world: World) -> None:
    for number in range(60):
        world.create(f"order {number}")
    app = world.dashboard()
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        await until_shown(pilot, "order 59")
        await pilot.press(*["down"] * 5)
        table = table_of(app)
        assert (under_cursor(app), table.cursor - table.top) == ("order 54", 5)
        for number in range(60, 63):
            world.create(f"order {number}")
        await until(pilot, lambda: table.cursor == 8)
        assert (under_cursor(app), table.cursor - table.top) == ("order 54", 5)
        await until_shown(pilot, "↑ 3 new", "9 of 63")
        await pilot.press("home")
        await until_shown(pilot, "order 62")
        await until(pilot, lambda: "new" not in shown(pilot).splitlines()[-2])


async def test_at_the_very_top_the_newest_is_followed(local: World) -> None:
    local.create("first")
    app = local.dashboard()
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        await until_shown(pilot, "first")
        local.create("second")
        await until(pilot, lambda: under_cursor(app) == "second")


async def test_a_session_that_goes_while_the_cursor_is_on_it_says_so(world: World) -> None:
    sessions = [world.create(f"order {number}") for number in range(3)]
    app = world.dashboard()
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        await until_shown(pilot, "order 2")
        await pilot.press("down")
        world.sessions.delete_session(sessions[1].id)
        await until_shown(pilot, "“order 1” is gone: deleted by library.")
        await pilot.press("r", "slash", *"active", "enter", "down")
        await until(pilot, lambda: under_cursor(app) == "order 0")
        world.sessions.delete_session(sessions[0].id)
        await until_shown(pilot, "“order 0” is gone: deleted by library.")


async def test_one_filters_as_one_types(world: World) -> None:
    world.create("order 17", a=10)
    world.create("claim 3", a=10)
    app = world.dashboard()
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        await until_shown(pilot, "order 17", "claim 3")
        await pilot.press("slash", *"cla")
        await until(pilot, lambda: "order 17" not in shown(pilot))
        await until_shown(pilot, "claim 3", "1 of 1")
        await pilot.press("enter")
        assert table_of(app).has_focus
        await until_shown(pilot, "filter: cla")
        await pilot.press("escape")
        await until_shown(pilot, "order 17", "1 of 2")
        assert not app.screen.query_one("#filter", Input).display


async def test_escape_in_the_filter_clears_it(local: World) -> None:
    local.create("order 17")
    app = local.dashboard()
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        await until_shown(pilot, "order 17")
        await pilot.press("slash", *"nothing like it")
        await until_shown(pilot, "Nothing passes the filter.")
        await pilot.press("escape")
        await until_shown(pilot, "order 17")
        assert table_of(app).has_focus
        await pilot.press("d")  # a hidden filter takes no keys
        await until(pilot, lambda: isinstance(app.screen, Confirm))


async def test_a_comparison_that_is_not_finished_says_what_it_wants(local: World) -> None:
    local.create("order 17")
    async with local.dashboard().run_test(size=SIZE, notifications=True) as pilot:
        await pilot.press("slash", *"age>")
        await until_shown(pilot, "age> wants an amount, such as age>12h", "order 17")


class Slow:
    """A source whose searches take until they are given up."""

    def __init__(self, source: Any) -> None:
        self.source = source
        self.slow = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self.source, name)

    def open(self, view: Any, cancel: Any, *, at_end: bool = False) -> Any:
        if self.slow:
            given_up = threading.Event()
            with cancel.stopping(given_up.set):
                given_up.wait()
        return self.source.open(view, cancel, at_end=at_end)


async def test_escape_gives_a_slow_search_up_and_the_list_stays(local: World) -> None:
    local.create("order 17")
    slow = Slow(local.source)
    local.source = slow
    app = local.dashboard()
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        await until_shown(pilot, "order 17")
        slow.slow = True
        await pilot.press("slash", *"zzz")
        await until_shown(pilot, "Searching; esc gives it up", "order 17")
        await pilot.press("escape")
        await until_shown(pilot, "order 17", "1 of 1")
        assert app.screen.query_one("#filter", Input).value == ""


async def test_one_sorts_by_key_and_by_a_click_on_a_header(local: World) -> None:
    for size, label in ((30, "c"), (10, "a"), (20, "b")):
        local.create(label, file=size)
    app = local.dashboard()
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        await until_shown(pilot, "1 of 3")
        await pilot.press("s", *["down"] * 4, "enter")
        await until_shown(pilot, "Size▼")
        assert under_cursor(app) == "c"
        await pilot.press("s", "enter")
        await until_shown(pilot, "Size▲")
        await until(pilot, lambda: under_cursor(app) == "a")
        table = table_of(app)
        at = str(table.render_line(0).text).index("Label")
        await pilot.click(SessionTable, offset=(at, 0))
        await until_shown(pilot, "Label▲")
        await pilot.click(SessionTable, offset=(at, 0))
        await until_shown(pilot, "Label▼")
        await until(pilot, lambda: under_cursor(app) == "c")


async def test_a_service_says_by_what_it_cannot_sort(tmp_path: Path) -> None:
    with world_of("remote", tmp_path) as world:
        world.create("order 17")
        app = world.dashboard()
        async with app.run_test(size=SIZE, notifications=True) as pilot:
            await until_shown(pilot, "order 17")
            at = str(table_of(app).render_line(0).text).index("Label")
            await pilot.click(SessionTable, offset=(at, 0))
            await until_shown(pilot, "cannot sort by label")


async def test_home_and_end_go_to_the_first_and_the_last(world: World) -> None:
    for number in range(250):
        world.create(f"order {number}")
    app = world.dashboard()
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        await until_shown(pilot, "order 249")
        await pilot.press("end")
        await until(pilot, lambda: under_cursor(app) == "order 0")
        await until_shown(pilot, "order 1", "order 0")
        await pilot.press("pageup")
        await until(pilot, lambda: under_cursor(app) == f"order {table_of(app).rows_shown}")
        await pilot.press("home")
        await until(pilot, lambda: under_cursor(app) == "order 249")


@pytest.mark.slow
async def test_everything_can_be_scrolled_through_by_a_service_as_well(world: World) -> None:
    for number in range(450):
        world.create(f"order {number}")
    app = world.dashboard()
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        await until_shown(pilot, "order 449")
        for _ in range(30):
            await pilot.press("pagedown")
            await until(pilot, lambda: table_of(app).current is not None)
        await until(pilot, lambda: under_cursor(app) == "order 0")
        await until_shown(pilot, "450 of 450")


# Acting


async def test_the_safe_answer_comes_first_and_yes_deletes(world: World) -> None:
    session = world.create("order 17", a=10)
    app = world.dashboard()
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        await until_shown(pilot, "order 17")
        await pilot.press("d")
        await until_shown(pilot, "Delete 1 session?", "10 B in 1 file will be lost")
        await until(pilot, lambda: app.focused is not None and app.focused.id == "no")
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(app.screen, SessionsPage))
        assert world.sessions.get(session.id).state == "active"
        await pilot.press("d", "y")
        await until_shown(pilot, "deleted")
        assert not (world.root / session.id).exists()


async def test_many_marked_sessions_go_at_once_and_the_loss_is_said(world: World) -> None:
    made = [world.create(f"order {number}", a=1000) for number in range(12)]
    app = world.dashboard()
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        await until_shown(pilot, "order 11")
        await pilot.press(*["space"] * 10)
        await until_shown(pilot, "● 10 marked, 9.8 KiB")
        await pilot.press("d")
        await until_shown(pilot, "9.8 KiB in 10 files will be lost", "and 2 more")
        await pilot.press("right", "enter")
        await until(pilot, lambda: len(list(world.root.iterdir())) == 3)
        await until(pilot, lambda: not table_of(app).marked)
        assert {world.sessions.get(s.id).state for s in made[:2]} == {"active"}


async def test_what_is_used_while_one_is_asked_stays_and_the_reason_is_told(world: World) -> None:
    session = world.create("order 17", a=10)
    async with world.dashboard().run_test(size=SIZE, notifications=True) as pilot:
        await until_shown(pilot, "order 17")
        await pilot.press("d")
        await until_shown(pilot, "Delete 1 session?")
        with world.sessions.upload(session.id) as upload:
            upload.open_file("late.txt")
            upload.write(b"x" * 500)
            upload.commit()
        await pilot.press("y")
        await until_shown(pilot, "1 session left as they are", "it was used since it was shown")
        assert world.sessions.get(session.id).state == "active"


async def test_a_touch_keeps_alive(world: World) -> None:
    session = world.create("order 17")
    world.forget(session, 23)
    async with world.dashboard().run_test(size=SIZE, notifications=True) as pilot:
        await until_shown(pilot, "!59m")
        await pilot.press("t")
        await until_shown(pilot, "Touched: 1 session", "23h59m")


async def test_one_copies_an_id_or_a_path(local: World) -> None:
    session = local.create("order 17")
    app = local.dashboard()
    async with app.run_test(size=SIZE, notifications=True) as pilot:
        await until_shown(pilot, "order 17")
        await pilot.press("y")
        assert app.clipboard == session.id
        await pilot.press("Y")
        assert app.clipboard == session.path


async def test_time_left_is_marked_in_words_when_it_is_near(local: World) -> None:
    local.forget(local.create("soon"), 23.5)
    local.forget(local.create("late"), 25)
    async with local.dashboard().run_test(size=SIZE, notifications=True) as pilot:
        await until_shown(pilot, "stale", "!29m")


@pytest.fixture
def labelled(local: World) -> World:
    local.create("応募書類 📎 \x1b[31mred\n[bold]")
    return local


async def test_a_strange_label_cannot_upset_the_screen(labelled: World) -> None:
    async with labelled.dashboard().run_test(size=SIZE, notifications=True) as pilot:
        await until_shown(pilot, "応募書類 📎")
        lines = shown(pilot).splitlines()
        assert all("\x1b" not in line for line in lines)
