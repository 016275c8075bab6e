"""Many clients at once, each on a connection of its own, and how long each answer took."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass, field


def request(method: str, path: str, port: int, size: int = 0) -> bytes:
    """A request's head, behind which `size` bytes of body are to come."""
    head = f"{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Length: {size}\r\n\r\n"
    return head.encode()


@dataclass
class Answers:
    """How long each took, in seconds, and how long all of them together."""

    took: list[float] = field(default_factory=list)
    seconds: float = 0.0
    failed: int = 0

    @property
    def per_second(self) -> float:
        return len(self.took) / self.seconds

    def percentile(self, share: float) -> float:
        return sorted(self.took)[min(len(self.took) - 1, int(len(self.took) * share))]

    @property
    def p99(self) -> float:
        return self.percentile(0.99)


async def ask(
    port: int, requests: Iterator[bytes], *, clients: int, seconds: float = 1e9
) -> Answers:
    """Sends the requests until they or the seconds are at an end; answers of 4xx and 5xx count as
    failed."""
    answers = Answers()
    begun = time.perf_counter()
    until = begun + seconds
    await asyncio.gather(*(_client(port, requests, until, answers) for _ in range(clients)))
    answers.seconds = time.perf_counter() - begun
    return answers


async def _client(port: int, requests: Iterator[bytes], until: float, answers: Answers) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for asked in requests:
        begun = time.perf_counter()
        writer.write(asked)
        status, _ = await read_answer(reader)
        ended = time.perf_counter()
        answers.took.append(ended - begun)
        answers.failed += status >= 400
        if ended > until:
            break
    writer.close()
    await writer.wait_closed()


async def exchange(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    method: str,
    path: str,
    port: int,
    body: bytes = b"",
) -> tuple[int, bytes]:
    """One request with its body, and the status and the body of its answer."""
    writer.write(request(method, path, port, len(body)) + body)
    return await read_answer(reader)


async def read_answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """One answer's status and body."""
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    at = head.find(b"content-length: ")
    size = int(head[at + 16 : head.index(b"\r\n", at)]) if at >= 0 else 0
    return int(head[9:12]), await reader.readexactly(size)
