"""What a protocol is, and its Report: for a terminal table, CSV, Markdown, metrics.json and an archive of arrays."""

from __future__ import annotations

import csv
import io
import math
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from torch import Tensor
from torchmetrics import Metric

if TYPE_CHECKING:
    from rich.table import Table

Row = dict[str, Any]


class Report:
    """Numbers of one evaluation.

    A row of a table begins with its labels (strings, such as the action) and goes on with numbers. Footers are rows
    that summarise a table; they are printed below it and are no groups of their own.

    A plain class: torchmetrics copies dataclasses that a Metric returns, arrays included.

    Attributes:
        protocol: name of the protocol.
        version: of the protocol; numbers of different versions never stand in one table.
        scalars: flat results such as `mpjpe`, in the unit the protocol documents.
        tables: short tables by name ("action", "joint", "subject"), a list of rows each.
        footers: summarising rows by table name.
        arrays: long results, such as errors per sequence.
        figures: functions that draw one figure each.
        files: further files by the end of their name ("sequencewise.csv"), as text.
        digits: decimals shown by name of column, where not one.
        note: what a reader of any of the numbers must know, such as a tested subset; stands beside every table.
        missing: what a table shows for NaN and None where these mean "not known", such as "-"; such numbers are then
            left out of metrics. "" = a NaN is a number that went wrong, which is shown.
        summary: the one row that stands for the report in a table of methods (`protocols.methods`), if any.
        official: files of a released program under their own names: from the text that is there, None where there is
            none, to the text that is written.
    """

    def __init__(
        self,
        protocol: str,
        *,
        version: int,
        scalars: Mapping[str, float],
        tables: Mapping[str, Sequence[Row]] | None = None,
        footers: Mapping[str, Sequence[Row]] | None = None,
        arrays: Mapping[str, np.ndarray] | None = None,
        figures: Mapping[str, Callable[[], Any]] | None = None,
        files: Mapping[str, str] | None = None,
        digits: Mapping[str, int] | None = None,
        note: str = "",
        missing: str = "",
        summary: Row | None = None,
        official: Mapping[str, Callable[[str | None], str]] | None = None,
    ) -> None:
        self.protocol = protocol
        self.version = version
        self.scalars = {name: float(value) for name, value in scalars.items()}
        self.tables = {name: list(rows) for name, rows in (tables or {}).items()}
        self.footers = {name: list(rows) for name, rows in (footers or {}).items()}
        self.arrays = dict(arrays or {})
        self.figures = dict(figures or {})
        self.files = dict(files or {})
        self.digits = dict(digits or {})
        self.note, self.missing = note, missing
        self.summary = dict(summary or {})
        self.official = dict(official or {})

    @property
    def empty(self) -> bool:
        """Whether nothing was measured, as of a baseline whose training data is not at hand."""
        return bool(self.missing and self.scalars) and all(map(math.isnan, self.scalars.values()))

    def to_metrics(self, prefix: str) -> dict[str, float]:
        """Flat names for `metrics.json`: `test/mpjpe`, `test/mpjpe/Walking` per action, `test/mpjpe_joint/nose`.

        Args:
            prefix: the stage, or stage and variant ("test", "test/single").
        """
        flat = {f"{prefix}/{name}": value for name, value in self.scalars.items()}
        for table, rows in self.tables.items():
            kind = "" if table == "action" else f"_{table}"
            for row in rows:
                label = "/".join(value for value in row.values() if isinstance(value, str))
                flat |= {
                    f"{prefix}/{column}{kind}/{label}": value
                    for column, value in row.items()
                    if isinstance(value, float)
                }
        return {key: value for key, value in flat.items() if not (self.missing and math.isnan(value))}

    def to_rich(self, title: str | None = None) -> list[Table]:
        """Tables for the terminal, the first one titled."""
        from rich.table import Table

        drawn = []
        for name, rows in self.tables.items():
            if not rows:
                continue
            heading = f"{title or self.protocol}: per {name.replace('_', ' and ')}"
            table = Table(title=heading, title_justify="left", caption=self.note or None, caption_justify="left")
            for column in rows[0]:
                text = isinstance(rows[0][column], str)
                table.add_column(column, justify="left" if text else "right", no_wrap=True)
            footers = self.footers.get(name, [])
            for number, row in enumerate([*rows, *footers]):
                table.add_row(
                    *(self.shown(column, row) for column in rows[0]),
                    end_section=bool(footers) and number == len(rows) - 1,
                )
            drawn.append(table)
        return drawn

    def to_markdown(self, title: str | None = None) -> str:
        """The tables as Markdown, under one heading."""
        parts = [f"## {title or self.protocol}"]
        if self.scalars:
            parts.append(", ".join(f"{name} {self.shown(name, self.scalars)}" for name in self.scalars))
        if self.note:
            parts.append(self.note)
        for name, rows in self.tables.items():
            if not rows:
                continue
            columns = list(rows[0])
            bars = ["---" if isinstance(rows[0][column], str) else "---:" for column in columns]
            lines = [f"| {' | '.join(columns)} |", f"|{'|'.join(bars)}|"]
            for row in rows:
                lines.append(f"| {' | '.join(_cell(self.shown(column, row)) for column in columns)} |")
            for row in self.footers.get(name, []):
                cells = (_cell(self.shown(column, row)) for column in columns)
                lines.append(f"| {' | '.join(f'**{cell}**' if cell else '' for cell in cells)} |")
            if len(self.tables) > 1:
                parts.append(f"### By {name.replace('_', ' ')}")
            parts.append("\n".join(lines))
        return "\n\n".join(parts) + "\n"

    def to_csv(self) -> str:
        """All tables in one file: `table`, `name`, then every column; summarising rows carry their own label."""
        columns: list[str] = []
        lines: list[Row] = []
        for table, rows in self.tables.items():
            for row in [*rows, *self.footers.get(table, [])]:
                label = "/".join(value for value in row.values() if isinstance(value, str))
                numbers = {key: value for key, value in row.items() if not isinstance(value, str)}
                if self.missing:
                    numbers = {key: None if _unknown(value) else value for key, value in numbers.items()}
                columns += [key for key in numbers if key not in columns]
                lines.append({"table": table, "name": label, **numbers})
        file = io.StringIO()
        writer = csv.DictWriter(file, ["table", "name", *columns], lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)
        return file.getvalue()

    def shown(self, column: str, row: Mapping[str, Any]) -> str:
        """A value as text: counts and labels as they are, errors with the decimals of their column."""
        value = row.get(column)
        if value is None or (self.missing and _unknown(value)):
            return self.missing if column in row else ""  # a summarising row need not have every column
        if isinstance(value, (str, int, np.integer)):
            return str(value)
        return f"{value:.{self.digits.get(column.removesuffix('_frames'), 1)}f}"

    def save_arrays(self, path: Path) -> None:
        """Write the long results as a compressed archive, with what they belong to."""
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}")
        with temporary.open("wb") as file:
            np.savez_compressed(file, protocol=self.protocol, version=self.version, **self.arrays)  # type: ignore[arg-type]
        temporary.replace(path)


