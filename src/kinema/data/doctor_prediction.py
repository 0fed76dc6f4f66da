"""The doctor's look at motion for prediction: windows, copies across splits, frame rates, and which way is up."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from kinema.data import motion_checks
from kinema.data.anatomy import Sample
from kinema.data.findings import Finding, count, first, where
from kinema.data.motion_checks import PACE, REPEATED, STANDING
from kinema.data.sequences import Sequences
from kinema.errors import ConfigError

if TYPE_CHECKING:
    from kinema.data.prediction import PredictionDataModule

# Distances from the root that differ by less, in metres, are the same pose.
_SAME_POSE = 1e-4
# Share of a sequence that is found in one of another split, from which it is a copy.
_COPIED = 0.5
_WHOLE = 0.9  # and from which, with an equal length, it is the very sequence
# Where the trunk is unknown: how much farther bodies extend along another axis than along z.
_LONGER = 1.3
_MOST_FRAMES = 2_000_000  # that are compared across splits


def examine(sequences: Sequences, data: PredictionDataModule) -> Iterator[Finding]:
    """What the other checks do not look at.

    Args:
        sequences: every one that could be read, in metres.
        data: the data set.
    """
    yield from windows(sequences, data)
    yield from _recorded(sequences)
    if not len(sequences):
        return
    yield from repeats(sequences)
    yield from pace(sequences)
    yield from upward(sequences)
    yield from copies(sequences, data)


def advised(findings: Iterable[Finding], data: PredictionDataModule) -> Iterator[Finding]:
    """Findings about bodies, with the remedy of a reader that has an option for exchanged sides."""
    advice = getattr(data.source.module, "advice", None)
    for finding in findings:
        if advice is not None and finding.severity == "fault" and finding.text.startswith("knees bend backward"):
            finding = replace(finding, remedy=advice(data.source.options))
        yield finding


def stages(sequences: Sequences, data: PredictionDataModule) -> dict[str, np.ndarray]:
    """Rows of the stages that have some; those that cannot be found are told by the check of the splits."""
    found: dict[str, np.ndarray] = {}
    for stage in ("train", "val", "test"):
        if stage == "val" and data.splits.selection != "val":
            continue
        try:
            rows = data.splits.rows(sequences, stage)
        except ConfigError:
            continue
        if len(rows):
            found[stage] = rows
    return found


def windows(sequences: Sequences, data: PredictionDataModule) -> Iterator[Finding]:
    """Windows that every stage has, and sequences too short for one."""
    rows = stages(sequences, data)
    for stage, mine in rows.items():
        length = sequences.table["length"][mine]
        # Windows of evaluation begin at range(0, T - N, stride): one of exactly N frames has none there.
        needed = data.length + (stage != "train")
        short = np.flatnonzero(length < needed)
        step = 1 if stage == "train" else data.stride
        extra = 1 if stage == "train" else 0
        total = int(sum(len(range(0, int(frames) - data.length + extra, step)) for frames in length))
        text = f"{stage}: {count(total, 'window')} of {data.history} + {data.horizon} frames"
        if not total:
            longest = int(length.max())
            room = longest - data.history - (needed - data.length)
            yield Finding(
                "fault", "windows", f"{text}: the longest of {count(len(mine), 'sequence')} has {longest} frames",
                f"Use dataset.horizon={room} or less." if room > 0 else "Use shorter windows, or longer recordings.",
            )  # fmt: skip
        elif len(short):
            yield Finding(
                "warning",
                "windows",
                f"{text}; {count(len(short), 'sequence')} of {len(mine)} are shorter than {needed} frames, left out: "
                + where(sequences, mine[short]),
                "Fine where enough are left; shorter windows keep them: dataset.horizon.",
            )
        else:
            yield Finding("ok", "windows", f"{text} from {count(len(mine), 'sequence')}")


def _recorded(sequences: Sequences) -> Iterator[Finding]:
    """Recordings that were brought to another frame rate, where the reader says so."""
    if "recorded_fps" not in sequences.table:
        return
    rate, recorded = sequences.table["fps"], sequences.table["recorded_fps"]
    slower = np.flatnonzero(recorded < rate * 0.99)
    faster = np.flatnonzero(recorded > rate * 1.01)
    if len(slower):
        rates = ", ".join(f"{value:g}" for value in np.unique(recorded[slower]))
        yield Finding(
            "warning", "recorded rate", f"{count(len(slower), 'sequence')} recorded at {rates} per second, with frames "
            f"put between them to make {rate[slower[0]]:g}: {where(sequences, slower)}",
            "Motion between frames is a straight line; for numbers to publish use the recorded rate: dataset.fps.",
        )  # fmt: skip
    if len(faster):
        rates = ", ".join(f"{value:g}" for value in np.unique(recorded[faster]))
        yield Finding("ok", "recorded rate", f"{rates} per second, brought to {rate[faster[0]]:g}")


def repeats(sequences: Sequences) -> Iterator[Finding]:
    """Frames that repeat the one before: a lower rate, stretched by copying."""
    share = np.array(
        [motion_checks.repeated(sequences.sequence(row)["pose3d"]) for row in range(len(sequences))], np.float64
    )
    rows = np.flatnonzero(share > REPEATED)
    if len(rows):
        most = share[rows].max()
        yield Finding(
            "warning", "repeated frames", f"in {count(len(rows), 'sequence')} up to {100 * most:.0f} % of the frames "
            f"equal the one before: {where(sequences, rows)}",
            "They stand still, or were stretched by repeating frames. State the true rate and let Kinema resample.",
        )  # fmt: skip


def pace(sequences: Sequences) -> Iterator[Finding]:
    """Whether people move at the speed of people at the stated frame rate."""
    body, fps = sequences.skeleton, sequences.table["fps"]
    if body is None or not np.isfinite(fps).all():
        return
    every = (motion_checks.pace(sequences.sequence(row)["pose3d"], body, fps[row]) for row in range(len(sequences)))
    speeds = [speed for speed in every if speed is not None]
    if not speeds:
        return
    usual = float(np.median(speeds))
    if usual > PACE[1]:
        yield Finding(
            "fault", "pace", f"hands and feet of most people pass the root at {usual:.1f} m/s: frames are farther "
            f"apart than 1/{fps[0]:g} s", "State the rate of the files (dataset.reader_options.file_fps, dataset.fps).",
        )  # fmt: skip
    elif usual < PACE[0]:
        yield Finding(
            "warning", "pace", f"most people hardly move ({usual:.3f} m/s): there is nothing to predict, or frames are "
            f"closer together than 1/{fps[0]:g} s", "Check the rate of the files (dataset.reader_options.file_fps).",
        )  # fmt: skip
    else:
        yield Finding("ok", "pace", f"hands and feet usually pass the root at up to {usual:.1f} m/s")


def upward(sequences: Sequences) -> Iterator[Finding]:
    """Whether z points up: training turns bodies about it."""
    sample = Sample.of(sequences)
    body = sequences.skeleton
    if body is None or not len(sample.frame):
        return
    pose = sample.pose3d.astype(np.float64)
    remedy = "Say which axis of the files points up: dataset.reader_options.up=y, or turn the motion."
    trunk = motion_checks.trunks(pose, body)
    if trunk is not None:
        usual = float(np.median(trunk[:, 2]))
        if usual <= -STANDING:
            yield Finding("fault", "axes", "z points down: most people stand on their heads", remedy)
        elif usual < STANDING:
            yield Finding(
                "warning", "axes", "most people lie, or z does not point up", f"Fine where they lie. {remedy}"
            )
        else:
            yield Finding("ok", "axes", "z points up")
        return
    extent = np.median(np.ptp(pose, axis=1), axis=0)
    longest = int(extent.argmax())
    if longest != 2 and extent[longest] > _LONGER * extent[2]:
        yield Finding(
            "warning", "axes", f"bodies extend {extent[longest]:.2f} m along {'xyz'[longest]} and {extent[2]:.2f} m "
            "along z, which should point up", f"Fine for animals and for people who lie. {remedy}",
        )  # fmt: skip
    else:
        yield Finding("ok", "axes", f"bodies extend {extent[2]:.2f} m along z")


def copies(sequences: Sequences, data: PredictionDataModule) -> Iterator[Finding]:
    """Sequences that are, whole or in part, in two stages: whatever their names, lengths, places and headings."""
    rows = stages(sequences, data)
    if len(rows) < 2:
        return
    if sequences.num_frames > _MOST_FRAMES:
        yield Finding("ok", "copies", f"parts of sequences were not compared: {sequences.num_frames} frames are many")
        return
    found: list[str] = []
    length = sequences.table["length"]
    prints = {stage: _frames(sequences, mine) for stage, mine in rows.items()}
    for a, b in itertools.combinations(prints, 2):
        (keys_a, owner_a), (keys_b, owner_b) = prints[a], prints[b]
        order = np.argsort(keys_a, kind="stable")
        at = np.searchsorted(keys_a[order], keys_b).clip(0, max(len(keys_a) - 1, 0))
        hit = keys_a[order][at] == keys_b if len(keys_a) else np.zeros(len(keys_b), bool)
        partner = owner_a[order][at]
        for row in np.unique(owner_b[hit]):
            share = hit[owner_b == row].mean()
            if share > _COPIED:
                other = int(np.bincount(partner[hit & (owner_b == row)]).argmax())
                if share > _WHOLE and length[row] == length[other]:
                    continue  # told by the check of the splits
                found.append(f"{sequences.label(int(row))} ({b}) is in {sequences.label(other)} ({a})")
    if found:
        yield Finding(
            "fault", "copies", f"{count(len(found), 'sequence')} in two splits: {first(found)}",
            "Keep one of them: dataset.drop, or split by subjects.",
        )  # fmt: skip
    else:
        yield Finding("ok", "copies", "no sequence of one split is a part of one of another")


def _frames(sequences: Sequences, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """One number for every frame that no place and no heading changes, and the row it belongs to."""
    assert sequences.skeleton is not None
    joints = len(sequences.skeleton)
    weight = np.random.default_rng(0).integers(1, 2**40, joints, dtype=np.int64)
    keys, owner = [], []
    for row in rows.tolist():
        pose = np.asarray(sequences.sequence(row)["pose3d"], np.float64)
        distance = np.linalg.norm(pose - pose[:, [sequences.skeleton.root]], axis=-1)
        steps = np.rint(np.nan_to_num(distance) / _SAME_POSE).astype(np.int64)
        keys.append((steps * weight).sum(-1))  # wraps, which a hash may
        owner.append(np.full(len(pose), row))
    return np.concatenate(keys), np.concatenate(owner)
