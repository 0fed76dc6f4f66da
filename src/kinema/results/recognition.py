"""Recognised clips as files (json, csv, scores for mode=fuse and mode=submit) and as tables on the terminal."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from kinema.data.class_list import ClassList
from kinema.files import write_atomic
from kinema.inference.recognise import Recognition
from kinema.protocols.report import Report

if TYPE_CHECKING:
    from rich.table import Table

_ROWS = 40  # of a table on the terminal
# Logarithms of probabilities, as mode=test stores them, must be finite.
_SMALLEST = 1e-30


@dataclass(frozen=True)
class Results:
    """Recognised clips, and those that could not be.

    Attributes:
        classes: of the network.
        found: in the order of the input.
        left_out: name and reason of the others.
        top: how many classes are told of each clip.
    """

    classes: ClassList
    found: Sequence[Recognition]
    left_out: Sequence[tuple[str, str]]
    top: int

    def best(self, probabilities: np.ndarray, count: int | None = None) -> list[int]:
        """Ids of the likeliest classes of (K,), the likeliest first."""
        return [int(one) for one in np.argsort(-probabilities, kind="stable")[: count or self.top]]

    def group(self, label: int) -> str | None:
        """Name of the group of a class, None where there are no groups."""
        classes = self.classes
        if classes.groups is None or classes.group_names is None:
            return None
        return classes.group_names[classes.groups[label]]

    # Files.

    def write(self, path: Path, meta: Mapping[str, Any]) -> list[Path]:
        """Write `path` (.json), a .csv beside it, and the scores as mode=test does, in report.npz.

        Args:
            path: of the json file.
            meta: what else to tell: checkpoint, input, ways.

        Returns:
            The files.
        """
        content = {
            **meta,
            "classes": list(self.classes.names),
            "clips": [self._clip(one) for one in self.found],
            "left_out": [{"clip": name, "reason": reason} for name, reason in self.left_out],
        }
        write_atomic(path, json.dumps(content, indent=1))
        write_atomic(path.with_suffix(".csv"), self._csv())
        scores = path.with_name("report.npz")
        self._report().save_arrays(scores)
        return [path, path.with_suffix(".csv"), scores]

    def _clip(self, one: Recognition) -> dict[str, Any]:
        windows = [
            {**self._place(one, row), "classes": self._named(one.probabilities[row])} for row in range(len(one.spans))
        ]
        told = {"clip": one.name, "frames": one.frames, "fps": one.fps, "classes": self._named(one.mean)}
        return told | ({"windows": windows} if len(windows) > 1 else {})

    @staticmethod
    def _place(one: Recognition, row: int) -> dict[str, Any]:
        first, end = (int(frame) for frame in one.spans[row])
        times = {} if one.fps is None else {"start": round(first / one.fps, 3), "end": round(end / one.fps, 3)}
        return {"first": first, "last": end - 1, **times}

    def _named(self, probabilities: np.ndarray) -> list[dict[str, Any]]:
        named = []
        for label in self.best(probabilities):
            group = self.group(label)
            entry = {
                "class": self.classes.names[label],
                "id": label,
                "probability": round(float(probabilities[label]), 6),
            }
            named.append(entry | ({} if group is None else {"group": group}))
        return named

    def _csv(self) -> str:
        """A line per window: the whole clip, or a part of it."""
        text = io.StringIO()
        count = min(self.top, len(self.classes))
        ranks = [f"{what}_{rank}" for rank in range(1, count + 1) for what in ("class", "probability")]
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(["clip", "first", "last", "start", "end", *ranks])
        for one in self.found:
            for row, probabilities in enumerate(one.probabilities):
                place = self._place(one, row)
                cells: list[Any] = [place.get(key, "") for key in ("first", "last", "start", "end")]
                for label in self.best(probabilities, count):
                    cells += [self.classes.names[label], f"{probabilities[label]:.6f}"]
                writer.writerow([one.name, *cells])
        return text.getvalue()

    def _report(self) -> Report:
        arrays = {
            "names": np.asarray([one.name for one in self.found], dtype=str),
            "labels": np.full(len(self.found), -1, np.int64),
            "scores": np.log(np.maximum([one.mean for one in self.found], _SMALLEST)).astype(np.float32),
            "classes": np.asarray(self.classes.names, dtype=str),
        }
        if self.classes.groups is not None:
            arrays["groups"] = np.asarray(self.classes.groups, np.int64)
        return Report(protocol="prediction", version=1, scalars={}, arrays=arrays)

    # Tables.

    def tables(self) -> list[Table]:
        """What is worth a look on a terminal."""
        if len(self.found) != 1:
            return [self._clips()]
        (one,) = self.found
        whole = self._classes(one)
        return [whole] if len(one.spans) == 1 else [self._times(one), whole]

    def _classes(self, one: Recognition) -> Table:
        from rich.table import Table

        grouped = self.classes.groups is not None
        mean = "" if len(one.spans) == 1 else f", mean of {len(one.spans)} windows"
        table = Table(title=f"{one.name}: {one.frames} frames{mean}", title_justify="left")
        table.add_column("class")
        if grouped:
            table.add_column("group")
        table.add_column("probability", justify="right")
        table.add_column("")
        probabilities = one.mean
        for label in self.best(probabilities):
            share = float(probabilities[label])
            group = [self.group(label) or ""] if grouped else []
            table.add_row(self.classes.names[label], *group, f"{100 * share:.1f} %", "█" * round(30 * share))
        return table

    def _times(self, one: Recognition) -> Table:
        """Neighbouring windows of one class joined."""
        from rich.table import Table

        unit = "frame" if one.fps is None else "s"
        table = Table(title=f"{one.name}: {len(one.spans)} windows", title_justify="left")
        for column in (f"from ({unit})", f"to ({unit})"):
            table.add_column(column, justify="right")
        table.add_column("class")
        table.add_column("probability", justify="right")
        parts = stretches(one)
        for first, end, label, share in parts[:_ROWS]:
            ends = (first, end) if one.fps is None else (first / one.fps, end / one.fps)
            shown = [f"{value:.0f}" if one.fps is None else f"{value:.2f}" for value in ends]
            table.add_row(*shown, self.classes.names[label], f"{100 * share:.1f} %")
        _more(table, len(parts))
        return table

    def _clips(self) -> Table:
        from rich.table import Table

        count = min(self.top, len(self.classes), 3)
        table = Table(title=f"{len(self.found)} clips", title_justify="left")
        table.add_column("clip")
        for rank in range(1, count + 1):
            table.add_column(f"{rank}.")
            table.add_column("%", justify="right")
        for one in self.found[:_ROWS]:
            cells: list[str] = []
            for label in self.best(one.mean, count):
                cells += [self.classes.names[label], f"{100 * float(one.mean[label]):.1f}"]
            table.add_row(one.name, *cells)
        _more(table, len(self.found))
        return table


def stretches(one: Recognition) -> list[tuple[float, float, int, float]]:
    """Neighbouring windows of one likeliest class joined: first frame, end, class, and its mean probability there."""
    joined: list[tuple[float, float, int, float]] = []
    for (first, end), probabilities in zip(one.own.tolist(), one.probabilities, strict=True):
        label = int(probabilities.argmax())
        share = float(probabilities[label])
        if joined and joined[-1][2] == label:
            start, middle, _, before = joined[-1]
            share = (before * (middle - start) + share * (end - first)) / (end - start)
            joined[-1] = (start, end, label, share)
        else:
            joined.append((first, end, label, share))
    return joined


def _more(table: Table, count: int) -> None:
    if count > _ROWS:
        table.add_row(f"and {count - _ROWS} more", *[""] * (len(table.columns) - 1))
