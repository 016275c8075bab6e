"""The command line of coatcheck."""


def main() -> None:
    raise SystemExit("coatcheck: the command line is not built yet")
