"""A session's whole life over HTTP, on either ledger: what docs/scale.md reckons with."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from benchmarks.bench import Bench
from benchmarks.http import exchange
from benchmarks.measured import Row, timed
from benchmarks.served import coatcheck, cpu_seconds
from benchmarks.trees import settings_in
from ledger import Settings
from tests.ledgers import Server

LIVES = 1000
CLIENTS = 16
UPLOAD = "/api/v1/upload"
# What a server in service does, and one for tests leaves out.
IN_SERVICE = ("fsync = on", "full_page_writes = on", "autovacuum = on")


@dataclass
class Lived:
    """Of one round; seconds and bytes are those of one life."""

    rate: float
    computing: float
    written: float
    its_server: float = 0.0


@dataclass
class Ledger:
    """Where the sessions are written; `server`: its PostgreSQL, where it has one."""

    settings: Settings
    server: Server | None = None
    rounds: list[Lived] = field(default_factory=list)

    def bytes(self) -> float:
        if self.server is not None:
            [[size]] = self.server.do("SELECT sum(pg_database_size(datname)) FROM pg_database")
            return float(size)
        file = self.settings.ledger_file
        assert file is not None
        return float(sum(path.stat().st_size for path in file.parent.glob(f"{file.name}*")))

    def server_cpu(self) -> float:
        """Of its postmaster and all that it has started, ended ones too."""
        if self.server is None:
            return 0.0
        pid = int((self.server.data / "postmaster.pid").read_text().split()[0])
        each = map(_cpu_if_there, _children(pid))
        return sum(each) + cpu_seconds(pid)


def measure(bench: Bench) -> Iterator[Row]:
    lives = bench.sized(LIVES, least=CLIENTS)
    ledgers = {"SQLite": Ledger(settings_in(bench.place / "sqlite"))}
    with _postgresql(bench.place / "postgresql") as on_server:
        ledgers["PostgreSQL"] = on_server
        for _ in range(bench.rounds):
            for ledger in ledgers.values():
                ledger.rounds.append(_lived(ledger, lives))
    work = f"lives (POST, PUT, touch, DELETE), one worker, {CLIENTS} clients"
    for name, ledger in ledgers.items():
        yield Row(f"{work}, {name}", "", [each.rate for each in ledger.rounds], unit="/s")
        words = f"CPU {median(each.computing for each in ledger.rounds) * 1000:.1f} ms"
        if ledger.server:
            words += f", the server's {median(e.its_server for e in ledger.rounds) * 1000:.1f} ms"
        words += f"; {median(each.written for each in ledger.rounds):,.0f} B more in the ledger"
        yield Row(f"one of them costs, {name}", "", note=words)


def _lived(ledger: Ledger, lives: int) -> Lived:
    with coatcheck(ledger.settings.root, ledger=ledger.settings.ledger) as served:
        asyncio.run(_live(served.port, CLIENTS))  # what is loaded once is no part of it
        size, pid = ledger.bytes(), served.process.pid
        cpu, server = cpu_seconds(pid), ledger.server_cpu()
        took = timed(lambda: asyncio.run(_live(served.port, lives)))
        used = cpu_seconds(pid) - cpu, ledger.server_cpu() - server, ledger.bytes() - size
    computing, its_server, written = (each / lives for each in used)
    return Lived(lives / took, computing, written, its_server)


async def _live(port: int, lives: int) -> None:
    left = iter(range(lives))
    await asyncio.gather(*(_client(port, left) for _ in range(CLIENTS)))


async def _client(port: int, left: Iterator[int]) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)

    async def ask(method: str, path: str, body: bytes = b"", *, due: int) -> bytes:
        status, said = await exchange(reader, writer, method, path, port, body)
        assert status == due, (method, status, said)
        return said

    for _ in left:
        made = json.loads(await ask("POST", UPLOAD, due=201))
        session = f"{UPLOAD}/{made['session_id']}"
        await ask("PUT", f"{session}/files/a.txt", b"x" * 100, due=201)
        await ask("POST", f"{session}/touch", due=200)
        await ask("DELETE", session, due=204)
    writer.close()
    await writer.wait_closed()


@contextmanager
def _postgresql(folder: Path) -> Iterator[Ledger]:
    """A server of its own, which waits for the disk as one in service does."""
    server = Server(Path(tempfile.mkdtemp(prefix="cc-pg-", dir="/tmp")))
    try:
        server.start()
        server.do(*(f"ALTER SYSTEM SET {each}" for each in IN_SERVICE), "SELECT pg_reload_conf()")
        server.do("CREATE DATABASE coatcheck")
        root = settings_in(folder).root
        yield Ledger(Settings(root=root, ledger=server.url("coatcheck")), server)
    finally:
        server.end()


def _cpu_if_there(pid: int) -> float:
    """A child that has just ended counts to its parent."""
    try:
        return cpu_seconds(pid)
    except OSError:
        return 0.0


def _children(pid: int) -> Sequence[int]:
    return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
