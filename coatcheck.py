"""The command line of coatcheck: parse, open, call one function, print; nothing is decided here."""

from __future__ import annotations

import signal
import threading

# Ctrl-C during the imports, which take a while, ends the program as it ends any: without a word.
if _interruptible := (
    threading.current_thread() is threading.main_thread()
    and signal.getsignal(signal.SIGINT) is signal.default_int_handler
):
    signal.signal(signal.SIGINT, signal.SIG_DFL)

import logging
import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated

import typer

import coatcheck_screen as screen
from coatcheck_screen import say
from ledger import (
    Actor,
    CoatcheckError,
    Guard,
    LedgerUnavailable,
    RootMismatch,
    RootUnavailable,
    SessionEnded,
    SessionLedger,
    State,
    SweepStopped,
    UsageError,
    load_settings,
    parse_report,
)
from ledger.adoption import preview
from ledger.checks import Status
from ledger.system import now_us
from ledger.views import Page, Seen

if _interruptible:
    signal.signal(signal.SIGINT, signal.default_int_handler)

DONE, FAILED, WRONG, STOPPED, UNAVAILABLE, INTERRUPTED = 0, 1, 2, 3, 4, 130
# The first that fits; all others, a session that is not there above all, are 1.
EXIT_CODES: tuple[tuple[type[CoatcheckError], int], ...] = (
    (UsageError, WRONG),
    (SweepStopped, STOPPED),
    (RootMismatch, STOPPED),
    (RootUnavailable, UNAVAILABLE),
    (LedgerUnavailable, UNAVAILABLE),
    (CoatcheckError, FAILED),
)

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
)

Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON document on standard output, and no more.")
]
MaxAge = Annotated[
    float | None,
    typer.Option(metavar="H", help="Untouched longer is stale; default: the setting's."),
]
Id = Annotated[str, typer.Argument(metavar="ID", help="The whole id of the session.")]


# The entry, and every way out


def main() -> None:
    code = run(sys.argv[1:])
    if _interruptible:  # what is left is to end
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    sys.exit(code)


def run(arguments: list[str]) -> int:
    """Runs one command; its exit code. What goes wrong is said on standard error, in words."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        code = app(arguments, prog_name="coatcheck", standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else DONE
    except typer.TyperException as error:
        return _fail(arguments, error.format_message(), error.exit_code)
    except typer.Abort:
        return _fail(arguments, "Nothing was done.", FAILED)
    except CoatcheckError as error:
        code = next(code for kind, code in EXIT_CODES if isinstance(error, kind))
        return _fail(arguments, str(error), code)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except OSError as error:
        where = f": {error.filename}" if error.filename else ""
        return _fail(arguments, f"{error.strerror or error}{where}", FAILED)
    except Exception as error:  # noqa: BLE001 - a mistake of ours, and still no traceback
        last = traceback.extract_tb(error.__traceback__)[-1]
        what = f"{type(error).__name__}: {error} ({Path(last.filename).name}, line {last.lineno})"
        return _fail(arguments, f"A mistake in coatcheck: {what}", FAILED)


def _fail(arguments: list[str], message: str, code: int) -> int:
    if message:
        say(f"coatcheck: {message}")
    if "--json" in arguments:
        screen.emit({"detail": message, "exit_code": code})
    return code


@app.callback(invoke_without_command=True)
def _root(
    which: Annotated[bool, typer.Option("--version", help="Say which version this is.")] = False,
) -> None:
    """Keeps temporary upload sessions, and removes the forgotten ones without taking a live one.

    Reads its settings from COATCHECK_… in the environment. Exit codes: 0 done; 1 done, with
    failures or findings; 2 wrong usage or settings; 3 stopped by a guard; 4 the ledger or the root
    cannot be opened.
    """
    if which:
        from importlib.metadata import version

        screen.write(f"coatcheck {version('coatcheck')}\n")
        raise typer.Exit
    _log(logging.WARNING)


def _log(level: int) -> None:
    words = "%(levelname)s %(name)s: %(message)s"
    logging.basicConfig(stream=sys.stderr, level=level, format=words, force=True)


@contextmanager
def _opened() -> Iterator[SessionLedger]:
    with SessionLedger.open(load_settings()) as sessions:
        yield sessions


# Services


@app.command()
def serve(
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="The port.")] = 8000,
    workers: Annotated[int, typer.Option(min=1, help="So many processes on that port.")] = 1,
) -> None:
    """The service: upload routes, operator routes, metrics, and sweeps on a schedule."""
    from web.app import serve as run_service

    run_service(load_settings(), host, port, workers)


@app.command()
def dashboard(
    url: Annotated[str | None, typer.Option(help="Work through this service.")] = None,
    token_file: Annotated[
        Path | None, typer.Option(help="A file that holds the operator token.")
    ] = None,
    read_only: Annotated[bool, typer.Option("--read-only", help="Take every action away.")] = False,
) -> int:
    """The operators' dashboard, on the ledger itself or, with --url, through a service."""
    from tui import run_dashboard

    settings = load_settings()
    token = settings.operator_token.get_secret_value() if settings.operator_token else None
    if token_file is not None:
        token = _read(token_file).decode(errors="replace").strip()
    return run_dashboard(None if url else settings, url=url, token=token, read_only=read_only)


