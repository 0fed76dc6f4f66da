"""Augmentation in 3D: what every edit keeps, what it changes, and that the new input belongs to the new target."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from kinema.core.camera import camera_to_world, project, world_to_camera
from kinema.core.skeleton import Skeleton, skeleton
from kinema.data import reprojection
from kinema.data.draws import Batch, Draws
from kinema.data.sequences import Sequences
from kinema.data.transforms import resolve
from kinema.data.windows import Windows
from kinema.errors import ConfigError

BODY = skeleton("h36m17")
CONTEXT = (2, 1)
GIVEN = {"skeleton": BODY, "skeleton2d": BODY, "channels": 3, "confidence": True, "context": CONTEXT}
EDITS: list[dict[str, dict[str, float]]] = [
    {"swap_upper_body": {"probability": 1.0}},
    {"swap_arms": {"probability": 1.0}},
    {"scale_bones": {"size": 0.1, "bones": 0.1}},
    {"random_heading": {"shift": 0.3}},
]
LEGS = [0, 1, 2, 3, 4, 5, 6]
KEYS = ("pose2d", "pose3d", "pose3d_input", "orientation", "translation", "intrinsics")


def _bodies(random: np.random.Generator, frames: int) -> np.ndarray:
    """World-space motion of a symmetric body with rigid bones, (T, 17, 3) float32."""
    lengths = random.uniform(0.2, 0.5, size=17)
    lengths[list(BODY.right)] = lengths[list(BODY.left)]
    pose = np.zeros((frames, 17, 3))
    pose[:, 0] = [0.3, -0.2, 1.0] + 0.02 * random.normal(size=(frames, 3)).cumsum(0)
    for joint, parent in BODY.bones:
        way = random.normal(size=3) + 0.1 * random.normal(size=(frames, 3)).cumsum(0)
        pose[:, joint] = pose[:, parent] + lengths[joint] * way / np.linalg.norm(way, axis=-1, keepdims=True)
    return pose.astype(np.float32)


def _store() -> Sequences:
    """Six people before tilted cameras; the input misses the projection by some noise."""
    random = np.random.default_rng(0)
    items = []
    for person in range(6):
        world = torch.from_numpy(_bodies(random, 12))
        orientation = torch.tensor([0.6, -0.7, 0.25, -0.3]) + 0.05 * torch.from_numpy(random.normal(size=4)).float()
        orientation = orientation / orientation.norm()
        # Where the camera must stand to see the body 4 m ahead.
        translation = torch.tensor([0.0, 0.0, 1.0]) - camera_to_world(
            torch.tensor([0.0, 0.0, 4.0 + 0.1 * person]), orientation, torch.zeros(3)
        )
        intrinsics = torch.tensor([2.3, 2.2, 0.02, 0.03, -0.2, 0.2, 0.0, 0.001, -0.001])
        camera = world_to_camera(world, orientation, translation)
        points = project(camera, intrinsics) + 0.01 * torch.from_numpy(random.normal(size=(12, 17, 2))).float()
        score = torch.from_numpy(random.uniform(size=(12, 17, 1))).float()
        items.append(
            {
                "pose2d": torch.cat([points, score], -1).numpy(), "pose3d": camera.numpy(), "subject": f"S{person}",
                "action": "Walk", "intrinsics": intrinsics.numpy(), "orientation": orientation.numpy(),
                "translation": translation.numpy(),
            }
        )  # fmt: skip
    return Sequences.from_arrays(items, skeleton=BODY, skeleton2d=BODY)


STORE = _store()


def _batch(mirrored: bool = False) -> Batch:
    windows = Windows.chunked(STORE, 12, context=CONTEXT, both_views=True, keys=KEYS)
    rows = torch.arange(0, len(windows), 2) + int(mirrored)
    return windows[torch.stack([rows * 0, rows, rows], 1)]


def _apply(batch: Batch, *entries: Any) -> Batch:
    draws = Draws(3, 0, batch["draw"], batch["draw"][:1])
    for function in resolve(list(entries), "augment", **GIVEN):
        batch = function(batch, draws)
    return batch


def _bones(motion: Tensor, body: Skeleton = BODY) -> Tensor:
    children, parents = zip(*body.bones, strict=True)
    return (motion[:, :, list(children)] - motion[:, :, list(parents)]).norm(dim=-1)


@pytest.mark.parametrize("mirrored", [False, True])
def test_level_frame_has_the_heights_of_the_world(mirrored: bool) -> None:
    batch = _batch(mirrored)
    motion = reprojection._motion(batch)
    straight = _batch()
    world = camera_to_world(straight["pose3d_input"], straight["orientation"], straight["translation"])
    if mirrored:
        world = world[:, :, list(BODY.flip_index)]
    torch.testing.assert_close(motion[..., 2], world[..., 2], atol=1e-5, rtol=0)
    torch.testing.assert_close(_bones(motion), _bones(world), atol=1e-5, rtol=0)


def test_mirrored_samples_move_as_mirrored_people() -> None:
    straight, mirrored = (reprojection._motion(_batch(view)) for view in (False, True))
    expected = straight[:, :, list(BODY.flip_index)] * torch.tensor([-1.0, 1.0, 1.0])
    torch.testing.assert_close(mirrored, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("mirrored", [False, True])
def test_reprojecting_an_unedited_motion_changes_nothing(mirrored: bool) -> None:
    batch = _batch(mirrored)
    again = _apply(batch, {"reproject": {"errors": "own"}})
    assert set(again) == set(batch) - {"pose3d_input"}
    for key in again:
        torch.testing.assert_close(again[key], batch[key], atol=1e-5, rtol=0)


def test_exact_input_is_the_projection_of_the_target() -> None:
    batch = _batch()
    made = _apply(batch, *EDITS, {"reproject": {"errors": "none"}})
    assert (made["pose3d"] - batch["pose3d"]).norm(dim=-1).mean() > 0.1
    points = project(made["pose3d"], made["intrinsics"])
    inside = made["pose2d"][:, CONTEXT[0] : -CONTEXT[1]]
    torch.testing.assert_close(inside[..., :2], points, atol=1e-5, rtol=0)
    torch.testing.assert_close(inside[..., 2], batch["pose2d"][:, CONTEXT[0] : -CONTEXT[1], :, 2])


def test_exchanged_errors_are_those_of_another_sample_with_its_scores() -> None:
    batch = _batch()
    made = _apply(batch, EDITS[3], {"reproject": {"errors": "exchanged"}})
    true = project(made["pose3d"], made["intrinsics"])
    errors = made["pose2d"][:, CONTEXT[0] : -CONTEXT[1], :, :2] - true
    given = batch["pose2d"][:, CONTEXT[0] : -CONTEXT[1], :, :2] - project(batch["pose3d"], batch["intrinsics"])
    partners = (errors[:, None] - given).abs().amax((2, 3, 4)) < 1e-4  # (B, B)
    assert partners.sum(1).eq(1).all(), "each row has the errors of exactly one sample"
    assert not partners.diagonal().any()
    chosen = partners.long().argmax(1)
    torch.testing.assert_close(made["pose2d"][..., 2], batch["pose2d"][chosen][..., 2])


@pytest.mark.parametrize("edit", EDITS, ids=lambda edit: next(iter(edit)))
def test_edits_keep_bones_rigid_and_symmetric_and_are_drawn_anew(edit: dict[str, Any]) -> None:
    batch = _batch()
    edited = _apply(batch, edit)[reprojection.MOTION]
    assert (edited - reprojection._motion(batch)).norm(dim=-1).amax(dim=(1, 2)).gt(0.01).all()
    bones = _bones(edited)
    torch.testing.assert_close(bones, bones[:, :1].expand_as(bones), atol=1e-4, rtol=0)
    order = [[child for child, _ in BODY.bones].index(BODY.flip_index[child]) for child, _ in BODY.bones]
    torch.testing.assert_close(bones, bones[:, :, order], atol=1e-4, rtol=0)
    draws = Draws(3, 1, batch["draw"], batch["draw"][:1])
    (function,) = resolve([edit], "augment", **GIVEN)
    assert not torch.allclose(function(batch, draws)[reprojection.MOTION], edited)


def test_a_swapped_upper_body_keeps_the_legs_and_arms_keep_all_but_elbows_and_wrists() -> None:
    batch = _batch()
    before = reprojection._motion(batch)
    upper = _apply(batch, EDITS[0])[reprojection.MOTION]
    assert torch.equal(upper[:, :, LEGS], before[:, :, LEGS])
    assert (upper[:, :, 7:] - before[:, :, 7:]).norm(dim=-1).mean() > 0.05
    arms = _apply(batch, EDITS[1])[reprojection.MOTION]
    moved = (arms - before).norm(dim=-1).amax(dim=(0, 1)) > 0.01
    assert [name for name, is_moved in zip(BODY.joints, moved, strict=True) if is_moved] == [
        "left_elbow", "left_wrist", "right_elbow", "right_wrist",
    ]  # fmt: skip


def test_a_heading_turns_about_the_vertical_and_scaling_changes_one_factor_per_pair() -> None:
    batch = _batch()
    before = reprojection._motion(batch)
    turned = _apply(batch, EDITS[3])[reprojection.MOTION]
    torch.testing.assert_close(turned[..., 2], before[..., 2], atol=1e-5, rtol=0)
    torch.testing.assert_close(_bones(turned), _bones(before), atol=1e-5, rtol=0)
    scaled = _apply(batch, EDITS[2])[reprojection.MOTION]
    factor = (_bones(scaled) / _bones(before))[:, 0].log()
    assert 0.05 < float(factor.std()) < 0.3
    same = _apply(batch, {"scale_bones": {"size": 0.0, "bones": 0.0}})[reprojection.MOTION]
    torch.testing.assert_close(same, before, atol=1e-5, rtol=0)


@pytest.mark.parametrize("edit", [{name: {"probability": 0.0}} for name in ("swap_upper_body", "swap_arms")], ids=str)
def test_probability_zero_changes_nothing(edit: dict[str, Any]) -> None:
    batch = _batch()
    assert torch.equal(_apply(batch, edit)[reprojection.MOTION], reprojection._motion(batch))


def test_a_flip_before_the_edits_is_a_flip_of_the_motion() -> None:
    batch, mirrored = _batch(), _batch(mirrored=True)
    flipped = _apply(batch, {"flip": {"probability": 1.0}})
    torch.testing.assert_close(reprojection._motion(flipped), reprojection._motion(mirrored), atol=1e-5, rtol=0)
    between = _apply(batch, {"scale_bones": {"size": 0.0, "bones": 0.0}}, {"flip": {"probability": 1.0}})
    made = _apply(between, {"reproject": {"errors": "own"}})
    torch.testing.assert_close(made["pose3d"], mirrored["pose3d"], atol=1e-5, rtol=0)
    torch.testing.assert_close(made["pose2d"], mirrored["pose2d"], atol=1e-5, rtol=0)


def test_wrong_use_is_refused() -> None:
    batch = _batch()
    with pytest.raises(ConfigError, match=r"no errors='real'\. Use one of none, own, exchanged"):
        _apply(batch, {"reproject": {"errors": "real"}})
    with pytest.raises(ConfigError, match=r"Add reproject: \{errors: own\} behind"):
        _apply(batch, EDITS[0], "pose")
    armless = BODY.subset(BODY.joints[:11])
    with pytest.raises(ConfigError, match=r"dataset\.augment=\[\]"):
        reprojection._limbs(armless)
