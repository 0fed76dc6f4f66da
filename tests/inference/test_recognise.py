"""Windows of a long clip, and the part of it that each one tells about."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from kinema.inference.recognise import Recognition, spans_of


@given(st.integers(2, 400), st.integers(2, 90), st.data())
def test_windows_cover_a_clip_and_are_of_one_length(length: int, window: int, data: st.DataObject) -> None:
    stride = data.draw(st.none() | st.integers(1, window))
    spans = spans_of(length, window, stride)
    assert spans[0, 0] == 0 and spans[-1, 1] == length
    assert (np.diff(spans, axis=1) == min(window, length)).all()
    assert (spans[1:, 0] <= spans[:-1, 1]).all() and (np.diff(spans[:, 0]) > 0).all()


def test_without_windows_a_clip_is_seen_whole() -> None:
    assert spans_of(1000, None, None).tolist() == [[0, 1000]]


def test_neighbouring_windows_begin_half_a_window_apart() -> None:
    assert spans_of(25, 10, None).tolist() == [[0, 10], [5, 15], [10, 20], [15, 25]]
    assert spans_of(23, 10, None).tolist() == [[0, 10], [5, 15], [10, 20], [13, 23]]


@given(st.integers(2, 300), st.integers(2, 50), st.integers(1, 50))
def test_every_frame_belongs_to_the_window_whose_middle_is_nearest(length: int, window: int, stride: int) -> None:
    spans = spans_of(length, window, min(stride, window))
    one = Recognition("x", length, spans, np.full((len(spans), 2), 0.5), None)
    own = one.own
    assert own[0, 0] == 0 and own[-1, 1] == length
    np.testing.assert_array_equal(own[1:, 0], own[:-1, 1])
    middle = spans.mean(1)
    for frame in range(length):
        row = int(np.searchsorted(own[:, 1], frame + 0.5))
        assert abs(frame + 0.5 - middle[row]) <= np.abs(frame + 0.5 - middle).min() + 1e-9


def test_the_mean_counts_frames_not_windows() -> None:
    spans = np.array([[0, 10], [9, 19], [10, 20]])
    probabilities = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    mean = Recognition("x", 20, spans, probabilities, None).mean
    np.testing.assert_allclose(mean, [9.5 / 20, 10.5 / 20])