# The sweep and its report


@app.command()
def sweep(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what it would do.")] = False,
    max_age_hours: MaxAge = None,
    only: Annotated[
        Path | None,
        typer.Option(metavar="REPORT.json", help="Do exactly what this report lists; - reads it."),
    ] = None,
    past_the_brake: Annotated[
        bool, typer.Option("--past-the-brake", help="Accept a lowered max age, whatever it takes.")
    ] = False,
    trust_clock: Annotated[
        bool, typer.Option("--trust-clock", help="The clock jumped, and is right now.")
    ] = False,
    as_json: Json = False,
) -> int:
    """One sweep: what was forgotten is removed, and ledger and disk agree again."""
    if only and (dry_run or max_age_hours is not None):
        raise UsageError("--only goes by its report: neither --dry-run nor --max-age-hours fit it.")
    listed = parse_report(_read(only)) if only else None
    with _opened() as sessions, screen.watching("sweep") as progress:
        if dry_run:
            report = sessions.report(max_age_hours, progress=progress)
            for objection in report.objections:
                clock = objection.guard is Guard.CLOCK
                way_out = " If it is right now: --trust-clock" if clock else ""
                say(f"A sweep would be stopped. {objection.why}{way_out}")
        else:
            report = sessions.sweep(
                listed,
                max_age_hours=max_age_hours,
                past_the_brake=past_the_brake,
                trust_clock=trust_clock,
                by=Actor.OPERATOR,
                keep_entries=as_json,
                progress=progress,
            )
    screen.show(report, screen.show_report, as_json=as_json)
    if progress.cancel.is_set():
        say("Cancelled: this is what was done until then. Another sweep does the rest.")
        return INTERRUPTED
    return FAILED if report.failed else DONE


@app.command("report")
def orphan_report(
    max_age_hours: MaxAge = None,
    as_json: Json = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print the findings as CSV.")] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Exit with 1 if a sweep would have anything to do.")
    ] = False,
) -> int:
    """The orphan report: each finding, what a sweep would do with it, and why. Changes nothing."""
    if as_json and as_csv:
        raise UsageError("--json and --csv exclude each other.")
    with _opened() as sessions, screen.watching("look") as progress:
        report = sessions.report(max_age_hours, progress=progress)
    if progress.cancel.is_set():
        say("Cancelled.")
        return INTERRUPTED
    if as_csv:
        screen.write(report.as_csv())
    else:
        screen.show(report, screen.show_report, as_json=as_json)
    if check and not report.settled:
        say("Not settled: see the findings, and run: coatcheck sweep")
        return FAILED
    return DONE


def _read(path: Path) -> bytes:
    try:
        return sys.stdin.buffer.read() if str(path) == "-" else path.read_bytes()
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}.") from error


# Sessions, one by one


