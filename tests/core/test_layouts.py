"""Ways between layouts: what stays, what is derived, what is invented and how that is marked."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from kinema.core import keypoints
from kinema.core.layouts import CONVERTERS, convert, find, layout_of, needed
from kinema.core.skeleton import skeleton
from kinema.errors import ConfigError, DataError

SOURCES = ("coco17", "halpe26", "body25", "mediapipe33", "posetrack17", "mpi_inf_3dhp17", "h36m17")
FACES = ("halpe26", "body25", "mediapipe33")
WAYS = sorted(CONVERTERS)


def pose(layout: str, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).uniform(0.1, 1, (2, 4, len(skeleton(layout)), channels))


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("target", ["h36m17", "coco17", "mpi_inf_3dhp17"])
def test_every_layout_leads_to_what_lifters_take(source: str, target: str) -> None:
    found = convert(pose(source), source, target)
    assert found.shape == (2, 4, len(skeleton(target)), 3) and np.isfinite(found).all()


@pytest.mark.parametrize(("source", "target", "rule"), WAYS)
def test_joints_of_one_name_stay_and_sides_keep_apart(source: str, target: str, rule: str) -> None:
    layout, wanted, points = skeleton(source), skeleton(target), pose(source)
    found = convert(points, source, target, rule=rule)
    for joint in wanted.joints:
        if joint.startswith(("left", "right")) and joint in layout.joints:
            np.testing.assert_array_equal(found[..., wanted.index(joint), :], points[..., layout.index(joint), :])
    mirrored = convert(points[..., list(layout.flip_index), :], source, target, rule=rule)
    np.testing.assert_allclose(mirrored, found[..., list(wanted.flip_index), :], atol=1e-12)


@pytest.mark.parametrize(("source", "target", "rule"), WAYS)
def test_tensors_give_what_arrays_give(source: str, target: str, rule: str) -> None:
    points = pose(source)
    found = convert(torch.from_numpy(points), source, target, rule=rule)
    np.testing.assert_allclose(found.numpy(), convert(points, source, target, rule=rule), rtol=1e-12)


@pytest.mark.parametrize(("source", "target", "rule"), WAYS)
def test_what_is_invented_has_score_0_and_needs_scores(source: str, target: str, rule: str) -> None:
    invented = find(source, target, rule).invented
    scores = convert(pose(source), source, target, rule=rule)[..., 2]
    zero = {joint for i, joint in enumerate(skeleton(target).joints) if (scores[..., i] == 0).all()}
    assert zero == set(invented)
    if invented:
        with pytest.raises(DataError, match=f"{source} has no {invented[0]}.*third channel"):
            convert(pose(source, 2), source, target, rule=rule)
    else:
        whole = convert(pose(source), source, target, rule=rule)[..., :2]
        np.testing.assert_allclose(convert(pose(source)[..., :2], source, target, rule=rule), whole)


def test_a_middle_has_the_mean_of_the_scores() -> None:
    layout, target, points = skeleton("mediapipe33"), skeleton("h36m17"), np.ones((33, 3))
    points[layout.index("left_hip"), 2] = 0
    found = convert(points, "mediapipe33", "h36m17")[:, 2]
    assert found[target.index("pelvis")] == 0.5 and found[target.index("spine")] == 0.75


def test_pelvis_and_thorax_of_body25_are_its_own() -> None:
    points, target = pose("body25"), skeleton("h36m17")
    found = convert(points, "body25", "h36m17")
    for joint, origin in (("pelvis", "mid_hip"), ("thorax", "neck")):
        at = points[..., skeleton("body25").index(origin), :]
        np.testing.assert_array_equal(found[..., target.index(joint), :], at)


@pytest.mark.parametrize("source", FACES)
def test_the_demo_rule_is_the_published_one_after_coco(source: str) -> None:
    points = pose(source)
    expected = keypoints.coco_to_h36m_demo(convert(points, source, "coco17"))
    np.testing.assert_array_equal(convert(points, source, "h36m17", rule="demo"), expected)


def test_human36m_and_mpi_are_one_set_of_points() -> None:
    points = pose("h36m17")
    there = convert(points, "h36m17", "mpi_inf_3dhp17")
    np.testing.assert_array_equal(convert(there, "mpi_inf_3dhp17", "h36m17"), points)
    assert convert(points, "h36m17", "h36m17") is points


def test_needed_joints_are_those_that_spoil_the_result() -> None:
    names = {skeleton("mediapipe33").joints[i] for i in needed("mediapipe33", "h36m17")}
    limbs = {
        f"{side}_{j}" for side in ("left", "right") for j in ("hip", "knee", "ankle", "shoulder", "elbow", "wrist")
    }
    assert names == limbs | {"nose", "left_eye", "right_eye"}
    assert len(needed("coco17", "coco17")) == 17


@pytest.mark.parametrize(
    ("source", "target", "rule", "sentence"),
    [
        ("humaneva15", "h36m17", "plain", r"Nothing converts humaneva15 to h36m17.*predict\.layout=body25"),
        ("coco17", "halpe26", "plain", "Nothing converts to halpe26"),
        ("h36m17", "coco17", "demo", "not from h36m17 to coco17.*plain"),
        ("coco17", "h36m17", "dem", "conversion=demo"),
        ("coco18", "h36m17", "plain", "Did you mean 'coco17'"),
    ],
)
def test_ways_that_do_not_exist_are_refused(source: str, target: str, rule: str, sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        find(source, target, rule)


def test_a_layout_is_told_by_its_number_of_points() -> None:
    body = skeleton("h36m17")
    assert [layout_of(n, body) for n in (17, 25, 26, 33)] == ["h36m17", "body25", "halpe26", "mediapipe33"]
    assert layout_of(17, skeleton("coco17")) == "coco17"
    with pytest.raises(DataError, match="17 points can be h36m17 or"):
        layout_of(17, skeleton("humaneva15"))
    with pytest.raises(DataError, match=r"18 joints, 17 expected \(h36m17\).*body25 \(25\)"):
        layout_of(18, body)
