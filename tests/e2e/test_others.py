"""Other people's clients, with the guide's few lines of configuration: FilePond, Uppy, Dropzone; a
form; curl and httpx."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.async_api import Page

from tests.e2e.clients import bundled, checked
from tests.e2e.guide import shown
from tests.e2e.house import Front, House, until

pytestmark = [pytest.mark.anyio, pytest.mark.slow]


@dataclass
class Client:
    """Somebody's page with one of the clients on it."""

    page: Page
    house: House
    session_id: str

    async def stores(self, files: dict[str, int]) -> None:
        await until(lambda: self.house.files(self.session_id) == files)

    async def leaves(self) -> None:
        await self.page.goto("about:blank")
        await until(lambda: self.session_id not in self.house.standing(), 2)


@pytest.fixture
async def client(
    npm: None, page: Page, house: House, front: Front, request: pytest.FixtureRequest
) -> Client:
    name, body = request.param
    blocks = [shown("js", *has, url=house.url) for has in (["session.open()"], [f'from "{name}"'])]
    script = "\n".join([*blocks, "Object.assign(window, { session, ready: true });"])
    if name == "@uppy/core":
        script += "window.uppy = uppy;"
    front.pages["/script.js"] = ("text/javascript", bundled(script))
    html = f'<!doctype html><body>{body}<script type="module" src="/script.js"></script>'
    await page.goto(front.page("/client", html))
    await page.wait_for_function("window.ready")
    return Client(page, house, await page.evaluate("session.id"))


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    made = [tmp_path / "letter.txt", tmp_path / "übersicht 1.txt"]
    for size, path in enumerate(made, 1):
        path.write_text("x" * size)
    return made


BOTH = {"letter.txt": 1, "übersicht 1.txt": 2}


def of(name: str, body: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("client", [(name, body)], indirect=True, ids=[name])


@of("filepond", "<input id=files type=file>")
async def test_filepond_uploads_and_reverts(client: Client, files: list[Path]) -> None:
    await client.page.set_input_files(".filepond--browser", files)
    done = "[data-filepond-item-state=processing-complete]"
    await client.page.wait_for_function(f"document.querySelectorAll('{done}').length == 2")
    await client.stores(BOTH)
    item = client.page.locator(done, has_text="letter.txt")
    await item.locator(".filepond--action-revert-item-processing").dispatch_event("click")
    await client.stores({"übersicht 1.txt": 2})
    await client.leaves()


@of("@uppy/core", "")
async def test_uppy_uploads_and_removes(client: Client) -> None:
    for name, size in BOTH.items():
        await client.page.evaluate(
            "([name, text]) => uppy.addFile({name, type: 'text/plain', data: new Blob([text])})",
            [name, "x" * size],
        )
    result = await client.page.evaluate(
        """uppy.upload().then(({successful, failed}) => ({
            failed: failed.length, urls: successful.map(({uploadURL}) => uploadURL),
        }))"""
    )
    assert result["failed"] == 0
    assert result["urls"][0].endswith(f"/{client.session_id}/files/letter.txt")
    await client.stores(BOTH)
    await client.page.evaluate("uppy.removeFile(uppy.getFiles()[0].id)")
    await client.stores({"übersicht 1.txt": 2})
    await client.leaves()


@of("dropzone", "<form id=files></form>")
async def test_dropzone_uploads_and_removes(client: Client, files: list[Path]) -> None:
    await client.page.set_input_files(".dz-hidden-input", files)
    await client.page.wait_for_function("document.querySelectorAll('.dz-success').length == 2")
    await client.stores(BOTH)
    item = client.page.locator(".dz-preview", has_text="letter.txt")
    await item.locator(".dz-remove").dispatch_event("click")
    await client.stores({"übersicht 1.txt": 2})
    await client.leaves()


async def test_a_plain_form_makes_a_session(
    page: Page, house: House, front: Front, files: list[Path]
) -> None:
    await page.goto(front.page("/form", shown("html", "<form", url=house.url)))
    await page.set_input_files("input[name=files]", files)
    await page.click("button")
    await page.wait_for_url(house.base)
    told = json.loads(await page.inner_text("body"))
    assert (told["label"], told["state"]) == ("order 17", "active")
    assert house.files(told["session_id"]) == BOTH


def test_curl_sends_a_file_as_it_is(house: House, tmp_path: Path) -> None:
    (tmp_path / "order.txt").write_text("two seats")
    script = shown("sh", "curl -sS --fail -T", url=house.url)
    subprocess.run(["bash", "-euc", script], cwd=tmp_path, check=True, timeout=60)
    assert (house.claims / "order-17/order.txt").read_text() == "two seats"


def test_httpx_sends_a_directorys_files(house: House, tmp_path: Path) -> None:
    scans = tmp_path / "scans"
    scans.mkdir()
    for name in ("a.tiff", "b.tiff"):
        (scans / name).write_text(name)
    script = shown("python", "httpx.Client", url=house.url)
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True, timeout=60)
    assert sorted(path.name for path in (house.claims / "scans-of-may").iterdir()) == [
        "a.tiff",
        "b.tiff",
    ]


@pytest.mark.torture  # TypeScript takes its time
def test_the_guides_example_is_as_the_types_say(npm: None, house: House, tmp_path: Path) -> None:
    types = Path(__file__).parents[2] / "web/static/coatcheck.d.ts"
    (tmp_path / "coatcheck.d.ts").write_text(types.read_text())
    example = shown("js", "onProgress", url=".").replace("./static/coatcheck.js", "./coatcheck.js")
    wrong = "// @ts-expect-error: a label is text\nnew CoatcheckSession({ label: 17 });\n"
    assert checked(example + wrong, tmp_path) == ""
