"""What holds on every page: the commands, read-only, help, palette, looks, sizes, the end."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.color import Color
from rich.color_triplet import ColorTriplet
from rich.style import Style
from textual.widgets import Input, OptionList

from tests.everyday import params
from tests.tui.worlds import World, shown, until, until_shown
from tui.app import Dashboard
from tui.commands import COMMANDS, DIALOG, EVERYWHERE, TITLES, commands_for
from tui.page import HealthLine, KeyBar, TopBar
from tui.screens.help import Help
from tui.screens.sessions import SessionsPage
from tui.table import SessionTable
from tui.themes import DARK, THEMES

pytestmark = pytest.mark.anyio
SIZE = (100, 30)
DOCS = Path(__file__).parents[2] / "docs" / "dashboard.md"
PAGES = {"1": "sessions", "2": "orphans", "3": "sweep", "4": "history"}


def test_the_docs_list_every_command_as_the_table_has_it() -> None:
    text = DOCS.read_text()
    for place, title in TITLES.items():
        section = text.split(f"**{title}**\n\n| key | does |")[1].split("\n\n")[0]
        lines = section.strip().splitlines()[1:]
        known = [command for command in COMMANDS if command.where == place]
        assert lines == [f"| `{c.shown}` | **{c.name}**: {c.help} |" for c in known]


def test_the_keys_are_those_of_the_design() -> None:
    keys = {
        ("1", "Sessions"),
        ("2", "Orphans"),
        ("3", "Sweep"),
        ("4", "History"),
        ("enter", "Open"),
        ("esc", "Back"),
        ("/", "Filter"),
        ("s", "Sort"),
        ("space", "Mark"),
        ("d", "Delete"),
        ("t", "Touch"),
        ("r", "Refresh"),
        ("y", "Copy"),
        ("?", "Help"),
        ("ctrl+p", "Palette"),
        ("q", "Quit"),
    }
    assert keys <= {(command.shown, command.name) for command in COMMANDS}


def test_no_key_means_two_things_in_one_place() -> None:
    for place in TITLES:
        keys = [command.keys for command in commands_for(place, read_only=False)]
        assert len(keys) == len(set(keys))


async def test_help_lists_every_key_and_esc_closes_it(local: World) -> None:
    app = local.dashboard()
    async with app.run_test(size=(100, 140)) as pilot:
        await until_shown(pilot, "There are no sessions.")
        await pilot.press("question_mark")
        await until(pilot, lambda: isinstance(app.screen, Help))
        text = " ".join(shown(pilot).replace("│", " ").split())
        for command in COMMANDS:
            assert f"{command.shown} {command.name}: {command.help}" in text
        await pilot.press("escape")
        await until(pilot, lambda: isinstance(app.screen, SessionsPage))


@pytest.mark.parametrize("key", list(PAGES))
async def test_footer_and_palette_have_the_commands_of_the_page(local: World, key: str) -> None:
    app = local.dashboard()
    async with app.run_test(size=(160, 60)) as pilot:
        await pilot.press(key)
        await until(pilot, lambda: app.current_mode == PAGES[key])
        bar = app.screen.query_one(KeyBar).render().plain
        known = commands_for(PAGES[key], read_only=False)
        for command in known:
            assert (f"{command.shown} {command.name}" in bar) == bool(command.footer)
        await pilot.press("ctrl+p")
        await until(pilot, lambda: bool(app.screen.query(OptionList)))
        listed = app.screen.query_one(OptionList)
        named = [c for c in known if c.action and c.keys != "ctrl+p"]
        await until(pilot, lambda: listed.option_count == len(named) + len(THEMES))


async def test_a_command_is_run_from_the_palette(local: World) -> None:
    app = local.dashboard()
    async with app.run_test(size=SIZE) as pilot:
        await until_shown(pilot, "There are no sessions.")
        await pilot.press("ctrl+p", *"history")
        await until_shown(pilot, "History (4)")
        await pilot.press("enter")
        await until(pilot, lambda: app.current_mode == "history")
        await pilot.press("ctrl+p", *"light")
        await until_shown(pilot, "Theme: light")
        await pilot.press("enter")
        await until(pilot, lambda: app.theme == "light")


# Read-only


async def test_read_only_takes_every_action_away_and_says_so(local: World) -> None:
    session = local.create("order 17", a=10)
    local.forget(session, 30)
    acting = {command.name for command in COMMANDS if command.acts}
    app = local.dashboard(read_only=True)
    async with app.run_test(size=(140, 60), notifications=True) as pilot:
        for key, page in PAGES.items():
            await pilot.press(key)
            await until(pilot, lambda page=page: app.current_mode == page)  # type: ignore[misc]
            await until(
                pilot, lambda: "read-only" in app.screen.query_one(HealthLine).render().plain
            )
            bar = app.screen.query_one(KeyBar).render().plain
            assert not [name for name in acting if f" {name}" in bar]
        await pilot.press("1")
        await until_shown(pilot, "order 17")
        await pilot.press("space", "d", "t")
        assert isinstance(app.screen, SessionsPage)
        await app.screen.run_action("screen.delete")
        assert isinstance(app.screen, SessionsPage)
        await pilot.press("3", "enter")
        await until_shown(pilot, "1 session would go")
        await pilot.press("x")
        await pilot.pause()
        assert app.current_mode == "sweep"
        assert len(app.screen_stack) == 1
        await pilot.press("question_mark")
        await until_shown(pilot, "Read-only: what would change something is not there.")
        assert "Delete:" not in shown(pilot)
        assert local.sessions.get(session.id).state == "active"
        assert local.source.sweeps(5) == []  # the dry run was only looked at, too


# The end


@pytest.mark.parametrize("keys", [["1"], ["2"], ["3"], ["4"], ["enter"], ["question_mark"], ["d"]])
async def test_q_leaves_from_every_screen_with_code_0(local: World, keys: list[str]) -> None:
    local.create("order 17")
    app = local.dashboard()
    async with app.run_test(size=SIZE) as pilot:
        await until_shown(pilot, "order 17")
        await pilot.press(*keys)
        await pilot.press("q")
        await until(pilot, lambda: not app.is_running or app._exit)
    assert app.return_code == 0
    assert app.return_value == 0


async def test_q_in_the_filter_is_a_letter(local: World) -> None:
    app = local.dashboard()
    async with app.run_test(size=SIZE) as pilot:
        await pilot.press("slash", "q", "1")
        assert app.screen.query_one("#filter", Input).value == "q1"
        assert app.current_mode == "sessions"


# Looks and sizes


@pytest.mark.slow
@pytest.mark.parametrize("theme", [theme.name for theme in THEMES])
async def test_every_look_is_legible_on_every_line(local: World, theme: str) -> None:
    local.create("order 17")
    app = local.dashboard()
    async with app.run_test(size=SIZE) as pilot:
        before = look(app)
        app.use_theme(theme)
        await until(pilot, lambda: look(app) != before or theme == DARK.name)
        await until_shown(pilot, "▸", "order 17", "active")
        rows = app.screen.query_one("#sessions", SessionTable)
        for name in ("cursor", "header", "odd", "group"):
            style = rows.get_component_rich_style(f"rows--{name}")
            assert contrast(style.color, style.bgcolor) > 4.5, name
        for ink in ("dim", "good", "warn", "bad", "accent"):
            colour = rows.get_component_rich_style(f"rows--{ink}").color
            for line in (rows.rich_style, rows.get_component_rich_style("rows--odd")):
                assert contrast(colour, line.bgcolor) > 4.5, ink


def look(app: Dashboard) -> Style:
    return app.screen.query_one("#sessions", SessionTable).rich_style


def contrast(one: Color | None, other: Color | None) -> float:
    """By the rule of WCAG 2."""
    assert one is not None
    assert other is not None
    lights = (luminance(one.get_truecolor()), luminance(other.get_truecolor()))
    bright, dark = max(lights), min(lights)
    return (bright + 0.05) / (dark + 0.05)


def luminance(colour: ColorTriplet) -> float:
    parts = [part / 255 for part in colour]
    red, green, blue = (p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


async def test_without_colour_everything_is_still_told(
    local: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    local.forget(local.create("late"), 30)
    app = local.dashboard()
    async with app.run_test(size=SIZE) as pilot:
        await until_shown(pilot, "▸", "late", "stale")
        colours = {
            segment.style.color.triplet
            for strip in app.screen._compositor.render_strips()
            for segment in strip.apply_filter(app._filters[-1], app.screen.background_colors[1])
            if segment.style and segment.style.color and segment.style.color.triplet
        }
        assert all(colour.red == colour.green == colour.blue for colour in colours)


@pytest.mark.parametrize("size", params({(60, 15)}, [(80, 24), (60, 15), (30, 6), (200, 60)]))
async def test_every_page_fits_and_takes_a_new_size(local: World, size: tuple[int, int]) -> None:
    local.create("order 17")
    app = local.dashboard()
    async with app.run_test(size=(100, 30)) as pilot:
        await until_shown(pilot, "order 17")
        await pilot.resize_terminal(*size)
        for key, page in PAGES.items():
            await pilot.press(key)
            await until(pilot, lambda page=page: app.current_mode == page)  # type: ignore[misc]
            await pilot.pause()
            lines = shown(pilot).splitlines()
            assert len(lines) == size[1]
            assert all(len(line) <= size[0] for line in lines)
        await pilot.resize_terminal(100, 30)
        await pilot.press("1")
        await until_shown(pilot, "order 17")


async def test_a_click_goes_where_its_key_goes(local: World) -> None:
    app = local.dashboard()
    async with app.run_test(size=SIZE) as pilot:
        await until_shown(pilot, "There are no sessions.")
        at = app.screen.query_one(TopBar).render().plain.index("Orphans")
        await pilot.click(TopBar, offset=(at, 0))
        await until(pilot, lambda: app.current_mode == "orphans")
        at = app.screen.query_one(KeyBar).render().plain.index("Help")
        await pilot.click(KeyBar, offset=(at, 0))
        await until(pilot, lambda: isinstance(app.screen, Help))


def test_every_command_of_a_page_has_its_place() -> None:
    places = {*PAGES.values(), "session", "list", EVERYWHERE, DIALOG}
    assert {command.where for command in COMMANDS} == places == set(TITLES)
