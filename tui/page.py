"""What every page has: its name, the health of all, its own body, and the keys that work here."""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar, TypeVar, cast

from textual import events
from textual.app import ComposeResult
from textual.content import Content
from textual.screen import Screen
from textual.style import Style
from textual.widget import Widget

from tui.commands import COMMANDS, EVERYWHERE, Command, commands_for
from tui.health import health_line
from tui.host import Host
from tui.source import Source

PAGES = ("sessions", "orphans", "sweep", "history")


def dashboard(widget: Widget) -> Host:
    """The one App there is, by its own type."""
    return cast("Host", widget.app)


Titled = TypeVar("Titled", bound=Widget)


def titled(widget: Titled, title: str) -> Titled:
    """The widget, with a title in its border."""
    widget.border_title = Content(title).markup
    return widget


class Line(Widget):
    """One line of the screen, drawn anew whenever it is asked to be."""

    DEFAULT_CSS = "Line { height: 1; width: 100%; }"

    async def on_click(self, event: events.Click) -> None:
        if action := event.style.meta.get("press"):
            await self.screen.run_action(action)


class TopBar(Line):
    """Which pages there are, and which this is."""

    def render(self) -> Content:
        app = dashboard(self)
        tabs = [
            clickable(Content(f" {key} {title} "), f"app.go('{name}')")
            for key, name, title in _tabs()
        ]
        here = PAGES.index(app.current_mode) if app.current_mode in PAGES else 0
        tabs[here] = tabs[here].stylize("reverse bold")
        bar = Content(" ").join(tabs)
        room = self.size.width - bar.cell_length - 3
        name = f"coatcheck  {app.source.name}"
        title = Content(_cut(name, room)).stylize("bold", 0, len("coatcheck"))
        return Content.assemble(" ", title.pad_right(max(0, room - title.cell_length)), "  ", bar)


def _tabs() -> Iterable[tuple[str, str, str]]:
    named = [c for c in COMMANDS if c.where == EVERYWHERE and c.action.startswith("app.go")]
    return [(c.shown, page, c.name) for c, page in zip(named, PAGES, strict=True)]


def _cut(text: str, room: int) -> str:
    return text if len(text) <= room else text[: max(0, room - 1)] + "…"


class HealthLine(Line):
    """The state of all there is, in one line; red and in words when something is wrong."""

    def on_mount(self) -> None:
        self.set_interval(1.0, self.refresh)
        dashboard(self).status_heard.subscribe(self, lambda _: self.refresh())

    def render(self) -> Content:
        app = dashboard(self)
        width = self.size.width
        line = health_line(app.status, app.source.now(), width, read_only=app.read_only)
        self.set_class(app.status.is_bad, "-bad")
        return line.truncate(width, ellipsis=True)

    async def on_click(self, _event: events.Click) -> None:
        dashboard(self).action_go("history")


class KeyBar(Line):
    """The keys that work here; as many as there is room for, the most wanted first."""

    def __init__(self, place: str) -> None:
        super().__init__()
        self.place = place

    def render(self) -> Content:
        app = dashboard(self)
        known = commands_for(self.place, read_only=app.read_only)
        shown = [command for command in known if command.footer]
        while len(shown) > 2 and _width(shown) > self.size.width - 1:
            shown.remove(max(shown, key=lambda command: command.footer))
        return Content.assemble(" ", Content("  ").join(_key(command) for command in shown))


def _width(commands: list[Command]) -> int:
    return sum(len(c.shown) + len(c.name) + 3 for c in commands)


def _key(command: Command) -> Content:
    label = Content.assemble((command.shown, "$footer-key-foreground bold"), f" {command.name}")
    return clickable(label, command.action) if command.action else label


def clickable(text: Content, action: str) -> Content:
    """A click on it does what its key does. (An `@click` would bring a link's looks with it.)"""
    return text.stylize(Style.from_meta({"press": action}))


class Page(Screen[None]):
    """One of the pages, or what lies on one; `place` is its name in the table of commands."""

    place: ClassVar[str]

    def compose(self) -> ComposeResult:
        yield TopBar()
        yield HealthLine()
        yield from self.body()
        yield KeyBar(self.place)

    def body(self) -> ComposeResult:
        raise NotImplementedError

    @property
    def source(self) -> Source:
        return dashboard(self).source

    def check_action(self, action: str, _parameters: tuple[object, ...]) -> bool | None:
        """In read-only mode what changes something is not there, by whatever way it is called."""
        if dashboard(self).read_only:
            return not any(c.acts and c.action == f"screen.{action}" for c in COMMANDS)
        return True

    def action_back(self) -> None:
        dashboard(self).action_go("sessions")

    def action_refresh_now(self) -> None:
        dashboard(self).ask_health()

    def copy(self, text: str) -> None:
        self.app.copy_to_clipboard(text)
        self.notify(text, title="Copied", markup=False)
