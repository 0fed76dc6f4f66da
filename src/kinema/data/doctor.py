"""The doctor: examine a data set as its yaml describes it and say what is wrong, where, and what to do about it.

It reads the raw files (never the cache), goes on after a fault where that is possible, and changes nothing.
"""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kinema.data import anatomy, checks, doctor_action, doctor_prediction
from kinema.data.anatomy import Sample
from kinema.data.cuts import lost_video
from kinema.data.findings import Finding, first, from_error, where
from kinema.data.sequences import Sequences
from kinema.errors import ConfigError, DataError, KinemaError

if TYPE_CHECKING:
    from kinema.data.action import ActionDataModule
    from kinema.data.base import BaseDataModule
    from kinema.data.datamodule import MotionDataModule
    from kinema.data.prediction import PredictionDataModule

# Two descriptions of one motion differ by less, relative to the usual distance of a joint from the root.
SAME_MOTION = 1e-4


def examine(data: MotionDataModule | ActionDataModule | PredictionDataModule) -> list[Finding]:
    """Examine the data set of a DataModule.

    Args:
        data: as composed from a yaml of `conf/dataset`; its model signature plays no role.

    Returns:
        Findings in the order of the checks. Where files cannot be read at all, only what was found until then.
    """
    from kinema.data.action import ActionDataModule  # with Lightning, which whoever made `data` has loaded
    from kinema.data.prediction import PredictionDataModule

    if isinstance(data, ActionDataModule):
        return _examine_clips(data)
    if isinstance(data, PredictionDataModule):
        return _examine_motion(data)
    findings: list[Finding] = []
    try:
        findings += _files(data)
        sequences = _read(data, findings)
        checks.refuse_joints(sequences, data.source.skeleton, data.source.skeleton2d)
    except KinemaError as error:
        return [*findings, from_error("files", error)]
    findings += _contents(sequences)
    findings += _numbers(sequences, data)
    findings += _splits(sequences, data)
    findings += _rates(sequences, data)
    findings += _clips(sequences, data)
    sample = Sample.of(sequences)
    findings += anatomy.check_image(sample)
    if "pose3d" in sequences.arrays and len(sample.frame):
        findings += _body(sample)[0]
        findings += anatomy.check_targets(sample)
    findings += _cache(data)
    return findings


def _body(sample: Sample) -> tuple[list[Finding], bool]:
    """Whether these are bodies in metres that move as bodies do, and whether they are in metres at all."""
    findings = list(anatomy.check_units(sample))
    # In another unit every later distance would be wrong as well; one sentence is enough.
    metres = all(finding.severity == "ok" for finding in findings)
    if metres:
        findings += anatomy.check_bones(sample)
        findings += anatomy.check_sides(sample)
        findings += anatomy.check_projection(sample)
        findings += anatomy.check_speed(sample)
    return findings, metres


def _examine_motion(data: PredictionDataModule) -> list[Finding]:
    """The same for motion whose future is predicted."""
    findings: list[Finding] = []
    try:
        findings += _files(data)
        sequences = _read(data, findings, "motion")
        checks.refuse_joints(sequences, data.source.skeleton, None)
    except KinemaError as error:
        return [*findings, from_error("files", error)]
    findings += _contents(sequences)
    findings += _numbers(sequences, data)
    findings += _splits(sequences, data)
    findings += _rates(sequences, data)
    about_bodies, metres = _body(Sample.of(sequences))
    findings += doctor_prediction.advised(about_bodies, data)
    if metres:
        findings += doctor_prediction.examine(sequences, data)
    findings += _cache(data)
    return findings


def _examine_clips(data: ActionDataModule) -> list[Finding]:
    """The same for clips with a class each."""
    findings: list[Finding] = []
    try:
        found = data.source.files()
        findings.append(Finding("ok", "files", f"{len(found)} files in {data.source.root}, {_size(found)}"))
        findings += doctor_action.notes(data)
        sequences = _read(data, findings, "clips")
    except KinemaError as error:
        return [*findings, from_error("files", error)]
    findings += doctor_action.examine(sequences, data)
    findings += _cache(data)
    return findings


def _size(files: Iterable[Path]) -> str:
    return f"{sum(file.stat().st_size for file in files) / 1e6:.1f} MB"


def _files(data: BaseDataModule) -> Iterator[Finding]:
    found = data.source.files()
    if found:
        names = first([file.name for file in found], 6)
        yield Finding("ok", "files", f"{names} in {found[0].parent}, {_size(found)}")


