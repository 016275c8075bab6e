"""`make bench`, or `make bench ARGS="sweep touch"`: prints how each compares with its rival."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks import dashboard, sweep, touch
from benchmarks.measured import Measured

KINDS: dict[str, Callable[[Path], Iterator[Measured]]] = {
    "touch": touch.measure,
    "sweep": sweep.measure,
    "dashboard": dashboard.measure,
}


def main() -> None:
    wanted = sys.argv[1:] or list(KINDS)
    if unknown := set(wanted) - set(KINDS):
        sys.exit(f"No benchmark {', '.join(sorted(unknown))}. There are: {', '.join(KINDS)}")
    table = Table("what", "coatcheck", "rival", "of its", "the rival is", box=None)
    with tempfile.TemporaryDirectory(prefix="coatcheck-bench-") as folder:
        for kind in wanted:
            place = Path(folder, kind)
            place.mkdir()
            for measured in KINDS[kind](place):
                table.add_row(*measured.cells())
                print(f"{kind}: {measured.what}", file=sys.stderr)
    Console(width=140).print(table)


if __name__ == "__main__":
    main()