class Protocol(Metric):
    """A way to judge predictions exactly as one family of papers does: `Protocol(windows, **options)`.

    States are tensors of sums and counts, one entry per frame, sequence or window; batches in any order, on any number
    of ranks, and with fillers (index -1) give the same report.

    Attributes:
        name: as in yaml.
        version: raised when numbers change.
        scalars: names the report can have.
        needs: batch keys.
    """

    name: ClassVar[str]
    version: ClassVar[int]
    scalars: ClassVar[tuple[str, ...]]
    needs: ClassVar[frozenset[str]]
    full_state_update: bool | None = False
    is_differentiable: bool | None = False
    higher_is_better: bool | None = False

    @abstractmethod
    def update(self, prediction: Tensor, batch: Mapping[str, Tensor]) -> None:
        """Add a batch."""

    @abstractmethod
    def compute(self) -> Report:
        """Report everything added so far, over all ranks."""

    def standing(self) -> dict[str, Any]:
        """What this rank has added so far, as plain tensors: an interrupted evaluation goes on from it."""
        return {"updates": self._update_count, "states": dict(self.metric_state)}

    def take_up(self, standing: Mapping[str, Any]) -> None:
        """Go on from what `standing` gave, in place of everything added so far."""
        self.reset()
        for name, value in standing["states"].items():
            many = isinstance(value, list)
            setattr(self, name, [one.to(self.device) for one in value] if many else value.to(self.device))
        self._update_count = int(standing["updates"])


def _unknown(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
