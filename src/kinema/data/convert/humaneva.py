"""HumanEva-I as its own MATLAB code exports it to data_3d_humaneva15.npz and data_2d_humaneva15_gt.npz.

The recordings need the owners' code to be read (their body model, synchronisation and calibration), so the input is
what a MATLAB script built on it saves: `<folder>/<Train or Validate>/<S1, S2, S3>/<action>_<trial>.mat` with `poses_3d`
(T, 15, 3) in millimetres and `poses_2d` (3, T, 15, 2) in pixels, NaN where the body model is not valid. Which frames
belong to training and validation is decided there, by the data set's own partition.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from kinema.core.camera import camera_table
from kinema.core.skeleton import skeleton
from kinema.data.convert.command import tracked
from kinema.data.convert.files import (
    AGAIN,
    Place,
    Spool,
    existing_sources,
    incomplete,
    nested,
    refuse_other_units,
    save_npz,
    staged,
)
from kinema.data.convert.mat import read_mat
from kinema.data.readers import videopose3d
from kinema.errors import DataError

FILES = ("data_3d_humaneva15.npz", "data_2d_humaneva15_gt.npz")
BODY = skeleton("humaneva15")
SUBJECTS = tuple(f"{split}/{person}" for split in ("Train", "Validate") for person in ("S1", "S2", "S3"))
ACTIONS = ("Box 1", "Gestures 1", "Jog 1", "ThrowCatch 1", "Walking 1")
# The motion capture of this one is damaged.
_MISSING = "S3/ThrowCatch 1"
_NAME = re.compile(r"(?:^|/)((?:Train|Validate)/S\d+)/([^/]+)\.mat$")
_LAYOUT = "Expected <folder>/Train/S1/Walking_1.mat and so on (docs/datasets/humaneva15.md)."


def convert(sources: Sequence[Path], output: Path, *, partial: bool = False, overwrite: bool = False) -> str:
    """Write both files, read them back, and only then put them in their place.

    Args:
        sources: folders that hold `Train` and `Validate`.
        output: folder of the result.
        partial: accept missing recordings.
        overwrite: replace results that are there.

    Returns:
        A summary for the user.

    Raises:
        DataError: something is missing, damaged or no such export.
    """
    existing_sources(sources)
    paths = _recordings(sources)
    expected = [f"{s}/{a}" for s in SUBJECTS for a in ACTIONS if not f"{s}/{a}".endswith(_MISSING)]
    missing = [name for name in expected if name not in paths]
    if missing:
        shown = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
        incomplete(f"{len(missing)} of {len(expected)} recordings are missing: {shown}.", partial=partial)
    lines = []
    with staged(output, FILES, overwrite=overwrite) as folder, Spool(folder) as spool:
        places: dict[tuple[str, str], tuple[Place, list[Place]]] = {}
        for name, path in tracked(sorted(paths.items()), "HumanEva-I", len(paths)):
            subject, action = name.rsplit("/", 1)
            parts = _chunks(path)
            for number, world, views in parts:
                places[subject, f"{action} chunk{number}"] = spool.put(world), [spool.put(view) for view in views]
            if not parts:
                lines.append(f"{name}: no valid frame, left out.")
        if not places:
            raise DataError(f"None of the {len(paths)} recordings has a valid frame. {_LAYOUT}")
        taken = {
            key: (spool.take(world), [spool.take(view) for view in views]) for key, (world, views) in places.items()
        }
        positions = nested({key: world for key, (world, _) in taken.items()}, SUBJECTS)
        save_npz(folder / FILES[0], positions_3d=positions)
        metadata = {
            "layout_name": BODY.name,
            "num_joints": len(BODY),
            "keypoints_symmetry": [list(BODY.left), list(BODY.right)],
        }
        flat = nested({key: views for key, (_, views) in taken.items()}, SUBJECTS)
        save_npz(folder / FILES[1], positions_2d=flat, metadata=metadata)
        videopose3d.read(
            folder, dataset=BODY.name, keypoints="gt", cameras=BODY.name, skeleton=BODY.name, skeleton2d=BODY.name
        )
    for subject, actions in positions.items():
        lines.append(f"{subject}: {len(actions)} chunks, {sum(map(len, actions.values())):,} frames")
    return "\n".join([*lines, *(f"wrote {output / name}" for name in FILES)])


def _recordings(sources: Sequence[Path]) -> dict[str, Path]:
    """Files by "Train/S1/Walking 1", of all folders."""
    found: dict[str, Path] = {}
    for source in sources:
        here = 0
        for path in sorted(path for depth in ("", "*/") for path in source.glob(f"{depth}[TV]*/S*/*.mat")):
            match = _NAME.search(path.as_posix())
            if match is None:
                continue
            here += 1
            subject, action = match[1], match[2].replace("_", " ")
            if subject not in SUBJECTS or action not in ACTIONS:
                raise DataError(
                    f"{path}: {subject}/{action} is no recording of the protocol. It has {', '.join(ACTIONS)} of "
                    f"{', '.join(SUBJECTS)}: only first trials are fully annotated. Move the file away."
                )
            name = f"{subject}/{action}"
            if name in found:
                raise DataError(f"{name} lies in {found[name]} and in {path}. Name one copy.")
            found[name] = path
        if not here:
            raise DataError(f"{source} holds no exported recording. {_LAYOUT}")
    return found


def _chunks(path: Path) -> list[tuple[int, np.ndarray, list[np.ndarray]]]:
    """Valid stretches of a file: number, metres (T, 15, 3), pixels of every camera (T, 15, 2), all float32.

    The numbers count valid and invalid stretches alike (published behaviour).
    """
    stored = read_mat(path, ["poses_3d", "poses_2d"])
    solid, flat = np.asarray(stored["poses_3d"]), np.asarray(stored["poses_2d"])
    cameras = len(camera_table()[BODY.name]["intrinsics"])
    if solid.ndim != 3 or solid.shape[1:] != (len(BODY), 3) or solid.dtype.kind != "f" or not len(solid):
        other = " Export the 15 joints of the evaluation, not the body model's 20." if solid.shape[1:2] == (20,) else ""
        raise DataError(f"{path}, poses_3d: shape {solid.shape}, expected (frames, {len(BODY)}, 3).{other} {_LAYOUT}")
    if flat.shape != (cameras, len(solid), len(BODY), 2) or flat.dtype.kind != "f":
        raise DataError(
            f"{path}, poses_2d: shape {flat.shape}, expected {(cameras, len(solid), len(BODY), 2)}: cameras C1 to "
            f"C{cameras}, the frames of poses_3d, joints, x and y. {_LAYOUT}"
        )
    valid = np.isfinite(solid).all((1, 2))
    torn = np.flatnonzero(valid != np.isfinite(flat).all((0, 2, 3)))
    if len(torn):
        raise DataError(
            f"{path}: in {len(torn)} frames (first {torn[0]}) only one of poses_3d and poses_2d is missing. "
            f"They are exported from the same frames. {AGAIN}"
        )
    if not valid.any():
        return []
    refuse_other_units(str(path), solid[valid], BODY)
    bounds = [0, *(np.flatnonzero(valid[1:] != valid[:-1]) + 1).tolist(), len(valid)]
    out = []
    for number, (start, end) in enumerate(itertools.pairwise(bounds)):
        if valid[start]:
            # published behaviour: rounded to float32 first, then millimetres to metres
            world = solid[start:end].astype(np.float32) / np.float32(1000)
            out.append((number, world, [view[start:end].astype(np.float32) for view in flat]))
    return out
