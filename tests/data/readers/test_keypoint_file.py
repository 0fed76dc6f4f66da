"""Keypoint arrays that hold nothing, or what no detector can have seen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kinema.core.skeleton import skeleton
from kinema.data.readers import detections
from kinema.data.readers.detections.conversion import Conversion
from kinema.errors import DataError

BODY = skeleton("h36m17")
POINTS = np.random.default_rng(0).uniform(50, 900, (5, 17, 2))


def read(path: Path) -> Any:
    conversion = Conversion("h36m17", BODY, "videopose3d", 1000, 1000)
    options = detections.Options(check=False)
    mapped = detections.mapped(path, conversion, options)
    return mapped[0] if mapped else detections.read(path, conversion, options)


@pytest.mark.parametrize(
    ("points", "sentence"),
    [
        (POINTS[:0], "holds no frames"),
        (POINTS[:, :0], r"shape \(5, 0, 2\)"),
        (POINTS[..., [0, 1, 0, 1]], r"shape \(5, 17, 4\)"),
        (POINTS.astype(complex), "of complex128, expected"),
        (POINTS > 0, "of bool, expected"),
        (POINTS * 1e28, r"reaches 8.*e\+30 pixels, no image is that large"),
        (POINTS * np.nan, "nobody was found in any of 5 frames"),
    ],
)
def test_arrays(tmp_path: Path, points: np.ndarray, sentence: str) -> None:
    np.save(tmp_path / "walk.npy", points)
    np.savez(tmp_path / "walk.npz", walk=points)
    for name in ("walk.npy", "walk.npz"):
        with pytest.raises(DataError, match=sentence):
            read(tmp_path / name)
    np.save(tmp_path / "walk.npy", POINTS.astype(np.int32))
    assert read(tmp_path / "walk.npy").num_frames == 5


def test_an_empty_file(tmp_path: Path) -> None:
    (tmp_path / "walk.npy").touch()
    with pytest.raises(DataError, match="is no plain array file"):
        read(tmp_path / "walk.npy")


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ({}, "holds no sequences"),
        ({"positions_2d": np.array({}, dtype=object)}, "holds no sequences"),
        ({"positions_2d": np.array({"walk": {"custom": []}}, dtype=object)}, "walk holds no frames"),
        ({"keypoints": POINTS, "scores": POINTS}, r"scores \(5, 17, 2\) for keypoints"),
        ({"boxes": POINTS, "segments": POINTS, "keypoints": POINTS}, "Run its prepare_data_2d_custom.py"),
    ],
)
def test_archives(tmp_path: Path, content: dict[str, Any], sentence: str) -> None:
    np.savez(tmp_path / "walk.npz", **content)
    with pytest.raises(DataError, match=sentence):
        read(tmp_path / "walk.npz")


def test_other_suffixes_and_empty_folders(tmp_path: Path) -> None:
    (tmp_path / "walk.csv").write_text("1,2")
    with pytest.raises(DataError, match="unknown suffix"):
        read(tmp_path / "walk.csv")
    with pytest.raises(DataError, match=r"holds no \.json files"):
        read(tmp_path)
    (tmp_path / "0.json").write_text("{}")
    with pytest.raises(DataError, match="no frames of OpenPose or MMPose"):
        read(tmp_path)
