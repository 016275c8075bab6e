"""One large file by PUT, against the same bytes through a bare route into a file."""

from __future__ import annotations

import http.client
import json
import time
import urllib.request
from collections.abc import Iterator

from benchmarks.bench import Bench
from benchmarks.measured import Row, Target
from benchmarks.served import Served, coatcheck, plain
from benchmarks.trees import settings_in

BYTES = 1 << 30
CHUNK = bytes(1 << 20)
FLAT = 32 << 20
UPLOAD = "/api/v1/upload"


def measure(bench: Bench) -> Iterator[Row]:
    size = bench.sized(BYTES, least=1 << 20)
    ours, theirs, grew = [], [], []
    bare = bench.place / "bare"
    bare.mkdir()
    with coatcheck(settings_in(bench.place / "ours").root) as served, plain(bare) as rival:
        _put(served, _file(served), len(CHUNK))  # what is loaded once is no part of it
        before = served.peak_bytes()
        for number in range(bench.rounds):
            ours.append(_rate(served, _file(served), size))
            theirs.append(_rate(rival, f"/bare/{number}", size))
            (bare / str(number)).unlink()
        grew.append(served.peak_bytes() - before)
    work, rival_is = f"PUT of {size / 1024**2:,.0f} MiB", "a bare Starlette stream into a file"
    yield Row(work, rival_is, ours, theirs, Target(0.8, at_least=True), "MiB/s")
    yield Row("memory that they took more", "flat", grew, [float(FLAT)], Target(1), "B")


def _file(served: Served) -> str:
    made = urllib.request.Request(f"http://127.0.0.1:{served.port}{UPLOAD}", method="POST")
    with urllib.request.urlopen(made) as answer:
        return f"{UPLOAD}/{json.load(answer)['session_id']}/files/large"


def _rate(served: Served, path: str, size: int) -> float:
    begun = time.perf_counter()
    _put(served, path, size)
    return size / 1024**2 / (time.perf_counter() - begun)


def _put(served: Served, path: str, size: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", served.port)
    connection.putrequest("PUT", path)
    connection.putheader("Content-Length", str(size))
    connection.endheaders()
    for first in range(0, size, len(CHUNK)):
        connection.send(CHUNK[: size - first])
    assert connection.getresponse().status in (201, 204)
    connection.close()