def _read(data: BaseDataModule, findings: list[Finding], check: str = "lengths and pairs") -> Sequences:
    """Read the raw files, collecting the faults that the reader can step over."""
    read: Callable[..., Sequences] = data.source.module.read
    stepped: list[DataError] = []
    extra: dict[str, Any] = {"report": stepped.append} if "report" in inspect.signature(read).parameters else {}
    try:
        return read(data.source.root, **extra, **data.source.options)
    finally:
        findings += [from_error(check, error) for error in stepped[:20]]
        if len(stepped) > 20:
            findings.append(Finding("fault", check, f"{len(stepped) - 20} more of this kind"))


def _contents(sequences: Sequences) -> Iterator[Finding]:
    columns = sequences.table
    subjects, actions = (len(set(columns[name].tolist())) for name in ("subject", "action"))
    arrays = ", ".join(f"{name} {array.shape[1:]}" for name, array in sequences.arrays.items())
    yield Finding(
        "ok",
        "contents",
        f"{len(sequences)} sequences, {sequences.num_frames} frames, {subjects} subjects, {actions} actions; {arrays}",
    )
    short = np.flatnonzero(columns["length"] < 3)
    if len(short):
        yield Finding(
            "warning", "lengths", f"{len(short)} sequences of less than 3 frames: {where(sequences, short)}",
            "Leave them out; velocities and short windows mean nothing there.",
        )  # fmt: skip


def _numbers(sequences: Sequences, data: BaseDataModule) -> Iterator[Finding]:
    checks.count_nonfinite(sequences)
    rows = np.flatnonzero(sequences.table["nonfinite"])
    if not len(rows):
        yield Finding("ok", "NaN", "every number is finite")
        return
    row = int(rows[0])
    count, length, begin = (sequences.table[key][row] for key in ("nonfinite", "length", "nonfinite_first"))
    yield Finding(
        "fault" if data.source.on_nan == "error" else "warning",
        "NaN",
        f"{len(rows)} sequences hold NaN: {where(sequences, rows)}; "
        f"in the first of them {count} of {length} frames, from frame {begin} on",
        "Repair the file, or allow masking: dataset.on_nan=mask.",
    )


def _splits(sequences: Sequences, data: MotionDataModule | PredictionDataModule) -> Iterator[Finding]:
    """Subjects that are missing or left over, and the same recording on both sides of a split."""
    rows: dict[str, np.ndarray] = {}
    wrong: dict[str, ConfigError] = {}  # a trial that is not there is missed by two stages, and told once
    # Where checkpoints are chosen on the test split there is no other validation.
    stages = ("train", "val", "test") if data.splits.selection == "val" else ("train", "test")
    for stage in stages:
        try:
            rows[stage] = data.splits.rows(sequences, stage)
        except ConfigError as error:
            wrong[str(error)] = error
    yield from (from_error("subjects", error) for error in wrong.values())
    for stage, mine in rows.items():
        part = sequences.select(mine)
        if len(mine):
            frames = f"{len(mine)} sequences, {part.num_frames} frames"
            yield Finding("ok", "subjects", f"{stage}: {frames}, subjects {first(_subjects(part), 12)}")
        elif stage == "test" or data.spec.has_3d:
            yield Finding(
                "warning", "subjects", f"{stage}: no sequence",
                f"Fine where it is not needed; else name subjects in dataset.subjects_{stage}.",
            )  # fmt: skip
    if len(rows) == len(stages) and data.splits.actions is None:
        used = set().union(*(_subjects(sequences.select(mine)) for mine in rows.values()))
        left = [name for name in _subjects(sequences) if name not in used]
        if left:
            yield Finding(
                "warning",
                "subjects",
                f"in no split: {first(left)}",
                "Name them in dataset.subjects_train or drop them.",
            )
    for a, b in itertools.combinations(rows, 2):
        if len(rows[a]) and len(rows[b]):
            yield from _overlap(sequences, rows[a], rows[b], f"{a} and {b}")


def _subjects(sequences: Sequences) -> list[str]:
    return list(dict.fromkeys(sequences.table["subject"].tolist()))


