"""`coatcheck serve` as processes, on one ledger."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

HERE = Path(__file__).parents[2]
TOKEN = "an operator's token"
DEADLINE_S = 60


def wait_for(what: Callable[[], Any], why: str) -> Any:
    """What `what` returns, once that is true; until then it is asked again."""
    deadline = time.monotonic() + DEADLINE_S
    while not (found := what()):
        assert time.monotonic() < deadline, f"still waiting: {why}"
        time.sleep(0.01)
    return found


@dataclass
class Service:
    """One process that serves `root`; its log is beside it."""

    root: Path
    ledger: str
    name: str
    settings: dict[str, str] = field(default_factory=dict)
    url: str = field(init=False, default="")

    def start(self) -> None:
        """Returns when it listens."""
        given = {
            "ROOT": str(self.root),
            "LEDGER": self.ledger,
            "CLAIMS": str(self.root.with_name(f"{self.root.name}-claims")),
            "OPERATOR_TOKEN": TOKEN,
            "SWEEP_EVERY_MINUTES": "0.005",
            **self.settings,
        }
        with open(self.log, "ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, HERE / "coatcheck.py", "serve", "--port", "0"],
                env={**os.environ, **{f"COATCHECK_{name}": given[name] for name in given}},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self.url = wait_for(self._said_url, f"{self.name} listens")
        self.client = httpx.Client(base_url=self.url, timeout=DEADLINE_S)

    def _said_url(self) -> str:
        said = self.log.read_text()
        assert self._process.poll() is None, said
        found = re.findall(r"serving on (http://\S+)", said)
        return found[-1] if found else ""

    @property
    def log(self) -> Path:
        return self.root.with_name(f"{self.name}.log")

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def end(self, how: signal.Signals = signal.SIGTERM) -> int:
        """Its exit code."""
        if self.is_running:
            self._process.send_signal(how)
        self.client.close()
        return self._process.wait(DEADLINE_S)

    def sweeps_now(self) -> bool:
        """Whether it holds its root's sweep lock."""
        lock = self.root / ".coatcheck" / "sweep.lock"
        if not lock.exists():
            return False
        inode = f":{lock.stat().st_ino} "
        for fd in Path(f"/proc/{self._process.pid}/fdinfo").iterdir():
            try:
                held = [line for line in fd.read_text().splitlines() if line.startswith("lock:")]
            except FileNotFoundError:
                continue
            if any("FLOCK" in line and inode in line for line in held):
                return True
        return False

    # What is asked of it

    def ask(self, method: str, path: str, **options: Any) -> httpx.Response:
        return self.client.request(method, f"/api/v1/upload{path}", **options)

    def operator(self, path: str) -> Any:
        answer = self.client.get(
            f"/api/v1/operator/{path}", headers={"Authorization": f"Bearer {TOKEN}"}
        )
        assert answer.status_code == 200, answer.text
        return answer.json()

    def create(self, content: bytes = b"bytes") -> str:
        answer = self.ask("POST", "", files={"file": ("a.txt", content)})
        assert answer.status_code == 201, answer.text
        return str(answer.json()["session_id"])
