"""Reader of the 2D skeletons of MA-52 that others published: MMN's 44 points and PCAN's 28 OpenPose points.

MMN: `<split>_label.pkl` is a list of {file_name, label}, `<split>_data.pkl` a dict whose `annotations` are
{frame_dir, keypoint (M, T, 44, 2)}. PCAN: `MA52_<split>.pkl` in the layout of mmaction2, a list of annotations or a
dict that holds one: {frame_dir or filename, label, keypoint (M, T, 28, 2), keypoint_score, img_shape}.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kinema.data.clip_rows import ClipOptions, clip_rows, clip_store
from kinema.data.raw import Report, locate, one_of, raise_fault
from kinema.data.readers.ma52 import SPLITS, Labels, subject_pattern
from kinema.data.safe_pickle import load_pickle
from kinema.data.sequences import Sequences
from kinema.errors import DataError

# Raised when the result of `read` changes: part of the cache's key.
VERSION = 1

# Form: the files of one split; the annotations stand in the first.
FORMS = {"mmn": ("{}_data.pkl", "{}_label.pkl"), "openpose": ("MA52_{}.pkl",)}


@dataclass(frozen=True)
class Options(ClipOptions):
    """Options of this reader, as in `dataset.reader_options`, beside those of every reader of clips.

    Attributes:
        form: "mmn" or "openpose".
        splits: those to read where they are there; at least one must be.
        missing: labels without a clip: "error" or "drop".
        withheld: splits whose labels mean nothing; None = a test list in which all of them are 0.
        subject: regular expression whose first group in the clip's name is the person; None = unknown.
        fps: frames per second, None = unknown.
    """

    form: str = "mmn"
    splits: tuple[str, ...] = SPLITS
    missing: str = "error"
    withheld: tuple[str, ...] | None = None
    subject: str | None = None
    fps: float | None = None

    @classmethod
    def checked(cls, options: Mapping[str, Any]) -> Options:
        """Check names and values."""
        made = cls.parse("ma52_skeletons", options)
        one_of("form", made.form, tuple(FORMS))
        one_of("missing", made.missing, ("error", "drop"))
        subject_pattern(made.subject)
        return made


def describe() -> str:
    """One paragraph about the format."""
    return (
        "2D skeletons of MA-52 as published with MMN (<split>_data.pkl and <split>_label.pkl, 44 points) or with PCAN "
        "(MA52_<split>.pkl, 28 OpenPose points)."
    )


def files(root: Path, **options: Any) -> list[Path]:
    """Raw files that `read` opens, split by split.

    Raises:
        DataError: no split is there, or one of them lacks a file.
    """
    chosen = Options.checked(options)
    return [*chosen.class_files, *(path for paths in _splits(Path(root), chosen).values() for path in paths)]


def _splits(root: Path, options: Options) -> dict[str, list[Path]]:
    forms = FORMS[options.form]
    there = [
        split
        for split in options.splits
        if any((folder / form.format(split)).is_file() for folder in (root, root.parent) for form in forms)
    ]
    # Where nothing is there, the first split's file is missed by name.
    return {
        split: [locate(root, form.format(split), options.source) for form in forms]
        for split in there or options.splits[:1]
    }


def read(root: Path, *, report: Report = raise_fault, **options: Any) -> Sequences:
    """Read every clip of every split.

    Args:
        root: folder of the pickles.
        report: takes faults; by default the first one stops.
        options: see `Options`.

    Raises:
        DataError: nothing usable is there, or the first fault.
    """
    chosen = Options.checked(options)
    subject = subject_pattern(chosen.subject)
    rows: list[dict[str, Any]] = []
    for split, (path, *listed) in _splits(Path(root), chosen).items():
        entries = list(_annotations(path))
        labels = _labels(listed[0]) if listed else _own_labels(entries)
        withheld = labels.withheld if chosen.withheld is None else split in chosen.withheld
        names = {name for name, _ in entries}
        for clip in labels.ids:
            if clip not in names and chosen.missing == "error":
                report(
                    DataError(
                        f"{listed[0].name} gives {clip} a label, but {path.name} has no such clip. Use files that "
                        "belong together, or ignore such labels: dataset.reader_options.missing=drop."
                    )
                )
        for clip, entry in entries:
            label = labels.ids.get(clip)
            try:
                keypoints, score, size = _arrays(clip, entry)
            except DataError as error:
                report(error)
                continue
            match = subject.match(clip) if subject else None
            rows += clip_rows(
                clip=clip,
                keypoints=keypoints,
                score=score,
                size=size,
                label=-1 if withheld and label is not None else label,
                split=split,
                options=chosen,
                report=report,
                subject=match.group(1) if match else "",
                fps=chosen.fps,
            )
    return clip_store(rows, chosen)


def clip_name(text: str) -> str:
    """Name of a clip without folders and `.mp4`."""
    return re.split(r"[\\/]", text)[-1].replace(".mp4", "")


def _annotations(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """Clip names and annotations of a pickle."""
    content = load_pickle(path)
    entries = content.get("annotations") if isinstance(content, dict) else content
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise DataError(f"{path} holds no list of annotations. Use the published file (docs/datasets/ma52.md).")
    for number, entry in enumerate(entries):
        name = entry.get("frame_dir", entry.get("filename"))
        if not isinstance(name, str) or "keypoint" not in entry:
            raise DataError(
                f"{path}, annotation {number}: frame_dir or keypoint is missing, it has {', '.join(map(str, entry))}. "
                "Use the published file (docs/datasets/ma52.md)."
            )
        yield clip_name(name), entry


def _labels(path: Path) -> Labels:
    """Labels of MMN: a list of {file_name, label}."""
    content = load_pickle(path)
    try:
        pairs = [(clip_name(entry["file_name"]), int(entry["label"])) for entry in content]
    except (TypeError, KeyError, ValueError) as error:
        raise DataError(
            f"{path} is no list of {{file_name, label}} ({error!r}). Use the published file (docs/datasets/ma52.md)."
        ) from error
    return _collected(pairs)


def _own_labels(entries: Iterable[tuple[str, Mapping[str, Any]]]) -> Labels:
    return _collected((name, int(entry["label"])) for name, entry in entries if "label" in entry)


def _collected(pairs: Iterable[tuple[str, int]]) -> Labels:
    ids: dict[str, int] = {}
    repeated = []
    for clip, label in pairs:
        if clip in ids:
            repeated.append(clip)
        ids[clip] = label
    return Labels(ids, tuple(dict.fromkeys(repeated)))


def _arrays(clip: str, entry: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray | None, tuple[int, int] | None]:
    """Keypoints (M, T, V, 2), scores (M, T, V) or None, (width, height) or None of an annotation."""
    keypoints = np.asarray(entry["keypoint"])
    if keypoints.dtype.kind not in "fiu":
        raise DataError(f"Clip {clip}: its keypoints are no numbers. Use the published file (docs/datasets/ma52.md).")
    keypoints = keypoints.astype(np.float32)
    keypoints = keypoints[None] if keypoints.ndim == 3 else keypoints
    score = entry.get("keypoint_score")
    if score is not None:
        score = np.asarray(score, np.float32)
        score = score[None] if score.ndim == 2 else score
        if score.shape != keypoints.shape[:-1]:
            raise DataError(
                f"Clip {clip}: {score.shape} scores for {keypoints.shape} keypoints. Use the published file "
                "(docs/datasets/ma52.md)."
            )
    elif keypoints.ndim == 4 and keypoints.shape[-1] == 3:
        keypoints, score = keypoints[..., :2], keypoints[..., 2]
    shape = entry.get("img_shape")
    return keypoints, score, None if shape is None else (int(shape[1]), int(shape[0]))
