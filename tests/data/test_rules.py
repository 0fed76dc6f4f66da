"""Frame rules against a loop."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kinema.data.rules import RULES


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.integers(-9, 20), st.integers(1, 12)), min_size=1, max_size=5), st.integers(-5, 0))
def test_clamp_repeats_the_edge_frames(rows: list[tuple[int, int]], first: int) -> None:
    start, length = np.array(rows, np.int64).T
    offsets = np.arange(first, 4)
    positions, inside = RULES["clamp"](start, length, offsets, None)
    for i, (begin, count) in enumerate(rows):
        wanted = [begin + offset for offset in offsets]
        assert positions[i].tolist() == [min(max(frame, 0), count - 1) for frame in wanted]
        assert inside[i].tolist() == [0 <= frame < count for frame in wanted]


def test_centre_counts_the_middle_frame_alone() -> None:
    start, length = np.array([-2, 1, 3]), np.array([4, 9, 5])
    for frames in (1, 4, 5):
        positions, inside = RULES["centre"](start, length, np.arange(frames), None)
        clamped, within = RULES["clamp"](start, length, np.arange(frames), None)
        np.testing.assert_array_equal(positions, clamped)
        for row in range(3):
            expected = [at == frames // 2 and bool(within[row, at]) for at in range(frames)]
            assert inside[row].tolist() == expected


def test_given_positions_are_taken_as_they_are() -> None:
    table = np.array([[0, 0, 2], [5, 6, 7]], np.int32)
    positions, inside = RULES["given"](np.array([0, 5]), np.array([3, 9]), np.arange(3), table)
    np.testing.assert_array_equal(positions, table)
    assert inside.all()


def test_given_without_a_table_is_refused() -> None:
    with pytest.raises(ValueError, match="table"):
        RULES["given"](np.zeros(1), np.ones(1), np.arange(1), None)
