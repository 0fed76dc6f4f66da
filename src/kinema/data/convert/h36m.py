"""Human3.6M as its owners hand it out to data_3d_h36m.npz and data_2d_h36m_gt.npz of the VideoPose3D format."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import torch

from kinema.core.camera import camera_table, project, recorded_camera, to_pixels, world_to_camera
from kinema.core.skeleton import skeleton
from kinema.data.convert.command import tracked
from kinema.data.convert.files import Place, Spool, existing_sources, incomplete, nested, save_npz, staged
from kinema.data.convert.h36m_files import BODY, SUBJECTS, recordings
from kinema.data.readers import videopose3d
from kinema.errors import DataError

FILES = ("data_3d_h36m.npz", "data_2d_h36m_gt.npz")
ACTIONS = (
    "Directions", "Discussion", "Eating", "Greeting", "Phoning", "Photo", "Posing", "Purchases", "Sitting",
    "SittingDown", "Smoking", "Waiting", "WalkDog", "Walking", "WalkTogether",
)  # fmt: skip
# Frames of the complete data, all cameras counted.
FRAMES = {"training": 1_559_752, "test": 543_344}
KEPT = skeleton("h36m17")
_TAKES = 2
_TEST = ("S9", "S11")
_CORRUPTED = ("S11", "Directions")


def convert(sources: Sequence[Path], output: Path, *, partial: bool = False, overwrite: bool = False) -> str:
    """Write both files, read them back, and only then put them in their place.

    Args:
        sources: folders and archives that hold the `D3_Positions` of the subjects.
        output: folder of the result.
        partial: accept missing subjects and takes.
        overwrite: replace results that are there.

    Returns:
        A summary for the user.

    Raises:
        DataError: something is missing, damaged or no Human3.6M.
    """
    existing_sources(sources)
    with staged(output, FILES, overwrite=overwrite) as folder, Spool(folder) as spool:
        world: dict[tuple[str, str], Place] = {}
        for take in tracked(recordings(sources, folder), "3D", len(SUBJECTS) * len(ACTIONS) * _TAKES):
            key = take.subject, take.action
            if key in world:
                raise DataError(f"{take.label}: {'/'.join(key)} occurs twice. Name one copy of each subject.")
            world[key] = spool.put(take.pose)
        _refuse_missing(world, partial=partial)
        world.pop(_CORRUPTED, None)  # the video is corrupted; every paper leaves it out
        views = {}
        for key, place in tracked(world.items(), "2D", len(world)):
            seen = pixels(key[0], spool.take(place))
            _refuse_unseen(key, seen)
            views[key] = [spool.put(view) for view in seen]
        positions_3d = nested({key: spool.take(place) for key, place in world.items()}, SUBJECTS)
        save_npz(folder / FILES[0], positions_3d=positions_3d)
        positions_2d = nested({key: [spool.take(place) for place in places] for key, places in views.items()}, SUBJECTS)
        metadata = {"num_joints": len(KEPT), "keypoints_symmetry": [list(KEPT.left), list(KEPT.right)]}
        save_npz(folder / FILES[1], positions_2d=positions_2d, metadata=metadata)
        videopose3d.read(
            folder, dataset="h36m", keypoints="gt", cameras="h36m", skeleton=KEPT.name, skeleton2d=KEPT.name,
            source_skeleton=BODY.name,
        )  # fmt: skip
    return _summary({key: place[1][0] for key, place in world.items()}, output)


def pixels(subject: str, world: np.ndarray) -> list[np.ndarray]:
    """Project metres (T, 32, 3) into every camera of a subject: (T, 17, 2) float32 pixels each.

    With lens distortion, and in float32 but for the way from screen coordinates to pixels, as in the published files.
    """
    kept = torch.from_numpy(world[:, list(BODY.map_to(KEPT))])
    views = []
    for index in range(len(camera_table()["h36m"]["intrinsics"])):
        camera = recorded_camera("h36m", subject, index)
        place = (torch.from_numpy(camera[name]) for name in ("orientation", "translation"))
        screen = project(world_to_camera(kept, *place), torch.from_numpy(camera["intrinsics"]))
        views.append(to_pixels(screen.numpy(), camera["width"], camera["height"]).astype(np.float32))
    return views


def _refuse_missing(found: Iterable[tuple[str, str]], *, partial: bool) -> None:
    """Refuse other takes than two of each of the 15 actions of the seven subjects."""
    takes = Counter((subject, action.split(" ")[0]) for subject, action in found)
    unknown = sorted({action for _, action in takes} - set(ACTIONS))
    if unknown:
        raise DataError(f"{unknown[0]} is no action of Human3.6M. Known: {', '.join(ACTIONS)}.")
    for subject in SUBJECTS:
        counts = {action: takes[subject, action] for action in ACTIONS}
        wrong = [f"{action} {count}" for action, count in counts.items() if count != _TAKES]
        if not any(counts.values()):
            incomplete(f"There is nothing of subject {subject}.", partial=partial)
        elif wrong:
            incomplete(
                f"{subject} has {sum(counts.values())} files, {_TAKES * len(ACTIONS)} expected: {_TAKES} of every "
                f"action, but {', '.join(wrong)}.",
                partial=partial,
            )


def _refuse_unseen(key: tuple[str, str], views: Sequence[np.ndarray]) -> None:
    """Refuse poses that lie outside the pictures of any camera: they are not in the studio's world space."""
    for index, view in enumerate(views):
        camera = recorded_camera("h36m", key[0], index)
        inside = ((view >= 0) & (view < (camera["width"], camera["height"]))).all(-1).mean()
        if inside < 0.5:
            raise DataError(
                f"{'/'.join(key)}: camera {camera['id']} sees {inside:.0%} of the joints. These are no world positions "
                "of this studio: use D3_Positions, not D3_Positions_mono."
            )


def _summary(frames: dict[tuple[str, str], int], output: Path) -> str:
    cameras = len(camera_table()["h36m"]["intrinsics"])
    counts = {"training": 0, "test": 0}
    for (subject, _), count in frames.items():
        counts["test" if subject in _TEST else "training"] += count * cameras
    lines = [f"{len(frames)} recordings of {len({subject for subject, _ in frames})} subjects."]
    for split, count in counts.items():
        other = "" if count == FRAMES[split] else f" (complete data as papers use it: {FRAMES[split]:,})"
        lines.append(f"{split}: {count:,} frames{other}")
    return "\n".join([*lines, *(f"wrote {output / name}" for name in FILES)])
