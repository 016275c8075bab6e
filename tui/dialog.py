"""What every dialogue has: it lies over its page, its safe answer has the focus, esc says no."""

from __future__ import annotations

from typing import ClassVar, Generic, TypeVar

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Horizontal, Vertical, VerticalScroll
from textual.content import Content
from textual.screen import ModalScreen
from textual.widgets import Button, Static
from textual.widgets.button import ButtonVariant

from tui.commands import DIALOG, bindings_for

Answer = TypeVar("Answer")


class Dialog(ModalScreen[Answer], Generic[Answer]):
    """A title, what it is about, and the answers. `no` is the safe one; it comes first."""

    BINDINGS: ClassVar[list[BindingType]] = [
        *bindings_for(DIALOG),
        Binding("left", "app.focus_previous", show=False),
        Binding("right", "app.focus_next", show=False),
    ]
    AUTO_FOCUS = "#no"

    def __init__(self, title: str, *, no: str, yes: str, harmless: bool = False) -> None:
        super().__init__()
        self._is_shown = False
        self._variant: ButtonVariant = "primary" if harmless else "error"
        self.title = title
        self._no = no
        self._yes = yes

    def on_mount(self) -> None:
        self.call_after_refresh(self._can_be_read)

    def _can_be_read(self) -> None:
        self._is_shown = True

    def check_action(self, action: str, _parameters: tuple[object, ...]) -> bool | None:
        """A yes that was typed before the question could be read is no answer."""
        return self._is_shown or action != "yes"

    def compose(self) -> ComposeResult:
        with Vertical(id="box") as box:
            box.border_title = Content(self.title or "")
            with VerticalScroll(id="body", can_focus=False):
                yield from self.body()
            with Horizontal(id="answers"):
                yield Button(Content(self._no), id="no", compact=True)
                if self._yes:
                    yield Button(Content(self._yes), id="yes", variant=self._variant, compact=True)
            yield Static(self.hint(), id="hint")

    def body(self) -> ComposeResult:
        raise NotImplementedError

    def hint(self) -> Content:
        said = "tab moves, enter presses, y says yes, esc no" if self._yes else "esc closes"
        return Content(said)

    def on_button_pressed(self, event: Button.Pressed) -> None:
        event.stop()
        if event.button.id == "yes":
            self.action_yes()
        else:
            self.action_no()

    def action_yes(self) -> None:
        raise NotImplementedError

    def action_no(self) -> None:
        self.dismiss(None)
