"""What the readers of motion files share: names from places, units, axes, frame rates, and the check of a sequence."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

import numpy as np

from kinema.core.skeleton import Skeleton
from kinema.data import motion_rows, raw
from kinema.data.sequences import Sequences
from kinema.errors import ConfigError, DataError

log = logging.getLogger(__name__)

# What is up in the file -> where its axes lie in ours (right-handed, z up): row = our axis, sign = its direction.
AXES: dict[str, tuple[tuple[int, float], ...]] = {
    "z": ((0, 1.0), (1, 1.0), (2, 1.0)),
    "y": ((0, 1.0), (2, -1.0), (1, 1.0)),
    "-y": ((0, 1.0), (2, 1.0), (1, -1.0)),  # camera axes: x right, y down, z away
}
SPLITS = ("train", "val", "test")
# Largest side of the box around a body in metres; what lies outside is in another unit.
BODY = (0.15, 6.0)
# And that of a person, by which the unit is guessed.
_PERSON = (1.0, 2.4)
# Frame rates that differ by less are the same.
_SAME_RATE = 1e-3
_FIELD = re.compile(r"\{(subject|trial|action|split)\}|(\*)")

Made = TypeVar("Made", bound="MotionOptions")
# A sequence in a file: its name as if it were a file of its own, its name in messages, and what makes its skeleton,
# positions (T, J, 3) and frames per second, None where the file does not say.
InFile = tuple[PurePosixPath, str, Callable[[], tuple[Skeleton, np.ndarray, float | None]]]


@dataclass(frozen=True)
class MotionOptions:
    """Options of every reader of motion files, interpolated from the dataset's yaml.

    Attributes:
        skeleton: of what is kept: a name, {parents, joints} of one's own, or None = as the files say.
        unit: of the files: "m", "cm" or "mm".
        scale: metres per unit of the files where it is none of these, 0.0254 for inches; None = by `unit`.
        fps: frames per second to bring the files to; None = as they are.
        file_fps: frames per second of the files, whatever they say; None = as they say, `fps` where they say nothing.
        up: axis of the files that points up: "z", "y", or "-y" (camera axes).
        names: how a file's name is read, "{action}_{subject}" for example; None = <subject>/<trial>.
        skip: frames left out at the beginning of every file, where a calibration pose stands.
        drop: sequences that are left out, as subject/trial.
        source: the sentence that says where the files come from.
    """

    skeleton: motion_rows.Body = None
    unit: str = "m"
    scale: float | None = None
    fps: float | None = None
    file_fps: float | None = None
    up: str = "z"
    names: str | None = None
    skip: int = 0
    drop: Sequence[str] = ()
    source: str = ""
    _left_out: set[str] = field(default_factory=set, init=False, compare=False, repr=False)

    @classmethod
    def parse(cls: type[Made], reader: str, options: Mapping[str, Any]) -> Made:
        """Check names and values.

        Raises:
            ConfigError: for an unknown option or value.
        """
        raw.known_options(reader, options, {entry.name: entry for entry in fields(cls) if entry.init})
        made = cls(**options)
        _ = made.body
        raw.one_of("unit", made.unit, tuple(motion_rows.UNITS))
        if made.scale is not None and not 0 < made.scale < np.inf:
            raise ConfigError(
                f"dataset.reader_options.scale={made.scale} is no number of metres. Use "
                "dataset.reader_options.scale=0.0254 for inches, or null to go by dataset.unit."
            )
        raw.one_of("up", made.up, tuple(AXES))
        for key in ("fps", "file_fps"):
            value = getattr(made, key)
            if value is not None and not 1 <= value <= 10_000:
                where = "dataset" if key == "fps" else "dataset.reader_options"
                raise ConfigError(f"{where}.{key}={value} are no frames per second. Use {where}.{key}=50.")
        if made.skip < 0:
            raise ConfigError(
                f"dataset.reader_options.skip={made.skip} is negative. Use dataset.reader_options.skip=0."
            )
        if made.names is not None:
            _pattern(made.names)
        return made

    @property
    def metres(self) -> float:
        """Metres of one unit of the files."""
        return motion_rows.UNITS[self.unit] if self.scale is None else float(self.scale)

    @cached_property
    def body(self) -> Skeleton | None:
        """The skeleton that the yaml states."""
        return motion_rows.body(self.skeleton)

    def dropped(self, where: Place) -> bool:
        """Whether a sequence is left out."""
        if where.label in self.drop:
            self._left_out.add(where.label)
        return where.label in self.drop

    def tell_unknown_drops(self) -> None:
        """Warn of names in `drop` that no file has: a misspelt sequence would silently be kept."""
        for label in self.drop:
            if label not in self._left_out:
                log.warning("dataset.drop: there is no %s to leave out.", label)


@dataclass(frozen=True)
class Place:
    """Who does what, read from where a file lies."""

    subject: str
    action: str
    trial: str
    split: str

    @property
    def label(self) -> str:
        """As messages and `drop` name a sequence."""
        return f"{self.subject}/{self.trial}"


def upright(pose: np.ndarray, up: str) -> np.ndarray:
    """Turn poses (..., 3) so that z points up; no mirroring, left stays left."""
    return np.stack([sign * pose[..., axis] for axis, sign in AXES[up]], axis=-1)


def resampled(pose: np.ndarray, source: float, target: float) -> np.ndarray:
    """Positions at another frame rate, on straight lines between the frames.

    Args:
        pose: (T, ...) at `source` frames per second.
        source, target: frames per second.

    Returns:
        (T', ...): frames at 0, 1 / target, ... seconds, up to the last one of the input; every n-th frame where
            `source` is n times `target`.
    """
    if abs(source / target - 1) < _SAME_RATE or len(pose) < 2:
        return pose
    count = int(np.floor((len(pose) - 1) * target / source + 1e-6)) + 1
    at = np.minimum(np.arange(count) * (source / target), len(pose) - 1)
    below = np.minimum(np.floor(at + 1e-9).astype(np.int64), len(pose) - 1)
    above = np.minimum(below + 1, len(pose) - 1)
    share = np.clip(at - below, 0, 1).reshape(-1, *(1,) * (pose.ndim - 1))
    # A frame that is hit exactly owes nothing to its neighbour, which may be NaN.
    made = np.where(share < 1e-6, pose[below], pose[below] * (1 - share) + pose[above] * share)
    return np.asarray(made, pose.dtype)


def place(path: PurePosixPath, names: str | None) -> Place:
    """Who does what.

    Args:
        path: of the file below the data set's folder, without its ending.
        names: pattern; None = [<train|val|test>/]<subject>/<trial>, or <subject>_<trial> where there is no folder.

    Raises:
        DataError: the name does not follow the pattern.
    """
    found: dict[str, str] = {}
    parts = path.parts
    if names is not None:
        whole = path.as_posix() if "/" in names else path.name
        match = _pattern(names).fullmatch(whole)
        if match is None:
            raise DataError(
                f"The file name {whole!r} does not follow dataset.reader_options.names={names}. Rename the file, or "
                "use names=null: then it is <subject>/<trial>."
            )
        found = match.groupdict()
    if "split" not in found and len(parts) > 1 and parts[0] in SPLITS:
        found["split"], parts = parts[0], parts[1:]
    if "subject" not in found:
        head, between, tail = parts[-1].partition("_")
        if len(parts) > 1 or names is not None:
            found["subject"] = "/".join(parts[:-1])
        else:
            found["subject"] = head
            found.setdefault("trial", tail if between else head)
    trial = found.get("trial") or found.get("action") or parts[-1]
    # An action of its own name may come several times; the file's name then tells them apart.
    if "trial" not in found and "action" in found:
        trial = parts[-1]
    return Place(found["subject"], found.get("action") or action_of(trial), trial, found.get("split", ""))


def action_of(trial: str) -> str:
    """Name of a trial without the number at its end: "walk 2", "walk_02" and "walk2" are walk."""
    return re.sub(r"[\s_\-.]*\d+$", "", trial) or trial


def _pattern(names: str) -> re.Pattern[str]:
    """Regular expression of a pattern of names."""
    seen: list[str] = []

    def group(match: re.Match[str]) -> str:
        if match[2]:
            return "[^/]*?"
        seen.append(match[1])
        return f"(?P<{match[1]}>[^/]+?)"

    # The parts between the fields are literal.
    pieces, at = [], 0
    for match in _FIELD.finditer(names):
        pieces += [re.escape(names[at : match.start()]), group(match)]
        at = match.end()
    pieces.append(re.escape(names[at:]))
    if not seen or len(seen) != len(set(seen)) or "{" in re.sub(_FIELD, "", names):
        raise ConfigError(
            f"dataset.reader_options.names={names} must hold some of {{subject}}, {{trial}}, {{action}}, {{split}} "
            "once each; * stands for anything. Use 'dataset.reader_options.names=\"{action}_{subject}\"'."
        )
    return re.compile("".join(pieces))


def find(root: Path, endings: Sequence[str], what: str, source: str, layout: str) -> list[tuple[PurePosixPath, Path]]:
    """Name below the root and path of every file with one of some endings, in the order of the names.

    Args:
        root: a folder, or one file.
        endings: ".bvh" and the like, lower case.
        what: "BVH" and the like, for messages.
        source: the sentence that says where the files come from.
        layout: the sentence that says how they should lie.

    Raises:
        DataError: there are none.
    """
    if root.is_file():
        return [(PurePosixPath(root.stem), root)]
    there = sorted(root.rglob("*")) if root.is_dir() else []
    found = [
        (PurePosixPath(path.relative_to(root).with_suffix("").as_posix()), path)
        for path in there
        if path.suffix.lower() in endings and path.is_file()
        and not any(part.startswith(".") for part in path.relative_to(root).parts)
    ]  # fmt: skip
    if not found:
        why = "No such folder" if not root.exists() else f"No {what} file in it"
        raise DataError(
            f"{root}: {why[0].lower()}{why[1:]}. {layout} {source}".strip() + " If they are elsewhere: "
            "dataset.root=/where/they/are."
        )
    return found


def motion_row(
    pose: np.ndarray, where: Place, name: str, options: MotionOptions, body: Skeleton, fps: float | None = None
) -> dict[str, Any]:
    """One sequence for `Sequences.from_arrays`: world metres with z up, at the wanted frame rate.

    Args:
        pose: (T, J, 3) of `body`, in the file's unit and axes.
        where: whose motion it is.
        name: of the file, for messages.
        options: of the reader.
        body: skeleton.
        fps: frames per second as the file says.

    Raises:
        DataError: nothing is left of it, or it is in another unit than `dataset.unit`.
    """
    if pose.ndim != 3 or pose.shape[1:] != (len(body), 3):
        raise DataError(
            f"{name} has shape {pose.shape}, (frames, {len(body)} joints, 3) expected for the skeleton {body.name}. "
            "Convert it, or name its skeleton in dataset.skeleton."
        )
    pose = pose[options.skip :]
    if len(pose) < 2:
        left = f" after the {options.skip} that are skipped" if options.skip else ""
        raise DataError(f"{name} has {len(pose)} frame{'s' * (len(pose) != 1)}{left}: no motion. Leave the file out.")
    pose = np.asarray(pose, np.float64) * options.metres
    refuse_unit(pose, name, options)
    pose = upright(pose, options.up)
    recorded = options.file_fps or fps or options.fps
    wanted = options.fps or recorded
    if recorded is not None and wanted is not None:
        pose = resampled(pose, recorded, wanted)
    return {
        "pose3d": pose.astype(np.float32),
        "subject": where.subject,
        "action": where.action,
        "trial": where.trial,
        "camera": "",
        "split": where.split,
        "fps": np.nan if wanted is None else float(wanted),
        "recorded_fps": np.nan if recorded is None else float(recorded),
    }


def refuse_unit(pose: np.ndarray, name: str, options: MotionOptions) -> None:
    """Refuse bodies (T, J, 3) that cannot have been measured in what was taken for metres.

    Raises:
        DataError: with the unit that would make a person of them.
    """
    looked = pose[:: max(1, len(pose) // 60)]
    sides = (np.fmax.reduce(looked, axis=1) - np.fmin.reduce(looked, axis=1)).max(-1)
    sides = sides[np.isfinite(sides)]
    if not len(sides):
        return
    size = float(np.median(sides))
    if BODY[0] <= size <= BODY[1]:
        return
    if size == 0:
        raise DataError(f"{name}: all joints lie on one point. Look at how the file was made.")
    there = size / options.metres  # in the file's own numbers
    fits = [key for key, factor in motion_rows.UNITS.items() if _PERSON[0] <= there * factor <= _PERSON[1]]
    by = f"dataset.unit={options.unit}" if options.scale is None else f"reader_options.scale={options.scale:g}"
    remedy = (
        f"Use dataset.unit={fits[0]}{' dataset.reader_options.scale=null' * (options.scale is not None)}."
        if fits
        else f"State the metres of one unit: dataset.reader_options.scale={1.7 / there:.3g} makes it 1.7 m."
    )
    raise DataError(f"{name}: the body is {size:.3g} m large with {by}. {remedy}")


def motion_store(rows: Sequence[Mapping[str, Any]], body: Skeleton | None, options: MotionOptions) -> Sequences:
    """Store of many sequences.

    Raises:
        DataError: there is none, or two have one name.
    """
    if not rows or body is None:
        raise DataError(f"Not one usable motion was found. {options.source}".strip())
    keys = [(row["split"], row["subject"], row["trial"]) for row in rows]
    if len(set(keys)) < len(keys):
        twice = next(key for i, key in enumerate(keys) if key in keys[:i])
        raise DataError(
            f"Two motions are called {twice[1]}/{twice[2]}. Rename one, or tell them apart by "
            "dataset.reader_options.names."
        )
    options.tell_unknown_drops()
    return motion_rows.store(rows, body, meta={"up": options.up})


def read_files(
    found: Iterable[tuple[PurePosixPath, Path]],
    open_: Callable[[PurePosixPath, Path], Iterable[InFile]],
    options: MotionOptions,
    report: raw.Report,
) -> Sequences:
    """Store of the sequences of every file of `find`; the faults of one go to `report`, and the others are read on.

    Args:
        found: names and paths.
        open_: gives the sequences of a file. Those in `drop` are not made.
        options: of the reader.
        report: takes faults.

    Raises:
        DataError: there is no usable sequence, or two have one name.
    """
    rows: list[dict[str, Any]] = []
    bodies: list[Skeleton] = []
    for name, path in found:
        made = []
        try:
            for inner, title, make in open_(name, path):
                where = place(inner, options.names)
                if options.dropped(where):
                    continue
                body, pose, fps = make()
                if bodies and body != bodies[0]:
                    raise DataError(
                        f"{path} has {_difference(body, bodies[0])}. Keep files of one skeleton in one folder, or "
                        "bring them to a common one: dataset.skeleton=h36m17."
                    )
                bodies.append(body)
                made.append(motion_row(pose, where, title, options, body, fps))
        except DataError as error:
            report(error)
            continue
        rows += made
    return motion_store(rows, bodies[0] if bodies else None, options)


def _difference(body: Skeleton, first: Skeleton) -> str:
    if body.joints == first.joints:
        return "another list of parents than the files before it"
    names = [", ".join(one.joints[:6]) + f" and {len(one) - 6} more" * (len(one) > 6) for one in (body, first)]
    return f"the joints {names[0]}, the files before it {names[1]}"
