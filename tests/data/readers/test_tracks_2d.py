"""AlphaPose result files: what is read, and what is refused with which sentence."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from kinema.data.readers.tracks_2d import alphapose
from kinema.errors import DataError


def written(folder: Path, content: object) -> Path:
    path = folder / "alphapose-results.json"
    path.write_text(json.dumps(content))
    return path


def detections(count: int, numbers: int = 78) -> list[dict[str, object]]:
    values = np.random.default_rng(0).uniform(0, 100, (count, numbers)).tolist()
    return [{"image_id": f"{i // 2}.jpg", "keypoints": row, "idx": i % 2 + 1} for i, row in enumerate(values)]


def test_entries_are_frames_in_file_order(tmp_path: Path) -> None:
    entries = detections(6)
    path = written(tmp_path, entries)
    everyone = alphapose(path)
    assert everyone.shape == (6, 26, 3)
    np.testing.assert_array_equal(everyone.reshape(6, 78), [entry["keypoints"] for entry in entries])
    np.testing.assert_array_equal(alphapose(path, track=2), everyone[1::2])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "no list of detections"),
        ({"keypoints": [1]}, "no list of detections"),
        ([{"image_id": "0.jpg"}], "no list of detections"),
        (detections(2, numbers=51), r"holds \[51\] numbers per detection, 78 expected"),
        (detections(2) + detections(1, numbers=408), r"holds \[78, 408\] numbers"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, content: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        alphapose(written(tmp_path, content))


def test_missing_broken_and_unknown_track_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"not found\. Run AlphaPose"):
        alphapose(tmp_path / "none.json")
    path = written(tmp_path, detections(4))
    with pytest.raises(DataError, match=r"no detection of track 7\. Tracks in the file: 1, 2"):
        alphapose(path, track=7)
    path.write_text("[{")
    with pytest.raises(DataError, match="is no json file"):
        alphapose(path)
