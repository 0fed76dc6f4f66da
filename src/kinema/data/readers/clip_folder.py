"""Reader of anybody's clips: one .npy or .npz per clip, labelled by folders or by a list.

Folders: `[<split>/]<class>/<clip>.npy`. Lists: labels.csv (columns clip, label and by need split, subject, trial,
first, fps, width, height), labels.txt or <split>_labels.txt (`clip label` per line); clips then lie anywhere below the
root. A label is a class's name or id; empty or -1 = withheld. A clip in a folder of its own, `<clip>/pose_3d.npy`, has
the folder's name.
"""

from __future__ import annotations

import csv
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from kinema.data.clip_rows import ClipOptions, clip_rows, clip_store
from kinema.data.raw import Report, load_array, one_of, raise_fault
from kinema.data.readers.ma52 import SPLITS
from kinema.data.sequences import Sequences
from kinema.errors import ConfigError, DataError

# Raised when the result of `read` changes: part of the cache's key.
VERSION = 1

_COLUMNS = ("clip", "label", "split", "subject", "trial", "first", "fps", "width", "height")
_LAYOUT = (
    "Expected <class>/<clip>.npy, <split>/<class>/<clip>.npy, or clips beside labels.csv "
    "(docs/datasets/clip_folder.md)."
)


@dataclass(frozen=True)
class Options(ClipOptions):
    """Options of this reader, as in `dataset.reader_options`, beside those of every reader of clips.

    Attributes:
        labels: name of the list; None = labels.csv, labels.txt or <split>_labels.txt where there is one, else folders.
        splits: names of the folders and lists of splits; where there are none, all clips are of the first one.
        missing: labels without a clip: "error" or "drop".
        has_3d: whether points are x, y, z, or x, y and maybe a score.
        size: width and height in pixels of images whose clips do not say; None = unknown.
        fps: frames per second of clips that do not say; None = unknown.
    """

    labels: str | None = None
    splits: tuple[str, ...] = SPLITS
    missing: str = "error"
    has_3d: bool = True
    size: tuple[int, int] | None = None
    fps: float | None = None

    @classmethod
    def checked(cls, options: Mapping[str, Any]) -> Options:
        """Check names and values."""
        made = cls.parse("clip_folder", options)
        one_of("missing", made.missing, ("error", "drop"))
        return made


@dataclass(frozen=True)
class Clip:
    """One clip before its array is read.

    Attributes:
        name: of the clip.
        path: file of its array; None for a label without one.
        label: what the list or the folder says; None = nothing.
        split: of the clip.
        where: place of the label, for messages.
        facts: further columns of the list.
    """

    name: str
    path: Path | None
    label: str | None
    split: str
    where: str
    facts: Mapping[str, str]


def describe() -> str:
    """One paragraph about the format."""
    return (
        "Anybody's clips: one .npy or .npz per clip, (frames, joints, coordinates) or (persons, frames, joints, "
        "coordinates), labelled by a folder per class or by a list."
    )


def files(root: Path, **options: Any) -> list[Path]:
    """Raw files that `read` opens.

    Raises:
        DataError: there are no clips.
    """
    chosen = Options.checked(options)
    root = Path(root)
    clips = [clip.path for clip in find(root, chosen) if clip.path is not None]
    return [*chosen.class_files, *(path for path, _ in _lists(root, chosen)), *clips]


def read(root: Path, *, report: Report = raise_fault, **options: Any) -> Sequences:
    """Read every clip.

    Args:
        root: folder of the clips.
        report: takes faults; by default the first one stops.
        options: see `Options`.

    Raises:
        DataError: nothing usable is there, or the first fault.
    """
    chosen = Options.checked(options)
    rows: list[dict[str, Any]] = []
    for clip in find(Path(root), chosen):
        if clip.path is None:
            if chosen.missing == "error":
                report(
                    DataError(
                        f"{clip.where} gives {clip.name} a label, but there is no such clip. Put {clip.name}.npy "
                        "there, or ignore such lines: dataset.reader_options.missing=drop."
                    )
                )
            continue
        try:
            rows += _rows(clip, clip.path, chosen, report)
        except DataError as error:
            report(error)
    return clip_store(rows, chosen)


