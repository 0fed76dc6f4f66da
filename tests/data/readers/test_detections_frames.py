"""Which frame an entry belongs to by its numbers and names, and who is who from frame to frame."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kinema.data.readers import detections
from kinema.data.readers.detections import people
from kinema.data.readers.detections.people import Person
from tests.data.keypoint_formats import mmpose
from tests.data.readers.test_detections import FRAMES, points


def mmpose_frames(folder: Path, names: list[Any]) -> Path:
    """MMPose's json with these names for the frames, None = without any."""
    path = mmpose(folder, points)
    content = json.loads(path.read_text())
    for frame, name in zip(content["instance_info"], names, strict=True):
        frame["frame_id"] = name
    path.write_text(json.dumps(content))
    return path


@pytest.mark.parametrize("names", ["frame_{}.jpg", "{}", None])
def test_frames_of_mmpose_may_be_named_or_nameless(tmp_path: Path, names: str | None) -> None:
    given = [names and names.format(i + 7 + 2 * (i > 4)) for i in range(FRAMES)]
    (track,) = detections.tracks(mmpose_frames(tmp_path, given), None)
    if names is None:
        np.testing.assert_array_equal(track.points, points("coco17"))
    else:
        assert len(track.points) == FRAMES + 2 and np.isnan(track.points[5:7]).all()
        np.testing.assert_array_equal(np.delete(track.points, (5, 6), 0), points("coco17"))


def numbered(folder: Path, numbers: list[int]) -> Path:
    """AlphaPose's entries, one for each of these frames."""
    frames = points("coco17").reshape(FRAMES, -1).tolist()
    found = [{"image_id": f"{n}.jpg", "keypoints": frame} for n, frame in zip(numbers, frames, strict=False)]
    (folder / "numbered.json").write_text(json.dumps(found))
    return folder / "numbered.json"


def test_steps_between_frames_are_assumed_aloud(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (track,) = detections.tracks(numbered(tmp_path, [0, 10, 20, 40]), None)
    assert np.isnan(track.points[:, 0, 0]).tolist() == [False, False, False, True, False]
    (warning,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert (
        "in steps of 10 from 0 on" in warning
        and "5 frames in all" in warning
        and "dataset.fps" in warning
        and "docs/own_data.md" in warning
    )
    caplog.clear()
    # Two frames, or frames here and there, say nothing of a step.
    for numbers, frames in (([0, 10], 11), ([4, 10, 20, 24], 21), ([3, 4, 6], 4)):
        (track,) = detections.tracks(numbered(tmp_path, numbers), None)
        assert len(track.points) == frames and not np.isnan(track.points[[n - numbers[0] for n in numbers]]).any()
    assert not [record for record in caplog.records if record.levelno == logging.WARNING]


@pytest.mark.parametrize(
    ("images", "expected", "warned"),
    [
        ([0, 10, 20, 30, 40], [0, 1, 2, 4], "nothing"),
        ([0, 5, 10, 15, 20, 25, 30, 35, 40, 45], [0, 2, 4, 8], "nothing"),
        ([40, 0, 10, 20], [1, 2, 3, 0], "do not rise evenly"),
        ([0, 10, 20], [0, 1, 2, 4], "in steps of 10"),  # no list of all images
    ],
)
def test_the_images_of_coco_say_which_frames_there_are(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, images: list[int], expected: list[int], warned: str
) -> None:
    frames = points("coco17").reshape(FRAMES, -1).tolist()
    content = {
        "images": [{"id": n} for n in images],
        "annotations": [{"image_id": n, "keypoints": frame} for n, frame in zip((0, 10, 20, 40), frames, strict=False)],
    }
    (tmp_path / "person.json").write_text(json.dumps(content))
    (track,) = detections.tracks(tmp_path / "person.json", None)
    assert len(track.points) == max(len(images), max(expected) + 1)
    np.testing.assert_array_equal(track.points[expected, :, :2], points("coco17")[:4, :, :2])
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert [warned in line for line in warnings] == ([] if warned == "nothing" else [True])


def by_pairs(found: list[Person]) -> list[Person]:
    """`people._linked` with one distance at a time."""

    def apart(first: Person, second: Person) -> float:
        a, b = first.points[:, :2], second.points[:, :2]
        both = np.isfinite(a + b).all(1) & a.any(1) & b.any(1)
        if not both.any():
            return float("inf")
        size = max(np.ptp(a[both], axis=0).max(), np.ptp(b[both], axis=0).max(), 1e-9)
        return float(np.median(np.linalg.norm(a[both] - b[both], axis=1)) / size)

    last: dict[int, Person] = {}
    out: list[Person] = []
    for frame in sorted({person.frame for person in found}):
        here = sorted((person for person in found if person.frame == frame), key=lambda person: -person.score)
        recent = {number: one for number, one in last.items() if frame - one.frame <= people.LOST}
        ways = sorted((apart(one, recent[number]), i, number) for i, one in enumerate(here) for number in recent)
        given: dict[int, int] = {}
        for way, i, number in ways:
            if way <= people.NEAR and i not in given and number not in given.values():
                given[i] = number
        for i, one in enumerate(here):
            number = given.get(i, max([-1, *last]) + 1)
            last[number] = one
            out.append(Person(frame, one.points, one.score, number))
    return out


@pytest.mark.parametrize("seed", range(4))
def test_persons_are_linked_by_one_distance_per_frame(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    random = np.random.default_rng(seed)
    body, places = random.normal(0, 30, (17, 2)), random.uniform(0, 300, (6, 2))
    found = []
    for frame in [*range(20), *range(60, 70)]:  # everybody is lost in between
        places += random.normal(0, 12, places.shape)
        for place in places[random.permutation(6)[: random.integers(1, 7)]]:
            seen = np.concatenate([body + place + random.normal(0, 2, body.shape), np.ones((17, 1))], 1)
            seen[random.random(17) < 0.3] = random.choice([0, np.nan])
            seen[:, :2][random.random(17) < 0.02] = np.inf
            if random.random() < 0.05:
                seen[:] = 0
            found.append(Person(frame, seen, float(random.random())))
    calls, apart = [], people._apart

    def counted(first: np.ndarray, second: np.ndarray) -> np.ndarray:
        calls.append(len(first) * len(second))
        return apart(first, second)

    monkeypatch.setattr(people, "_apart", counted)
    linked, expected = list(people._linked(found)), by_pairs(found)
    assert [person.track for person in linked] == [person.track for person in expected]
    assert all(one.points is other.points for one, other in zip(linked, expected, strict=True))
    assert 6 <= len({person.track for person in linked}) < len(found) and len(calls) == 28
