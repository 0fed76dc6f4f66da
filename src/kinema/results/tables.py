"""Tables of published and own results: one line each, notes below, as Markdown, LaTeX, CSV and for the terminal."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from kinema.results.registry import AVERAGE, Method, Published, Registry, TableSpec

if TYPE_CHECKING:
    import rich.table

NOTHING = "-"
# A result farther from the published one than this factor is no matter of training.
MAGNITUDE = 2.0
CAUSES = (
    "Likely causes: 2D keypoints of another detector or in another order of joints, weights that belong to another "
    "network or input, lengths in another unit, or a run that was cut short."
)
_DIGITS = {"parameters": 0, "steps": 0, "seed": 0}
_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{sign: rf"\{sign}" for sign in "&%$#_{}"},
}


@dataclass(frozen=True)
class Measured:
    """Numbers that were measured here.

    Attributes:
        label: what was evaluated: a checkpoint's name, or a run with its seed.
        metrics: as in `metrics.json`, the names without "test/".
        protocol: name of the protocol.
        version: of the protocol.
        facts: of the training, by the names of `TableSpec.facts`.
        notes: sentences that belong to the numbers, such as the command.
    """

    label: str
    metrics: Mapping[str, float]
    protocol: str
    version: int
    facts: Mapping[str, float] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


@dataclass
class Line:
    """A line of a table: system, whose values, the values by column, the sentences behind it."""

    system: str
    whose: str
    values: Mapping[str, float]
    notes: tuple[str, ...] = ()


@dataclass
class Table:
    """A finished table.

    Attributes:
        name: key of the registry.
        title: with protocol and version.
        columns: of the values.
        lines: in order.
        digits: decimals of the values.
    """

    name: str
    title: str
    columns: tuple[str, ...]
    lines: list[Line]
    digits: int = 1

    @property
    def notes(self) -> list[str]:
        """The sentences of all lines, each once; a line refers to them by number, from 1."""
        return list(dict.fromkeys(note for line in self.lines for note in line.notes))

    def cells(self, line: Line) -> list[str]:
        """A line as text: system, whose, values, numbers of its notes."""
        notes = self.notes
        numbers = ", ".join(str(notes.index(note) + 1) for note in dict.fromkeys(line.notes))
        return [
            line.system,
            line.whose,
            *(shown(column, line.values.get(column), self.digits) for column in self.columns),
            numbers,
        ]

    @property
    def header(self) -> list[str]:
        """Names of all columns."""
        return ["system", "values", *self.columns, "notes"]

    def to_markdown(self) -> str:
        """A heading, the table, the notes."""
        rows = [self.header, ["---", "---", *("---:" for _ in self.columns), "---"]]
        rows += [[cell.replace("|", "\\|") for cell in self.cells(line)] for line in self.lines]
        table = "\n".join(f"| {' | '.join(row)} |" for row in rows)
        notes = "\n".join(f"{number}. {note}" for number, note in enumerate(self.notes, start=1))
        return "\n\n".join(part for part in (f"## {self.title}", table, notes) if part) + "\n"

    def to_latex(self) -> str:
        """A floating table that needs the package booktabs."""
        rows = [" & ".join(latex(cell) for cell in self.cells(line)) + r" \\" for line in self.lines]
        notes = [rf"{number}. {latex(note)}\par" for number, note in enumerate(self.notes, start=1)]
        return "\n".join(
            [
                r"\begin{table*}",
                rf"\caption{{{latex(self.title)}}}",
                r"\small",
                rf"\begin{{tabular}}{{ll{'r' * len(self.columns)}l}}",
                r"\toprule",
                " & ".join(latex(cell) for cell in self.header) + r" \\",
                r"\midrule",
                *rows,
                r"\bottomrule",
                r"\end{tabular}\par",
                *([r"\footnotesize"] if notes else []),
                *notes,
                r"\end{table*}",
                "",
            ]
        )

    def to_rich(self) -> rich.table.Table:
        """For the terminal, without the notes."""
        from rich.table import Table as Drawn

        drawn = Drawn(title=self.title, title_justify="left")
        for column in self.header:
            drawn.add_column(column, justify="right" if column in self.columns else "left", no_wrap=column != "system")
        for line in self.lines:
            drawn.add_row(*self.cells(line))
        return drawn


def to_csv(tables: Sequence[Table]) -> str:
    """All tables in one file: `table`, `system`, `values`, every column, and the notes as text."""
    columns = list(dict.fromkeys(column for table in tables for column in table.columns))
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(["table", "system", "values", *columns, "notes"])
    for table in tables:
        for line in table.lines:
            cells = [line.values.get(column, "") for column in columns]
            writer.writerow([table.name, line.system, line.whose, *cells, " ".join(line.notes)])
    return file.getvalue()


def build(
    spec: TableSpec,
    registry: Registry,
    measured: Mapping[str, Sequence[Measured]],
    missing: Mapping[str, Sequence[str]],
    version: int,
    failures: Mapping[str, Sequence[str]] | None = None,
) -> Table:
    """Set what was published beside what was measured.

    Args:
        spec: the table.
        registry: methods and published rows.
        measured: numbers by method; those of another protocol are of another table, those of another version of the
            protocol are left out with a sentence.
        missing: by method, why there is no number and how to get one; shown where there is none.
        version: of the protocol.
        failures: by method, what went wrong; always shown.
    """
    lines: list[Line] = []
    for row in registry.results[spec.name]:
        method = registry.methods[row.method]
        if row.values or method.experiment is None:
            where = f"{method.name}: {method.paper}, {row.source}." if row.source else f"{method.name}: {method.paper}."
            note = (f"{method.name}: {row.note}.",) if row.note else ()
            lines.append(Line(method.name, "published", row.values, (where, *note)))
        if method.experiment is not None:
            remarks = (f"{method.name}: {row.note}.",) if row.note and not row.values else ()
            remarks = (*(failures or {}).get(row.method, ()), *remarks)
            if method.design == "ours":
                system = method.name.split(",")[0]
                remarks = (*remarks, f"{system}: our own network under this name and no reproduction; the authors' "
                                     f"network is not published.")  # fmt: skip
            lines += _ours(
                spec, method, row, measured.get(row.method, ()), missing.get(row.method, ()), version, remarks
            )
    title = f"{spec.title} (protocol {spec.protocol}, version {version})"
    return Table(spec.name, title, (*spec.columns, *spec.facts), lines, spec.digits)


def _ours(
    spec: TableSpec,
    method: Method,
    row: Published,
    measured: Sequence[Measured],
    missing: Sequence[str],
    version: int,
    remarks: tuple[str, ...],
) -> list[Line]:
    lines, refused = [], []
    for one in measured:
        if one.protocol != spec.protocol:
            continue
        if one.version != version:
            refused.append(f"{method.name}, {one.label}: measured by version {one.version} of the protocol, which is "
                           f"never set beside version {version}. Evaluate it again.")  # fmt: skip
            continue
        facts = {fact: one.facts[fact] for fact in spec.facts if fact in one.facts}
        values = {**_values(spec, one.metrics, method.variant), **facts}
        notes = (
            f"{method.name}: {one.label}.",
            *one.notes,
            *remarks,
            *magnitude(method.name, values, row.values, spec.ranges),
        )
        lines.append(Line(method.name, "ours", values, notes))
    if not lines:
        return [Line(method.name, "ours", {}, (*(refused or missing), *remarks))]
    lines[-1].notes = (*lines[-1].notes, *refused)
    return lines


def _values(spec: TableSpec, metrics: Mapping[str, float], variant: str) -> dict[str, float]:
    keys = {label: f"{variant}/{key}" if variant else key for label, key in spec.columns.items() if key is not None}
    values = {label: metrics[key] for label, key in keys.items() if key in metrics}
    for label, key in spec.columns.items():
        if key is None and len(values) == len(spec.columns) - 1:
            values[label] = sum(values.values()) / len(values)
    return values


def magnitude(
    name: str,
    ours: Mapping[str, float],
    published: Mapping[str, float],
    ranges: Mapping[str, tuple[float, float]],
) -> tuple[str, ...]:
    """A sentence of warning where a number is of another order than the published one; empty otherwise.

    Where nothing was published that could be compared, the range of the column decides.
    """
    common = [column for column in published if column in ours]
    for column, (low, high) in ({} if common else ranges).items():
        if column in ours and not low <= ours[column] <= high:
            return (
                f"WRONG ORDER OF MAGNITUDE. {name}, {column}: {ours[column]:.4g} is no value that this column can have "
                f"({low:g} to {high:g}; nothing was published to compare it with). {CAUSES}",
            )
    for column in [AVERAGE] if AVERAGE in common else common:
        ratio = ours[column] / published[column]
        if not 1 / MAGNITUDE <= ratio <= MAGNITUDE:
            return (
                f"WRONG ORDER OF MAGNITUDE. {name}, {column}: {ours[column]:.1f} is {ratio:.2g} times the published "
                f"{published[column]:.1f}. {CAUSES}",
            )
    return ()


def shown(column: str, value: float | None, digits: int = 1) -> str:
    """A value as text: its decimals, counts as whole numbers, a dash where there is none."""
    if value is None or not math.isfinite(value):
        return NOTHING
    return f"{value:,.{_DIGITS.get(column, digits)}f}"


def latex(text: str) -> str:
    """Text with LaTeX's special characters escaped."""
    return "".join(_LATEX.get(character, character) for character in text)