def _rows(clip: Clip, path: Path, options: Options, report: Report) -> list[dict[str, Any]]:
    keypoints, score, stated = load_clip(path, has_3d=options.has_3d)
    facts = {**stated, **{key: value for key, value in clip.facts.items() if value}}
    size = options.size
    try:
        if "width" in facts and "height" in facts:
            size = (int(facts["width"]), int(facts["height"]))
        fps = float(facts["fps"]) if "fps" in facts else options.fps
        first = int(facts.get("first", 0))
    except ValueError as error:
        raise DataError(f"Clip {clip.name}: width, height, fps or first is no number ({error}). Correct it.") from error
    return clip_rows(
        clip=clip.name,
        keypoints=keypoints,
        score=score,
        size=None if size is None else (int(size[0]), int(size[1])),
        label=_label(clip, options),
        split=clip.split,
        options=options,
        report=report,
        subject=facts.get("subject", ""),
        trial=facts.get("trial"),
        first=first,
        fps=fps,
    )


def _label(clip: Clip, options: Options) -> int | None:
    """Id of a clip's class; -1 = withheld, None = nobody gave one."""
    if clip.label is None:
        return None
    if clip.label in ("", "-1"):
        return -1
    if clip.label not in options.class_list.names and clip.label.isdecimal():
        return int(clip.label)
    try:
        return options.class_list.index(clip.label)
    except ConfigError as error:
        raise DataError(f"{clip.where}, clip {clip.name}: {error} The classes are those of dataset.classes.") from error


