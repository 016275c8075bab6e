"""diskcache's check: `python disk.py make DIR COUNT`, then `python disk.py check DIR`.

The check prints the seconds it took, and for how long at most another writer was held up by it.
"""

import sys
import threading
import time

import diskcache  # type: ignore[import-not-found]

kind, folder, *rest = sys.argv[1:]


def write_on(cache: "diskcache.Cache", stop: threading.Event, waits: list[float]) -> None:
    while not stop.is_set():
        begun = time.perf_counter()
        cache.set("beat", 1, retry=True)
        waits.append(time.perf_counter() - begun)
        time.sleep(0.01)


if kind == "make":
    with diskcache.Cache(folder, disk_min_file_size=0, sqlite_synchronous=0) as cache:
        cache.disk.min_file_size = 0
        with cache.transact():
            for number in range(int(rest[0])):
                cache.set(number, b"x" * 100)
else:
    stop, waits = threading.Event(), [0.0]
    with diskcache.Cache(folder) as cache, diskcache.Cache(folder) as other:
        writer = threading.Thread(target=write_on, args=(other, stop, waits))
        writer.start()
        begun = time.perf_counter()
        found = cache.check()
        took = time.perf_counter() - begun
        stop.set()
        writer.join()
    print(took, max(waits), len(found))
