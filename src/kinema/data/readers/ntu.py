"""Reader of NTU RGB+D in the containers of PYSKL: 2D (COCO, 17 joints with scores) or 3D (Kinect, 25 joints)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kinema.data import ntu, raw
from kinema.data.clip_rows import ClipOptions, clip_rows
from kinema.data.ntu import ClipName
from kinema.data.raw import Report, raise_fault
from kinema.data.safe_pickle import load_pickle
from kinema.data.sequences import ArrayStore, Sequences
from kinema.errors import DataError

# Raised when the result of `read` changes: part of the cache's key.
VERSION = 2

_REMEDY = "Use the file as its authors hand it out, or one that scripts/convert_ntu.py has written."


@dataclass(frozen=True)
class Options(ClipOptions):
    """Options of this reader, as in `dataset.reader_options`, beside those of every reader of clips.

    Attributes:
        benchmark: "xsub", "xview", "xset" or "oneshot": which clips are trained on.
        file: name of the container in the data set's folder, or several; the first one that is there is read.
        fps: frames per second.
    """

    benchmark: str = "xsub"
    file: str | Sequence[str] = ("ntu60_hrnet.pkl", "ntu60_2d.pkl")
    fps: float | None = ntu.FPS

    @classmethod
    def checked(cls, options: Mapping[str, Any]) -> Options:
        """Check names and values."""
        made = cls.parse("ntu", options)
        raw.one_of("benchmark", made.benchmark, ntu.BENCHMARKS)
        return made

    @property
    def names(self) -> list[str]:
        """Names that the container may have."""
        return [self.file] if isinstance(self.file, str) else list(self.file)


def describe() -> str:
    """One paragraph about the format."""
    return (
        "NTU RGB+D in a container of PYSKL: split lists (xsub_train, xsub_val, ...) and annotations with frame_dir, "
        "label, total_frames, keypoint (persons, frames, joints, 2 or 3) and, in 2D, keypoint_score and img_shape."
    )


def files(root: Path, **options: Any) -> list[Path]:
    """Raw files that `read` opens.

    Raises:
        DataError: none of them is there; says where it is expected and where it comes from.
    """
    chosen = Options.checked(options)
    root = Path(root)
    for name in chosen.names:
        for folder in (root, root.parent):
            if (folder / name).is_file():
                return [folder / name]
    return [raw.locate(root, chosen.names[0], chosen.source)]


def read(root: Path, *, report: Report = raise_fault, **options: Any) -> Sequences:
    """Read every clip of the container, with the splits of one benchmark.

    The column `split` holds "train" and "test", or "train", "exemplar" and "query" of the one-shot benchmark; "" for
    clips that the benchmark does not use. `auxiliary` numbers the classes that the one-shot benchmark trains on from 0
    (-1 = novel); `label` always is the class. `setup` is that of the cameras; clips of one `trial` show the same
    seconds to three cameras. `meta["across"]` is "camera" for xview, which tests what other cameras saw of recordings
    that were trained on.

    Args:
        root: the data set's folder.
        report: takes faults; by default the first one stops.
        options: see `Options`.

    Raises:
        DataError: the file is missing, damaged or another kind of container, or the first fault.
    """
    chosen = Options.checked(options)
    path = files(root, **options)[0]
    container = load_pickle(path)
    annotations = _annotations(path, container, report)
    splits = _splits(path, container, annotations, chosen, report)
    if not annotations:
        raise DataError(f"{path} holds not one usable clip. {_REMEDY}")
    return _stored(path, annotations, splits, chosen, report)


def _annotations(path: Path, container: Any, report: Report) -> list[dict[str, Any]]:
    """The clips of a container, each once and with a name; the container does not hold them any longer."""
    if not isinstance(container, dict) or not isinstance(container.get("annotations"), list):
        raise DataError(f"{path} holds no list of annotations, so it is no container of skeleton clips. {_REMEDY}")
    if not isinstance(container.get("split"), dict):
        raise DataError(f"{path} holds no split lists. {_REMEDY}")
    out, seen = [], set()
    for position, annotation in enumerate(container.pop("annotations")):
        name = annotation.get("frame_dir") if isinstance(annotation, dict) else None
        if not isinstance(name, str):
            report(DataError(f"{path.name}, annotation {position}: there is no name (frame_dir). {_REMEDY}"))
        elif name in seen:
            report(DataError(f"{path.name}: clip {name} occurs twice. Remove one of them."))
        else:
            seen.add(name)
            out.append(annotation)
    return out


def _splits(
    path: Path, container: Mapping[str, Any], annotations: Sequence[Mapping[str, Any]], options: Options, report: Report
) -> dict[str, str]:
    """Name of a clip to its split; clips that are not in here belong to none."""
    lists = {name: list(members) for name, members in container["split"].items()}
    if options.benchmark == ntu.ONESHOT and "oneshot_train" not in lists:
        return _oneshot(path, annotations, report)
    own, other = (f"{options.benchmark}_{part}" for part in ("train", "val"))
    if own not in lists or other not in lists:
        here = sorted({name.rsplit("_", 1)[0] for name in lists}) or ["none"]
        raise DataError(
            f"{path} has no lists {own} and {other}; its benchmarks are {', '.join(here)}. "
            f"Use dataset.protocol={here[0]}, or another data set."
        )
    train, test = ("exemplar", "query") if options.benchmark == ntu.ONESHOT else ("train", "test")
    splits = dict.fromkeys(lists[own], train) | dict.fromkeys(lists[other], test)
    both = len(lists[own]) + len(lists[other]) - len(splits)
    if both:
        twice = [name for name, count in Counter(lists[own] + lists[other]).items() if count > 1]
        report(
            DataError(
                f"{path.name}: {len(twice)} clips stand in {own} and {other}, or twice in one of them: "
                f"{', '.join(twice[:3])}. Test clips may not be trained on: correct the lists."
            )
        )
    absent = sorted(set(splits) - {annotation["frame_dir"] for annotation in annotations})
    if absent:
        report(
            DataError(
                f"{path.name}: {len(absent)} names in the lists of {options.benchmark} have no annotation: "
                f"{', '.join(absent[:3])}. The file is incomplete: copy it again, or correct the lists."
            )
        )
    return splits


def _oneshot(path: Path, annotations: Sequence[Mapping[str, Any]], report: Report) -> dict[str, str]:
    """The one-shot benchmark of a full container: each novel class has an exemplar, the others are trained on."""
    novel = set(ntu.NOVEL_LABELS)
    splits = {}
    for annotation in annotations:
        name = annotation["frame_dir"]
        if annotation.get("label") not in novel:
            splits[name] = "train"
        else:
            splits[name] = "exemplar" if name in ntu.EXEMPLARS else "query"
    queried = {annotation["label"] for annotation in annotations if splits[annotation["frame_dir"]] == "query"}
    exemplars = zip(ntu.EXEMPLARS, ntu.NOVEL_LABELS, strict=True)
    absent = [name for name, label in exemplars if name not in splits and label in queried]
    if absent:
        report(
            DataError(
                f"{path.name}: {len(absent)} exemplars of the one-shot benchmark are missing: {', '.join(absent[:3])}. "
                "Use a container of NTU RGB+D 120 with all its clips."
            )
        )
    return splits


def _stored(
    path: Path, annotations: list[dict[str, Any]], splits: Mapping[str, str], options: Options, report: Report
) -> Sequences:
    """Prepare the clips one after another into one array; `annotations` is emptied, so nothing is in memory twice."""
    most = sum(_frames(annotation) for annotation in annotations)
    # Not touched memory costs nothing: a clip takes at most this much, and may turn out shorter.
    array = np.empty((most, len(options.prepared), 3), np.float32)
    columns: dict[str, list[Any]] = {}
    kinds: set[str] = set()
    used = 0
    for row in _rows(path, annotations, splits, options, report):
        kind = "pose3d" if "pose3d" in row else "pose2d"
        kinds.add(kind)
        pose = row.pop(kind)
        array[used : used + len(pose)] = pose
        for key, value in {"start": used, "length": len(pose), **row}.items():
            columns.setdefault(key, []).append(value)
        used += len(pose)
    if not kinds:
        raise DataError(f"{path} holds not one usable clip. {_REMEDY}")
    if len(kinds) > 1:
        raise DataError(f"{path} holds 2D and 3D clips. Keep them in two files.")
    (kind,) = kinds
    table = {key: np.asarray(values) for key, values in columns.items()}
    if options.benchmark == ntu.ONESHOT:
        table["auxiliary"] = ntu.auxiliary_labels(table["label"])
    meta = {"preprocess": options.preprocess, "stream": options.stream, "benchmark": options.benchmark}
    if options.benchmark == ntu.CROSS_VIEW:
        meta["across"] = "camera"
    return Sequences(
        ArrayStore(used, {kind: array[:used]}),
        table,
        skeleton=options.prepared if kind == "pose3d" else None,
        skeleton2d=options.prepared if kind == "pose2d" else None,
        space="camera" if kind == "pose3d" else "image",
        meta=meta,
    )


def _frames(annotation: Mapping[str, Any]) -> int:
    """Frames of all persons of a clip."""
    keypoint = annotation.get("keypoint")
    return keypoint.shape[0] * keypoint.shape[1] if isinstance(keypoint, np.ndarray) and keypoint.ndim == 4 else 0


def _rows(
    path: Path, annotations: list[dict[str, Any]], splits: Mapping[str, str], options: Options, report: Report
) -> Iterator[dict[str, Any]]:
    annotations.reverse()
    while annotations:
        annotation = annotations.pop()
        name = annotation["frame_dir"]
        try:
            clip = ClipName.parse(name)
            checked = _checked(annotation, clip, options)
        except DataError as fault:
            report(DataError(f"{path.name}: {fault}"))
            continue
        rows = clip_rows(
            clip=name,
            split=splits.get(name, ""),
            options=options,
            report=report,
            subject=clip.subject,
            trial=clip.recording,
            camera=str(clip.camera),
            fps=options.fps,
            **checked,
        )
        for row in rows:
            yield {**row, "setup": clip.setup}


def _checked(annotation: Mapping[str, Any], clip: ClipName, options: Options) -> dict[str, Any]:
    """What `clip_rows` takes of an annotation.

    Raises:
        DataError: something is missing or does not belong to the rest.
    """
    name, keypoint, label = (annotation.get(key) for key in ("frame_dir", "keypoint", "label"))
    if not isinstance(keypoint, np.ndarray) or keypoint.ndim != 4 or keypoint.dtype.kind != "f":
        raise DataError(f"{name} has no keypoint array (persons, frames, joints, channels). {_REMEDY}")
    frames = annotation.get("total_frames", keypoint.shape[1])
    if frames != keypoint.shape[1]:
        raise DataError(f"{name}: total_frames is {frames}, but keypoint has {keypoint.shape[1]} frames. {_REMEDY}")
    if label != clip.label:
        raise DataError(f"{name} shows action {clip.action}, so its label is {clip.label}, not {label}. {_REMEDY}")
    if keypoint.shape[-1] != options.way.channels:
        flat = keypoint.shape[-1] == 2
        raise DataError(
            f"{name} has keypoints of {keypoint.shape[-1]} channels, dataset.preprocess={options.preprocess} takes "
            f"{options.way.channels}. Use dataset=ntu{options.num_classes}{'' if flat else '_3d'}, or the "
            f"{'3D' if flat else '2D'} container."
        )
    if options.way.channels == 3:
        return {"keypoints": keypoint, "label": label}
    score, shape = annotation.get("keypoint_score"), annotation.get("img_shape")
    if not isinstance(score, np.ndarray) or score.shape != keypoint.shape[:3]:
        raise DataError(f"{name} has no keypoint_score of shape {keypoint.shape[:3]}. {_REMEDY}")
    if not isinstance(shape, tuple | list) or len(shape) != 2:
        raise DataError(f"{name} does not state the height and width of its image (img_shape). {_REMEDY}")
    height, width = (int(side) for side in shape)
    return {"keypoints": keypoint, "score": score, "size": (width, height), "label": label}
