"""One session: what both sides know of it, what a sweep would do and why, its files, its life."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from rich.text import Text
from textual import work
from textual.app import ComposeResult
from textual.binding import BindingType
from textual.containers import Vertical, VerticalScroll
from textual.content import Content
from textual.message import Message
from textual.widgets import Static, Tree

from ledger.plan import SETTLED, Finding
from tui import words
from tui.acting import Work
from tui.commands import SESSION, bindings_for
from tui.deeds import Deeds
from tui.page import Page, titled
from tui.source import FAILURES, Clock, Detail, Event
from tui.table import STATE_INKS, left

_REREAD_S = 2.0
_FILES_SHOWN = 1000


class SessionPage(Deeds, Page):
    """Read anew every two seconds; esc leads back to the list."""

    place = SESSION
    BINDINGS: ClassVar[list[BindingType]] = list(bindings_for(SESSION))
    AUTO_FOCUS = "#files"

    @dataclass
    class Seen(Message):
        detail: Detail

    @dataclass
    class NotSeen(Message):
        error: Exception

    def __init__(self, session_id: str) -> None:
        super().__init__()
        self.session_id = session_id
        self.detail: Detail | None = None
        self._asking = False
        self._files: Sequence[tuple[str, int]] | None = None

    def body(self) -> ComposeResult:
        with Vertical(id="session"):
            yield titled(Static(id="facts"), f"Session {self.session_id}")
            yield titled(Static(id="clocks"), "Both sides")
            with Vertical(id="below"):
                files = titled(Tree[None]("", id="files"), "Files")
                files.show_root = False
                yield files
                with titled(VerticalScroll(id="life"), "Life"):
                    yield Static(id="told")

    def on_mount(self) -> None:
        self.ask()
        self.set_interval(_REREAD_S, self.ask)
        self.set_interval(1.0, self._tell)

    def ask(self) -> None:
        if not self._asking and self.is_current:
            self._asking = True
            self._read()

    @work(thread=True, group="session", exit_on_error=False)
    def _read(self) -> None:
        try:
            self.post_message(self.Seen(self.source.detail(self.session_id)))
        except FAILURES as error:
            self.post_message(self.NotSeen(error))

    def on_session_page_seen(self, message: Seen) -> None:
        self._asking = False
        self.detail = message.detail
        self._tell()
        self._show_files(message.detail)
        self.query_one("#told", Static).update(_life(message.detail.events))

    def on_session_page_not_seen(self, message: NotSeen) -> None:
        self._asking = False
        text = Content(words.failure(message.error)).stylize("bold $text-error")
        self.query_one("#facts", Static).update(text)

    def _tell(self) -> None:
        if self.detail is not None:
            now = self.source.now()
            self.query_one("#facts", Static).update(_facts(self.detail, now))
            self.query_one("#clocks", Static).update(_clocks(self.detail, now))

    def _show_files(self, detail: Detail) -> None:
        tree = self.query_one(Tree)
        tree.border_title = f"Files · {words.size(sum(size for _, size in detail.files))}"
        if detail.files == self._files:
            return
        self._files = detail.files
        tree.clear()
        _grow(tree, detail)

    # Commands

    def action_back(self) -> None:
        if not self.stop_work():
            self.dismiss()

    def action_refresh_now(self) -> None:
        super().action_refresh_now()
        self.ask()

    def action_delete(self) -> None:
        if self.detail is not None:
            self.ask_to_delete([self.detail.row])

    def action_touch(self) -> None:
        if self.detail is not None:
            self.touch_all([self.detail.row])

    def action_restore(self) -> None:
        if self.detail is not None:
            self.restore(self.detail.row.id)

    def work_is_over(self, done: Work) -> None:  # noqa: ARG002
        self.ask()

    def restored(self) -> None:
        self.ask()

    def action_copy_id(self) -> None:
        self.copy(self.session_id)

    def action_copy_path(self) -> None:
        if self.detail is not None:
            self.copy(self.detail.row.path)


def _facts(detail: Detail, now: int) -> Content:
    row = detail.row
    remaining, ink = left(row, now)
    state = Content(row.state).stylize(f"bold {_colour(STATE_INKS.get(row.state, ''))}")
    rows = [
        ("label", Content(words.shown(row.label) or words.NOTHING)),
        ("state", Content.assemble(state, _end(detail) or _left(remaining, ink))),
        ("created", Content(f"{words.instant(row.created_at)}, {words.ago(row.created_at, now)}")),
        ("path", Content(words.shown(row.path))),
    ]
    return Content("\n").join(
        Content.assemble((f"{name:8} ", "$text-muted"), value) for name, value in rows
    )


def _end(detail: Detail) -> str:
    row = detail.row
    if row.ended_at is None:
        return ""
    return f"  {words.instant(row.ended_at)} by {row.ended_by}: {words.shown(row.ended_why)}"


def _left(remaining: str, ink: str) -> Content:
    return Content.assemble("  ", (remaining, f"bold {_colour(ink)}"), " left before it is stale")


def _colour(ink: str) -> str:
    names = {"good": "success", "warn": "warning", "bad": "error", "accent": "accent"}
    return f"$text-{names[ink]}" if ink in names else ""


def _clocks(detail: Detail, now: int) -> Content:
    """Ledger and disk, side by side, and the verdict."""
    both = (detail.ledger, detail.disk)
    head = Content(f"{'':10}{'ledger':32}disk").stylize("bold")
    rows = [
        _pair("says", [_seen(clock) for clock in both]),
        _pair("last used", [_used(clock, now) for clock in both]),
        _pair("holds", [_held(clock) for clock in both]),
    ]
    return Content("\n").join([head, *rows, _verdict(detail)])


def _pair(name: str, values: list[str]) -> Content:
    return Content.assemble((f"{name:10}", "$text-muted"), f"{values[0]:32}{values[1]}")


def _seen(clock: Clock) -> str:
    return words.shown(clock.seen)


def _used(clock: Clock, now: int) -> str:
    if clock.used_at is None:
        return words.NOTHING
    return f"{words.instant(clock.used_at)}, {words.ago(clock.used_at, now)}"


def _held(clock: Clock) -> str:
    return f"{words.count(clock.files, 'file')}, {words.size(clock.bytes)}"


def _verdict(detail: Detail) -> Content:
    judged = detail.judgement
    if judged is None:
        return Content("A sweep now: nothing. Both sides agree that it has ended.")
    ink = "success" if judged.finding in SETTLED else "warning"
    ink = "error" if judged.finding is Finding.UNREADABLE else ink
    return Content.assemble(
        "A sweep now: ",
        (f"{judged.finding} → {judged.action}", f"bold $text-{ink}"),
        f": {words.shown(judged.why)}",
    )


def _life(events: Sequence[Event]) -> Content:
    """Newest last, as it was lived."""
    if not events:
        return Content("The ledger tells of no event.").stylize("$text-muted")
    lines = []
    for at, event in enumerate(events):
        stem = "└" if at == len(events) - 1 else "├"
        lines.append(
            Content.assemble(
                (f"{words.instant(event.at)} ", "$text-muted"),
                f"{stem}● ",
                (event.after or words.NOTHING, "bold"),
                (f" by {event.by}", "$text-muted"),
                f"  {words.shown(event.why)}" if event.why != event.after else "",
            )
        )
    return Content("\n").join(lines)


def _grow(tree: Tree[None], detail: Detail) -> None:
    """Directories as branches with what is below them, files as leaves."""
    if not detail.files:
        tree.root.add_leaf(Text(detail.note))
        return
    sizes: dict[str, int] = {}
    for name, size in detail.files:
        parts = name.split("/")
        for depth in range(1, len(parts)):
            folder = "/".join(parts[:depth])
            sizes[folder] = sizes.get(folder, 0) + size
    nodes = {"": tree.root}
    for name, size in detail.files[:_FILES_SHOWN]:
        *folders, leaf = name.split("/")
        here = ""
        for folder in folders:
            above, here = here, f"{here}/{folder}" if here else folder
            if here not in nodes:
                label = _named(f"{folder}/", sizes[here])
                nodes[here] = nodes[above].add(label, expand=True)
        nodes[here].add_leaf(_named(leaf, size))
    if len(detail.files) > _FILES_SHOWN:
        more = len(detail.files) - _FILES_SHOWN
        tree.root.add_leaf(Text(f"and {words.count(more, 'more file')}"))


def _named(name: str, size: int) -> Text:
    return Text.assemble((f"{words.size(size):>9}  ", "dim"), words.shown(name))
