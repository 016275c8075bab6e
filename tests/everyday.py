"""What is shown every day, of much that is shown before it lands."""

from collections.abc import Collection, Iterable
from typing import Any

import pytest


def every_day(chosen: Collection[Any], of: Iterable[Any], **how: Any) -> pytest.MarkDecorator:
    """Parametrizes `kind` with all of these; those that are not chosen are slow."""
    return pytest.mark.parametrize("kind", params(chosen, of), **how)


def params(chosen: Collection[Any], of: Iterable[Any]) -> list[Any]:
    return [each if each in chosen else pytest.param(each, marks=pytest.mark.slow) for each in of]
