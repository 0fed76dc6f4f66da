"""MPI-INF-3DHP as its owners hand it out to the two npz files of the lifting literature, and the activities.

Training: `S1/Seq1/annot.mat` with cells per camera: `annot2` (T, 56) pixels and `univ_annot3` (T, 84) millimetres of 28
joints. Test: `TS1/annot_data.mat` with `annot2`, `univ_annot3` of 17 joints, `valid_frame`, `activity_annotation`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kinema.core.skeleton import skeleton
from kinema.data.convert.command import tracked
from kinema.data.convert.files import (
    AGAIN,
    Place,
    Spool,
    existing_sources,
    incomplete,
    refuse_gaps,
    refuse_other_units,
    save_npz,
    staged,
)
from kinema.data.convert.mat import read_mat
from kinema.data.readers import mpi_inf_3dhp
from kinema.errors import DataError

TRAIN, TEST, ACTIVITIES = "data_train_3dhp.npz", "data_test_3dhp.npz", "activity_test_3dhp.npz"
BODY = skeleton("mpi_inf_3dhp17")
CAMERAS = (0, 1, 2, 4, 5, 6, 7, 8)
# Joints of the 28 in the order of the test set.
JOINTS = (7, 5, 14, 15, 16, 9, 10, 11, 23, 24, 25, 18, 19, 20, 4, 3, 6)
ALL_JOINTS = 28
# Frames that have pictures, and their rate (mpii_get_sequence_info.m of the data set, with S3 and S5 at 50 as in the
# published files). Annotations may go on after the last picture.
SEQUENCES = {
    "S1 Seq1": (6416, 25), "S1 Seq2": (12430, 50), "S2 Seq1": (6502, 25), "S2 Seq2": (6081, 25),
    "S3 Seq1": (12488, 50), "S3 Seq2": (12283, 50), "S4 Seq1": (6171, 25), "S4 Seq2": (6675, 25),
    "S5 Seq1": (12820, 50), "S5 Seq2": (12312, 50), "S6 Seq1": (6188, 25), "S6 Seq2": (6145, 25),
    "S7 Seq1": (6239, 25), "S7 Seq2": (6320, 25), "S8 Seq1": (6468, 25), "S8 Seq2": (6054, 25),
}  # fmt: skip
VALID_FRAMES = {"TS1": 603, "TS2": 540, "TS3": 505, "TS4": 553, "TS5": 276, "TS6": 452}
_LAYOUT = "Expected <folder>/S1/Seq1/annot.mat and <folder>/TS1/annot_data.mat (docs/datasets/mpi_inf_3dhp.md)."


def convert(sources: Sequence[Path], output: Path, *, partial: bool = False, overwrite: bool = False) -> str:
    """Write the files, read them back, and only then put them in their place.

    Args:
        sources: folders that hold S1 to S8 and TS1 to TS6, or a folder of these.
        output: folder of the result.
        partial: accept missing and shorter sequences.
        overwrite: replace results that are there.

    Returns:
        A summary for the user.

    Raises:
        DataError: something is missing, damaged or no MPI-INF-3DHP.
    """
    existing_sources(sources)
    train = _found(sources, {name: f"{name.replace(' ', '/')}/annot.mat" for name in SEQUENCES})
    test = _found(sources, {name: f"{name}/annot_data.mat" for name in VALID_FRAMES})
    if not train and not test:
        raise DataError(f"{' and '.join(map(str, sources))}: no sequence of MPI-INF-3DHP. {_LAYOUT}")
    missing = [name for name in (*SEQUENCES, *VALID_FRAMES) if name not in train and name not in test]
    if missing:
        incomplete(f"{len(missing)} of 22 sequences are missing: {', '.join(missing)}.", partial=partial)
    lines = []
    with staged(output, (TRAIN, TEST, ACTIVITIES), overwrite=overwrite) as folder, Spool(folder) as spool:
        recorded: dict[str, list[Any]] = {}
        for name, path in tracked(train.items(), "training", len(train)):
            views = _training(name, path, partial=partial)
            recorded[name] = [
                {camera: {key: spool.put(pose) for key, pose in view.items()} for camera, view in views.items()},
                SEQUENCES[name][1],
            ]
            lines.append(f"{name}: {len(views)} cameras of {len(next(iter(views.values()))['data_2d']):,} frames")
        judged: dict[str, dict[str, Place]] = {}
        activities: dict[str, np.ndarray] = {}
        for name, path in tracked(test.items(), "test", len(test)):
            arrays = _test(name, path, partial=partial)
            labels = arrays.pop("activities", None)
            if labels is not None:
                activities[name] = labels
            lines.append(
                f"{name}: {len(arrays['valid']):,} frames, {int((arrays['valid'] != 0).sum()):,} of them valid"
            )
            judged[name] = {key: spool.put(value) for key, value in arrays.items()}
        if recorded:
            save_npz(folder / TRAIN, data=_taken(recorded, spool))
        if judged:
            save_npz(folder / TEST, data=_taken(judged, spool))
        if activities:
            np.savez(folder / ACTIVITIES, **activities)  # type: ignore[arg-type]
        written = sorted(path.name for path in folder.glob("*.npz"))
        mpi_inf_3dhp.read(
            folder,
            train=TRAIN if recorded else None,
            test=TEST if judged else None,
            activities=ACTIVITIES if activities else None,
        )
    return "\n".join([*lines, *(f"wrote {output / name}" for name in written)])


def _found(sources: Sequence[Path], names: dict[str, str]) -> dict[str, Path]:
    """Files that are there, by sequence, in the order of `names`."""
    found: dict[str, Path] = {}
    for name, way in names.items():
        paths = [path for source in sources for depth in ("", "*/") for path in sorted(source.glob(f"{depth}{way}"))]
        if len(paths) > 1:
            raise DataError(f"{name} lies in {paths[0]} and in {paths[1]}. Name one copy.")
        if paths:
            found[name] = paths[0]
    return found


def _training(name: str, path: Path, *, partial: bool) -> dict[str, dict[str, np.ndarray]]:
    """Both poses of the eight cameras by number, in the precision of the file."""
    stored = read_mat(path, ["annot2", "univ_annot3", "cameras"])
    numbers = [int(number) for number in stored["cameras"].reshape(-1)]
    for key in ("annot2", "univ_annot3"):
        if stored[key].dtype != object or stored[key].size != len(numbers):
            raise DataError(f"{path}, {key}: {stored[key].size} cells for {len(numbers)} cameras. {AGAIN}")
    views = {}
    for camera in CAMERAS:
        if camera not in numbers:
            raise DataError(f"{path} has no camera {camera}, only {', '.join(map(str, numbers))}. {AGAIN}")
        row = numbers.index(camera)
        view = {}
        for key, source, axes in (("data_2d", "annot2", 2), ("data_3d", "univ_annot3", 3)):
            cell, label = np.asarray(stored[source].reshape(-1)[row]), f"{path}, camera {camera}, {source}"
            if cell.dtype.kind != "f" or cell.ndim != 2 or cell.shape[1] != ALL_JOINTS * axes or not len(cell):
                raise DataError(
                    f"{label}: {cell.dtype} {cell.shape}, expected (frames, {ALL_JOINTS * axes}), {axes} of each of "
                    f"{ALL_JOINTS} joints. Use the file as its owners hand it out."
                )
            pose = cell.reshape(len(cell), ALL_JOINTS, axes)[: SEQUENCES[name][0], list(JOINTS)]
            refuse_gaps(label, pose)
            view[key] = np.ascontiguousarray(pose)
        if len(view["data_2d"]) != len(view["data_3d"]):
            raise DataError(f"{path}, camera {camera}: 2D and 3D have different lengths. {AGAIN}")
        refuse_other_units(f"{path}, camera {camera}", view["data_3d"], BODY)
        if len(view["data_2d"]) < SEQUENCES[name][0]:
            sentence = f"{path}, camera {camera}: {len(view['data_2d'])} frames, {SEQUENCES[name][0]} expected."
            incomplete(sentence, partial=partial)
        views[str(camera)] = view
    return views


def _test(name: str, path: Path, *, partial: bool) -> dict[str, np.ndarray]:
    """Poses and valid frames of a test sequence, and its activities where the file has them."""
    stored = read_mat(path, ["annot2", "univ_annot3", "valid_frame"], ["activity_annotation"])
    valid = stored["valid_frame"].reshape(-1)
    out: dict[str, np.ndarray] = {}
    for key, source, axes in (("data_2d", "annot2", 2), ("data_3d", "univ_annot3", 3)):
        # MATLAB shows (axes, joints, 1, frames).
        pose, label = np.asarray(stored[source]).T, f"{path}, {source}"
        if pose.dtype.kind != "f" or pose.shape != (len(valid), 1, len(BODY), axes):
            raise DataError(
                f"{label}: {pose.dtype} {pose.shape[::-1]}, expected ({axes}, {len(BODY)} joints, 1, {len(valid)} "
                "frames of valid_frame). Use the file as its owners hand it out."
            )
        refuse_gaps(f"{label}, valid frames", pose[valid != 0])
        out[key] = np.ascontiguousarray(pose[:, 0])
    out["valid"] = np.ascontiguousarray(valid)
    count = int((valid != 0).sum())
    if count:
        refuse_other_units(str(path), out["data_3d"][valid != 0], BODY)
    if count != VALID_FRAMES[name]:
        incomplete(f"{path}: {count} valid frames, {VALID_FRAMES[name]} expected.", partial=partial)
    if "activity_annotation" in stored:
        labels = stored["activity_annotation"].reshape(-1)
        if len(labels) != len(valid):
            raise DataError(f"{path}, activity_annotation: {len(labels)} labels for {len(valid)} frames. {AGAIN}")
        out["activities"] = labels.astype(np.int64)
    return out


def _taken(value: Any, spool: Spool) -> Any:
    """The same containers with arrays instead of their places."""
    if isinstance(value, dict):
        return {key: _taken(item, spool) for key, item in value.items()}
    if isinstance(value, list):
        return [_taken(item, spool) for item in value]
    return spool.take(value) if isinstance(value, tuple) else value
