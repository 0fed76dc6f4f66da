"""Detector layouts to Human3.6M joints."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from kinema.core import keypoints
from kinema.core.skeleton import Skeleton, skeleton
from kinema.errors import DataError

LAYOUTS: list[tuple[str, Callable[[np.ndarray], np.ndarray]]] = [
    ("coco17", keypoints.coco_to_h36m),
    ("halpe26", keypoints.halpe_to_h36m),
    ("posetrack17", keypoints.posetrack_to_h36m),
]
H36M = skeleton("h36m17")


def named(pose: np.ndarray, body: Skeleton, *joints: str) -> np.ndarray:
    return pose[..., [body.index(joint) for joint in joints], :].mean(-2)


@pytest.mark.parametrize(("name", "convert"), LAYOUTS)
def test_limbs_and_nose_keep_their_names(name: str, convert: Callable[[np.ndarray], np.ndarray]) -> None:
    layout = skeleton(name)
    pose = np.random.default_rng(0).standard_normal((2, 4, len(layout), 3))
    found = convert(pose)
    assert found.shape == (2, 4, 17, 3)
    for joint in H36M.joints:
        if joint.startswith(("left", "right")) or joint == "nose":
            np.testing.assert_array_equal(named(found, H36M, joint), named(pose, layout, joint))
    np.testing.assert_allclose(named(found, H36M, "pelvis", "thorax")[..., :2], named(found, H36M, "spine")[..., :2])
    np.testing.assert_array_equal(convert(torch.from_numpy(pose)).numpy(), found)


@pytest.mark.parametrize(
    ("name", "convert", "sources"),
    [
        (*LAYOUTS[0], {"pelvis": ("left_hip", "right_hip"), "thorax": ("left_shoulder", "right_shoulder")}),
        (*LAYOUTS[1], {"pelvis": ("hip",), "thorax": ("neck",), "head": ("head",)}),
        (*LAYOUTS[2], {"pelvis": ("left_hip", "right_hip"), "thorax": ("head_bottom",), "head": ("head_top",)}),
    ],
)
def test_trunk_comes_from_its_sources(
    name: str, convert: Callable[[np.ndarray], np.ndarray], sources: dict[str, tuple[str, ...]]
) -> None:
    pose = np.random.default_rng(0).standard_normal((3, len(skeleton(name)), 3))
    found = convert(pose)
    for joint, origin in sources.items():
        np.testing.assert_allclose(named(found, H36M, joint)[:, :2], named(pose, skeleton(name), *origin)[:, :2])


def test_mirrored_input_gives_mirrored_output() -> None:
    for name, convert in LAYOUTS:
        layout = skeleton(name)
        pose = np.random.default_rng(0).standard_normal((3, len(layout), 3))
        swapped = convert(pose[:, list(layout.flip_index)])
        np.testing.assert_allclose(swapped, convert(pose)[:, list(H36M.flip_index)], err_msg=name)


def test_posetrack_midpoints_are_as_visible_as_their_worse_joint() -> None:
    layout = skeleton("posetrack17")
    pose = np.ones((1, 17, 3))
    pose[0, layout.index("left_hip"), 2] = 0
    found = keypoints.posetrack_to_h36m(pose)
    hidden = {"pelvis", "spine", "left_hip"}
    assert {joint for joint, score in zip(H36M.joints, found[0, :, 2], strict=True) if score == 0} == hidden


def test_a_missing_joint_spoils_only_what_is_made_of_it() -> None:
    pose = np.ones((17, 2))
    pose[skeleton("coco17").index("left_shoulder")] = np.nan
    broken = np.isnan(keypoints.coco_to_h36m(pose)).all(-1)
    assert {H36M.joints[i] for i in np.flatnonzero(broken)} == {"left_shoulder", "thorax", "spine"}


def test_wrong_number_of_joints_is_refused() -> None:
    with pytest.raises(DataError, match="coco17 keypoints has shape"):
        keypoints.coco_to_h36m(np.zeros((5, 18, 3)))
