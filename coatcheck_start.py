"""How the program begins: it says its version at once, and for all else loads the command line."""

import gc
import sys

VERSION = "0.1.0"


def main() -> None:
    if sys.argv[1:] == ["--version"]:
        sys.stdout.write(f"coatcheck {VERSION}\n")
        return
    gc.disable()  # what is loaded stays: looking for garbage in it is a tenth of the start
    import coatcheck

    gc.freeze()
    gc.enable()
    coatcheck.main()


if __name__ == "__main__":
    main()
