"""Stored class scores: of a run directory, of a .npz, of a result list as pyskl writes it; checked and aligned."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kinema.data import safe_pickle
from kinema.errors import DataError

log = logging.getLogger(__name__)
# Half precision sums to 1 within a hundredth; logits practically never do.
_TOLERANCE = 1e-2
_TEST_AGAIN = "Test the run again: mode=test ckpt=FILE."
_SAME = "Both must come from one test of one split."
_KEYS = (
    "scores", "names", "labels", "target", "classes", "groups", "group_scores", "group_names", "training_counts",
    "protocol",
)  # fmt: skip


@dataclass(frozen=True)
class Scores:
    """Scores of one stream, a row per clip.

    Attributes:
        source: the file they come from.
        names: (N,) of the clips.
        values: (N, K) float64, as stored.
        kind: what the values are: "log" (logarithms of probabilities), "prob" or "logits".
        labels: (N,) int64, -1 where withheld.
        classes: (K,) names, None where the file has none.
        groups: (K,) int64, the group of each class, None where there are none.
        group_scores: (N, G), where a network scores the groups by itself.
        stream: joint, bone, joint_motion, bone_motion; None where unknown.
        group_names: (G,) names of the groups.
        training_counts: (K,) training clips of each class, None where unknown.
        protocol: that judged them ("action", "ma52"), None where unknown.
    """

    source: Path
    names: np.ndarray
    values: np.ndarray
    kind: str
    labels: np.ndarray
    classes: np.ndarray | None = None
    groups: np.ndarray | None = None
    group_scores: np.ndarray | None = None
    stream: str | None = None
    group_names: np.ndarray | None = None
    training_counts: np.ndarray | None = None
    protocol: str | None = None

    def logits(self) -> np.ndarray:
        """(N, K) whose softmax is the stream's prediction; logits stay what they are."""
        if self.kind != "prob":
            return self.values
        # A probability of zero stays possible: another stream may know better.
        return np.log(np.maximum(self.values, 1e-12))

    def take(self, rows: np.ndarray) -> Scores:
        """Some of the clips, in the order of `rows`."""
        own = None if self.group_scores is None else self.group_scores[rows]
        return dataclasses.replace(
            self, names=self.names[rows], values=self.values[rows], labels=self.labels[rows], group_scores=own
        )


def read(
    source: str | Path, *, names: str | Path | None = None, split: str | None = None, report: str = "report"
) -> Scores:
    """Read the scores of a run directory (its test), a .npz, or a .pkl with one score vector per clip.

    Args:
        source: where they are.
        report: of a run directory: "report" of its test, "report_val" of its best validation.
        names: for files without clip names: a list (`name` or `name label` per line), or an annotation pickle of
            pyskl, whose order the scores have.
        split: with an annotation pickle, the split that was tested ("xsub_val").

    Raises:
        DataError: nothing there, no scores, scores that are no numbers, other counts than the names have.
    """
    path, stream = Path(source), None
    if path.is_dir():
        path, stream = _of_run(path, report), _stream_of(path)
    content = _of_pickle(path) if path.suffix in (".pkl", ".pickle") else _of_npz(path)
    values = content["scores"]
    if names is not None:
        content["names"], labels = read_names(names, split)
        content["labels"] = labels if labels is not None else content.get("labels")
    if content.get("names") is None:
        raise DataError(f"{path} holds {len(values)} score vectors without clip names. Give their list: names=FILE.")
    found = np.asarray(content["names"]).astype(str)
    if len(found) != len(values):
        raise DataError(f"{path} holds {len(values)} score vectors, and there are {len(found)} clip names. {_SAME}")
    labels = content.get("labels")
    labels = np.full(len(values), -1) if labels is None else np.asarray(labels)
    if len(labels) != len(values):
        raise DataError(f"{path} holds {len(values)} score vectors and {len(labels)} labels. {_SAME}")
    return _checked(
        Scores(
            source=path, names=found, values=values, kind=kind_of(values), labels=labels.astype(np.int64),
            classes=_text(content.get("classes")), groups=content.get("groups"),
            group_scores=content.get("group_scores"), stream=stream, group_names=_text(content.get("group_names")),
            training_counts=content.get("training_counts"),
            protocol=str(content["protocol"]) if "protocol" in content else None,
        )
    )  # fmt: skip


def kind_of(values: np.ndarray) -> str:
    """What score vectors are: "prob", "log" or "logits".

    Args:
        values: (N, K).
    """
    if (values >= 0).all() and (np.abs(values.sum(1) - 1) < _TOLERANCE).all():
        return "prob"
    if (values <= _TOLERANCE).all() and (np.abs(np.exp(values).sum(1) - 1) < _TOLERANCE).all():
        return "log"
    return "logits"