def _overlap(sequences: Sequences, a: np.ndarray, b: np.ndarray, names: str) -> Iterator[Finding]:
    keys = np.char.add(np.char.add(sequences.table["subject"], "/"), sequences.table["trial"])
    both = [str(key) for key in np.intersect1d(keys[a], keys[b])]
    if both:
        yield Finding(
            "fault", "overlap", f"{len(both)} trials are in {names}: {first(both)}",
            "Split by subjects, or name the trials of one side only.",
        )  # fmt: skip
    copies = [] if "pose3d" not in sequences.arrays else _copies(sequences, a, b)
    renamed = [pair for pair in copies if pair[0] not in both]
    if renamed:
        yield Finding(
            "fault", "overlap", f"{len(renamed)} motions are in {names} under two names: "
            + first([f"{x} = {y}" for x, y in renamed]), "Remove one copy.",
        )  # fmt: skip
    if not both and not renamed:
        shared = sorted(set(_subjects(sequences.select(a))) & set(_subjects(sequences.select(b))))
        people = f" ({first(shared)} occur in both with different trials)" if shared else ""
        yield Finding("ok", "overlap", f"no trial is in {names}{people}")


def _copies(sequences: Sequences, a: np.ndarray, b: np.ndarray) -> list[tuple[str, str]]:
    """Trials of `a` and `b` that are one motion, found by what no camera changes."""
    assert sequences.skeleton is not None
    columns = sequences.table
    sides = [rows[np.unique(columns["start"][rows], return_index=True)[1]] for rows in (a, b)]
    described = [anatomy.fingerprints(sequences.select(rows), sequences.skeleton) for rows in sides]
    scale = np.nanmedian(np.concatenate(described)) or 1.0
    found: dict[tuple[str, str], None] = {}
    for length in np.intersect1d(columns["length"][sides[0]], columns["length"][sides[1]]):
        here = [np.flatnonzero(columns["length"][rows] == length) for rows in sides]
        gap = np.abs(described[0][here[0], None] - described[1][None, here[1]]).max(-1)
        for i, j in zip(*np.nonzero(gap < SAME_MOTION * scale), strict=True):
            ends = (sides[0][here[0][i]], sides[1][here[1][j]])
            one, two = (f"{columns['subject'][row]}/{columns['trial'][row]}" for row in ends)
            found[one, two] = None
    return list(found)


def _rates(sequences: Sequences, data: BaseDataModule) -> Iterator[Finding]:
    rates = np.unique(sequences.table["fps"][np.isfinite(sequences.table["fps"])])
    stated = data.spec.fps
    shown = ", ".join(f"{rate:g}" for rate in rates) or "unknown"
    if len(rates) > 1:
        yield Finding("warning", "frame rate", f"sequences differ: {shown} per second", "Bring them to one frame rate.")
    elif stated is not None and len(rates) and rates[0] != stated:
        yield Finding(
            "fault", "frame rate", f"{shown} per second, but dataset.fps={stated:g}", f"Use dataset.fps={shown}."
        )
    else:
        yield Finding("ok", "frame rate", f"{shown} per second")


def _clips(sequences: Sequences, data: MotionDataModule) -> Iterator[Finding]:
    """What strided clips do to videos shorter than a clip: the last of a split is lost, others are resampled."""
    for stage, windows in (("train", data.cuts.training), ("test", data.cuts.evaluation)):
        try:
            part = sequences.select(data.splits.rows(sequences, stage))
        except ConfigError:  # told by the examination of the splits
            continue
        if windows["kind"] != "strided" or not len(part):
            continue
        length, frames = part.table["length"], data.frames
        if frames is None:
            shown = f"{stage}: the shortest video has {length.min()} frames, the last one {length[-1]}"
            yield Finding("ok", "clips", f"{shown}; a shorter one than a clip is resampled, or lost if it is the last")
            continue
        short = np.flatnonzero(length[:-1] < frames)
        if len(short):
            yield Finding(
                "warning", "clips", f"{stage}: {len(short)} videos are shorter than a clip of {frames} frames and are "
                f"resampled at random (dataset.seed={data.seed}): {where(part, short)}",
                "Published behaviour; repeated frames count once.",
            )  # fmt: skip
        lost = lost_video(part, frames)
        if lost is not None:
            yield Finding("warning", "clips", f"{stage}: {lost}", "Published behaviour; use shorter clips to keep it.")
        elif not len(short):
            yield Finding("ok", "clips", f"{stage}: every video has a clip of {frames} frames")


def _cache(data: BaseDataModule) -> Iterator[Finding]:
    folder = data.source.cache_dir
    if folder is None:
        return
    mine = [file for file in folder.glob(f"{data.source.name}-*/*") if file.is_file()]
    yield Finding("ok", "cache", f"{_size(mine)} of this data set in {folder}; safe to delete")
