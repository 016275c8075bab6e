"""Every command there is, once: the keys, the footer, the palette and the help are read from it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from textual.binding import Binding

EVERYWHERE = "everywhere"
SESSIONS, SESSION, ORPHANS, SWEEP, HISTORY = "sessions", "session", "orphans", "sweep", "history"
LIST, DIALOG = "list", "dialog"
PALETTE = "app.command_palette"  # Textual binds it itself
TITLES = {
    EVERYWHERE: "Everywhere",
    LIST: "In every list",
    SESSIONS: "Sessions",
    SESSION: "One session",
    ORPHANS: "Orphans",
    SWEEP: "Sweep",
    HISTORY: "History",
    DIALOG: "In a dialogue",
}


@dataclass(frozen=True, slots=True)
class Command:
    """A key and what it does; `acts`: it changes something, so read-only mode takes it away.

    `keys` as Textual names them, `shown` as one reads them. `footer`: its rank there, 0 for none.
    `at_once`: done before the next key is looked at, which may be meant for what it opens.
    """

    where: str
    keys: str
    shown: str
    action: str
    name: str
    help: str
    acts: bool = False
    footer: int = 0
    at_once: bool = False


COMMANDS = (
    Command(EVERYWHERE, "1", "1", "app.go('sessions')", "Sessions", "Every session, live."),
    Command(EVERYWHERE, "2", "2", "app.go('orphans')", "Orphans",
            "What a sweep would do, and why: the orphan report."),
    Command(EVERYWHERE, "3", "3", "app.go('sweep')", "Sweep",
            "A dry run, then the sweep of exactly that list."),
    Command(EVERYWHERE, "4", "4", "app.go('history')", "History",
            "Past sweeps, the event log, sessions and bytes over time, health in full."),
    Command(EVERYWHERE, "r", "r", "screen.refresh_now", "Refresh",
            "Reads anew, at once.", footer=7),
    Command(EVERYWHERE, "question_mark", "?", "app.help", "Help", "This list.", footer=1),
    Command(EVERYWHERE, "ctrl+p", "ctrl+p", PALETTE, "Palette",
            "Finds a command by its name; themes are there too."),
    Command(EVERYWHERE, "q", "q", "app.leave", "Quit",
            "Leaves, with the terminal as it was.", footer=2),
    Command(LIST, "up,down", "↑ ↓", "", "Move", "One row up or down."),
    Command(LIST, "pageup,pagedown", "PgUp PgDn", "", "Page", "One screen up or down."),
    Command(LIST, "home,end", "Home End", "", "Ends", "The first and the last row."),
    Command(SESSIONS, "enter", "enter", "", "Open", "The session under the cursor, whole.",
            footer=5),
    Command(SESSIONS, "slash", "/", "screen.filter", "Filter",
            "Fewer rows, as you type: an id, a label, a state, age>12h, touch>2h, left<1h, "
            "size>1G, files>10, origin:adopted. Enter keeps it, esc clears it.",
            footer=3, at_once=True),
    Command(SESSIONS, "s", "s", "screen.sort", "Sort",
            "By any column, up or down; a click on a header does the same.", footer=4),
    Command(SESSIONS, "space", "space", "screen.mark", "Mark", "For deleting or touching many.",
            acts=True, footer=6),
    Command(SESSIONS, "d", "d", "screen.delete", "Delete",
            "The marked sessions, else the one under the cursor; asks first.", acts=True, footer=3),
    Command(SESSIONS, "t", "t", "screen.touch", "Touch", "Keeps them alive for another max age.",
            acts=True, footer=5),
    Command(SESSIONS, "y", "y", "screen.copy_id", "Copy", "The whole id, to the clipboard.",
            footer=8),
    Command(SESSIONS, "Y", "Y", "screen.copy_path", "Copy path", "The path, to the clipboard."),
    Command(SESSIONS, "escape", "esc", "screen.back", "Back",
            "Gives a slow search up, then clears the filter, then the marks."),
    Command(SESSION, "d", "d", "screen.delete", "Delete", "This session; asks first.", acts=True,
            footer=4),
    Command(SESSION, "t", "t", "screen.touch", "Touch", "Keeps it alive for another max age.",
            acts=True, footer=5),
    Command(SESSION, "u", "u", "screen.restore", "Restore", "Brings it back from the trash.",
            acts=True, footer=6),
    Command(SESSION, "y", "y", "screen.copy_id", "Copy", "The whole id, to the clipboard.",
            footer=8),
    Command(SESSION, "Y", "Y", "screen.copy_path", "Copy path", "The path, to the clipboard."),
    Command(SESSION, "escape", "esc", "screen.back", "Back", "To the list.", footer=3),
    Command(ORPHANS, "enter", "enter", "", "Open",
            "Folds a group, or opens the session under the cursor.", footer=4),
    Command(ORPHANS, "w", "w", "screen.save", "Save", "The report as a JSON or CSV file.",
            acts=True, footer=3),
    Command(ORPHANS, "u", "u", "screen.restore", "Restore",
            "Brings what waits in the trash back.", acts=True, footer=5),
    Command(ORPHANS, "y", "y", "screen.copy_id", "Copy", "The whole id, to the clipboard.",
            footer=8),
    Command(ORPHANS, "Y", "Y", "screen.copy_path", "Copy path", "The path, to the clipboard."),
    Command(ORPHANS, "escape", "esc", "screen.back", "Back", "To the sessions."),
    Command(SWEEP, "enter", "enter", "", "Open",
            "Presses the button, folds a group, or opens a session.", footer=6),
    Command(SWEEP, "x", "x", "screen.sweep", "Sweep",
            "Carries out exactly the list of the dry run; asks first.", acts=True, footer=3),
    Command(SWEEP, "c", "c", "screen.stop", "Cancel",
            "Stops the run between two sessions; what is done stays done.", footer=4),
    Command(SWEEP, "u", "u", "screen.restore", "Restore",
            "Brings what waits in the trash back.", acts=True, footer=5),
    Command(SWEEP, "y", "y", "screen.copy_id", "Copy", "The whole id, to the clipboard."),
    Command(SWEEP, "Y", "Y", "screen.copy_path", "Copy path", "The path, to the clipboard."),
    Command(SWEEP, "escape", "esc", "screen.back", "Back", "To the sessions."),
    Command(HISTORY, "tab", "tab", "app.focus_next", "Next",
            "From the sweeps to the events and back.", footer=4),
    Command(HISTORY, "escape", "esc", "screen.back", "Back", "To the sessions."),
    Command(DIALOG, "tab,left,right", "tab ← →", "", "Move",
            "Between the answers; the safe one comes first.", footer=4),
    Command(DIALOG, "enter", "enter", "", "Press", "The answer that has the focus.", footer=3),
    Command(DIALOG, "y", "y", "screen.yes", "Yes", "Says yes.", footer=2),
    Command(DIALOG, "escape", "esc", "screen.no", "No", "Says no, and closes.", footer=1),
    Command(DIALOG, "q", "q", "app.leave", "Quit", "Says no, and leaves."),
)  # fmt: skip


def commands_for(place: str, *, read_only: bool) -> list[Command]:
    """What works in one place: its own commands, then those of everywhere."""
    places = [place] if place in (DIALOG, EVERYWHERE) else [place, EVERYWHERE]
    known = [command for place in places for command in COMMANDS if command.where == place]
    return [command for command in known if not (command.acts and read_only)]


def bindings_for(place: str) -> list[Binding]:
    """The keys of one place, for Textual; those that its widgets handle themselves left out."""
    return list(_bindings(place))


def _bindings(place: str) -> Iterator[Binding]:
    for command in COMMANDS:
        if command.where == place and command.action and command.action != PALETTE:
            first = command.at_once
            yield Binding(command.keys, command.action, command.name, show=False, priority=first)
