"""How one comes to each screen of the scene, for its pictures and its snapshots."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from textual._context import visible_screen_stack
from textual.pilot import Pilot
from textual.widgets import Input

SECONDS = 30.0


class Shown(str):
    """A text that must be on the screen before the next key."""

    __slots__ = ()


@dataclass(frozen=True)
class Look:
    """The keys that lead to a screen, what to wait for among them, and what is on it at last."""

    keys: tuple[str | Shown, ...]
    texts: tuple[str, ...]


PLAN = ("3", "enter", Shown("5 sessions would go"))
LOOKS = {
    "sessions": Look((*["down"] * 3, "space", "space"), ("● 2 marked", "6 of")),
    "filtered": Look(("slash", *"order active", "enter"), ("filter: order active",)),
    "sort": Look(("s",), ("Sort by",)),
    "delete": Look(("down", "space", "space", Shown("● 2"), "d"), ("Delete 2 sessions?",)),
    "session": Look(
        ("slash", *"Kofi", "enter", Shown("1 of 1"), "enter"),
        ("live → keep", "Files ·", "by api"),
    ),
    "orphans": Look(
        ("2", Shown("5 sessions would go"), "down"),
        ("stale → set aside",),
    ),
    "save": Look(("2", Shown("5 sessions would go"), "w"), ("Save the report",)),
    "dry-run": Look(PLAN, ("No guard objects",)),
    "confirm": Look((*PLAN, "x"), ("Sweep exactly this list?",)),
    "swept": Look(
        (*PLAN, "x", Shown("Sweep exactly"), "y"), ("Swept. 5 sessions removed", "waiting")
    ),
    "history": Look(("4",), ("new → active", "active sessions, left", "✔ swept")),
    "help": Look(("question_mark",), ("Everywhere",)),
    "palette": Look(("ctrl+p",), ("Fewer rows, as you type",)),
}


async def lead(pilot: Pilot[int], look: Look) -> None:
    """The screen is there, whole, and nothing in it moves."""
    await until_shown(pilot, "1 of 1", "✔ root")
    for key in look.keys:
        if isinstance(key, Shown):
            await until_shown(pilot, key)
        else:
            await pilot.press(key)
    await until_shown(pilot, *look.texts)
    for box in pilot.app.screen.query(Input):
        box.cursor_blink = False
    await pilot.pause()


async def until(pilot: Pilot[int], condition: Callable[[], object], what: str = "") -> None:
    """Returns once `condition` holds; fails, and shows the screen, when it does not come to."""
    deadline = time.monotonic() + SECONDS
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(
                f"{what or 'this'} did not come about; on the screen:\n{shown(pilot)}"
            )
        await pilot.pause(0.04)


async def until_shown(pilot: Pilot[int], *texts: str) -> None:
    for text in texts:
        await until(pilot, lambda text=text: text in shown(pilot), f"{text!r}")  # type: ignore[misc]


def shown(pilot: Pilot[int]) -> str:
    """What is on the screen, as lines of text."""
    screen = pilot.app.screen
    visible_screen_stack.set(pilot.app._background_screens)  # else what is drawn is kept without
    return "\n".join(strip.text.rstrip() for strip in screen._compositor.render_strips())
