"""One row measured: equality, then time or memory, a repetition where the bound is missed."""

from __future__ import annotations

import math
import multiprocessing
import statistics
from multiprocessing.connection import Connection
from typing import Any

from scripts.bench.measure import Spent, interleaved, median, peak_in_fresh_process
from scripts.bench.rows import Row

_FORMS = ("reference", "fast")


class NotEqualError(Exception):
    """Two forms of one computation differ by more than they may."""


def measure_apart(row: Row, environment: dict[str, Any], *, quick: bool = False) -> dict[str, Any]:
    """`measure` in a fork of this process, so that no row finds what another one left in memory and allocator.

    Rows that need CUDA stay here: a driver in use does not survive a fork. So do all where there is no fork.
    """
    if "cuda" in row.needs or "fork" not in multiprocessing.get_all_start_methods():
        return measure(row, environment, quick=quick)
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_send, args=(theirs, row, environment, quick))
    process.start()
    theirs.close()
    try:
        found: dict[str, Any] | Exception = ours.recv()
    except EOFError:
        found = RuntimeError(f"{row.name}: the process ended without a result, perhaps for want of memory")
    process.join()
    if isinstance(found, Exception):
        raise found
    return found


def _send(pipe: Connection, row: Row, environment: dict[str, Any], quick: bool) -> None:
    try:
        pipe.send(measure(row, environment, quick=quick))
    except Exception as error:  # raised again by the parent
        pipe.send(error)


def measure(row: Row, environment: dict[str, Any], *, quick: bool = False) -> dict[str, Any]:
    """Measure a row.

    Args:
        row: which.
        environment: kept with the result.
        quick: half the rounds.

    Returns:
        Plain values for the table and the result file.

    Raises:
        NotEqualError: where both forms differ; nothing is timed then.
    """
    pair = row.build(**row.sizes)
    try:
        difference = pair.difference()
        if not difference <= row.tolerance:
            raise NotEqualError(f"{row.name}: the forms differ by {difference:.3g}, allowed are {row.tolerance:g}")
        rounds = math.ceil(row.rounds / 2) if quick else row.rounds
        found = _once(row, pair, rounds)
        first = found["value"]
        if not row.reaches(first):
            found = _once(row, pair, rounds)
    finally:
        pair.close()
    return {
        "name": row.name,
        "operation": row.operation,
        "against": row.reference,
        "kind": row.kind,
        "clock": row.clock,
        "shapes": dict(row.sizes),
        "dtype": "float64" if row.name == "p_mpjpe" else "float32",
        "bound": row.bound,
        "goal": row.goal,
        "tolerance": row.tolerance,
        "difference": difference,
        "first_value": first,
        "reached": row.reaches(found["value"]),
        **found,
        **({"notes": pair.notes} if pair.notes else {}),
        "environment": environment,
    }


def _once(row: Row, pair: Any, rounds: int) -> dict[str, Any]:
    if row.kind == "memory":
        peaks = [peak_in_fresh_process(row.name, form) for form in _FORMS]  # type: ignore[arg-type]
        return {
            "value": peaks[1] / peaks[0],
            **{form: {"peak_bytes": peak} for form, peak in zip(_FORMS, peaks, strict=True)},
        }
    spent = interleaved(pair, row.clock, rounds)
    plain, fast = median(spent[0]), median(spent[1])
    value = plain / fast if row.kind == "ratio" else (fast - plain) * 1e3
    return {"value": value, "rounds": rounds, **{form: _summary(s) for form, s in zip(_FORMS, spent, strict=True)}}


def _summary(spent: list[Spent]) -> dict[str, float]:
    """Seconds of one form."""
    return {
        "median": median(spent),
        "minimum": min(took.counted for took in spent),
        "wall": statistics.median(took.wall for took in spent),
    }
