"""Each wrong order, unit or axis gets its sentence, and right keypoints get none, whatever the person does."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest

from kinema.core.keypoint_checks import RIVALS, examine
from kinema.core.skeleton import skeleton
from tests.data.bodies import DETECTORS, synthetic

LAYOUTS = (*DETECTORS, "h36m17", "mpi_inf_3dhp17")
WIDTH = (1000, 1002)


@cache
def clip(layout: str, action: str = "walk", camera: int = 0) -> np.ndarray:
    """Exact pixels (T, J, 2) of a synthetic actor."""
    return synthetic(layout, action, camera)


def told(points: np.ndarray, layout: str, size: bool = True) -> list[str]:
    width, height = WIDTH if size else (None, None)
    return [str(verdict) for verdict in examine(points, layout, width=width, height=height)]


def faults(points: np.ndarray, layout: str) -> list[str]:
    return [str(verdict) for verdict in examine(points, layout, width=WIDTH[0], height=WIDTH[1]) if verdict.fault]


def turned(points: np.ndarray, turns: float) -> np.ndarray:
    """The person turns in the image plane while moving: a cartwheel."""
    angle = np.linspace(0, 2 * np.pi * turns, len(points))[:, None]
    x, y = np.moveaxis(points - points.mean(1, keepdims=True), -1, 0)
    return np.stack([x * np.cos(angle) - y * np.sin(angle), x * np.sin(angle) + y * np.cos(angle)], -1) + 500


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("action", ["walk", "sit_down", "jumping_jack"])
def test_right_keypoints_are_left_in_peace(layout: str, action: str) -> None:
    for camera in range(4):
        assert told(clip(layout, action, camera), layout) == []
        assert told(turned(clip(layout, action, camera), 2), layout) == []


@pytest.mark.parametrize("layout", RIVALS)
def test_another_layout_of_as_many_points_is_named(layout: str) -> None:
    for stated in RIVALS:
        if stated != layout:
            (first, *_) = faults(clip(layout), stated)
            assert f"not in the order of {stated}" in first and first.endswith(f"Use predict.layout={layout}.")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_shuffled_joints_are_a_fault(layout: str) -> None:
    order = np.random.default_rng(1).permutation(len(skeleton(layout)))
    assert any("shuffled" in sentence for sentence in faults(clip(layout)[:, order], layout))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_legs_exchanged_against_arms_are_a_fault(layout: str) -> None:
    body = skeleton(layout)
    order = np.arange(len(body))
    for joint in ("hip", "knee", "ankle"):
        left, right = body.index(f"left_{joint}"), body.index(f"right_{joint}")
        order[[left, right]] = right, left
    assert any("legs are exchanged against the arms" in sentence for sentence in faults(clip(layout)[:, order], layout))


def test_two_exchanged_joints_are_named() -> None:
    body = skeleton("h36m17")
    order = np.arange(17)
    pair = [body.index("head"), body.index("left_ankle")]
    order[pair] = pair[::-1]
    (found,) = told(clip("h36m17")[:, order], "h36m17")
    assert "by exchanging left_ankle with head. Exchange them" in found


WRONG: list[tuple[str, Callable[[np.ndarray], np.ndarray], bool, str]] = [
    ("shares", lambda x: x / WIDTH, True, "predict.unit=normalised"),
    ("screen", lambda x: x / 500 - 1, True, "predict.unit=screen"),
    ("depths", lambda x: np.concatenate([x, x[..., :1] - 400], -1), True, "no scores, but depths"),
    ("millimetres", lambda x: (x - x.mean((0, 1))) * 5, True, "not millimetres"),
    ("one point", lambda x: x * 0 + 300, True, "All joints lie on one point"),
    ("negative y", lambda x: x * (1, -1), True, "Turn it: y = -y"),
    ("still", lambda x: x[:1].repeat(50, 0), False, "frames looked at are the same"),
    ("y up", lambda x: np.stack([x[..., 0], WIDTH[1] - x[..., 1]], -1), False, "use y = height - y"),
    ("x and y", lambda x: x[..., ::-1], False, "x and y are exchanged"),
    ("tiny", lambda x: x / 200, False, "multiply them so that they are pixels"),
]


@pytest.mark.parametrize(("name", "spoil", "fault", "sentence"), WRONG, ids=[row[0] for row in WRONG])
def test_wrong_units_and_axes_are_told(
    name: str, spoil: Callable[[np.ndarray], np.ndarray], fault: bool, sentence: str
) -> None:
    found = examine(spoil(clip("h36m17")), "h36m17", width=WIDTH[0], height=WIDTH[1])
    (verdict,) = [verdict for verdict in found if sentence in str(verdict)]
    assert verdict.fault == fault


def test_exchanged_axes_of_a_wide_image_are_a_fault() -> None:
    points = clip("h36m17") + np.array((700, 0))
    found = examine(points[..., ::-1], "h36m17", width=1920, height=1000)
    assert found[0].fault and "Exchange them: points[..., [1, 0]]" in str(found[0])


def test_joints_that_were_never_seen_are_left_out() -> None:
    points = clip("body25").copy()
    points[
        :, [skeleton("body25").index(f"{side}_{toe}") for side in ("left", "right") for toe in ("heel", "big_toe")]
    ] = np.nan
    assert told(points, "body25") == []


def scored(points: np.ndarray, facing: bool) -> np.ndarray:
    """With scores as detectors give them: a face from behind is a guess."""
    scores = np.random.default_rng(0).uniform(0.75, 0.95, points.shape[:2])
    if not facing:
        scores[:, :3] = 0.2
    return np.concatenate([points, scores[..., None]], -1)


def test_exchanged_sides_are_suspected_only_where_a_face_is_seen() -> None:
    body = skeleton("coco17")
    left, right = body.index("left_shoulder"), body.index("right_shoulder")
    suspected = 0
    for camera in range(4):
        points = clip("coco17", "wave", camera)
        facing = bool((points[:, left, 0] > points[:, right, 0]).mean() > 0.5)
        assert told(scored(points, facing), "coco17") == []
        exchanged = points[:, list(body.flip_index)]
        assert told(exchanged, "coco17") == []  # without scores nothing can be said
        wide = np.abs(points[:, left, 0] - points[:, right, 0]).mean() > 60
        found = told(scored(exchanged, facing), "coco17")
        assert bool(found) == (facing and wide) and all("Left and right seem to be exchanged" in one for one in found)
        suspected += bool(found)
    assert 0 < suspected < 4
