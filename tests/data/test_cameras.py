"""Cameras of the VideoPose3D format for subjects whose own places were never released."""

from __future__ import annotations

import numpy as np
import pytest

from kinema.data.cameras import Cameras
from kinema.errors import DataError


def test_a_subject_without_places_is_refused_where_3d_needs_them() -> None:
    with pytest.raises(DataError, match="no cameras of subject S2"):
        Cameras("h36m", None, None).of("S2", None)


@pytest.mark.parametrize(("table", "subject"), [("h36m", "S2"), ("humaneva15", "Unlabeled/S4")])
def test_it_is_drawn_through_the_first_subjects_cameras(table: str, subject: str) -> None:
    cameras = Cameras(table, None, None, placed=False)
    for borrowed, own in zip(cameras.of(subject, None), cameras.of("S1", None), strict=True):
        assert (borrowed["width"], borrowed["azimuth"]) == (own["width"], own["azimuth"])
        np.testing.assert_array_equal(borrowed["orientation"], own["orientation"])
        np.testing.assert_array_equal(borrowed["translation"], own["translation"])


def test_places_that_are_known_are_kept() -> None:
    for free, placed in zip(
        Cameras("h36m", None, None, placed=False).of("S9", None),
        Cameras("h36m", None, None).of("S9", None),
        strict=True,
    ):
        np.testing.assert_array_equal(free["orientation"], placed["orientation"])
