"""What is measured: every row with its reference, its minimum and its goal."""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from scripts.bench.measure import Clock, Pair

Kind = Literal["ratio", "memory", "overhead"]
_MODULES = (
    "networks", "video", "hmsft", "metrics", "data", "training", "action", "mamba", "diffusion", "prediction", "gpu",
)  # fmt: skip
_ROWS: dict[str, Row] = {}


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        name: of the result file.
        operation: what is measured.
        reference: what it is measured against.
        build: from sizes to the two forms on their data.
        sizes: of the measured case.
        small: of the equality test.
        bound: a ratio or "memory" share or "overhead" in ms that must be reached: at least for ratios, at most else.
        goal: what was reached when the row was written.
        tolerance: largest difference between both forms.
        kind: "ratio" = reference time / our time; "memory" = our peak / the reference's; "overhead" = ms per step more.
        clock: see `measure.interleaved`.
        rounds: timed rounds; `--quick` halves them.
        needs: modules that must be importable, "cuda" = a CUDA device, "compiler" = the compiled scan (built where it
            is not, which may take a minute).
    """

    name: str
    operation: str
    reference: str
    build: Callable[..., Pair]
    sizes: Mapping[str, Any]
    small: Mapping[str, Any]
    bound: float
    goal: float
    tolerance: float
    kind: Kind = "ratio"
    clock: Clock = "cpu"
    rounds: int = 5
    needs: tuple[str, ...] = ()

    def reaches(self, value: float) -> bool:
        """Whether a value keeps the bound."""
        return value >= self.bound if self.kind == "ratio" else value <= self.bound

    def missing(self) -> str | None:
        """What this machine lacks to measure the row."""
        import torch

        for name in self.needs:
            if name == "cuda":
                if not torch.cuda.is_available():
                    return "no CUDA device"
            elif name == "compiler":
                from kinema.models.layers.scan import cpp

                reason = cpp.unavailable(torch.zeros(1, 1, 1))
                if reason is not None:
                    return reason.rstrip(".")
            elif importlib.util.find_spec(name) is None:
                return f"{name} is not installed"
        return None


def bench(
    build: Callable[..., Pair], name: str, *, sizes: Mapping[str, Any], small: Mapping[str, Any], **facts: Any
) -> None:
    """Register a row: its name, the sizes of the measured case, what is smaller in the equality test, its facts."""
    assert name not in _ROWS, name
    _ROWS[name] = Row(name=name, build=build, sizes=sizes, small={**sizes, **small}, **facts)


@cache
def rows() -> dict[str, Row]:
    """Every row by name, in the order of the table."""
    for module in _MODULES:
        importlib.import_module(f"scripts.bench.bench_{module}")
    return _ROWS
