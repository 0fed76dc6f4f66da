"""Windows of motion that are sampled and drawn: of a test set by name or by chance, and of files."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from kinema.core import random
from kinema.core.skeleton import Skeleton
from kinema.data.input_motion import InputMotion
from kinema.data.windows import SEQUENCE, START
from kinema.errors import ConfigError, DataError

# Names that are spelt out in a message.
_SPELT = 20


@dataclass(frozen=True)
class MotionWindow:
    """One history, with what really followed where that is known.

    Attributes:
        recording: where it comes from: subject/trial, or the name of a file.
        start: its first frame in that recording.
        pose: (T, J, 3) float32 metres relative to the root; T = H, or N = H + P with the truth.
        action: of the recording.
    """

    recording: str
    start: int
    pose: np.ndarray
    action: str = ""

    @property
    def label(self) -> str:
        """For pictures and files."""
        return f"{self.recording}, frame {self.start}"

    @property
    def number(self) -> int:
        """Key of the noise: the one that an evaluation gives the same window of a test set."""
        first = int.from_bytes(hashlib.sha256(self.recording.encode()).digest()[:4], "little")
        return (first + self.start) & 0x7FFFFFFF


def relative(pose: np.ndarray, skeleton: Skeleton) -> np.ndarray:
    """Poses (T, J, 3) about their root."""
    return np.asarray(pose - pose[:, skeleton.root : skeleton.root + 1], np.float32)


class TestWindows:
    """Windows of the test sequences of a data set, by number, by name or drawn.

    Args:
        data: PredictionDataModule.
        seed: of what is drawn.
    """

    __test__ = False  # no test for pytest

    def __init__(self, data: Any, seed: int) -> None:
        self._windows = data.windows("test")
        self._sequences = self._windows.sequences
        self._length: int = data.history + data.horizon
        self._skeleton: Skeleton = data.skeleton
        self._seed = seed

    def __len__(self) -> int:
        return len(self._windows)

    def at(self, sequence: int, start: int) -> MotionWindow:
        """The window of a test sequence that begins at a frame."""
        table = self._sequences.table
        label, length = self.label(sequence), int(table["length"][sequence])
        if not 0 <= start <= length - self._length:
            raise ConfigError(
                f"{label} has {length} frames: a window of {self._length} cannot begin at frame {start}. Use 0 to "
                f"{length - self._length}."
            )
        pose = np.asarray(self._sequences.sequence(sequence)["pose3d"][start : start + self._length])
        return MotionWindow(label, start, relative(pose, self._skeleton), str(table["action"][sequence]))

    def label(self, sequence: int) -> str:
        """subject/trial of a test sequence."""
        table = self._sequences.table
        return f"{table['subject'][sequence]}/{table['trial'][sequence]}"

    def row(self, number: int) -> MotionWindow:
        """A window by its number in the tables of the test set."""
        if not 0 <= number < len(self):
            raise ConfigError(
                f"There is no window {number}: the test set has 0 to {len(self) - 1}. Correct motion.windows."
            )
        row = self._windows.table[number]
        return self.at(int(row[SEQUENCE]), int(row[START]))

    def named(self, text: str, key: str = "motion.windows") -> MotionWindow:
        """A window by its number, or by "subject/trial/first frame".

        Raises:
            ConfigError: there is none of that name, with the nearest one.
        """
        if text.isdigit():
            return self.row(int(text))
        recording, _, start = text.rpartition("/")
        if not start.isdigit():
            recording, start = text, ""
        labels = [self.label(sequence) for sequence in range(len(self._sequences))]
        if recording not in labels:
            near = difflib.get_close_matches(recording, labels, n=1, cutoff=0.4)
            hint = f"Did you mean {near[0]!r}? " if near else ""
            raise ConfigError(
                f"{key}={text!r}: no recording of the test set is called {recording!r}. {hint}Write a window as "
                f"subject/trial/frame such as '{labels[0]}/0', or by its number; there is: {_few(labels)}."
            )
        sequence = labels.index(recording)
        return self.at(sequence, int(start)) if start else self.drawn(sequence, 0)

    def drawn(self, sequence: int, draw: int) -> MotionWindow:
        """A window of a sequence that begins at a random frame, another one for each draw."""
        places = int(self._sequences.table["length"][sequence]) - self._length + 1
        share = random.uniform(self._seed, 0, torch.tensor([draw]), f"motion_window/{self.label(sequence)}")
        return self.at(sequence, min(int(float(share) * places), places - 1))

    def sequences(self, subject: str | None, action: str | None) -> list[int]:
        """Test sequences of a subject and an action, all of them where nothing is asked for.

        Args:
            subject: as in the data set; None = any.
            action: full name such as "walking 1", or the base name of several; None = any.

        Raises:
            ConfigError: there are none, with the nearest name.
        """
        table = self._sequences.table
        rows = np.arange(len(self._sequences))
        if subject is not None:
            rows = rows[_matching("subject", str(subject), table["subject"][rows])]
        if action is not None:
            trial = (table["trial"][rows] == str(action)).any()
            base = (table["action"][rows] == str(action)).any()
            column = "action" if base and not trial else "trial"
            rows = rows[_matching("action", str(action), table[column][rows])]
        return rows.tolist()

    def first_subject(self) -> str:
        """Whose recordings the published pictures show."""
        return str(self._sequences.table["subject"][0])

    def by_action(self, sequences: Sequence[int], draw: int) -> list[int]:
        """One sequence of every action, in their order, another one for each draw."""
        actions = self._sequences.table["action"]
        groups: dict[str, list[int]] = {}
        for sequence in sequences:
            groups.setdefault(str(actions[sequence]), []).append(sequence)
        return [group[draw % len(group)] for group in groups.values()]


def file_windows(
    motions: Sequence[InputMotion],
    skeleton: Skeleton,
    history: int,
    horizon: int,
    *,
    start: int | None,
    drawn: int | None = None,
    whole: bool = False,
) -> list[MotionWindow]:
    """Windows of motions that were handed over.

    Args:
        motions: at the network's frame rate.
        skeleton: of them.
        history, horizon: H and P.
        start: first frame of the history; None = the last H frames, after which nothing is known, or one drawn.
        drawn: draw a window of N frames with this seed.
        whole: the future is needed: a window has N frames.

    Raises:
        DataError: a motion is too short.
    """
    made = []
    for number, motion in enumerate(motions):
        needed = history + horizon if whole or drawn is not None else history
        frames = len(motion.pose)
        if frames < needed:
            what = f"{history} observed and {horizon} following frames" if needed > history else f"{history} frames"
            raise DataError(
                f"{motion.name} has {frames} frames at the network's speed; {what} are needed. Give a longer recording"
                + ("." if needed > history else ", or say how fast it is: predict.fps.")
            )
        last = frames - needed
        if drawn is not None and start is None:
            share = random.uniform(drawn, 0, torch.tensor([number]), f"motion_window/{motion.name}")
            first = min(int(float(share) * (last + 1)), last)
        else:
            first = last if start is None else start
        if not 0 <= first <= last:
            raise ConfigError(
                f"{motion.name} has {frames} frames: motion.start={first} leaves no window. Use 0 to {last}."
            )
        pose = motion.pose[first : first + history + horizon]
        # Less than a whole future is no truth to compare with.
        pose = pose if len(pose) == history + horizon else pose[:history]
        made.append(MotionWindow(motion.name, first, relative(pose, skeleton)))
    return made


def _matching(what: str, wanted: str, column: np.ndarray) -> np.ndarray:
    found = np.asarray(column == wanted)
    if found.any():
        return found
    known = list(dict.fromkeys(str(value) for value in column))
    near = difflib.get_close_matches(wanted, known, n=1, cutoff=0.5)
    hint = f"Did you mean {near[0]!r}? " if near else ""
    raise ConfigError(f"motion.{what}={wanted}: the test set has no such {what}. {hint}There is: {_few(known)}.")


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:_SPELT]) + (", ..." if len(names) > _SPELT else "")
