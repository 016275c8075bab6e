"""The operators' dashboard, in the terminal."""

from __future__ import annotations

from ledger import SessionLedger, Settings

__all__ = ["run_dashboard"]


def run_dashboard(
    settings: Settings | None, *, url: str | None, token: str | None, read_only: bool
) -> int:
    """Runs until one leaves it; the exit code. With `url` through that service, else on the ledger.

    Raises UsageError without a terminal or for a URL that is none; what opening a ledger raises.
    """
    from tui.terminal import check_terminal, end_with_the_terminal, is_gone

    check_terminal()
    from tui.app import Dashboard

    if url is not None:
        from tui.remote import RemoteSource

        remote = RemoteSource(url, token)
        app = Dashboard(remote, read_only=read_only, through_service=True)
    else:
        from tui.local import LocalSource

        app = Dashboard(LocalSource(SessionLedger.open(settings)), read_only=read_only)
    try:
        with end_with_the_terminal(app):
            app.run()
    except OSError:
        if not is_gone():
            raise
    finally:
        app.source.close()
    # Where nobody reads any more even the last line fails, and that is no failure of ours.
    return 0 if is_gone() else app.return_code or 0
