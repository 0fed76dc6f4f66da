"""How two forms of a computation are timed and weighed against each other."""

from __future__ import annotations

import gc
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

Call = Callable[[], Any]
Clock = Literal["cpu", "wall", "cuda", "own"]
REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Pair:
    """Two forms of one computation on the same data.

    Attributes:
        reference: the plain published form.
        fast: what the library does.
        difference: the largest difference between their results, on the timed inputs and on hard cases.
        before: untimed, ahead of every call of either form.
        close: removes what was built.
        notes: numbers that belong to the result and to no ratio, such as compile time.
    """

    reference: Call
    fast: Call
    difference: Callable[[], float]
    before: Call = lambda: None
    close: Call = lambda: None
    notes: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Spent:
    """Seconds of one call; `wall` beside the clock that counts."""

    counted: float
    wall: float


class Once:
    """A reference that takes many seconds: run once, for the comparison of results, and timed in that run."""

    def __init__(self, call: Call) -> None:
        self._call = call
        self._made: tuple[Any, Spent] | None = None

    def __call__(self) -> Any:
        """The result."""
        return self._run()[0]

    def spent(self, clock: Clock) -> Spent:
        """What the only run took, of process time ("cpu") or on the wall."""
        return self._run()[1] if clock == "cpu" else Spent(self._run()[1].wall, self._run()[1].wall)

    def _run(self) -> tuple[Any, Spent]:
        if self._made is None:
            wall, cpu = time.perf_counter(), time.process_time()
            result = self._call()
            self._made = result, Spent(time.process_time() - cpu, time.perf_counter() - wall)
        return self._made


def interleaved(pair: Pair, clock: Clock, rounds: int) -> tuple[list[Spent], list[Spent]]:
    """Time both forms in turns (A B A B ...) after one round to warm up; a form that is `Once` is not run again.

    Args:
        pair: the forms; on the clock "own" they return a `Spent` of their own, what counts inside a call being known
            only there.
        clock: "cpu" = process time of all threads, "wall", "cuda" = events around a synchronised region, or "own".
        rounds: timed rounds.
    """
    spent: tuple[list[Spent], list[Spent]] = ([], [])
    gc.collect()
    gc.disable()  # a collection would be charged to the form that happens to run
    try:
        for number in range(rounds + 1):
            for form, times in zip((pair.reference, pair.fast), spent, strict=True):
                pair.before()
                took = _timed(form, clock)
                if number:
                    times.append(took)
    finally:
        gc.enable()
    return spent


def _timed(form: Call, clock: Clock) -> Spent:
    if isinstance(form, Once):
        return form.spent(clock)
    if clock == "own":
        own: Spent = form()
        return own
    if clock == "cuda":
        return _timed_on_gpu(form)
    wall, cpu = time.perf_counter(), time.process_time()
    form()
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    return Spent(wall if clock == "wall" else cpu, wall)


def _timed_on_gpu(form: Call) -> Spent:
    import torch

    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda.synchronize()
    wall = time.perf_counter()
    begin.record()
    form()
    end.record()
    torch.cuda.synchronize()
    return Spent(begin.elapsed_time(end) / 1000, time.perf_counter() - wall)


def median(times: list[Spent]) -> float:
    """Median of the clock that counts, seconds."""
    return statistics.median(took.counted for took in times)


def peak_in_fresh_process(row: str, form: Literal["reference", "fast"]) -> int:
    """Peak resident bytes of one call in a process of its own, above its size after imports and inputs."""
    command = [sys.executable, "-m", "scripts.bench.memory", row, form]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{done.stderr[-2000:]}")
    return int(done.stdout.split()[-1])
