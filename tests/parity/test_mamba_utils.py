"""Adjacency, clips, normalisation and the conversions of the demos against the published functions."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pytest
import torch

from kinema.core import camera, crop, keypoints, motion
from kinema.core.preprocess import preprocess
from kinema.core.skeleton import skeleton
from kinema.data.mirror import mirrored
from kinema.inference.flip import mirror_pose
from kinema.models.layers.graph import chain_edges, parent_edges, row_normalised_adjacency
from tests.parity.golden import Arrays, Case, cases

pytestmark = pytest.mark.parity

FLOATS = {"atol": 1e-6}
PIXELS = {"atol": 1e-3}
# Sizes and thresholds that the arrays do not state: golden README.
DEMO_SIZE = (640, 480)
THRESHOLD = 0.5


@cases("mamba", "graph_and_utils")
def test_graphs_and_utilities(case: Case) -> None:
    arrays = case.arrays()
    for check in (check_graphs, check_flips, check_clips, check_units, check_demo, check_demo_clips):
        check(case, arrays)
    case.finish()


def numbered(arrays: Arrays, pattern: str) -> list[tuple[str, list[int]]]:
    """Arrays whose whole name matches, with the numbers in it."""
    found = [(name, re.fullmatch(pattern, name)) for name in arrays]
    return [(name, [int(number) for number in match.groups() if number]) for name, match in found if match]


def check_graphs(case: Case, arrays: Arrays) -> None:
    body = skeleton("h36m17")
    found = row_normalised_adjacency(parent_edges(body.parents), len(body))
    case.close("adjacency of joints", found, arrays["adj_spatial_h36m"], **FLOATS)
    for name, (frames,) in numbered(arrays, r"adj_temporal_(\d+)"):
        found = row_normalised_adjacency(chain_edges(frames), frames)
        case.close(name, found, arrays[name], **FLOATS)
    expected = arrays["adj_temporal_extra3"]
    found = row_normalised_adjacency(chain_edges(len(expected), (1, 2)), len(expected))
    case.close("adjacency with steps of two", found, expected, **FLOATS)
    parents = arrays["parents_3dhp"].tolist()
    found = row_normalised_adjacency(parent_edges(parents), len(parents))
    case.close("adjacency of MPI-INF-3DHP", found, arrays["adj_spatial_3dhp"], **FLOATS)
    case.close("parents of our skeleton", skeleton("mpi_inf_3dhp17").parents, parents)


def check_flips(case: Case, arrays: Arrays) -> None:
    pose = arrays["flip_in"]
    for name, body in (("flip_out", skeleton("h36m17")), ("flip_out_3dhp", skeleton("mpi_inf_3dhp17"))):
        case.close(f"{name} on the device", mirror_pose(torch.from_numpy(pose), body), arrays[name])
        case.close(f"{name} in the data layer", mirrored(pose, body, negate=True, axis=-2), arrays[name])


def check_clips(case: Case, arrays: Arrays) -> None:
    for name, (frames, count) in numbered(arrays, r"resample_(\d+)_(\d+)"):
        case.close(name, motion.resample_indices(frames, count), arrays[name])
    for name, (frames, count) in numbered(arrays, r"replay_(\d+)_(\d+)"):
        expected = arrays[name]
        drawn = motion.replay_legacy(frames, count, np.random.RandomState(0))
        if len(expected):
            case.close(name, drawn, expected)
        else:  # a random stretch, of which nothing was recorded
            with case.check(name):
                assert frames > count
                assert (np.diff(drawn) == 1).all()
                assert drawn.min() >= 0
                assert drawn.max() < frames
    for name, (count, stride, *seed) in numbered(arrays, r"split_(\d+)_(\d+)(?:_seed(\d+))?"):
        random = np.random.RandomState(seed[0] if seed else 0)
        case.close(name, motion.split_clips(arrays["split_vids"], count, stride, random), arrays[name])


def check_units(case: Case, arrays: Arrays) -> None:
    way = preprocess("motionbert")
    for name, (width, height) in numbered(arrays, r"norm_(\d+)_(\d+)"):
        found = way.to_network(arrays["norm_in"], width, height)
        case.close(name, found, arrays[name], **FLOATS)
        case.close(f"{name} back", way.from_network(found, width, height), arrays["norm_in"], **PIXELS)
    case.close("demo_norm", way.to_network(arrays["demo_norm_in"], *DEMO_SIZE), arrays["demo_norm"], **FLOATS)
    case.close("crop_scale", crop.crop_scale(torch.from_numpy(arrays["crop_in"])), arrays["crop_scale"], **FLOATS)
    quaternion, pose = arrays["rot_quat"], arrays["cam_pose"]
    for kind in (np.asarray, torch.from_numpy):
        origin = kind(np.zeros(3, pose.dtype))
        world = camera.camera_to_world(kind(pose), kind(quaternion), origin)
        case.close(f"world_pose, {kind.__name__}", world, arrays["world_pose"], **FLOATS)


def check_demo(case: Case, arrays: Arrays) -> None:
    detected = np.concatenate([arrays["coco_kpts"], arrays["coco_scores"][..., None]], axis=-1)
    simple: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "posetrack2h36m": keypoints.posetrack_to_h36m,
        "turn_into_h36m": keypoints.coco_to_h36m_exchanged,
    }
    for kind in (np.asarray, torch.from_numpy):
        how = kind.__name__
        for name, convert in simple.items():
            source = "posetrack_in" if name == "posetrack2h36m" else f"{name}_in"
            case.close(f"{name}, {how}", convert(kind(arrays[source])), arrays[name], **FLOATS)
        pose = keypoints.coco_to_h36m_demo(kind(detected))
        case.close(f"h36m_kpts, {how}", pose[..., :2], arrays["h36m_kpts"], **PIXELS)
        case.close(f"h36m_scores, {how}", pose[..., 2], arrays["h36m_scores"], **FLOATS)
        valid = [np.flatnonzero(np.asarray(person)) for person in keypoints.seen(pose)]
        case.close(f"h36m_valid, {how}", np.stack(valid), arrays["h36m_valid"])
        revised = keypoints.fold_uncertain_legs(pose, THRESHOLD)
        case.close(f"revise_kpts, {how}", revised[..., :2], arrays["revise_kpts"], **PIXELS)
        case.close(f"scores after revise_kpts, {how}", revised[..., 2], arrays["h36m_scores"], **FLOATS)


def check_demo_clips(case: Case, arrays: Arrays) -> None:
    for name, (frames,) in numbered(arrays, r"clips_(\d+)"):
        clips, kept = motion.stretched_clips(frames, arrays[name].shape[1])
        case.close(name, clips, arrays[name])
        case.close(f"downsample_{frames}", kept, arrays[f"downsample_{frames}"])
