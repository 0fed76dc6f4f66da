"""Streams against loops over joints and frames."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from kinema.core.skeleton import SKELETONS, skeleton
from kinema.core.streams import STREAMS, stream
from kinema.errors import ConfigError, DataError
from tests.core.poses import poses, seeds

few = settings(max_examples=20, deadline=None)
bodies = st.sampled_from(["coco17", "ntu25", "h36m17", "body25", "posetrack17"])


def slow_bone(clip: np.ndarray, name: str, scored: bool) -> np.ndarray:
    body = skeleton(name)
    out = np.zeros_like(clip)
    if scored:
        out[..., -1] = clip[..., -1]
    for child, parent in body.tables.get("bone_stream", body.bones):
        out[..., child, :] = clip[..., child, :] - clip[..., parent, :]
        if scored:
            out[..., child, -1] = (clip[..., child, -1] + clip[..., parent, -1]) / 2
    return out


def slow_motion(clip: np.ndarray, scored: bool) -> np.ndarray:
    out = np.zeros_like(clip)
    for t in range(clip.shape[1] - 1):
        out[:, t] = clip[:, t + 1] - clip[:, t]
        if scored:
            out[:, t, :, -1] = (clip[:, t + 1, :, -1] + clip[:, t, :, -1]) / 2
    return out


@few
@given(seeds, bodies, st.integers(1, 5), st.booleans())
def test_streams_equal_plain_loops(seed: int, name: str, frames: int, scored: bool) -> None:
    clip = poses(seed, 2, frames, len(skeleton(name)), 3)
    bones = slow_bone(clip, name, scored)
    expected = {
        "joint": clip,
        "bone": bones,
        "joint_motion": slow_motion(clip, scored),
        "bone_motion": slow_motion(bones, scored),
    }
    assert set(expected) == set(STREAMS)
    for kind, values in expected.items():
        np.testing.assert_allclose(stream(clip, kind, skeleton(name), scored), values, atol=1e-12)
        on_device = stream(torch.from_numpy(clip)[None], kind, skeleton(name), scored)
        np.testing.assert_allclose(on_device[0], values, atol=1e-12)


@pytest.mark.parametrize("name", sorted(SKELETONS))
def test_every_joint_but_one_hangs_on_another_and_all_lead_there(name: str) -> None:
    body = skeleton(name)
    pairs = dict(body.tables.get("bone_stream", body.bones))
    ends = set(range(len(body))) - set(pairs)
    assert len(ends) == 1
    for joint in range(len(body)):
        way = [joint]
        while way[-1] in pairs:
            way.append(pairs[way[-1]])
            assert len(way) <= len(body), f"{name}: bones run in a circle from joint {joint}"
        assert way[-1] in ends


def test_names_and_joints_are_checked() -> None:
    clip = np.zeros((1, 3, 17, 3))
    with pytest.raises(ConfigError, match=r"No stream is called 'bones'. Use dataset.stream=bone"):
        stream(clip, "bones", skeleton("h36m17"), False)
    with pytest.raises(DataError, match="J=25, found 17"):
        stream(clip, "bone", skeleton("ntu25"), False)
