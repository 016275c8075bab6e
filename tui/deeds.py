"""Deleting and touching from a page: asked first, done in a worker, told of at the end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from textual import work
from textual.message import Message
from textual.screen import Screen

from ledger.models import State, short
from tui import acting, words
from tui.acting import Work
from tui.filters import Row
from tui.page import dashboard
from tui.screens.confirm import Confirm
from tui.screens.notice import Notice
from tui.source import FAILURES, Source, name_of

_LISTED = 8
# What an expired session has left may wait in the trash; of these, nothing is left.
_OVER = frozenset({State.CLAIMED, State.DELETED, State.MISSING})


class Deeds(Screen[None]):
    """What a page with sessions on it can do to them."""

    under_way: Work | None = None

    @dataclass
    class Done(Message):
        work: Work

    @dataclass
    class Restored(Message):
        session_id: str
        why_not: str

    def work_is_over(self, done: Work) -> None:
        """For the page: something has been done."""

    def stop_work(self) -> bool:
        """Stops before the next session; False when nothing is being done."""
        if self.under_way is None:
            return False
        self.under_way.stop.set()
        return True

    def ask_to_delete(self, rows: Sequence[Row]) -> None:
        if self.under_way is not None:
            return
        over = [row for row in rows if row.state in _OVER]
        rows = [row for row in rows if row.state not in _OVER]
        if not rows:
            if over:
                self.notify(f"It is {over[0].state}: nothing of it is left to delete.")
            return
        many = words.count(len(rows), "session")
        dialog = Confirm(f"Delete {many}?", _loss(rows), yes=f"Delete {many}", no="Keep")
        self.app.push_screen(dialog, lambda yes: self._delete(rows) if yes else None)

    def _delete(self, rows: Sequence[Row]) -> None:
        self._begin_work(Work("Deleted", rows), acting.delete)

    def touch_all(self, rows: Sequence[Row]) -> None:
        if rows and self.under_way is None:
            self._begin_work(Work("Touched", rows), acting.touch)

    def restore(self, session_id: str) -> None:
        if self.under_way is None:
            self._restore(session_id)

    @work(thread=True, group="deeds", exit_on_error=False)
    def _restore(self, session_id: str) -> None:
        try:
            dashboard(self).source.restore(session_id)
            self.post_message(self.Restored(session_id, ""))
        except FAILURES as error:
            self.post_message(self.Restored(session_id, words.failure(error)))

    def on_deeds_restored(self, message: Restored) -> None:
        if message.why_not:
            self.notify(message.why_not, title="Not restored", severity="error", markup=False)
        else:
            self.notify(f"{short(message.session_id)} is back, as if touched.", markup=False)
        self.restored()

    def restored(self) -> None:
        """For the page: it is back, or could not be brought back."""

    def _begin_work(self, wanted: Work, act: Callable[[Source, Work], None]) -> None:
        self.under_way = wanted
        dashboard(self).stops_at_exit(wanted.stop)
        self._carry_out(wanted, act)

    @work(thread=True, group="deeds", exit_on_error=False)
    def _carry_out(self, wanted: Work, act: Callable[[Source, Work], None]) -> None:
        act(dashboard(self).source, wanted)
        self.post_message(self.Done(wanted))

    def on_deeds_done(self, message: Done) -> None:
        done, self.under_way = message.work, None
        self.work_is_over(done)
        if done.refused:
            lines = [done.outcome(), "", *map(words.shown, acting.refusals(done))]
            title = f"{words.count(len(done.refused), 'session')} left as they are"
            self.app.push_screen(Notice(title, lines))
        else:
            self.notify(done.outcome(), markup=False)


def _loss(rows: Sequence[Row]) -> list[str]:
    """What will be lost, in sessions and bytes."""
    size = words.size(sum(row.bytes for row in rows))
    files = words.count(sum(row.files for row in rows), "file")
    lines = [f"{size} in {files} will be lost. A delete is final.", ""]
    lines += [
        f"{words.size(row.bytes):>9}  {words.shown(name_of(row))}, {row.state}"
        for row in rows[:_LISTED]
    ]
    if len(rows) > _LISTED:
        lines.append(f"{'':9}  and {words.count(len(rows) - _LISTED, 'more', 'more')}")
    return [*lines, "", "Each is looked at again; one that is used meanwhile is left alone."]
