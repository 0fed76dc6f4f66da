"""The doctor's look at action clips: labels, splits, copies, and clips that show nothing."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from kinema.core.clip_preprocess import clip_preprocess
from kinema.data.clip_rows import METRES, PERSON, extent
from kinema.data.findings import Finding, count, first, from_error
from kinema.data.held_out import held_out
from kinema.data.input_clips import LIFTED, lifted
from kinema.data.sequences import Sequences
from kinema.errors import DataError

if TYPE_CHECKING:
    from kinema.data.action import ActionDataModule

# Two clips are copies where no number differs by more, relative to the largest one.
SAME_CLIP = 1e-4
# Summaries of copies differ by less; what is nearer is compared number by number.
_NEAR = 1e-5
# A clip moves, or extends in a direction, if that is more than this share of its size.
_NOTHING = 1e-6
# Cosine between z and the trunk of most people, from hips to shoulders, below which they do not stand along z.
_STANDING = 0.5
_TRUNK = (("left_hip", "right_hip"), ("left_shoulder", "right_shoulder"))


def notes(data: ActionDataModule) -> Iterator[Finding]:
    """What the reader has to say about folders and lists, before any clip is opened."""
    look = getattr(data.source.module, "notes", None)
    if look is not None:
        yield from look(data.source.root, **data.source.options)


def examine(sequences: Sequences, data: ActionDataModule) -> Iterator[Finding]:
    """Check the clips that could be read.

    Args:
        sequences: every one of them, prepared.
        data: the data set.
    """
    rows = _stages(sequences, data)
    yield from _contents(sequences, data)
    yield from _classes(sequences, data, rows)
    yield from _lengths(sequences, data)
    yield from _names(sequences)
    yield from _overlaps(sequences, rows)
    yield from _copies(sequences, rows)
    yield from _stillness(sequences, data)
    yield from _units(sequences, data)
    yield from _axes(sequences, data)


def _stages(sequences: Sequences, data: ActionDataModule) -> dict[str, np.ndarray]:
    """Rows of the stages that have some; the clips cut from training for validation are told apart."""
    column = sequences.table["split"]
    found = {stage: np.flatnonzero(np.isin(column, names)) for stage, names in data.split.items() if names is not None}
    cut = data.split["val"] is None and data.validation["by"] is not None and data.selection == "val"
    if cut and "train" in found:
        rows = found["train"]
        verdict = held_out(sequences.table, rows, **data.validation)
        found |= {"train": rows[verdict == 0], "val": rows[verdict == 1]}
    return {stage: found[stage] for stage in ("train", "val", "test") if len(found.get(stage, ()))}


def _contents(sequences: Sequences, data: ActionDataModule) -> Iterator[Finding]:
    table = sequences.table
    clips = table["person"] == 0
    persons = table["persons"][clips]
    several = f", {int((persons > 1).sum())} with several persons" if (persons > 1).any() else ""
    subjects = {name for name in table["subject"].tolist() if name}
    people = f", {len(subjects)} subjects" if subjects else ""
    yield Finding("ok", "contents", f"{int(clips.sum())} clips, {sequences.num_frames} frames{several}{people}")
    used = {name for names in data.split.values() if names is not None for name in names}
    for name in sorted(set(table["split"].tolist()) - used):
        unused = int((clips & (table["split"] == name)).sum())
        yield Finding(
            "warning", "splits", f"{unused} clips of split {name or '(none)'} are in no stage",
            f"Fine where they are not needed; else dataset.split_train={name or 'NAME'}.",
        )  # fmt: skip
    for stage, names in data.split.items():
        if names is not None and not np.isin(table["split"], names).any():
            yield Finding(
                "warning", "splits", f"{stage}: no clip is of split {first(names)}",
                f"Fine where it is not needed; else dataset.split_{stage}=NAME.",
            )  # fmt: skip


def _classes(sequences: Sequences, data: ActionDataModule, rows: dict[str, np.ndarray]) -> Iterator[Finding]:
    """How many clips the classes have in every stage, and which have none."""
    table, names = sequences.table, data.classes.names
    counts = {}
    for stage, mine in rows.items():
        labels = table["label"][mine[table["person"][mine] == 0]]
        if (labels < 0).all():
            yield Finding("ok", "classes", f"{stage}: {len(labels)} clips, labels withheld (mode=submit)")
            continue
        counts[stage] = np.bincount(labels[labels >= 0], minlength=len(names))
    # One-shot recognition: of a novel class the network sees an exemplar, and never in training.
    shown = set(table["label"][table["split"] == "exemplar"].tolist())
    for stage, clips in counts.items():
        present = np.flatnonzero(clips)
        least, most = present[clips[present].argmin()], clips.argmax()
        spread = f"{clips[least]} of {names[least]} to {clips[most]} of {names[most]}"
        if clips[least] == clips[most]:
            spread = f"{clips[least]} of each"
        yield Finding("ok", "classes", f"{stage}: {int(clips.sum())} clips of {len(present)} classes, {spread}")
        absent = [names[i] for i in np.flatnonzero(clips == 0) if stage != "train" or i not in shown]
        if not absent:
            continue
        # A class that is nowhere cannot be learnt; in a small test set scores are of the classes that are there.
        yield Finding(
            "fault" if stage == "train" else "warning",
            "classes",
            f"{stage}: {len(absent)} of {len(names)} classes have no clip: {first(absent)}",
            "Add clips, or take these classes out of dataset.classes."
            if stage == "train"
            else "Scores over all classes and over those present differ; the report has both.",
        )
    for stage, wanted in data.classes.clips.items():
        if stage in rows:
            found = int((table["person"][rows[stage]] == 0).sum())
            if found != wanted:
                yield Finding(
                    "warning", "classes", f"{stage}: {found} clips, the published split has {wanted}",
                    "Scores are comparable with published ones on all of them only.",
                )  # fmt: skip


def _lengths(sequences: Sequences, data: ActionDataModule) -> Iterator[Finding]:
    length = sequences.table["length"]
    text = f"{length.min()} to {length.max()} frames, median {np.median(length):g}"
    single = _clips_where(sequences, length == 1)
    if single:
        yield Finding(
            "warning", "lengths", f"{text}; {count(len(single), 'clip')} of one frame: {first(single)}",
            "They show no motion: leave them out with dataset.min_frames=2.",
        )  # fmt: skip
    else:
        yield Finding("ok", "lengths", text)
    if data.frames is not None and (length < data.frames).any():
        short = f"{int((length < data.frames).sum())} clips are shorter than dataset.frames={data.frames}"
        yield Finding("ok", "lengths", f"{short}; their frames are repeated")


def _clips_where(sequences: Sequences, chosen: np.ndarray) -> list[str]:
    table = sequences.table
    return [f"{table['split'][row]}/{table['clip'][row]}".lstrip("/") for row in np.flatnonzero(chosen)]


def _names(sequences: Sequences) -> Iterator[Finding]:
    """One name for two clips of a split."""
    table = sequences.table
    clips = table["person"] == 0
    keys, counts = np.unique(
        np.char.add(np.char.add(table["split"][clips], "/"), table["clip"][clips]), return_counts=True
    )
    twice = [str(key) for key in keys[counts > 1]]
    if twice:
        yield Finding(
            "fault", "names", f"{count(len(twice), 'name')} of two clips: {first(twice)}", "Give every clip its own."
        )


def _overlaps(sequences: Sequences, rows: dict[str, np.ndarray]) -> Iterator[Finding]:
    """Clips, recordings and people that are in two stages."""
    table = sequences.table
    for a, b in itertools.combinations(rows, 2):
        clips = np.intersect1d(table["clip"][rows[a]], table["clip"][rows[b]]).tolist()
        cut = a == "train" and b == "val" and not set(_splits_of(table, rows[a])) - set(_splits_of(table, rows[b]))
        if clips:
            yield Finding(
                "fault", "overlap", f"{count(len(clips), 'clip')} in {a} and in {b}: {first(clips)}",
                "Remove them from one of the lists.",
            )  # fmt: skip
            continue
        trials = np.intersect1d(table["trial"][rows[a]], table["trial"][rows[b]]).tolist()
        if trials and b == "test" and sequences.meta.get("across") == "camera":
            text = (
                f"no clip is in {a} and {b}; other cameras saw the same {count(len(trials), 'recording')}, as published"
            )
            yield Finding("ok", "overlap", text)
            continue
        if trials:
            yield Finding(
                "warning" if cut else "fault",
                "overlap",
                f"clips of {count(len(trials), 'recording')} in {a} and in {b}: {first(trials)}",
                "They resemble each other. Use dataset.validation.by=trial."
                if cut
                else "Cut train and test clips from different recordings.",
            )
            continue
        people = [name for name in np.intersect1d(table["subject"][rows[a]], table["subject"][rows[b]]) if name]
        shared = f"; {len(people)} persons are in both: {first([str(name) for name in people])}" if people else ""
        yield Finding("ok", "overlap", f"no clip and no recording is in {a} and {b}{shared}")


def _splits_of(table: dict[str, np.ndarray], rows: np.ndarray) -> list[str]:
    return list(dict.fromkeys(table["split"][rows].tolist()))


def _copies(sequences: Sequences, rows: dict[str, np.ndarray]) -> Iterator[Finding]:
    """Clips that are the same motion under two names: across stages a leak, inside one a surplus."""
    stage_of = np.full(len(sequences), "", dtype=object)
    for stage, mine in rows.items():
        stage_of[mine] = stage
    names = _clips_where(sequences, np.ones(len(sequences), bool))
    leaks: list[str] = []
    twins: list[str] = []
    for a, b in same_clips(sequences):
        if names[a] == names[b] or sequences.table["clip"][a] == sequences.table["clip"][b]:
            continue
        (leaks if stage_of[a] != stage_of[b] and stage_of[a] and stage_of[b] else twins).append(
            f"{names[a]} = {names[b]}"
        )
    if leaks:
        yield Finding(
            "fault",
            "copies",
            f"{count(len(leaks), 'clip')} in two stages under two names: {first(leaks)}",
            "Remove one copy.",
        )
    if twins:
        yield Finding(
            "warning", "copies", f"{count(len(twins), 'clip')} twice under two names: {first(twins)}",
            "Remove one copy, unless the labels say what both show.",
        )  # fmt: skip
    if not leaks and not twins:
        yield Finding("ok", "copies", "no two clips are the same")


def same_clips(sequences: Sequences) -> list[tuple[int, int]]:
    """Pairs of rows (persons in clips) with the same poses; a row that is like several is paired with the first."""
    table = sequences.table
    summaries = np.empty((len(sequences), 2))
    for row in range(len(sequences)):
        pose = _pose(sequences, row)
        weight = np.arange(1, pose.shape[-2] * pose.shape[-1] + 1).reshape(pose.shape[1:])
        summaries[row] = np.abs(pose).mean(dtype=np.float64), (pose * weight).mean(dtype=np.float64)
    order = np.lexsort((summaries[:, 0], table["length"]))
    found = []
    for at, a in enumerate(order):
        for b in order[at + 1 :]:
            far = summaries[b, 0] - summaries[a, 0] > _NEAR * max(abs(summaries[a, 0]), 1e-12)
            if far or table["length"][a] != table["length"][b]:
                break
            x, y = _pose(sequences, int(a)), _pose(sequences, int(b))
            if np.abs(x - y).max() <= SAME_CLIP * max(float(np.abs(x).max()), 1e-12):
                found.append((min(int(a), int(b)), max(int(a), int(b))))
                break
    return sorted(found)


def _pose(sequences: Sequences, row: int) -> np.ndarray:
    arrays = sequences.sequence(row)
    return arrays["pose3d"] if "pose3d" in arrays else arrays["pose2d"]


def _stillness(sequences: Sequences, data: ActionDataModule) -> Iterator[Finding]:
    """Clips in which nothing moves, or whose 3D is flat."""
    still, flat = np.zeros(len(sequences), bool), np.zeros(len(sequences), bool)
    for row in range(len(sequences)):
        pose = _pose(sequences, row)
        size = max(float(np.abs(pose[..., :2]).max()), 1e-12)
        still[row] = len(pose) > 1 and np.ptp(pose, axis=0).max() <= _NOTHING * size
        flat[row] = data.spec.has_3d and np.abs(pose).max((0, 1)).min() <= _NOTHING * size
    if still.any():
        names = _clips_where(sequences, still)
        yield Finding(
            "warning", "motion", f"{count(len(names), 'clip')} without motion: {first(names)}",
            "Nothing can be recognised but a posture; look how they were made.",
        )  # fmt: skip
    if flat.any():
        names = _clips_where(sequences, flat)
        yield Finding(
            "warning", "depth", f"{count(len(names), 'clip')} without depth: {first(names)}",
            "Lift them, or read them as 2D; published programs crop them to zeros.",
        )  # fmt: skip
    if not still.any() and not flat.any():
        yield Finding("ok", "motion", "every clip moves" + (" and has depth" if data.spec.has_3d else ""))


def _units(sequences: Sequences, data: ActionDataModule) -> Iterator[Finding]:
    """Other units than metres, where the preparation keeps them."""
    if data.spec.preprocess not in METRES or sequences.meta["stream"] != "joint":
        return
    middle = float(np.median([extent(_pose(sequences, row)) for row in range(len(sequences))]))
    if not PERSON[0] <= middle <= PERSON[1]:
        yield Finding(
            "fault", "units", f"people extend over {middle:.4g}: these are no metres",
            "Store the clips in metres, or use dataset.preprocess=ma52, which takes any unit.",
        )  # fmt: skip
    else:
        yield Finding("ok", "units", f"people extend over {middle:.2g} metres")


def _axes(sequences: Sequences, data: ActionDataModule) -> Iterator[Finding]:
    """Whether z points up, where the preparation turns bodies about it."""
    name = data.spec.preprocess
    if not clip_preprocess(name).vertical:
        return
    root = data.source.root
    try:
        records = [lifted(folder) for folder in (root, *sorted(path.parent for path in root.glob(f"*/{LIFTED}")))]
    except DataError as error:
        yield from_error("axes", error)
        return
    camera = [str(record.path) for record in records if record is not None and record.camera]
    if camera:
        yield Finding(
            "fault", "axes", f"clips are in camera axes (y down), says {first(camera)}; {name} needs z up",
            "Lift them with mode=lift lift.axes=up lift.overwrite=true, or use dataset.preprocess=ma52.",
        )  # fmt: skip
        return
    upward = _upward(sequences)
    if upward is None:
        return
    remedy = "Turn the clips so that z points up, or use dataset.preprocess=ma52, which takes any axes."
    if upward <= -_STANDING:
        yield Finding("fault", "axes", "z points down: most people stand on their heads", remedy)
    elif upward < _STANDING:
        yield Finding("warning", "axes", "most people lie, or z does not point up", f"Fine where they do lie. {remedy}")
    else:
        yield Finding("ok", "axes", "z points up")


def _upward(sequences: Sequences) -> float | None:
    """Cosine between z and the trunk, the median over the clips; None where it cannot be seen."""
    body = sequences.skeleton
    if sequences.meta["stream"] != "joint" or body is None or not {*_TRUNK[0], *_TRUNK[1]} <= set(body.joints):
        return None
    hips, shoulders = ([body.index(joint) for joint in pair] for pair in _TRUNK)
    found = []
    for row in range(len(sequences)):
        pose = _pose(sequences, row).astype(np.float64)
        trunk = (pose[:, shoulders].mean(1) - pose[:, hips].mean(1)).mean(0)
        found.append(trunk[2] / max(float(np.linalg.norm(trunk)), 1e-12))
    return float(np.median(found))
