"""tuspyserver's own clean-up: `python tuspy.py DIR` prints the seconds it took."""

import sys
import time
from types import SimpleNamespace

from tuspyserver.file import gc_files  # type: ignore[import-not-found]

begun = time.perf_counter()
gc_files(SimpleNamespace(files_dir=sys.argv[1]))
print(time.perf_counter() - begun)
