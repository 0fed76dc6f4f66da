"""Which sequences belong to training, validation and test: by subject, trial and action, as the yaml says."""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from kinema.data.sequences import Sequences
from kinema.errors import ConfigError, DataError

STAGES = ("train", "val", "test", "predict")


@dataclass(frozen=True)
class Splits:
    """Rows of a Sequences table for each stage.

    Attributes:
        subjects_train, subjects_val, subjects_test: names or globs, in the order the sequences are visited; None = what
            the table's `split` column says, and where it is empty every sequence is for testing.
        trials_val: "subject/trial" withheld from training for validation, whatever `selection` is; unused where
            `subjects_val` is given.
        selection: the split that validation uses: "val", or "test" (published behaviour of most papers).
        actions: keep trials whose name begins with one of these; None = all. (VideoPose3D: `Walk` keeps WalkDog.)
    """

    subjects_train: tuple[str, ...] | None
    subjects_val: tuple[str, ...] | None
    subjects_test: tuple[str, ...] | None
    trials_val: tuple[str, ...]
    selection: str
    actions: tuple[str, ...] | None

    def __post_init__(self) -> None:
        if self.selection not in ("val", "test"):
            raise ConfigError(f"dataset.selection={self.selection} is neither val nor test. Use dataset.selection=val.")

    def rows(self, sequences: Sequences, stage: str) -> np.ndarray:
        """Row numbers of a stage, in the order they are visited.

        Raises:
            ConfigError: for a subject, trial or action the data does not have, with the nearest one it has.
        """
        acted = self._acted(sequences)
        if stage == "train":
            rows = _subjects(sequences, self.subjects_train, "train")
            withheld = np.zeros(len(sequences), bool)
            if self.subjects_val is None and self.trials_val:
                withheld = _trials(sequences, self.trials_val)
            return rows[acted[rows] & ~withheld[rows]]
        if stage == "val" and self.selection == "val":
            if self.subjects_val is None and self.trials_val:
                rows = np.flatnonzero(_trials(sequences, self.trials_val))
            else:
                rows = _subjects(sequences, self.subjects_val, "val")
        else:
            rows = _subjects(sequences, self.subjects_test, "test")
        return rows[acted[rows]]

    def withheld(self, sequences: Sequences) -> np.ndarray:
        """Row numbers of the trials withheld from training, in the order of the table."""
        return np.flatnonzero(_trials(sequences, self.trials_val))

    def _acted(self, sequences: Sequences) -> np.ndarray:
        if self.actions is None:
            return np.ones(len(sequences), bool)
        trials = sequences.table["trial"]
        kept = np.zeros(len(sequences), bool)
        for wanted in self.actions:
            found = np.char.startswith(trials, wanted)
            if not found.any():
                raise ConfigError(_unknown("actions", "action", wanted, sequences.table["action"]))
            kept |= found
        return kept


def _subjects(sequences: Sequences, wanted: tuple[str, ...] | None, split: str) -> np.ndarray:
    if wanted is None:
        splits = sequences.table["split"]
        unsplit = split == "test" and not (splits != "").any()
        return np.flatnonzero((splits == split) | unsplit)
    subjects = sequences.table["subject"]
    known = list(dict.fromkeys(subjects.tolist()))
    chosen: dict[str, None] = {}
    for pattern in wanted:
        names = [name for name in known if fnmatch.fnmatchcase(name, pattern)]
        if not names:
            raise ConfigError(_unknown(f"subjects_{split}", "subject", pattern, subjects))
        chosen |= dict.fromkeys(names)
    empty = np.empty(0, np.int64)
    return np.concatenate([empty, *(np.flatnonzero(subjects == name) for name in chosen)])


def _trials(sequences: Sequences, wanted: Iterable[str]) -> np.ndarray:
    keys = np.char.add(np.char.add(sequences.table["subject"], "/"), sequences.table["trial"])
    kept = np.zeros(len(sequences), bool)
    for key in wanted:
        if not (keys == key).any():
            raise ConfigError(_unknown("trials_val", "trial", key, keys))
        kept |= keys == key
    return kept


def _unknown(option: str, what: str, name: str, column: np.ndarray) -> str:
    known = list(dict.fromkeys(column.tolist()))
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    shown = ", ".join(known[:20]) + (", ..." if len(known) > 20 else "")
    hint = f"Did you mean {near[0]!r}? " if near else ""
    return f"dataset.{option}: the data has no {what} {name!r}. {hint}It has: {shown}."


def refuse_empty(sequences: Sequences, rows: np.ndarray, stage: str, name: str, root: str) -> None:
    """Refuse a stage without data.

    Raises:
        DataError: saying which subjects there are.
    """
    if len(rows):
        return
    if stage == "val":
        raise DataError(
            f"dataset={name} has nothing to validate on. Name trials in dataset.trials_val or subjects in "
            "dataset.subjects_val, or choose by the test split as the papers do: dataset.selection=test."
        )
    known = ", ".join(dict.fromkeys(sequences.table["subject"].tolist()))
    what, option = ("train", "train") if stage == "train" else ("test", "test")
    raise DataError(
        f"dataset={name} has no sequence to {what} on: {root} holds the subjects {known}. "
        f"Name some of them in dataset.subjects_{option}, or check dataset.actions."
    )