@app.command("sessions")
def list_sessions(
    state: Annotated[State | None, typer.Option(help="Only those in this state.")] = None,
    sort: Annotated[
        str, typer.Option(help="created_at, last_touch_at, bytes, files or state; - reverses.")
    ] = "-created_at",
    limit: Annotated[int, typer.Option(min=1, max=1000, help="The most to list.")] = 100,
    cursor: Annotated[
        str | None, typer.Option(help="Go on behind a list that ended with this cursor.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Lists the sessions that the ledger knows."""
    with _opened() as sessions:
        page = Page.of(
            sessions, sort=sort, cursor=cursor, most=limit, state=state, with_files=as_json
        )
    screen.show(page, screen.show_page, as_json=as_json)


@app.command()
def show(session_id: Id, as_json: Json = False) -> None:
    """One session: its files, its life, both clocks, and what a sweep would do with it now."""
    with _opened() as sessions:
        seen = Seen.of(sessions, session_id)
    screen.show(seen, screen.show_session, as_json=as_json)


@app.command()
def create(
    label: Annotated[str | None, typer.Option(help="Names it for people.")] = None,
    as_json: Json = False,
) -> None:
    """A new, empty session."""
    with _opened() as sessions:
        session = sessions.create(label, by=Actor.OPERATOR)
        screen.tell(sessions, session, f"Created: {session.path}", as_json=as_json)


@app.command()
def touch(session_id: Id, as_json: Json = False) -> None:
    """Keeps a session alive: it counts as used now."""
    with _opened() as sessions:
        session = sessions.touch(session_id, by=Actor.OPERATOR)
        until = screen.when(session.expires_at)
        screen.tell(sessions, session, f"Kept until {until}.", as_json=as_json)


@app.command()
def claim(
    session_id: Id,
    destination: Annotated[
        str, typer.Argument(metavar="DEST", help="A name, or a path below the claims directory.")
    ],
    as_json: Json = False,
) -> None:
    """Moves a session below the claims directory, where no sweep comes."""
    with _opened() as sessions:
        session = sessions.claim(session_id, destination, by=Actor.OPERATOR)
        screen.tell(sessions, session, f"Claimed: {session.path}", as_json=as_json)


@app.command()
def restore(session_id: Id, as_json: Json = False) -> None:
    """Brings a swept session back from the trash, whole, while its bytes wait there."""
    with _opened() as sessions:
        session = sessions.restore(session_id, by=Actor.OPERATOR)
        screen.tell(sessions, session, f"Restored: {session.path}", as_json=as_json)


@app.command()
def delete(session_id: Id, as_json: Json = False) -> None:
    """Deletes a session and its files, for good."""
    with _opened() as sessions:
        if not sessions.delete_session(session_id, by=Actor.OPERATOR):
            ended = sessions.get(session_id)
            how = f"{ended.state} at {ended.ended_at and screen.when(ended.ended_at)}"
            raise SessionEnded(f"Session '{session_id}' has ended: {how}.")
    if as_json:
        screen.emit({"session_id": session_id, "deleted": True})
    else:
        screen.write(f"Deleted: {session_id}\n")


# A place


@app.command()
def adopt(
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
    as_json: Json = False,
) -> None:
    """Takes a pile over that has no ledger yet, or a ledger for another root: asks first."""
    settings = load_settings().model_copy(update={"adopt": False})
    pile = None
    try:
        sessions = SessionLedger.open(settings)
    except RootMismatch as mismatch:
        pile = preview(settings, now_us())
        screen.show_pile(settings, pile, mismatch)
        if not yes:
            _ask()
        sessions = SessionLedger.open(settings, adopt=True)
    with sessions, screen.watching("record", pile.directories if pile else None) as progress:
        recorded = sessions.adopt_all(progress=progress)
    screen.show_adopted(sessions, pile, recorded, as_json=as_json)


def _ask() -> None:
    if not (os.isatty(0) and sys.stdin.isatty()):  # standard input may be closed
        raise UsageError("Nothing was taken over: there is no terminal to ask on. Say --yes.")
    typer.confirm("Take it over?", default=False, abort=True, err=True)


@app.command()
def doctor(as_json: Json = False) -> int:
    """Checks settings, root, rights, file systems, ledger, clock and disk; says what to do."""
    from ledger.doctor import consult

    checks = consult()
    bad = any(check.status is Status.BAD for check in checks)
    if as_json:
        screen.emit({"ok": not bad, "checks": [check.as_json() for check in checks]})
    else:
        screen.show_checks(checks)
    return FAILED if bad else DONE


@app.command()
def demo(
    keep: Annotated[bool, typer.Option("--keep", help="Leave the root there to look at.")] = False,
    as_json: Json = False,
) -> None:
    """A root of its own with every kind of finding in it: report, dry run, sweep and restore."""
    from ledger.demo import stage

    with stage(keep=keep) as (sessions, stands):
        play = screen.Play(sessions.settings, as_json=as_json)
        play.report("report", sessions.report(), "report")
        play.dry_run(sessions.report())
        swept = sessions.sweep(by=Actor.OPERATOR, keep_entries=False)
        play.report("sweep", swept, "sweep")
        play.report("report", sessions.report(), "after")
        back = str(stands["waiting"].session_id)
        sessions.restore(back, by=Actor.OPERATOR)
        play.restored(Seen.of(sessions, back))
    play.end(kept=keep)


if __name__ == "__main__":
    main()
