"""Conversions of the published video demos, joint by joint."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations

import numpy as np
import pytest
import torch

from kinema.core import keypoints
from kinema.core.skeleton import skeleton
from kinema.errors import DataError

COCO, H36M = skeleton("coco17"), skeleton("h36m17")
LEGS = (2, 3, 5, 6)
RULES: dict[tuple[int, ...], dict[int, int]] = {
    # uncertain joints: joint -> the joint it is put on, as the demo spells them out
    (2, 3, 5, 6): {2: 1, 3: 1, 5: 4, 6: 4},
    (2, 3, 6): {2: 1, 3: 1, 6: 5},
    (3, 5, 6): {3: 2, 5: 4, 6: 4},
    (3, 6): {3: 2, 6: 5},
    (3,): {3: 2},
    (6,): {6: 5},
}


def detected(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).uniform(0.1, 1, (*shape, 17, 3))


def test_demo_conversion_is_the_published_recipe() -> None:
    x, y, score = np.moveaxis(detected(), -1, 0)
    found = keypoints.coco_to_h36m_demo(np.stack([x, y, score], -1))

    def at(name: str) -> np.ndarray:
        return found[H36M.index(name)]

    for joint in H36M.joints:
        if joint.startswith(("left", "right")):
            i = COCO.index(joint)
            np.testing.assert_array_equal(at(joint), [x[i], y[i], score[i]])
    hips, shoulders = (x[11] + x[12]) / 2, (x[5] + x[6]) / 2
    eyes = (y[1] + y[2]) / 2
    thorax_x = shoulders + (x[0] - shoulders) / 3
    thorax_y = (y[5] + y[6]) / 2 + (y[0] - (y[5] + y[6]) / 2) / 3 - (eyes - y[0]) * 2 / 3
    trunk = x[[5, 6, 11, 12]].mean()
    np.testing.assert_allclose(at("pelvis"), [hips, y[11:13].mean(), score[11:13].mean()])
    np.testing.assert_allclose(at("thorax"), [thorax_x, thorax_y, score[5:7].mean()])
    spine = [trunk + 2 * (trunk - (hips + thorax_x) / 2), y[[5, 6, 11, 12]].mean()]
    np.testing.assert_allclose(at("spine"), [*spine, (score[11:13].mean() + score[5:7].mean()) / 2])
    np.testing.assert_allclose(at("head"), [x[1:5].mean(), y[1] + y[2] - y[0], score[1:5].mean()])
    nose = [x[0] - (x[0] - shoulders) / 4, y[0] - (y[0] - (y[5] + y[6]) / 2) / 4]
    np.testing.assert_allclose(at("nose"), [*nose, score[0]])


@pytest.mark.parametrize("uncertain", [legs for size in range(5) for legs in combinations(LEGS, size)], ids=str)
def test_legs_are_folded_for_the_listed_sets_only(uncertain: tuple[int, ...]) -> None:
    pose = detected(2)
    pose[..., 2] = 0.9
    pose[1, list(uncertain), 2] = 0.2
    expected = pose.copy()
    for joint, onto in RULES.get(uncertain, {}).items():
        expected[1, joint, :2] = expected[1, onto, :2]
    np.testing.assert_array_equal(keypoints.fold_uncertain_legs(pose), expected)
    np.testing.assert_array_equal(keypoints.fold_uncertain_legs(torch.from_numpy(pose)).numpy(), expected)
    np.testing.assert_array_equal(keypoints.fold_uncertain_legs(pose, threshold=0.1), pose)


def test_frames_without_a_person_stay_empty() -> None:
    pose = detected(3)
    pose[1] = 0
    assert keypoints.seen(pose).tolist() == [True, False, True]
    assert keypoints.seen(torch.from_numpy(pose)).tolist() == [True, False, True]
    assert not keypoints.coco_to_h36m_demo(pose)[1].any()
    assert not keypoints.fold_uncertain_legs(pose)[1].any()


def test_the_exchanged_form_has_left_joints_in_right_slots() -> None:
    pose = detected(4)
    found, plain = keypoints.coco_to_h36m_exchanged(pose), keypoints.coco_to_h36m(pose)
    np.testing.assert_array_equal(found[:, H36M.index("right_knee")], pose[:, COCO.index("left_knee")])
    np.testing.assert_array_equal(found[:, H36M.index("left_wrist")], pose[:, COCO.index("right_wrist")])
    middle = [joint for joint in range(17) if H36M.flip_index[joint] == joint]
    np.testing.assert_array_equal(found[:, middle], plain[:, middle])


@pytest.mark.parametrize("convert", [keypoints.coco_to_h36m_demo, keypoints.fold_uncertain_legs])
def test_scores_are_needed(convert: Callable[[np.ndarray], np.ndarray]) -> None:
    with pytest.raises(DataError, match="has shape"):
        convert(np.zeros((5, 17, 2)))