def load_clip(path: Path, *, has_3d: bool) -> tuple[np.ndarray, np.ndarray | None, dict[str, str]]:
    """Read one clip: keypoints (M, T, J, C), scores (M, T, J) of 2D or None, and what the file says beside.

    Raises:
        DataError: it is damaged or holds something else.
    """
    stated: dict[str, str] = {}
    score = None
    if path.suffix == ".npz":
        try:
            with np.load(path, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
        except (OSError, ValueError, EOFError, TypeError, zipfile.BadZipFile) as error:
            raise DataError(
                f"{path} cannot be read ({error}). It must hold plain arrays, `keypoints` at least."
            ) from error
        if "keypoints" not in arrays:
            raise DataError(f"{path} has no entry keypoints, only {', '.join(arrays) or 'nothing'}. Name it so.")
        keypoints, score = arrays["keypoints"], arrays.get("score")
        if "size" in arrays:
            stated |= {"width": str(int(arrays["size"][0])), "height": str(int(arrays["size"][1]))}
        if "fps" in arrays:
            stated["fps"] = str(float(arrays["fps"]))
    else:
        keypoints = load_array(path)
    if keypoints.dtype.kind not in "fiu" or keypoints.ndim not in (3, 4):
        raise DataError(
            f"{path} has shape {keypoints.shape} of {keypoints.dtype}, expected numbers (frames, joints, coordinates) "
            "or (persons, frames, joints, coordinates)."
        )
    if keypoints.dtype not in (np.float32, np.float64):
        keypoints = keypoints.astype(np.float32)
    keypoints = keypoints[None] if keypoints.ndim == 3 else keypoints
    if not has_3d and keypoints.shape[-1] == 3:
        keypoints, score = keypoints[..., :2], keypoints[..., 2]
    if score is not None:
        if score.size != keypoints[..., 0].size:
            raise DataError(
                f"{path}: score has shape {score.shape}, one for every point of {keypoints.shape} expected. Correct it."
            )
        score = np.asarray(score, keypoints.dtype).reshape(keypoints.shape[:-1])
    return keypoints, score, stated


def find(root: Path, options: Options) -> list[Clip]:
    """Every clip and every label, without opening an array.

    Raises:
        DataError: there are no clips, or a list is not as expected.
    """
    there = dict(_arrays(root)) if root.is_dir() else {}
    if not there:
        raise DataError(
            f"No clips found in {root}. {_LAYOUT} {options.source} If they are elsewhere: dataset.root=/where/it/is."
        )
    lists = _lists(root, options)
    return _listed(root, lists, there, options) if lists else _in_folders(there, options)


def _arrays(root: Path) -> Iterator[tuple[str, Path]]:
    """Name below the root and file of every array, in the order of the names."""
    for path in sorted([*root.rglob("*.npy"), *root.rglob("*.npz")]):
        name = path.relative_to(root).with_suffix("")
        if any(part.startswith(".") for part in name.parts):
            continue
        own_folder = name.name in ("pose_3d", "pose_2d", "keypoints") and len(name.parts) > 1
        yield (name.parent if own_folder else name).as_posix(), path


def _lists(root: Path, options: Options) -> list[tuple[Path, str | None]]:
    """Lists of labels that are there, each with its split, None where the list itself says."""
    if options.labels is not None:
        if not (root / options.labels).is_file():
            raise DataError(
                f"{options.labels} not found in {root}. Write `clip,label` there, or name the list: "
                "dataset.reader_options.labels=labels.csv."
            )
        return [(root / options.labels, None)]
    one: list[tuple[Path, str | None]] = [
        (root / name, None) for name in ("labels.csv", "labels.txt") if (root / name).is_file()
    ]
    each: list[tuple[Path, str | None]] = [(root / f"{split}_labels.txt", split) for split in options.splits]
    return one[:1] or [(path, split) for path, split in each if path.is_file()]


def _in_folders(there: Mapping[str, Path], options: Options) -> list[Clip]:
    found = []
    for name, path in there.items():
        parts = PurePosixPath(name).parts
        split = parts[0] if len(parts) > 1 and parts[0] in options.splits else ""
        inner = parts[1:] if split else parts
        label = inner[0] if len(inner) > 1 else None
        found.append(Clip(name, path, label, split or options.splits[0], str(path.parent), {}))
    return found


def _listed(
    root: Path, lists: list[tuple[Path, str | None]], there: Mapping[str, Path], options: Options
) -> list[Clip]:
    by_stem: dict[str, list[str]] = {}
    for name in there:
        by_stem.setdefault(PurePosixPath(name).name, []).append(name)
    found: list[Clip] = []
    used: set[str] = set()
    for path, own_split in lists:
        for line in _lines(path):
            split = own_split or line.get("split") or options.splits[0]
            asked = line["clip"].strip()
            asked = asked.rsplit(".", 1)[0] if asked.endswith((".npy", ".npz", ".mp4")) else asked
            names = [name for name in (f"{split}/{asked}", asked) if name in there]
            stems = by_stem.get(PurePosixPath(asked).name, []) if not names and "/" not in asked else []
            if len(stems) > 1:
                raise DataError(
                    f"{path.name} names {asked}, and there are {stems[0]} and {stems[1]}. Write the name with "
                    "its folder."
                )
            mine = next(iter(names or stems), None)
            if mine in used:
                raise DataError(f"{path.name} names {asked} twice. Give every clip one label.")
            used |= set() if mine is None else {mine}
            facts = {key: line.get(key) or "" for key in _COLUMNS[3:]}
            file = None if mine is None else there[mine]
            # Clips of two splits' folders may have one name; everywhere else the list's name is the clip's.
            called = mine if mine == f"{split}/{asked}" else asked
            found.append(Clip(called or asked, file, line["label"].strip(), split, path.name, facts))
    left = [Clip(name, path, None, options.splits[0], "", {}) for name, path in there.items() if name not in used]
    return found + left


def _lines(path: Path) -> Iterator[dict[str, str]]:
    """Entries of a list: a .csv with a header, or `clip label` per line."""
    text = path.read_text(encoding="utf-8-sig")
    if path.suffix == ".csv":
        first = text.split("\n", 1)[0]
        delimiter = max(",;\t", key=first.count)
        reader = csv.DictReader(text.splitlines(), delimiter=delimiter)
        head = [name.strip() for name in reader.fieldnames or []]
        unknown = [name for name in head if name not in _COLUMNS]
        if not {"clip", "label"} <= set(head) or unknown:
            raise DataError(
                f"{path}: its first line is {first.strip()!r}; expected clip,label and by need "
                f"{', '.join(_COLUMNS[2:])}. Write these names into the first line."
            )
        reader.fieldnames = head
        for entry in reader:
            yield {str(key): value or "" for key, value in entry.items() if key is not None}
        return
    for line in text.splitlines():
        words = line.split(maxsplit=1)
        if words:
            yield {"clip": words[0], "label": words[1].strip() if len(words) > 1 else ""}
