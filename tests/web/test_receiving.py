"""An upload whose request is cancelled, whichever of its threads comes to its turn first."""

import asyncio

import pytest

from ledger.incoming import Upload
from web.receiving import Arrival


def test_one_that_was_given_up_before_its_turn_came_begins_nothing() -> None:
    made: list[str] = []

    def make() -> Upload:
        made.append("an upload that nobody would close")
        raise AssertionError

    async def act() -> None:
        arrival = Arrival()
        await arrival.discard()
        with pytest.raises(RuntimeError, match="given up"):
            await arrival.begin(make, None, None)
        with pytest.raises(RuntimeError, match="given up"):
            await arrival.commit()

    asyncio.run(act())
    assert made == []
