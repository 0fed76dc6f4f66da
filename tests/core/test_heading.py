"""Heading and turning: against rotation matrices and against the preparation of recorded clips."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from kinema.core.clip_preprocess import clip_preprocess
from kinema.core.heading import heading, turn
from kinema.core.skeleton import skeleton

few = settings(max_examples=25, deadline=None)
angles = st.floats(-3.1, 3.1)


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@few
@given(st.lists(angles, min_size=1, max_size=3), st.integers(0, 99))
def test_turning_is_a_rotation_of_every_point(by: list[float], seed: int) -> None:
    points = drawn(seed, len(by), 2, 4, 3)
    found = turn(points, torch.tensor(by, dtype=torch.float64))
    for one, angle in enumerate(by):
        c, s = math.cos(angle), math.sin(angle)
        matrix = torch.tensor([[c, -s, 0], [s, c, 0], [0, 0, 1]], dtype=torch.float64)
        for frame in range(2):
            for joint in range(4):
                torch.testing.assert_close(found[one, frame, joint], matrix @ points[one, frame, joint])
    flat = turn(points.flatten(-2), torch.tensor(by, dtype=torch.float64))
    torch.testing.assert_close(flat, found.flatten(-2))


@few
@given(angles, st.integers(0, 99))
def test_heading_follows_the_body(by: float, seed: int) -> None:
    pose = drawn(seed, 1, 5, 3)
    before, after = heading(pose, (1, 3)), heading(turn(pose, torch.tensor([by])), (1, 3))
    difference = float(after - before) - by
    assert math.cos(difference) == pytest.approx(1, abs=1e-6)
    # Turned back by its heading, the way from the right hip to the left one is along x.
    axis = turn(pose, -before)[0, 3] - turn(pose, -before)[0, 1]
    assert axis[0] > 0
    assert float(axis[1].abs()) < 1e-9


@few
@given(st.integers(0, 99))
def test_clips_are_turned_as_their_preparation_turns_them(seed: int) -> None:
    body = skeleton("h36m17")
    clip = drawn(seed, 1, 5, len(body), 3).float().numpy()
    expected = clip_preprocess("heading").apply(clip, skeleton=body)[0]
    relative = torch.from_numpy(clip[0] - clip[0, :, body.root : body.root + 1])
    hips = body.index("right_hip"), body.index("left_hip")
    found = turn(relative[None], -heading(relative[2:3], hips))[0]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_hips_above_each_other_have_no_heading() -> None:
    pose = torch.tensor([[[0.0, 0, 0], [0.0005, 0.0005, 0.2]], [[0.0, 0, 0], [0, 0, 0]], [[0, 0, 0], [0, 1, 0.2]]])
    torch.testing.assert_close(heading(pose, (0, 1)), torch.tensor([0, 0, math.pi / 2]))
