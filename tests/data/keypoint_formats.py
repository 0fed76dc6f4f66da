"""One person's pixels written as each detector and tool writes them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from kinema.core.skeleton import skeleton

SIZE = (1000, 1002)
Points = Callable[[str], np.ndarray]  # layout name -> (T, J, 3): x, y in pixels, score


def _json(path: Path, content: Any) -> Path:
    path.write_text(json.dumps(content))
    return path


def _entries(points: np.ndarray, name: Callable[[int], Any], **more: Any) -> list[dict[str, Any]]:
    return [
        {"image_id": name(i), "category_id": 1, "keypoints": frame.reshape(-1).tolist(), "score": 2.5, **more}
        for i, frame in enumerate(points)
    ]


def openpose(folder: Path, points: Points) -> Path:
    made = folder / "openpose"
    made.mkdir()
    for i, frame in enumerate(points("body25")):
        person = {"person_id": [-1], "pose_keypoints_2d": frame.reshape(-1).tolist(), "face_keypoints_2d": []}
        _json(made / f"clip_{i:012d}_keypoints.json", {"version": 1.3, "people": [person]})
    return made


def alphapose_halpe(folder: Path, points: Points) -> Path:
    return _json(folder / "halpe.json", _entries(points("halpe26"), lambda i: f"{i}.jpg", box=[0, 0, 9, 9], idx=1))


def alphapose_coco(folder: Path, points: Points) -> Path:
    return _json(folder / "alpha.json", _entries(points("coco17"), lambda i: f"{i}.jpg", box=[0, 0, 9, 9]))


def coco_results(folder: Path, points: Points) -> Path:
    return _json(folder / "results.json", _entries(points("coco17"), lambda i: i + 1))


def coco_annotations(folder: Path, points: Points) -> Path:
    seen = points("coco17").copy()
    seen[..., 2] = 2
    images = [{"id": i + 1, "width": SIZE[0], "height": SIZE[1]} for i in range(len(seen))]
    return _json(folder / "person.json", {"images": images, "annotations": _entries(seen, lambda i: i + 1)})


def mmpose(folder: Path, points: Points) -> Path:
    frames = [
        {"frame_id": i + 1, "instances": [
            {"keypoints": frame[:, :2].tolist(), "keypoint_scores": frame[:, 2].tolist(), "bbox": [[0, 0, 9, 9]]}
        ]} for i, frame in enumerate(points("coco17"))
    ]  # fmt: skip
    return _json(folder / "mmpose.json", {"meta_info": {"dataset_name": "coco"}, "instance_info": frames})


def rtmlib(folder: Path, points: Points) -> Path:
    frames = [{"keypoints": [f[:, :2].tolist()], "scores": [f[:, 2].tolist()]} for f in points("halpe26")]
    return _json(folder / "rtmlib.json", frames)


def mediapipe(folder: Path, points: Points) -> Path:
    frames = [
        {"pose_landmarks": [{"x": x / SIZE[0], "y": y / SIZE[1], "z": 0.1, "visibility": v} for x, y, v in frame]}
        for frame in points("mediapipe33").tolist()
    ]
    return _json(folder / "mediapipe.json", {"width": SIZE[0], "height": SIZE[1], "frames": frames})


def mediapipe_array(folder: Path, points: Points) -> Path:
    x, y, score = np.moveaxis(points("mediapipe33"), -1, 0)
    np.save(folder / "landmarks.npy", np.stack([x / SIZE[0], y / SIZE[1], x * 0, score], -1))
    return folder / "landmarks.npy"


def custom(folder: Path, points: Points) -> Path:
    body = skeleton("coco17")
    metadata = {
        "layout_name": "coco", "num_joints": 17, "keypoints_symmetry": [list(body.left), list(body.right)],
        "video_metadata": {"clip.mp4": {"w": SIZE[0], "h": SIZE[1]}},
    }  # fmt: skip
    positions = {"clip.mp4": {"custom": [points("coco17")]}}
    path = folder / "data_2d_custom_clip.npz"
    np.savez_compressed(path, positions_2d=np.array(positions, object), metadata=np.array(metadata, object))
    return path


def pair(folder: Path, points: Points) -> Path:
    np.savez(folder / "pair.npz", keypoints=points("halpe26")[..., :2], scores=points("halpe26")[..., 2])
    return folder / "pair.npz"


def array(layout: str) -> Callable[[Path, Points], Path]:
    def write(folder: Path, points: Points) -> Path:
        np.save(folder / f"{layout}.npy", points(layout))
        return folder / f"{layout}.npy"

    return write


# Name -> writer, layout of the points in it, and whether the file says the layout itself.
FORMATS: dict[str, tuple[Callable[[Path, Points], Path], str, bool]] = {
    "openpose": (openpose, "body25", True),
    "alphapose halpe": (alphapose_halpe, "halpe26", True),
    "alphapose coco": (alphapose_coco, "coco17", True),
    "coco results": (coco_results, "coco17", True),
    "coco annotations": (coco_annotations, "coco17", True),
    "mmpose": (mmpose, "coco17", True),
    "rtmlib": (rtmlib, "halpe26", True),
    "mediapipe": (mediapipe, "mediapipe33", True),
    "mediapipe array": (mediapipe_array, "mediapipe33", True),
    "custom npz": (custom, "coco17", True),
    "npz pair": (pair, "halpe26", True),
    "array coco17": (array("coco17"), "coco17", False),
    "array body25": (array("body25"), "body25", True),
    "array h36m17": (array("h36m17"), "h36m17", True),
    "array 3dhp": (array("mpi_inf_3dhp17"), "mpi_inf_3dhp17", False),
}
