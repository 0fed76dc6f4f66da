"""Real motion in every format, and how sure the checks are on it; needs the CMU files where paths.data_dir points."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from kinema.core.keypoint_checks import RIVALS, examine
from kinema.core.layouts import convert
from kinema.core.skeleton import skeleton
from kinema.data.safe_pickle import load_npz
from tests.data.bodies import DETECTORS, in_layout
from tests.data.keypoint_formats import FORMATS
from tests.data.layouts import seen
from tests.data.readers import test_detections as formats

ROOT = Path(os.environ.get("KINEMA_DATA", "data")) / "cmu_mocap"
pytestmark = pytest.mark.skipif(
    not (ROOT / "data_3d_cmu.npz").is_file(), reason=f"no CMU data in {ROOT} (docs/datasets/cmu.md, KINEMA_DATA)"
)


def views(layout: str, every: int = 1) -> Iterator[np.ndarray]:
    """Exact pixels (T, J, 2) of the trials in four cameras, about 60 frames each."""
    cameras = json.loads((ROOT / "cameras_cmu.json").read_text())
    positions = load_npz(ROOT / "data_3d_cmu.npz")["positions_3d"]
    trials = [(subject, world) for subject, actions in positions.items() for world in actions.values()]
    for subject, stored in trials[::every]:
        world = np.asarray(stored, np.float64)[:: max(1, len(stored) // 60)]
        body = in_layout(world, layout).astype(np.float32)
        for lens, outer in zip(cameras["intrinsics"], cameras["extrinsics"][subject], strict=True):
            yield seen(body, lens, outer).astype(np.float64)


@cache
def points(layout: str) -> np.ndarray:
    detector = "h36m17" if layout == "mpi_inf_3dhp17" else layout
    pixels = convert(next(views(detector, every=40)), detector, layout)[: formats.FRAMES]
    return np.concatenate([pixels, np.ones_like(pixels[..., :1])], -1)


@pytest.mark.parametrize("name", FORMATS)
def test_a_real_clip_has_the_same_3d_pose_in_every_format(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(formats, "points", points)
    formats.test_the_same_person_has_the_same_3d_pose_in_every_format(tmp_path, name)


@pytest.mark.parametrize("layout", [*DETECTORS, "h36m17"])
def test_no_real_motion_is_called_wrong_and_no_shuffled_one_right(layout: str) -> None:
    random, body = np.random.default_rng(0), skeleton(layout)
    for pixels in views(layout, every=9):
        assert not [verdict for verdict in examine(pixels, layout, width=1000, height=1000) if verdict.fault]
        shuffled = pixels[:, random.permutation(len(body))]
        assert any(verdict.fault for verdict in examine(shuffled, layout, width=1000, height=1000))
        for rival in RIVALS if layout in RIVALS else ():
            found = examine(pixels, rival, width=1000, height=1000)
            assert rival == layout or any(f"predict.layout={layout}" in verdict.remedy for verdict in found)
