"""Every format gives one pose for one person; gaps, several persons and wrong files get what is documented."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from kinema.core.skeleton import skeleton
from kinema.data.readers import detections
from kinema.data.readers.detections import Options, tracks
from kinema.data.readers.detections import openpose as openpose_format
from kinema.data.readers.detections.conversion import Conversion
from kinema.errors import ConfigError, DataError
from kinema.models.registry import model_class
from tests.checkpoints import tiny
from tests.data.bodies import synthetic
from tests.data.keypoint_formats import FORMATS, SIZE, alphapose_coco, coco_annotations, openpose

BODY = skeleton("h36m17")
FRAMES = 12
# What a layout's own rules place elsewhere than COCO's: points of its own instead of middles of two.
OWN = {
    "coco17": (),
    "mediapipe33": (),
    "body25": ("pelvis", "spine", "thorax"),
    "halpe26": ("pelvis", "spine", "thorax", "head"),
    "h36m17": ("pelvis", "spine", "thorax", "nose", "head"),
    "mpi_inf_3dhp17": ("pelvis", "spine", "thorax", "nose", "head"),
}
# How far, in pixels of a body of about 350: perspective moves a middle by less than one; the head is that of the
# eyes against its top, the nose the tip against the neck of the mocap, the thorax the middle of the shoulders.
FAR = {"body25": 1.0, "halpe26": 35.0, "h36m17": 45.0, "mpi_inf_3dhp17": 45.0}


@cache
def points(layout: str) -> np.ndarray:
    """(T, J, 3) of one synthetic person, all certain."""
    pixels = synthetic(layout, frames=FRAMES)
    return np.concatenate([pixels, np.ones_like(pixels[..., :1])], -1)


def conversion(layout: str | None = None, **options: Any) -> Conversion:
    target = skeleton(options.pop("target", "h36m17"))
    return Conversion(layout, target, "videopose3d", *options.pop("size", SIZE), **options)


def pose2d(path: Path, layout: str | None = None, read: Options | None = None, **options: Any) -> np.ndarray:
    return np.asarray(detections.read(path, conversion(layout, **options), read).arrays["pose2d"])


@cache
def network() -> torch.nn.Module:
    torch.manual_seed(0)
    return model_class("videopose3d")(**tiny.VIDEOPOSE3D | {"num_joints": 17, "num_joints_out": 17}).double().eval()


def lifted(pose: np.ndarray) -> np.ndarray:
    model = network()
    before, after = model.signature.context
    whole = torch.from_numpy(np.pad(pose[..., :2].astype(np.float64), ((before, after), (0, 0), (0, 0)), "edge"))
    with torch.inference_mode():
        return model(whole[None])[0].numpy()


@pytest.mark.parametrize("name", FORMATS)
def test_the_same_person_has_the_same_3d_pose_in_every_format(tmp_path: Path, name: str) -> None:
    write, layout, says = FORMATS[name]
    path = write(tmp_path, points)
    found = pose2d(path, None if says else layout)
    np.save(tmp_path / "reference.npy", points("coco17"))
    reference = pose2d(tmp_path / "reference.npy", "coco17")
    own = [BODY.index(joint) for joint in OWN[layout]]
    apart = np.linalg.norm(found - reference, axis=-1) * SIZE[0] / 2
    assert apart[:, own].max(initial=0) <= FAR.get(layout, 0)
    if own:  # what differs is the rule for these joints and nothing else
        assert np.abs(lifted(found) - lifted(reference)).max() > 1e-5
        found = found.copy()
        found[:, own] = reference[:, own]
    # float32 pixels carry 1e-7 of a width, and the network is about as steep as 1.
    np.testing.assert_allclose(lifted(found), lifted(reference), atol=2e-6)


@pytest.mark.parametrize("name", [name for name, row in FORMATS.items() if row[1] not in ("h36m17", "mpi_inf_3dhp17")])
def test_by_the_demos_rule_all_detectors_agree(tmp_path: Path, name: str) -> None:
    write, layout, says = FORMATS[name]
    np.save(tmp_path / "reference.npy", points("coco17"))
    reference = pose2d(tmp_path / "reference.npy", "coco17", rule="demo")
    found = pose2d(write(tmp_path, points), None if says else layout, rule="demo")
    np.testing.assert_allclose(lifted(found), lifted(reference), atol=2e-6)


def test_lifters_of_coco_points_get_them_from_every_detector(tmp_path: Path) -> None:
    for name, (write, layout, _) in FORMATS.items():
        if layout in ("h36m17", "mpi_inf_3dhp17") or name == "coco annotations":
            continue
        folder = tmp_path / name
        folder.mkdir()
        found = pose2d(write(folder, points), layout, target="coco17", size=SIZE)
        np.testing.assert_allclose(found[..., 0], points("coco17")[..., 0] / SIZE[0] * 2 - 1, atol=1e-6)
    (tmp_path / "h").mkdir()
    path = FORMATS["array h36m17"][0](tmp_path / "h", points)
    eyes = [skeleton("coco17").index(f"{side}_{part}") for side in ("left", "right") for part in ("eye", "ear")]
    found = pose2d(path, "h36m17", target="coco17")[..., 2]
    assert (found[:, eyes] == 0).all() and (np.delete(found, eyes, 1) == 1).all()


def entries(path: Path, change: Callable[[list[dict[str, Any]]], Any]) -> Path:
    content = json.loads(path.read_text())
    path.write_text(json.dumps(change(content)))
    return path


def test_frames_without_the_person_are_bridged_and_marked(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = entries(alphapose_coco(tmp_path, points), lambda found: found[:4] + found[7:])
    with caplog.at_level(logging.INFO):
        found = pose2d(path)
    assert found.shape == (FRAMES, 17, 3)
    assert (found[4:7, :, 2] == 0).all() and (np.delete(found, [4, 5, 6], 0)[..., 2] == 1).all()
    np.testing.assert_allclose(found[5, :, :2], (found[3, :, :2] + found[7, :, :2]) / 2, atol=1e-6)
    assert "3 of 12 frames had gaps" in caplog.text and "longest gap 3 frames" in caplog.text
    with pytest.raises(DataError, match=r"missing for 3 frames from frame 4 on.*predict\.max_gap=null"):
        pose2d(path, read=Options(max_gap=2))
    assert np.array_equal(pose2d(path, read=Options(max_gap=3)), found)


@pytest.mark.parametrize("missing", [np.nan, 0.0])
def test_ends_are_held_and_missing_joints_filled(tmp_path: Path, missing: float) -> None:
    changed, knee = points("h36m17").copy(), BODY.index("left_knee")
    changed[:2], changed[-1], changed[5, knee] = missing, missing, missing
    np.savez(tmp_path / "walk.npz", walk=changed)
    np.save(tmp_path / "walk.npy", changed)
    found = pose2d(tmp_path / "walk.npz")
    assert np.array_equal(found[0, :, :2], found[2, :, :2]) and np.array_equal(found[-1, :, :2], found[-2, :, :2])
    assert (found[[0, 1, -1], :, 2] == 0).all() and found[5, knee, 2] == 0 and found[5, knee - 1, 2] == 1
    np.testing.assert_allclose(found[5, knee, :2], (found[4, knee, :2] + found[6, knee, :2]) / 2, atol=1e-6)
    assert detections.mapped(tmp_path / "walk.npy", conversion()) is None
    assert np.array_equal(pose2d(tmp_path / "walk.npy"), found)


def test_a_joint_that_is_never_seen_matters_only_where_it_is_used(tmp_path: Path) -> None:
    body, changed = skeleton("body25"), points("body25").copy()
    np.save(tmp_path / "whole.npy", changed)
    changed[:, [body.index(joint) for joint in ("left_heel", "right_big_toe", "left_ear")]] = 0
    np.save(tmp_path / "feet.npy", changed)
    assert np.array_equal(pose2d(tmp_path / "feet.npy"), pose2d(tmp_path / "whole.npy"))
    changed[:, body.index("left_eye")] = np.nan
    np.save(tmp_path / "eye.npy", changed)
    with pytest.raises(DataError, match="left_eye is seen in no frame"):
        pose2d(tmp_path / "eye.npy")


def crowd(tmp_path: Path, shares: tuple[float, ...], ids: bool) -> Path:
    """Persons beside one another, each seen in a share of the frames."""
    found = []
    for person, share in enumerate(shares):
        for i in range(round(share * FRAMES)):
            frame = points("coco17")[i] * (1, 1, 0.9) + (450 * person - 200, 0, 0)
            found.append({"image_id": f"{i}.jpg", "keypoints": frame.reshape(-1).tolist(), "score": 1.0})
            found[-1] |= {"idx": person + 3} if ids else {}
    path = tmp_path / "crowd.json"
    path.write_text(json.dumps(found))
    return path


@pytest.mark.parametrize("ids", [True, False])
def test_the_person_seen_most_is_taken_if_that_is_clear(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, ids: bool
) -> None:
    path = crowd(tmp_path, (0.5, 1.0), ids)
    with caplog.at_level(logging.INFO):
        found = pose2d(path, size=(3000, 1000))
    number = 4 if ids else 1
    assert f"person {number} is taken" in caplog.text
    np.testing.assert_allclose((found[:, 0, 0] + 1) * 1500, points("coco17")[:, [11, 12], 0].mean(1) + 250, atol=1e-3)
    assert np.array_equal(pose2d(path, read=Options(track=number), size=(3000, 1000)), found)
    path = crowd(tmp_path, (1.0, 0.9), ids)
    with pytest.raises(DataError, match=r"several persons about as long: .*predict\.track="):
        pose2d(path, size=(3000, 1000))
    with pytest.raises(DataError, match=r"no detection of track 9\. Tracks in the file: "):
        pose2d(path, read=Options(track=9), size=(3000, 1000))
    with pytest.raises(ConfigError, match="best, all or null"):
        pose2d(path, read=Options(track="first"), size=(3000, 1000))
    assert len(pose2d(path, read=Options(track="all", check=False), size=(3000, 1000))) == FRAMES + round(0.9 * FRAMES)


def test_best_takes_the_best_scored_of_each_frame(tmp_path: Path) -> None:
    frame = points("coco17")[0].reshape(-1).tolist()
    found = [
        {"image_id": i, "keypoints": (np.array(frame) + person).tolist(), "score": 1.0 - abs(person - i)}
        for i in range(3) for person in range(3)
    ]  # fmt: skip
    (tmp_path / "best.json").write_text(json.dumps(found))
    (track,) = detections.tracks(tmp_path / "best.json", "best")
    np.testing.assert_allclose(track.points[:, 0, 0] - points("coco17")[0, 0, 0], [0, 1, 2])


def test_frames_of_a_folder_keep_their_numbers(tmp_path: Path) -> None:
    folder = openpose(tmp_path, points)
    (folder / "clip_000000000003_keypoints.json").unlink()
    empty = folder / "clip_000000000007_keypoints.json"
    empty.write_text(json.dumps({"version": 1.3, "people": []}))
    found = pose2d(folder)
    assert len(found) == FRAMES and (found[[3, 7], :, 2] == 0).all() and (found[[2, 4, 8], :, 2] == 1).all()


JSON: list[tuple[str, Any, str]] = [
    ("empty list", [], "none of the known keypoint files"),
    ("object", {"a": 1}, "none of the known keypoint files"),
    ("no numbers", [{"image_id": "0.jpg", "keypoints": [1, 2, "x"]}], "no list of x, y, score"),
    ("18 points", {"people": [{"pose_keypoints_2d": [1] * 54}]}, "--model_pose BODY_25"),
    ("other points", [{"image_id": 1, "keypoints": [1] * 63}], r"has 21 points per person .*coco17 \(17\)"),
    ("two models", [{"image_id": "1.jpg", "keypoints": [1] * n} for n in (51, 78)], r"holds \[51, 78\] numbers"),
    ("hands", [[{"x": 0.1, "y": 0.2}] * 21], "has 21 landmarks, MediaPipe Pose has 33"),
    ("nobody", {"people": []}, "nobody was found in any of 1 frames"),
    ("images", [{"image_id": i, "keypoints": [1] * 51} for i in (139, 285, 632001)], "no frames of one video"),
    ("scores", [{"keypoints": [[[1, 2]] * 17], "scores": [[1] * 16]}], "keypoints and scores do not fit"),
    ("persons", [{"keypoints": [[[1, 2]] * 17] * 2, "scores": [[1] * 17]}], "frame 0: keypoints and scores do not fit"),
    ("arrays", [{"keypoints": 5, "scores": 5}], "frame 0: keypoints and scores do not fit"),
    ("far frame", [{"frame_id": n, "instances": []} for n in (0, 10**13)], "no frames of one video"),
    ("large frame", [{"frame_id": n, "instances": []} for n in (0, 1, 10**30)], "no frames of one video"),
    ("people", {"people": ["x"]}, "frame 0 lists 'x' among its people"),
    ("points", {"people": [{"pose_keypoints_2d": 5}]}, "keypoints of frame 0 are no list of x, y, score"),
    ("no points", {"annotations": [{"image_id": 1, "keypoints": None}]}, "annotations without keypoints"),
    ("visibility", {"annotations": [{"image_id": 1, "keypoints": [1, 2, "x"] * 17}]}, "no list of x, y, score"),
    ("width", {"images": [{"id": 1, "width": "x"}], "annotations": [{"image_id": 1, "keypoints": [1] * 51}]},
     r"looks like COCO, but an entry cannot be read \(ValueError: invalid literal"),
    ("score", [{"image_id": "1.jpg", "keypoints": [1] * 51, "score": [0.9]}],
     r"looks like AlphaPose, but an entry cannot be read \(TypeError: score \[0\.9\] of a person in frame 0"),
    ("landmarks", [[[{"x": 1, "y": 1}], 5, {"x": 1}]], "has 1 landmarks, MediaPipe Pose has 33"),
    ("image width", {"width": [1], "frames": [[{"x": 0.1, "y": 0.2}] * 33]}, "looks like MediaPipe, but an entry"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "content", "sentence"), JSON, ids=[row[0] for row in JSON])
def test_other_json_gets_its_sentence(tmp_path: Path, name: str, content: Any, sentence: str) -> None:
    (tmp_path / "points.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=sentence):
        pose2d(tmp_path / "points.json")


@pytest.mark.parametrize(
    "fault", [TypeError, ValueError, KeyError, IndexError, AttributeError, MemoryError, OverflowError]
)
def test_what_a_format_does_not_foresee_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: type[Exception]
) -> None:
    def fails(*_: Any) -> None:
        raise fault("unforeseen")

    monkeypatch.setattr(openpose_format, "by_frames", fails)
    for path in (openpose(tmp_path, points), tmp_path / "frames.json"):
        (tmp_path / "frames.json").write_text(json.dumps([{"people": []}]))
        with pytest.raises(DataError, match=rf"looks like OpenPose, but .*\({fault.__name__}: .*unforeseen.* again\."):
            pose2d(path)


def test_a_size_that_is_null_is_none(tmp_path: Path) -> None:
    path = coco_annotations(tmp_path, points)
    path.write_text(json.dumps(json.loads(path.read_text()) | {"images": [{"id": 1, "width": None}]}))
    (track,) = detections.tracks(path, None)
    assert (track.width, track.height, len(track.points)) == (0, 0, FRAMES)


def test_broken_and_missing_json_is_refused(tmp_path: Path) -> None:
    (tmp_path / "points.json").write_text("[{")
    with pytest.raises(DataError, match="is no json file"):
        pose2d(tmp_path / "points.json")
    with pytest.raises(DataError, match=r"none\.json"):
        pose2d(tmp_path / "none.json")


def test_wrong_keypoints_stop_the_run_unless_the_check_is_off(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    np.save(tmp_path / "walk.npy", points("coco17"))
    for read in (detections.read, detections.mapped):
        with pytest.raises(DataError, match=r"Use predict\.layout=coco17\. predict\.check=false"):
            read(tmp_path / "walk.npy", conversion("h36m17"), Options())
        caplog.clear()
        assert read(tmp_path / "walk.npy", conversion("h36m17"), Options(check=False))
        assert "Use predict.layout=coco17." in caplog.text
    assert pose2d(tmp_path / "walk.npy", "coco17").shape == (FRAMES, 17, 3)


def test_units_are_what_is_said(tmp_path: Path) -> None:
    pixels = points("h36m17")[..., :2]
    expected = pose2d(FORMATS["array h36m17"][0](tmp_path, points))[..., :2]
    for unit, stored in (("normalised", pixels / SIZE), ("screen", pixels / SIZE[0] * 2 - (1, SIZE[1] / SIZE[0]))):
        np.save(tmp_path / "walk.npy", stored)
        with pytest.raises(DataError, match=f"predict.unit={unit}"):
            pose2d(tmp_path / "walk.npy")
        np.testing.assert_allclose(pose2d(tmp_path / "walk.npy", unit=unit), expected, atol=1e-6)
        with pytest.raises(DataError, match=r"predict\.width=1920"):
            pose2d(tmp_path / "walk.npy", unit=unit, size=(None, None))
    with pytest.raises(ConfigError, match=r"predict\.unit=cm is not known"):
        conversion(unit="cm")


def test_a_mapped_array_is_converted_as_a_whole_one(tmp_path: Path) -> None:
    for name in ("mediapipe array", "array coco17", "array body25"):
        write, layout, _ = FORMATS[name]
        path = write(tmp_path, points)
        made = detections.mapped(path, conversion(layout))
        assert made is not None
        sequences, convert = made
        stored = sequences.arrays["pose2d"]
        parts = [convert(np.array(stored[first : first + 5])) for first in range(0, FRAMES, 5)]
        np.testing.assert_array_equal(np.concatenate(parts), pose2d(path, layout))


def test_arrays_of_several_persons_are_sequences_of_their_own(tmp_path: Path) -> None:
    points = np.stack([synthetic("h36m17"), synthetic("h36m17", camera=1)])
    np.savez(tmp_path / "one.npz", reconstruction=points[:1])
    np.savez(tmp_path / "two.npz", reconstruction=points)
    assert [found.name for found in tracks(tmp_path / "one.npz", None)] == ["reconstruction"]
    found = list(tracks(tmp_path / "two.npz", None))
    assert [one.name for one in found] == ["reconstruction_0", "reconstruction_1"]
    np.testing.assert_array_equal(found[1].points, points[1])