def read_names(path: str | Path, split: str | None = None) -> tuple[list[str], np.ndarray | None]:
    """Clip names in their order, and labels where the list has them.

    Args:
        path: a text file (`name` or `name id` per line), or an annotation pickle of pyskl.
        split: for a pickle, the name of its split.

    Returns:
        Names, and (N,) int64 labels or None.
    """
    path = safe_pickle.existing(path)
    if path.suffix in (".pkl", ".pickle"):
        return _annotated(path, split)
    lines = [line.split() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    if not lines:
        raise DataError(f"{path} names no clips. It needs one line per clip: name, or name and class id.")
    if all(len(words) > 1 and words[1].lstrip("-").isdigit() for words in lines):
        return [words[0] for words in lines], np.array([int(words[1]) for words in lines])
    return [words[0] for words in lines], None


def align(streams: Mapping[str, Scores]) -> dict[str, Scores]:
    """Put every stream into the order of clips and classes of the first one.

    Raises:
        DataError: clips or classes of one stream are missing in another, or their labels differ.
    """
    (first_name, first), *_ = streams.items()
    aligned = {first_name: first}
    for name, other in list(streams.items())[1:]:
        where = f"{name} ({other.source})"
        one = in_class_order(first, other, first_name, where)
        place = {clip: row for row, clip in enumerate(one.names)}
        missing = [clip for clip in first.names if clip not in place]
        surplus = sorted(set(one.names) - set(first.names))
        if missing or surplus:
            raise DataError(
                f"{first_name} and {where} were tested on different clips: {_listed(missing)} only in {first_name}, "
                f"{_listed(surplus)} only in {name}. Test all streams on the same split."
            )
        one = one.take(np.array([place[clip] for clip in first.names]))
        both = (first.labels >= 0) & (one.labels >= 0)
        differ = np.flatnonzero(both & (first.labels != one.labels))
        if len(differ):
            row = differ[0]
            raise DataError(
                f"{first_name} and {where} disagree on the class of {len(differ)} clips (first {first.names[row]}: "
                f"{first.labels[row]} and {one.labels[row]}). Use one label list for all streams."
            )
        aligned[name] = one
    return aligned


def in_class_order(first: Scores, other: Scores, first_name: str, where: str) -> Scores:
    """Columns (and labels) of `other` in the class order of `first`.

    Raises:
        DataError: their class lists are not the same.
    """
    if first.values.shape[1] != other.values.shape[1]:
        raise DataError(
            f"{first_name} scores {first.values.shape[1]} classes, {where} {other.values.shape[1]}. Only streams with "
            "the same class list can be fused."
        )
    if first.classes is None or other.classes is None or (first.classes == other.classes).all():
        return other
    place = {label: column for column, label in enumerate(other.classes)}
    foreign = [label for label in first.classes if label not in place]
    if foreign:
        raise DataError(
            f"The class list of {where} is another one than that of {first_name}: {_listed(foreign)} not in it. Only "
            "streams with the same class list can be fused."
        )
    columns = np.array([place[label] for label in first.classes])
    new_id = np.empty(len(columns), np.int64)
    new_id[columns] = np.arange(len(columns))
    labels = np.where(other.labels >= 0, new_id[np.maximum(other.labels, 0)], -1)
    groups = None if other.groups is None else other.groups[columns]
    counts = None if other.training_counts is None else other.training_counts[columns]
    return dataclasses.replace(
        other, values=other.values[:, columns], classes=first.classes, labels=labels, groups=groups,
        training_counts=counts,
    )  # fmt: skip


def _checked(scores: Scores) -> Scores:
    values, where = scores.values, scores.source
    wrong = np.flatnonzero(~np.isfinite(values).all(1))
    if len(wrong):
        raise DataError(
            f"{where}: the scores of {len(wrong)} clips hold NaN or infinity (first {scores.names[wrong[0]]}). "
            "Find out why with mode=doctor, and test again."
        )
    unique, counts = np.unique(scores.names, return_counts=True)
    if (counts > 1).any():
        raise DataError(
            f"{where} scores {int((counts > 1).sum())} clips more than once (first {unique[counts > 1][0]}). "
            "Every clip needs one row; copies at test time are averaged by the protocol."
        )
    top = int(scores.labels.max(initial=-1))
    if top >= values.shape[1]:
        raise DataError(f"{where}: class id {top} with scores of {values.shape[1]} classes. Ids begin at 0.")
    if scores.classes is not None and len(set(scores.classes)) != len(scores.classes):
        raise DataError(f"{where} names a class twice. Class names must differ.")
    for what, found in (("class names", scores.classes), ("groups", scores.groups)):
        if found is not None and len(found) != values.shape[1]:
            raise DataError(f"{where} has {len(found)} {what} for scores of {values.shape[1]} classes. {_TEST_AGAIN}")
    if scores.group_scores is not None and len(scores.group_scores) != len(values):
        raise DataError(f"{where} scores groups of {len(scores.group_scores)} clips of {len(values)}. {_TEST_AGAIN}")
    return scores


def has_validation(source: str | Path) -> bool:
    """Whether a source is a run directory that keeps the scores of its best validation."""
    return (Path(source) / "predictions" / "report_val.npz").is_file()


def _of_run(folder: Path, report: str) -> Path:
    path = folder / "predictions" / f"{report}.npz"
    if not path.is_file():
        there = sorted(str(one.relative_to(folder)) for one in folder.glob("predictions/*.npz"))
        listed = f" There: {', '.join(there)}." if there else ""
        raise DataError(f"{folder} holds no {path.relative_to(folder)}.{listed} {_TEST_AGAIN}")
    return path


def _stream_of(folder: Path) -> str | None:
    """The stream that a run was tested on, as its configuration says."""
    from omegaconf import OmegaConf

    path = folder / "config.resolved.yaml"
    if not path.is_file():
        return None
    stream = OmegaConf.select(OmegaConf.load(path), "dataset.stream")
    return None if stream is None else str(stream)


def _of_npz(path: Path) -> dict[str, Any]:
    keys = safe_pickle.npz_keys(path)
    if "scores" not in keys:
        raise DataError(f"{path} holds no `scores` (only {', '.join(keys)}). {_TEST_AGAIN}")
    wanted = [key for key in _KEYS if key in keys]
    content = safe_pickle.load_npz(path, wanted)
    content.setdefault("labels", content.pop("target", None))
    content["scores"] = _matrix(content["scores"], path)
    return content


def _of_pickle(path: Path) -> dict[str, Any]:
    """A list of score vectors (K,), or of vectors per test clip (clips, K), which are averaged as probabilities."""
    content = safe_pickle.load_pickle(path)
    if not isinstance(content, (list, np.ndarray)) or len(content) == 0:
        raise DataError(f"{path} is no result list: it needs one score vector per clip, as pyskl writes them.")
    try:
        rows = [np.asarray(row, np.float64) for row in content]
    except (TypeError, ValueError) as error:
        raise DataError(f"{path} is no list of score vectors ({error}). Save plain arrays.") from error
    if all(row.ndim == 2 and len(row) for row in rows):
        rows = [_mean_probability(row) for row in rows]
    if any(row.shape != rows[0].shape or row.ndim != 1 for row in rows):
        shapes = sorted({row.shape for row in rows})[:3]
        raise DataError(f"{path} is no list of score vectors of one length (shapes {shapes}).")
    return {"scores": _matrix(np.stack(rows), path)}


def _mean_probability(clips: np.ndarray) -> np.ndarray:
    if kind_of(clips) != "prob":
        clips = np.exp(clips - clips.max(1, keepdims=True))
        clips = clips / clips.sum(1, keepdims=True)
    mean: np.ndarray = clips.mean(0)
    return mean


def _matrix(values: Any, path: Path) -> np.ndarray:
    matrix = np.asarray(values)
    if matrix.ndim != 2 or matrix.dtype.kind not in "fiu" or 0 in matrix.shape:
        raise DataError(f"{path}: scores of shape {matrix.shape} ({matrix.dtype}); (clips, classes) is needed.")
    return matrix.astype(np.float64)


def _annotated(path: Path, split: str | None) -> tuple[list[str], np.ndarray]:
    content = safe_pickle.load_pickle(path)
    if not isinstance(content, dict) or not {"split", "annotations"} <= set(content):
        raise DataError(f"{path} is no annotation file of pyskl (a dict with `split` and `annotations`).")
    splits = content["split"]
    if split not in splits:
        raise DataError(f"{path} has no split {split!r} ({', '.join(splits)}). Name the one that was tested.")
    members = set(splits[split])
    # pyskl tests in the order of the annotations.
    rows = [(one["frame_dir"], int(one["label"])) for one in content["annotations"] if one["frame_dir"] in members]
    return [name for name, _ in rows], np.array([label for _, label in rows], np.int64)


def _text(values: Any) -> np.ndarray | None:
    return None if values is None else np.asarray(values).astype(str)


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(str(name) for name in names[:3]) + (", ..." if len(names) > 3 else "")
    return f"{len(names)} ({shown})" if len(names) else "none"
