"""The scales of the plot."""

from hypothesis import given
from hypothesis import strategies as st

from tui.plot import scale


@given(st.floats(0, 1e9), st.sampled_from([1.0, 0.01]))
def test_a_scale_has_few_round_steps_and_room_for_all(largest: float, least: float) -> None:
    ticks = scale(largest, least)
    assert ticks[0] == 0
    assert ticks[-1] >= round(largest, 2)
    assert 3 <= len(ticks) <= 6
    assert round(ticks[1] - ticks[0], 2) >= least


def test_sessions_are_counted_in_whole_numbers() -> None:
    assert scale(17, 1) == [0, 5, 10, 15, 20]
    assert scale(3, 1) == [0, 1, 2, 3]
    assert scale(0, 1) == [0, 1, 2]
