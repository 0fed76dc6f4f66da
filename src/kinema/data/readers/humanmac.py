"""Reader of 3D alone in the VideoPose3D layout: one npz with subject -> trial -> (T, J, 3), as HumanMAC takes it."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np

from kinema.core.skeleton import Skeleton
from kinema.core.skeleton import skeleton as named_skeleton
from kinema.data import motion_rows, raw
from kinema.data.safe_pickle import load_npz
from kinema.data.sequences import Sequences
from kinema.errors import ConfigError, DataError

log = logging.getLogger(__name__)

# Raised when the result of `read` changes: part of the cache's key.
VERSION = 1

_DROP = "'dataset.drop=[SUBJECT/TRIAL]'"


@dataclass(frozen=True)
class Options:
    """Options of this reader, as in `dataset.reader_options`.

    Attributes:
        file: name of the npz file.
        skeleton: of the joints that come out: a name, or a mapping with a parents list.
        source_skeleton: of the file, where it is reduced to `skeleton` by joint names; a file that has the joints of
            `skeleton` already is read as it is.
        names: json file subject -> trial -> "person / name of the recording", for files whose keys are borrowed; it is
            used where it is there. The action of a trial is then that of the recording.
        unit: "m", "cm" or "mm".
        fps: frames per second that are meant; the format does not say which it has.
        drop: recordings to leave out, as subject/trial.
        source: the sentence that says where the file comes from.
    """

    file: str
    skeleton: motion_rows.Body
    source_skeleton: str | None = None
    names: str | None = None
    unit: str = "m"
    fps: float | None = None
    drop: Sequence[str] = ()
    source: str = ""

    @classmethod
    def parse(cls, options: Mapping[str, Any]) -> Options:
        """Check names and values."""
        raw.known_options("humanmac", options, {entry.name: entry for entry in fields(cls)})
        made = cls(**options)
        raw.one_of("unit", made.unit, tuple(motion_rows.UNITS))
        return made


def describe() -> str:
    """One paragraph about the format."""
    return (
        "VideoPose3D layout, 3D alone: positions_3d of one npz file (subject -> trial -> (T, J, 3) world space); "
        "32 joints of Human3.6M are reduced to 17."
    )


def files(root: Path, **options: Any) -> list[Path]:
    """Raw files that `read` opens.

    Raises:
        DataError: the npz file is not there; says where it is expected and where it comes from.
    """
    chosen = Options.parse(options)
    found = raw.locate(Path(root), chosen.file, chosen.source)
    names = _names_file(found, chosen)
    return [found] if names is None else [found, names]


def read(root: Path, *, report: raw.Report = raw.raise_fault, **options: Any) -> Sequences:
    """Read every recording, in the order of the file.

    Args:
        root: the data set's folder.
        report: what is done with a fault that can be stepped over; default: it is raised.
        options: see `Options`.

    Returns:
        A store with `pose3d` (N, J, 3) world metres; column `recording` says what stands behind a borrowed key.
    """
    chosen = Options.parse(options)
    found = raw.locate(Path(root), chosen.file, chosen.source)
    positions = load_npz(found, ["positions_3d"])["positions_3d"]
    if not isinstance(positions, dict) or not all(isinstance(trials, dict) for trials in positions.values()):
        raise DataError(f"{found.name}: positions_3d is no dict subject -> trial -> array. {chosen.source}".strip())
    _tell_unknown_drops(chosen, positions)
    target = motion_rows.body(chosen.skeleton)
    if target is None:
        raise ConfigError(f"{found.name} does not say its skeleton. Use dataset.skeleton=h36m17, or a parents list.")
    items = list(_recordings(positions, _names(found, chosen), chosen, target, found.name, report))
    return motion_rows.store(items, target, meta={"file": found.name})


def _recordings(
    positions: Mapping[str, Mapping[str, Any]],
    names: Mapping[str, Mapping[str, str]],
    options: Options,
    target: Skeleton,
    file: str,
    report: raw.Report,
) -> Iterator[dict[str, Any]]:
    for subject, trials in positions.items():
        for trial, value in trials.items():
            label = f"{subject}/{trial}"
            if label in options.drop:
                continue
            try:
                pose = _metres(np.asarray(value), options, target, f"{file}, {label}")
            except DataError as fault:
                report(fault)
                continue
            recording = names.get(subject, {}).get(trial, "")
            action = motion_rows.base_action(recording.split(" / ", 1)[1] if " / " in recording else trial)
            fps = np.nan if options.fps is None else float(options.fps)
            yield {
                "subject": subject, "trial": trial, "action": action, "recording": recording, "fps": fps, "pose3d": pose
            }  # fmt: skip


def _metres(pose: np.ndarray, options: Options, target: Skeleton, label: str) -> np.ndarray:
    """Joints of the target skeleton in metres, (T, J, 3) float32."""
    if pose.ndim != 3 or pose.shape[-1] != 3 or pose.dtype.kind != "f":
        raise DataError(
            f"{label}: {pose.dtype} {pose.shape}, expected numbers (frames, joints, 3). Use the original file."
        )
    if len(pose) == 0:
        raise DataError(f"{label} has no frames. Remove it, or leave it out: {_DROP}.")
    if pose.shape[1] != len(target):
        source = None if options.source_skeleton is None else named_skeleton(options.source_skeleton)
        if source is None or pose.shape[1] != len(source):
            allowed = str(len(target)) if source is None else f"{len(target)} or {len(source)}"
            if pose.shape[1] == len(target) - 1:
                raise DataError(
                    f"{label}: {pose.shape[1]} joints, {allowed} expected ({target.name}): the root seems to be left "
                    f"out. Put it back as joint {target.root}; zeros will do where positions are relative to it."
                )
            raise DataError(
                f"{label}: {pose.shape[1]} joints, {allowed} expected ({target.name}). "
                "Set dataset.skeleton to the skeleton of the file, or dataset.reader_options.source_skeleton=h36m32 "
                "for the archive's 32 joints."
            )
        pose = pose[:, list(source.map_to(target))]
    pose = np.asarray(pose, np.float32)
    unit = motion_rows.UNITS[options.unit]
    return pose if unit == 1.0 else pose * np.float32(unit)


def _names_file(found: Path, options: Options) -> Path | None:
    """The table of names beside the npz file; it is optional."""
    if options.names is None or not (found.parent / options.names).is_file():
        return None
    return found.parent / options.names


def _names(found: Path, options: Options) -> dict[str, dict[str, str]]:
    path = _names_file(found, options)
    if path is None:
        return {}
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
        return {str(s): {str(t): str(name) for t, name in trials.items()} for s, trials in table.items()}
    except (OSError, ValueError, AttributeError) as error:
        raise DataError(
            f"{path} cannot be read ({error}): expected subject -> trial -> name. Copy it again, or do without: "
            "dataset.reader_options.names=null."
        ) from error


def _tell_unknown_drops(options: Options, positions: Mapping[str, Mapping[str, Any]]) -> None:
    """A misspelt recording would silently be kept; one of a subject that the file lacks is nobody's concern."""
    for label in options.drop:
        subject = next((name for name in positions if label.startswith(f"{name}/")), None)
        if subject is not None and label.removeprefix(f"{subject}/") not in positions[subject]:
            log.warning(
                "dataset.drop: there is no %s to leave out; %s has %s.", label, subject, _few(positions[subject])
            )


def _few(names: Mapping[str, Any], most: int = 12) -> str:
    shown = ", ".join(list(names)[:most])
    return f"{shown}, ..." if len(names) > most else shown
