"""What `deploy/` has: the unit and its sandbox, the container's file, nginx before a service."""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import ssl
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.hostile.tracing import needs_strace
from tests.web.services import HOUSE, UPLOAD, Process, Serve, Service, curl, is_open, wait_for

DEPLOY = HOUSE / "deploy"
NAME = "uploads.example"
TOKEN = "an operator's token"
PATH = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin"
JSON = "Content-Type: application/json"


def needs(program: str) -> pytest.MarkDecorator:
    missing = shutil.which(program, path=PATH) is None
    return pytest.mark.skipif(missing, reason=f"{program} is not installed")


# systemd


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """The unit, of which only the program is another one: a program that is here."""
    text = (DEPLOY / "coatcheck.service").read_text()
    place = tmp_path / "coatcheck.service"
    place.write_text(text.replace("/opt/coatcheck/bin/coatcheck", "/bin/true"))
    return place


@needs("systemd-analyze")
def test_the_unit_is_sound_and_well_locked_up(unit: Path) -> None:
    told = subprocess.run(
        ["systemd-analyze", "verify", unit], capture_output=True, text=True, check=True
    )
    assert str(unit) not in told.stderr
    judge = ["systemd-analyze", "security", "--offline=true", "--threshold=15", str(unit)]
    judged = subprocess.run(judge, capture_output=True, text=True, check=False)
    assert judged.returncode == 0, judged.stdout


