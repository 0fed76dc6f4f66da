"""What is given of a motion: body parts by name, ends, and motions that stand still before them."""

from __future__ import annotations

import pytest
import torch

from kinema.core import motion_masks
from kinema.core.skeleton import Skeleton, skeleton
from kinema.errors import ConfigError

BODY = skeleton("h36m17")


def test_the_published_parts_are_numbered_in_their_order() -> None:
    names = ("right_leg", "left_leg", "torso", "left_arm", "right_arm", "fix_lower", "fix_upper")
    assert motion_masks.part_names(BODY) == names
    # Feature joints of HumanMAC, the root left out: 0-2, 3-5, 6-9, 10-12, 13-15, 0-5, 6-15.
    ranges = ((0, 3), (3, 6), (6, 10), (10, 13), (13, 16), (0, 6), (6, 16))
    for number, (first, end) in enumerate(ranges):
        joints = motion_masks.joints_of([f"fix_{number}"], BODY)
        mask = motion_masks.held_joints(joints, 0, 1, BODY)[0].unflatten(0, (-1, 3))
        assert mask.all(1).nonzero().flatten().tolist() == list(range(first, end))
        assert torch.equal(mask.all(1), mask.any(1))


def test_joints_of_any_skeleton_go_by_name() -> None:
    body = Skeleton.from_parents([1, -1, 1, 2], ["tail", "middle", "neck", "head"])
    mask = motion_masks.held_joints(motion_masks.joints_of(["tail", "head"], body), 1, 3, body)
    assert mask.shape == (3, 9)
    assert mask[0].all()
    assert mask[2].tolist() == [True] * 3 + [False] * 3 + [True] * 3  # the root, joint 1, is no feature


@pytest.mark.parametrize(
    ("name", "hint"), [("right_lag", "right_leg"), ("left_wrsit", "left_wrist"), ("fix_9", "fix_")]
)
def test_an_unknown_part_is_told_with_the_nearest(name: str, hint: str) -> None:
    with pytest.raises(ConfigError, match=hint):
        motion_masks.joints_of([name], BODY)


def test_the_root_alone_holds_nothing() -> None:
    with pytest.raises(ConfigError, match="the root"):
        motion_masks.joints_of(["pelvis"], BODY)


def test_control_keeps_the_future_of_the_given_joints_only() -> None:
    motion = torch.randn(2, 6, 48)
    held = motion_masks.part_motion(motion, (3,), 2, BODY)
    given = slice(6, 9)
    assert torch.equal(held[..., given], motion[..., given])
    assert torch.equal(held[:, 2:, 9:], motion[:, 1:2, 9:].expand(-1, 4, -1))
    assert torch.equal(held[:, :2], motion[:, :2])


def test_an_end_stands_still_before() -> None:
    motion = torch.randn(1, 5, 6)
    held = motion_masks.end_motion(motion, 2)
    assert torch.equal(held[:, 3:], motion[:, 3:])
    assert torch.equal(held[:, :3], motion[:, 3:4].expand(-1, 3, -1))
    assert motion_masks.ending(2, 5).tolist() == [False, False, False, True, True]


def test_a_switch_takes_twice_the_history_unless_asked() -> None:
    assert motion_masks.switch_frames(25, 100, None) == 50
    assert motion_masks.switch_frames(25, 100, 7) == 7
    with pytest.raises(ConfigError, match=r"motion.end_frames=15"):
        motion_masks.switch_frames(25, 30, None)
