"""Tiny containers of NTU RGB+D in the published layout."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kinema.data import ntu


def annotation(name: str, *, frames: int = 12, persons: int = 1, three_d: bool = False) -> dict[str, Any]:
    """One clip; its numbers follow from its name."""
    clip = ntu.ClipName.parse(name)
    random = np.random.default_rng([clip.setup, clip.camera, clip.performer, clip.replication, clip.action])
    shape = (persons, frames, 25 if three_d else 17)
    if three_d:
        points = random.uniform((-1, -1, 2), (1, 1, 4), (*shape, 3))
        return {"frame_dir": name, "label": clip.label, "keypoint": points.astype(np.float16), "total_frames": frames}
    return {
        "frame_dir": name,
        "label": clip.label,
        "img_shape": (1080, 1920),
        "original_shape": (1080, 1920),
        "total_frames": frames,
        "keypoint": random.uniform((100, 100), (1800, 1000), (*shape, 2)).astype(np.float16),
        "keypoint_score": random.uniform(0.3, 1, shape).astype(np.float16),
    }


def container(names: Sequence[str], benchmarks: Sequence[str] = ("xsub", "xview"), **options: Any) -> dict[str, Any]:
    """A container of clips, every third with two persons, and the lists of its benchmarks."""
    clips = [
        annotation(name, frames=9 + 2 * (number % 5), persons=1 + (number % 3 == 2), **options)
        for number, name in enumerate(names)
    ]
    return {"split": ntu.published_splits(names, benchmarks), "annotations": clips}


def save(folder: Path, file: str, content: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / file).write_bytes(pickle.dumps(content, protocol=4))
    return folder


def names(actions: Sequence[int], *, setups: Sequence[int] = (1,), performers: Sequence[int] = (1, 3)) -> list[str]:
    """Names of all clips of these actions, performers and setups by three cameras; performer 1 trains, 3 does not."""
    return [
        f"S{setup:03}C{camera:03}P{performer:03}R001A{action:03}"
        for setup in setups
        for camera in (1, 2, 3)
        for performer in performers
        for action in actions
    ]
