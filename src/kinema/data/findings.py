"""Findings: what an examination says about one thing it looked at, and how a list of them is shown."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from kinema.data.sequences import Sequences
from kinema.errors import KinemaError

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True)
class Finding:
    """One result of the examination.

    Attributes:
        severity: "fault" (numbers would be wrong or the run would stop), "warning" or "ok".
        check: what was looked at.
        text: what was found, with the place.
        remedy: what to do; empty where all is well.
    """

    severity: str
    check: str
    text: str
    remedy: str = ""


def faults(findings: Iterable[Finding]) -> list[Finding]:
    """The findings a data set must not have."""
    return [finding for finding in findings if finding.severity == "fault"]


def table(findings: Iterable[Finding], title: str) -> Table:
    """The findings as a table for the terminal."""
    from rich.table import Table
    from rich.text import Text

    colours = {"fault": "bold red", "warning": "yellow", "ok": "green"}
    shown = Table("", "check", "finding", "remedy", title=title, show_lines=False)
    for finding in findings:
        mark = Text(finding.severity, style=colours[finding.severity])
        shown.add_row(mark, finding.check, Text(finding.text), Text(finding.remedy))
    return shown


def from_error(check: str, error: KinemaError) -> Finding:
    """A reader's sentences: the first says what is wrong, the rest what to do."""
    text, remedy = str(error), ""
    for end in (". ", "? "):
        first, found, rest = str(error).partition(end)
        if found and len(first) < len(text):
            text, remedy = first + end.strip(), rest
    return Finding("fault", check, text, remedy)


def first(names: list[str], most: int = 3) -> str:
    """A list for a sentence, cut to its first entries."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def count(number: int, thing: str) -> str:
    """A number of things: 1 clip, 2 clips."""
    return f"{number} {thing}{'s' * (number != 1)}"


def where(sequences: Sequences, rows: np.ndarray) -> str:
    return first([sequences.label(int(row)) for row in rows])
