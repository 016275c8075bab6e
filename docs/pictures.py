"""Makes the pictures of the dashboard anew, from the scene: `make pictures`. Needs Chromium."""

from __future__ import annotations

import asyncio
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from docs import scene
from docs.looks import LOOKS, lead
from tui.app import Dashboard

PICTURES = Path(__file__).parent / "pictures"
SIZE = (110, 32)
NAMES = ("sessions", "session", "orphans", "dry-run", "history")
BROWSERS = ("chromium", "chromium-browser", "google-chrome")
QUIET = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--hide-scrollbars"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)


def main() -> None:
    browser = next((found for name in BROWSERS if (found := shutil.which(name))), None)
    if browser is None:
        sys.exit("Pictures need Chromium. On Debian or Ubuntu: apt install chromium")
    wanted = sys.argv[1:] or NAMES
    PICTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        built = Path(folder, "built")
        built.mkdir()
        scene.build(built)
        for name in wanted:
            place = Path(folder, name)
            scene.copy(built, place)
            svg = place / "picture.svg"
            svg.write_text(asyncio.run(drawn(place, name)))
            photograph(browser, svg, PICTURES / f"{name}.png")
            print(PICTURES / f"{name}.png")


async def drawn(place: Path, name: str) -> str:
    """One screen as SVG, in a font of this machine: nothing is fetched."""
    source = scene.SceneSource(place)
    try:
        app = Dashboard(source)
        async with app.run_test(size=SIZE) as pilot:
            await lead(pilot, LOOKS[name])
            text = app.export_screenshot(title="coatcheck dashboard")
    finally:
        source.close()
    text = re.sub(r"@font-face \{.*?\}", "", text, flags=re.DOTALL)
    return text.replace("Fira Code", "DejaVu Sans Mono")


def photograph(browser: str, svg: Path, png: Path) -> None:
    found = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg.read_text())
    assert found is not None
    width, height = (round(float(side)) for side in found.groups())
    profile = svg.parent / "profile"
    command = [browser, *QUIET, f"--user-data-dir={profile}", f"--window-size={width},{height}"]
    command += ["--default-background-color=00000000", f"--screenshot={png}", svg.as_uri()]
    subprocess.run(command, check=True, capture_output=True, timeout=120)


if __name__ == "__main__":
    main()
