"""Samples that are no body's size are told."""

from __future__ import annotations

import pytest
import torch

from kinema.core import motion_reach


def test_the_farthest_joint_counts() -> None:
    motion = torch.zeros(2, 3, 6)
    motion[0, 1, :3] = torch.tensor([0.0, 3.0, 4.0])
    motion[0, 1, 3:] = 1.0
    motion[1, 2, 3] = -2.0
    assert motion_reach.reach(motion).tolist() == [[0.0, 5.0, 0.0], [0.0, 0.0, 2.0]]


@pytest.mark.parametrize(("samples", "wrong"), [(0.9, False), (2.5, False), (3.0, True), (float("inf"), True),
                                                (float("nan"), False)])  # fmt: skip
def test_a_body_is_told_from_none(samples: float, wrong: bool) -> None:
    text = motion_reach.told(samples, 0.9)
    assert bool(text) is wrong
    assert not wrong or (f"{samples:.1f} m" in text and "0.9 m" in text)