@pytest.mark.slow
@needs_strace
@needs("systemd-analyze")
def test_a_service_makes_no_system_call_that_its_unit_forbids(tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    process = Process(tmp_path, watched_by=["strace", "-D", "-f", "-qq", "-o", str(trace)])
    process.start()
    made = curl("-F", "file=@/etc/hostname", f"{process.url}{UPLOAD}")
    session = re.findall(r'"session_id":"([a-z2-7]+)"', made)[0]
    curl("-d", '{"into": "spring"}', "-H", JSON, f"{process.url}{UPLOAD}/{session}/claim")
    process.end()
    called = set(re.findall(r"^\d+ +(\w+)\(", trace.read_text(), re.MULTILINE))
    assert {"renameat2", "flock", "fsync"} <= called
    # More descriptors are only asked for; and only for root, SQLite gives its files an owner.
    assert called - allowed() <= {"setrlimit", "prlimit64", "fchown"}


def allowed() -> set[str]:
    """The system calls that the unit lets through."""
    text = (DEPLOY / "coatcheck.service").read_text()
    through: set[str] = set()
    for line in re.findall(r"^SystemCallFilter=(.*)$", text, re.MULTILINE):
        names = set().union(*(members(group) for group in line.removeprefix("~").split()))
        through = through - names if line.startswith("~") else through | names
    return through


def members(group: str) -> set[str]:
    listed = ["systemd-analyze", "--no-pager", "syscall-filter", group]
    told = subprocess.run(listed, capture_output=True, text=True, check=True).stdout
    lines = [line.strip() for line in told.splitlines()[1:]]
    names = {line for line in lines if line and not line.startswith(("#", "@"))}
    return names.union(*(members(line) for line in lines if line.startswith("@")))


@pytest.mark.slow
def test_a_service_needs_no_memory_that_is_both_written_and_run(process: Process) -> None:
    process.before = (
        "import ctypes, os\n"
        "if 'LOCKED' not in os.environ:\n"
        "    refused = ctypes.CDLL(None).prctl(65, 1, 0, 0, 0)  # PR_SET_MDWE\n"
        "    print('locked up:', refused, flush=True)\n"
        "    import sys; os.environ['LOCKED'] = '1'; os.execv(sys.executable, sys.orig_argv)"
    )
    process.start()
    if "locked up: 0" not in process.log:
        pytest.skip("this kernel cannot forbid it")
    assert '"active"' in curl("-F", "file=@/etc/hostname", f"{process.url}{UPLOAD}")
    assert process.end(signal.SIGTERM) == 0


# The container


def test_the_container_file_copies_all_that_the_package_is_made_of() -> None:
    text = (DEPLOY / "Containerfile").read_text()
    copied = {
        name
        for line in re.findall(r"^COPY (?!--)(.*) \S+$", text, re.MULTILINE)
        for name in line.split()
    }
    assert all((HOUSE / name).exists() for name in copied)
    packed = re.search(r"py-modules = \[(.*)\]", (HOUSE / "pyproject.toml").read_text())
    assert packed is not None
    modules = {f"{name}.py" for name in re.findall(r'"(\w+)"', packed[1])}
    assert copied >= modules | {"ledger", "web", "tui", "requirements.txt", "pyproject.toml"}


# nginx


@contextmanager
def proxied(service: Service, folder: Path, *, keeps_host: bool) -> Iterator[httpx.Client]:
    """A client of nginx, which ends TLS, as `deploy/nginx.conf` has it but for paths and ports."""
    certificate, key, port = folder / "cert.pem", folder / "key.pem", free_port()
    make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"]
    named = [
        "-nodes",
        "-days",
        "2",
        "-subj",
        f"/CN={NAME}",
        "-addext",
        f"subjectAltName=DNS:{NAME}",
    ]
    written = ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run([*make, *named, *written], check=True, capture_output=True)
    server = (DEPLOY / "nginx.conf").read_text()
    for old, new in (
        ("listen 443 ssl", f"listen 127.0.0.1:{port} ssl"),
        ("http://127.0.0.1:8000", service.url),
        (f"/etc/ssl/{NAME}.pem", str(certificate)),
        (f"/etc/ssl/private/{NAME}.key", str(key)),
        ("/var/log/nginx/coatcheck.log", str(folder / "access.log")),
    ):
        assert old in server
        server = server.replace(old, new)
    if not keeps_host:
        server = server.replace("proxy_set_header Host $http_host;", "")
    places = "".join(
        f"{kind}_temp_path {folder}/{kind};\n"
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    main = f"daemon off; pid {folder}/pid; error_log {folder}/error.log; events {{}}\n"
    (folder / "nginx.conf").write_text(f"{main}http {{\n{places}{server}}}\n")
    nginx = shutil.which("nginx", path=PATH) or "nginx"
    with subprocess.Popen([nginx, "-p", folder, "-c", folder / "nginx.conf"]) as running:
        try:
            wait_for(lambda: is_open(port))
            trust = ssl.create_default_context(cafile=str(certificate))
            with httpx.Client(
                base_url=f"https://127.0.0.1:{port}", verify=trust, headers={"Host": NAME}
            ) as client:
                client.event_hooks["request"] = [sent_to_its_name]
                yield client
        finally:
            running.terminate()


def sent_to_its_name(request: httpx.Request) -> None:
    request.extensions["sni_hostname"] = NAME


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


@pytest.mark.slow
@needs("nginx")
@needs("openssl")
@pytest.mark.parametrize("keeps_host", [True, False], ids=["keeps Host", "changes Host"])
def test_behind_a_proxy_that_ends_tls_all_goes_as_without_it(
    keeps_host: bool, serve: Serve, tmp_path: Path
) -> None:
    # What a page that is not of its own origin says of itself, where the browser says no more.
    origin = {"Origin": f"https://{NAME}"}
    own_page = {**origin, "Sec-Fetch-Site": "same-origin"}
    stranger = {"Origin": "https://stranger.example", "Sec-Fetch-Site": "cross-site"}
    hosts = [NAME] if keeps_host else []
    service = serve(hosts=hosts, operator_token=TOKEN, max_session_bytes=4_000_000)
    with proxied(service, tmp_path, keeps_host=keeps_host) as client:
        made = client.post(UPLOAD, files={"file": ("a.txt", b"bytes")}, headers=own_page)
        assert made.status_code == 201, made.text
        session = made.headers["Location"]
        assert session.startswith(UPLOAD)  # whatever its scheme and host are outside
        put = client.put(f"{session}/files/b.bin", content=b"x" * 2_000_000, headers=own_page)
        assert put.status_code == 201
        assert len(client.get(f"{session}/files/b.bin").content) == 2_000_000
        last = {"Connection": "close"}  # nginx ends it, when it is answered before its body ends
        large = b"x" * 5_000_000
        too_large = client.put(f"{session}/files/c.bin", content=large, headers=last)
        assert too_large.status_code == 413
        assert client.post(UPLOAD, headers=stranger).status_code == 403
        # An old browser says its page's origin, and not that it is ours.
        assert client.post(UPLOAD, headers=origin).status_code == (201 if keeps_host else 403)
        assert client.head("/readyz").status_code == 200
        listen = {"Authorization": f"Bearer {TOKEN}", "Accept": "text/event-stream"}
        with client.stream("GET", "/api/v1/operator/events", headers=listen) as events:
            assert client.delete(session, headers=own_page).status_code == 204
            assert next(line for line in events.iter_lines() if line.startswith("data:"))
        assert client.delete(session, headers=own_page).status_code == 404
    logged = (tmp_path / "access.log").read_text()
    its = session.rsplit("/", 1)[1]
    assert its[:8] in logged
    assert its not in logged


@pytest.mark.slow
@needs("nginx")
@needs("openssl")
def test_a_proxy_that_changes_host_needs_its_origin_listed(serve: Serve, tmp_path: Path) -> None:
    service = serve(cors_origins=[f"https://{NAME}"])
    with proxied(service, tmp_path, keeps_host=False) as client:
        made = client.post(UPLOAD, headers={"Origin": f"https://{NAME}"})
        assert made.status_code == 201
        assert made.headers["Access-Control-Allow-Origin"] == f"https://{NAME}"
