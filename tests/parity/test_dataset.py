"""The readers on the golden files: every sequence against the raw contents, in the published order of operations."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from kinema.core.camera import recorded_camera
from kinema.core.skeleton import skeleton
from kinema.data.convert.h36m import pixels
from kinema.data.readers import motionbert_h36m
from kinema.data.safe_pickle import load_npz
from kinema.data.sequences import Sequences
from tests.parity.golden import Case, cases
from tests.parity.official import LAYOUTS, YAML, read

pytestmark = pytest.mark.parity


def qrot(q: np.ndarray, v: np.ndarray) -> np.ndarray:
    """The published formula for one quaternion, in its own words."""
    uv = np.cross(np.broadcast_to(q[1:], v.shape), v)
    return v + 2 * (q[0] * uv + np.cross(np.broadcast_to(q[1:], v.shape), uv))


def check_rows(
    case: Case,
    what: str,
    found: Sequences,
    positions_2d: dict[str, Any],
    positions_3d: dict[str, Any] | None,
    camera_of: Callable[[str, int], dict[str, Any]],
) -> None:
    """Every sequence that has 3D, in the published order, and none beside."""
    dropped = {("S11", "Directions")}
    expected = [
        (subject, action, index)
        for subject in (positions_2d if positions_3d is None else positions_3d)
        for action in positions_2d[subject]
        if (positions_3d is None or action in positions_3d[subject]) and (subject, action) not in dropped
        for index in range(len(positions_2d[subject][action]))
    ]
    columns = found.table
    with case.check(f"{what}: rows"):
        rows = zip(*(columns[name].tolist() for name in ("subject", "trial", "camera")), strict=True)
        assert [(subject, trial, int(camera)) for subject, trial, camera in rows] == expected
        assert columns["action"].tolist() == [action.split(" ")[0] for _, action, _ in expected]
    kept = skeleton("h36m32").map_to(skeleton("h36m17"))
    for row, (subject, action, index) in enumerate(expected):
        label, arrays = f"{what}: {found.label(row)}", found.sequence(row)
        view = np.asarray(positions_2d[subject][action][index])
        camera = camera_of(subject, index)
        if positions_3d is not None:
            world = positions_3d[subject][action]
            world = world[:, kept] if world.shape[1] == 32 else world
            turned = np.concatenate([camera["orientation"][:1], -camera["orientation"][1:]])
            pose3d = qrot(turned, world - camera["translation"])
            case.close(f"{label} 3D", arrays["pose3d"], pose3d, atol=1e-5)
            # 2D that is longer than the 3D is cut at its end.
            with case.check(f"{label} length"):
                assert len(view) >= len(world)
            view = view[: len(world)]
        width, height = camera["width"], camera["height"]
        with case.check(f"{label} camera"):
            assert (columns["width"][row], columns["height"][row]) == (width, height)
            if camera["intrinsics"] is not None:
                np.testing.assert_array_equal(found.cameras["intrinsics"][row], camera["intrinsics"])
        normal = (view / np.float32(width) * 2 - np.array([1, height / width])).astype(np.float32)
        case.close(f"{label} 2D", arrays["pose2d"], normal)


@cases("poseformer", "dataset")
def test_files_read_as_published(case: Case) -> None:
    names = sorted(path.name for path in case.path.glob("*.npz"))
    keypoint_files = [match for name in names if (match := re.fullmatch(r"data_2d_([^_]+)_(.+)\.npz", name))]
    for match in keypoint_files:
        dataset, keypoints = match.groups()
        if dataset not in YAML:  # left unread, so that `finish` names the file
            continue
        stored = load_npz(case.file(match[0]))
        metadata = stored["metadata"]
        symmetry = metadata["keypoints_symmetry"]
        layout = LAYOUTS.get(metadata.get("layout_name"), "h36m17")
        with case.check(f"{match[0]}: symmetry"):
            assert [list(skeleton(layout).left), list(skeleton(layout).right)] == [list(side) for side in symmetry]
            assert len(skeleton(layout)) == metadata["num_joints"]
        positions_3d = None
        if dataset != "custom":
            positions_3d = load_npz(case.file(f"data_3d_{dataset}.npz"))["positions_3d"]

        def camera_of(subject: str, index: int, dataset: str = dataset, metadata: Any = metadata) -> dict[str, Any]:
            if dataset != "custom":
                return recorded_camera(dataset, subject, index)
            size = metadata["video_metadata"][subject]
            return {"width": size["w"], "height": size["h"], "intrinsics": None}

        found = read(case.path, dataset, keypoints, layout)
        check_rows(case, match[0], found, stored["positions_2d"], positions_3d, camera_of)
        if (dataset, keypoints) == ("h36m", "gt") and positions_3d is not None:
            check_projections(case, positions_3d, stored["positions_2d"])
    case.finish()


def check_projections(case: Case, positions_3d: dict[str, Any], positions_2d: dict[str, Any]) -> None:
    """The converter's keypoints are the published ones, to a step of float32 at 512 pixels."""
    for subject, actions in positions_2d.items():
        for action, world in positions_3d.get(subject, {}).items():
            for view, found in zip(actions.get(action, ()), pixels(subject, world), strict=False):
                case.close(f"{subject}/{action} projected", found, view, atol=1.3e-4, rtol=0)


@cases("motionbert", "h36m_eval")
def test_pickle_reads_as_published(case: Case) -> None:
    # Predictions and errors of this folder are the protocol's matter (test_protocols.py); here the frames alone.
    path = next(iter(case.path.glob("*.pkl")))
    read = motionbert_h36m.read(case.path, file=path.name)
    columns = read.table
    with np.load(case.path / "case.npz") as file:
        for split, clips, names in (
            ("test", file["std_split_test"], ("input_test", "label_test")),
            ("train", file["split_train"][0], ("input_train_first", "label_train_first")),
        ):
            frames = clips + columns["start"][columns["split"] == split][0]
            for array, name in zip(("pose2d", "pose3d"), names, strict=True):
                np.testing.assert_array_equal(read.arrays[array][frames], file[name], err_msg=name)
            if split == "test":
                np.testing.assert_array_equal(read.arrays["size"][frames[:, 0]], file["test_hw"])
        assert read.meta["actions"] == file["action_names"].tolist()
