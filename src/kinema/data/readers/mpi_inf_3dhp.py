"""Reader of MPI-INF-3DHP in the two files of the lifting literature: true 2D in pixels, universal 3D in millimetres.

`data_train_3dhp.npz` holds {"S1 Seq1": [{camera: {data_2d, data_3d}}, frames per second]}, `data_test_3dhp.npz` holds
{"TS1": {data_2d, data_3d, valid}}, each as a pickled dict under `data`. Labels stay what the papers train on: the
millimetres go through the formula that normalises pixels, so a millimetre is 2 / width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from kinema.core.keypoints import h36m_to_mpi_inf_3dhp
from kinema.core.preprocess import preprocess
from kinema.core.skeleton import skeleton
from kinema.data import raw
from kinema.data.joint_order import misplaced
from kinema.data.safe_pickle import load_npz
from kinema.data.sequences import Sequences
from kinema.errors import DataError

# Raised when the result of `read` changes: part of the cache's key.
VERSION = 1

# Images of the training cameras and of the test sequences, but for those filmed outdoors.
SIZE = (2048, 2048)
SIZES = {"TS5": (1920, 1080), "TS6": (1920, 1080)}
FPS = (25.0, 50.0)
ACTIVITIES = "activity_test_3dhp.npz"

# Mean bone in millimetres; a person's is 200 to 300, in metres it is 0.2 to 0.3.
_MEAN_BONE = (30.0, 3000.0)
_TEST_SEQUENCES = frozenset(f"TS{i}" for i in range(1, 7))
_FILES = "Use the files of P-STMO or MotionAGFormer (docs/datasets/mpi_inf_3dhp.md)."


@dataclass(frozen=True)
class Options:
    """Options of this reader, as in `dataset.reader_options`.

    Attributes:
        train: name of the training file; null = only tests.
        test: name of the test file; null = none.
        activities: name of a file with the activity of every test frame (npz: "TS1" to "TS6", (T,) whole numbers, 1 to
            7, others = none). It is optional under its usual name; null = none.
        skeleton: of the joints.
        preprocess: way from pixels to network units (`core/preprocess.py`).
        source: the sentence that says where the files come from.
    """

    train: str | None = "data_train_3dhp.npz"
    test: str | None = "data_test_3dhp.npz"
    activities: str | None = ACTIVITIES
    skeleton: str = "mpi_inf_3dhp17"
    preprocess: str = "motionbert"
    source: str = ""

    @classmethod
    def parse(cls, options: Mapping[str, Any]) -> Options:
        """Check names and values."""
        raw.known_options("mpi_inf_3dhp", options, {entry.name: entry for entry in fields(cls)})
        return cls(**options)


def describe() -> str:
    """One paragraph about the format."""
    return (
        "MPI-INF-3DHP as lifting papers have it: data_train_3dhp.npz (16 sequences of 8 cameras) and "
        "data_test_3dhp.npz (TS1 to TS6 with valid frames): data_2d in pixels, data_3d in mm of the universal skeleton."
    )


def files(root: Path, **options: Any) -> list[Path]:
    """Raw files that `read` opens.

    Raises:
        DataError: one is not there; says where it is expected and where it comes from.
    """
    chosen = Options.parse(options)
    found = [raw.locate(Path(root), name, chosen.source) for name in (chosen.train, chosen.test) if name is not None]
    if not found:
        raise DataError("Neither training nor test file is named. Use dataset.reader_options.test=data_test_3dhp.npz.")
    activities = _activity_file(Path(root), chosen)
    return found if activities is None else [*found, activities]


def read(root: Path, *, report: raw.Report = raw.raise_fault, **options: Any) -> Sequences:
    """Read the training sequences (subject, sequence, camera) and then the test sequences.

    Args:
        root: the data set's folder.
        report: takes faults that can be stepped over.
        options: see `Options`.

    Returns:
        A store in image space with, for each frame, `pose2d` (N, 17, 2) normalised; `pose3d` (N, 17, 3) in the same
        units, root not subtracted: its x and y are millimetres of the camera's space, not points of the image; `valid`
        (N,), true in training; `activity` (N,), 0 for none, where there is a file of them. `width` and `height` in the
        table turn predictions into millimetres.
    """
    chosen = Options.parse(options)
    files(root, **options)
    items: list[dict[str, Any]] = []
    if chosen.train is not None:
        items += _training(raw.locate(Path(root), chosen.train, chosen.source), chosen, report)
    if chosen.test is not None:
        items += _test(raw.locate(Path(root), chosen.test, chosen.source), chosen, report)
    activities = _activity_file(Path(root), chosen)
    if activities is not None:
        _label(items, activities)
    body = skeleton(chosen.skeleton)
    meta = {"preprocess": chosen.preprocess}
    return Sequences.from_arrays(items, skeleton=body, skeleton2d=body, space="image", meta=meta)


def _training(path: Path, options: Options, report: raw.Report) -> list[dict[str, Any]]:
    items = []
    for name, entry in _contents(path).items():
        if not isinstance(entry, (list, tuple)) or len(entry) != 2 or not isinstance(entry[0], dict) or not entry[0]:
            raise DataError(f"{path.name}, {name}: no pair of cameras and frame rate. {_FILES}")
        try:
            fps = float(np.asarray(entry[1]).reshape(-1)[0])
        except (TypeError, ValueError, IndexError):
            raise DataError(f"{path.name}, {name}: {entry[1]!r} is no frame rate. {_FILES}") from None
        if fps not in FPS:
            report(DataError(f"{path.name}, {name}: {fps:g} frames per second. The recordings have 25 or 50."))
        subject, _, trial = str(name).rpartition(" ")
        for camera, views in entry[0].items():
            label = f"{path.name}, {name}, camera {camera}"
            arrays = _poses(label, views, SIZE, options, report)
            arrays["valid"] = np.ones(len(arrays["pose2d"]), bool)
            items.append({**arrays, **_columns(subject or trial, trial, str(camera), "train", fps, SIZE)})
    _check_order(path, items, options, report)
    return items


def _test(path: Path, options: Options, report: raw.Report) -> list[dict[str, Any]]:
    items = []
    for name, views in _contents(path).items():
        label, size = f"{path.name}, {name}", SIZES.get(str(name), SIZE)
        if str(name) not in _TEST_SEQUENCES:
            report(DataError(f"{label} is none of TS1 to TS6, so the size of its images is unknown. {_FILES}"))
        arrays = _poses(label, views, size, options, report)
        frames = len(arrays["pose2d"])
        if "valid" not in views:
            raise DataError(f"{label} has no 'valid'. {_FILES}")
        valid = np.asarray(views["valid"]).reshape(-1) != 0
        if len(valid) != frames:
            report(DataError(f"{label}: {len(valid)} entries of 'valid' for {frames} frames. {_FILES}"))
            valid = np.concatenate([valid[:frames], np.zeros(max(0, frames - len(valid)), bool)])
        if not valid.any():
            report(DataError(f"{label}: no frame is valid. Nothing of it would be evaluated. {_FILES}"))
        arrays["valid"] = valid
        items.append({**arrays, **_columns(str(name), str(name), "0", "test", np.nan, size)})
    _check_order(path, items, options, report)
    return items


def _contents(path: Path) -> dict[Any, Any]:
    contents = load_npz(path, ["data"])["data"]
    if not isinstance(contents, dict) or not contents:
        raise DataError(f"{path.name} holds no dict of sequences under 'data'. {_FILES}")
    return contents


def _columns(subject: str, trial: str, camera: str, split: str, fps: float, size: tuple[int, int]) -> dict[str, Any]:
    return {
        "subject": subject, "action": trial, "trial": trial, "camera": camera, "split": split, "fps": fps,
        "width": size[0], "height": size[1],
    }  # fmt: skip


def _poses(
    label: str, views: Mapping[str, Any], size: tuple[int, int], options: Options, report: raw.Report
) -> dict[str, np.ndarray]:
    """Both poses of one view in network units."""
    body, way = skeleton(options.skeleton), preprocess(options.preprocess)
    poses = {}
    for key, channels in (("data_2d", 2), ("data_3d", 3)):
        if not isinstance(views, Mapping) or key not in views:
            raise DataError(f"{label} has no {key!r}. {_FILES}")
        poses[key] = pose = np.asarray(views[key], np.float64)
        if pose.shape[1:] != (len(body), channels) or not len(pose):
            raise DataError(
                f"{label}, {key}: shape {pose.shape}, expected (frames, {len(body)}, {channels}). {_FILES} "
                "For the 28 joints of the raw annotation: scripts/convert_mpi_inf_3dhp.py."
            )
    flat, solid = poses["data_2d"], poses["data_3d"]
    if len(flat) != len(solid):
        report(DataError(f"{label}: {len(flat)} frames of 2D and {len(solid)} of 3D. The file is damaged: copy it."))
        flat, solid = flat[: len(solid)], solid[: len(flat)]
    child, parent = np.array(body.bones).T
    lengths = np.linalg.norm(solid[:, child] - solid[:, parent], axis=-1)
    lengths = lengths[np.isfinite(lengths)]  # what is missing is reported by the checks of all data sets
    bone = float(lengths.mean()) if len(lengths) else np.nan
    if len(lengths) and not _MEAN_BONE[0] < bone < _MEAN_BONE[1]:
        report(
            DataError(
                f"{label}: bones average {bone:.3g}, but these are millimetres in this format. Multiply metres by 1000."
            )
        )
    width, height = size
    return {
        "pose2d": way.to_network(flat, width, height).astype(np.float32),
        "pose3d": way.image_to_network(solid, width, height).astype(np.float32),
    }


def _check_order(path: Path, items: list[dict[str, Any]], options: Options, report: raw.Report) -> None:
    """Report a file whose joints stand in the order of Human3.6M, as some preparations leave them."""
    body = skeleton(options.skeleton)
    if "h36m17" not in body.tables:
        return
    flat, solid = ([item[key] for item in items] for key in ("pose2d", "pose3d"))
    found = misplaced(flat, solid, body, h36m_to_mpi_inf_3dhp)
    wrong = " and ".join(name for name, is_wrong in zip(("data_2d", "data_3d"), found, strict=True) if is_wrong)
    if wrong:
        report(
            DataError(
                f"{path.name}: the joints of {wrong} stand in the order of Human3.6M (pelvis first, head at 10), not "
                f"in that of this data set (pelvis at {body.root}, head_top first). Use "
                "kinema.core.keypoints.h36m_to_mpi_inf_3dhp on these arrays and store the file again."
            )
        )


def _activity_file(root: Path, options: Options) -> Path | None:
    """The file of activities; a name of one's own must be there."""
    if options.activities is None or options.test is None:
        return None
    try:
        return raw.locate(root, options.activities, "Its format is in docs/datasets/mpi_inf_3dhp.md.")
    except DataError:
        if options.activities == ACTIVITIES:
            return None
        raise


def _label(items: list[dict[str, Any]], path: Path) -> None:
    """Add `activity` to every sequence: numbers from the file, 0 where it says nothing."""
    stored = load_npz(path)
    for item in items:
        frames = len(item["valid"])
        labels = np.zeros(frames, np.int64)
        if item["split"] == "test" and item["trial"] in stored:
            values = np.asarray(stored[item["trial"]]).reshape(-1)
            if values.dtype.kind not in "biuf" or not np.isfinite(values).all():
                raise DataError(f"{path.name}, {item['trial']}: labels are no whole numbers. Store 1 to 7, 0 for none.")
            labels = values.astype(np.int64)
            if len(labels) != frames:
                raise DataError(
                    f"{path.name}, {item['trial']}: {len(labels)} labels for {frames} frames. "
                    "It must hold one per frame of the test file, valid or not."
                )
        item["activity"] = labels
