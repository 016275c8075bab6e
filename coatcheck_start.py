"""How the program begins: it says its version at once, and for all else loads the command line."""

import sys

VERSION = "0.1.0"


def main() -> None:
    if sys.argv[1:] == ["--version"]:
        sys.stdout.write(f"coatcheck {VERSION}\n")
        return
    import coatcheck  # which takes a while

    coatcheck.main()


if __name__ == "__main__":
    main()
