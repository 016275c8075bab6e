"""What is published: from the source distribution comes the wheel, and from that all that runs."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import sysconfig
import tarfile
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.web.services import HOUSE, UPLOAD, wait_for

NOT_SOURCES = shutil.ignore_patterns(
    *(".*", "__pycache__", "node_modules", "build", "dist", "data", "tests", "*.egg-info")
)
BUILD = "from setuptools import build_meta; print(build_meta.build_{}(r'{}'))"


def build(kind: str, source: Path, into: Path) -> Path:
    command = [sys.executable, "-c", BUILD.format(kind, into)]
    told = subprocess.run(command, cwd=source, capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stderr
    return into / told.stdout.splitlines()[-1]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from the source distribution, which was built from the sources."""
    folder = tmp_path_factory.mktemp("built")
    shutil.copytree(HOUSE, folder / "sources", ignore=NOT_SOURCES)
    with tarfile.open(build("sdist", folder / "sources", folder)) as packed:
        packed.extractall(folder / "unpacked", filter="data")
    [unpacked] = (folder / "unpacked").iterdir()
    return build("wheel", unpacked, folder)


def pip(python: Path, *arguments: str | Path) -> None:
    command = [sys.executable, "-m", "pip", "--python", python, "install", "-q", *arguments]
    told = subprocess.run(command, capture_output=True, text=True, check=False)
    assert told.returncode == 0, told.stderr


@pytest.fixture
def coatcheck(wheel: Path, tmp_path: Path) -> Path:
    """The program, installed from the wheel; what it depends on is lent by this environment."""
    venv.create(tmp_path / "venv", with_pip=False)
    python = tmp_path / "venv/bin/python"
    [site] = (tmp_path / "venv/lib").glob("*/site-packages")
    # Their .pth files are not read, so the editable coatcheck is not among them.
    (site / "lent.pth").write_text(sysconfig.get_path("purelib"))
    pip(python, "--no-deps", "--no-index", wheel)
    return tmp_path / "venv/bin/coatcheck"


@pytest.fixture
def coatcheck_alone(wheel: Path, tmp_path: Path) -> Path:
    """The program as `pip install` of the wheel brings it, with all that it depends on."""
    venv.create(tmp_path / "venv", with_pip=False)
    pip(tmp_path / "venv/bin/python", wheel)
    return tmp_path / "venv/bin/coatcheck"


@contextmanager
def served(program: Path) -> Iterator[str]:
    """Its URL, while it serves a new root with its own migrations."""
    log = Path("serve.log").absolute()
    environment = {"PATH": os.defpath, "HOME": str(log.parent)}
    with (
        log.open("w") as output,
        subprocess.Popen(
            [program, "serve", "--port=0"], env=environment, stdout=output, stderr=output
        ) as process,
    ):
        try:
            wait_for(lambda: "serving on" in log.read_text() or process.poll() is not None)
            found = re.search(r"serving on (http://\S+)", log.read_text())
            assert found, log.read_text()
            yield found[1]
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0


def works(program: Path) -> None:
    demo = subprocess.run([program, "demo", "--json"], capture_output=True, text=True, check=False)
    assert demo.returncode == 0, demo.stderr
    assert json.loads(demo.stdout)
    with served(program) as url, httpx.Client(base_url=url) as http:
        page = http.get("/")
        assert page.headers["Content-Type"].startswith("text/html")
        for linked in re.findall(r'(?:href|src)="(/static/[^"]+)"', page.text):
            assert http.get(linked).status_code == 200, linked
        for module in ("coatcheck.js", "coatcheck.d.ts"):
            assert "CoatcheckSession" in http.get(f"/static/{module}").text
        made = http.post(UPLOAD, files={"file": ("a.txt", b"bytes")})
        assert made.status_code == 201
        assert http.delete(made.headers["Location"]).status_code == 204
    at = program.with_name("python")
    where = "import ledger, tui.app, web.app; print(ledger.__file__, tui.app.__file__)"
    loaded = subprocess.run([at, "-c", where], capture_output=True, text=True, check=True).stdout
    assert all(path.startswith(str(at.parents[1])) for path in loaded.split())


@pytest.mark.slow
def test_the_wheel_brings_all_that_runs(coatcheck: Path) -> None:
    works(coatcheck)


@pytest.mark.torture
def test_the_wheel_in_an_empty_environment_brings_all_that_runs(coatcheck_alone: Path) -> None:
    works(coatcheck_alone)


@pytest.mark.slow
def test_the_wheel_holds_every_file_of_its_packages(wheel: Path) -> None:
    import zipfile

    held = set(zipfile.ZipFile(wheel).namelist())
    listed = subprocess.run(
        ["git", "ls-files", "ledger", "web", "tui", "coatcheck.py", "coatcheck_screen.py"],
        cwd=HOUSE,
        capture_output=True,
        text=True,
        check=True,
    )
    assert set(listed.stdout.split()) - held == set()
