"""The cost of a clip against its length, Mamba beside attention: python -m scripts.bench --only sequence_cost."""

from __future__ import annotations

import csv
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import nn

from kinema.models.dbmambapose import MambaBlock
from kinema.models.dstformer import DSTBlock
from kinema.models.layers.mamba import BiMamba
from kinema.models.layers.scan import cpp
from kinema.viz.skeleton import OTHER, RIGHT, new_figure
from scripts.bench.measure import REPOSITORY
from scripts.bench.stores import scatter

LENGTHS = (27, 81, 243, 729, 2187)
# From here on the fit of the exponent holds; shorter clips show what calling an operator costs.
FIT_FROM = 243
JOINTS, DIM, MLP_RATIO, HEADS = 17, 64, 3, 8
FILES = REPOSITORY / "bench" / "results"
DOCS = REPOSITORY / "docs" / "results"
NAME = "sequence_cost"
Costs = Mapping[str, Mapping[int, float]]


class TemporalAttention(nn.Module):
    """The temporal half of a DSTformer block."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.block = DSTBlock(
            dim, HEADS, MLP_RATIO * dim, temporal_first=True, qkv_bias=True, dropout=0.0, attn_dropout=0.0,
            drop_path=0.0,
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.block.temporal(x)


def blocks(dim: int = DIM) -> dict[str, nn.Module]:
    """Temporal blocks of equal width, each with its MLP, by the name in the plot; the compiled scan where it runs."""

    def mamba(backend: str) -> nn.Module:
        mixer = BiMamba(dim, variant="v2", d_state=4, d_conv=4, expand=2, divide=True, scan_backend=backend)
        return MambaBlock(dim, MLP_RATIO * dim, mixer, over_time=True, layer_scale=0.5)

    torch.manual_seed(0)
    made = {"attention": TemporalAttention(dim), "Mamba, torch": mamba("torch")}
    if cpp.unavailable(torch.zeros(1, 1, 1)) is None:
        made["Mamba, cpp"] = mamba("cpp")
    for block in made.values():
        scatter(block)
    return made


def measure(
    made: Mapping[str, nn.Module], lengths: Sequence[int] = LENGTHS, rounds: int = 4
) -> dict[str, dict[int, float]]:
    """CPU seconds of a forward pass on one clip, by block and number of frames: medians of rounds taken in turns."""
    costs: dict[str, dict[int, float]] = {name: {} for name in made}
    for length in lengths:
        torch.manual_seed(1)
        x = torch.randn(1, length, JOINTS, DIM)
        spent: dict[str, list[float]] = {name: [] for name in made}
        for number in range(rounds + 1):
            for name, block in made.items():
                seconds = _cpu_seconds(lambda block=block, x=x: block(x))  # type: ignore[misc]
                if number:
                    spent[name].append(seconds)
        for name, times in spent.items():
            costs[name][length] = statistics.median(times)
    return costs


@torch.no_grad()
def _cpu_seconds(call: Callable[[], object], least: float = 0.02) -> float:
    """Process time of one call, as the mean of so many that they take `least` seconds."""
    count, started = 0, time.process_time()
    while not count or time.process_time() - started < least:
        call()
        count += 1
    return (time.process_time() - started) / count


def exponent(costs: Mapping[int, float], start: int = FIT_FROM) -> float:
    """Slope of log cost over log length, by least squares: 1 where the cost is linear, 2 where it is quadratic."""
    lengths = [length for length in costs if length >= start]
    return float(np.polyfit(np.log(lengths), np.log([costs[length] for length in lengths]), 1)[0])


def lines(costs: Costs) -> list[str]:
    """The table as it is printed: ms by length, and the exponent of every block."""
    heads = [f"{length:>9}" for length in next(iter(costs.values()))]
    out = [f"{'temporal block, ms for frames':32}{''.join(heads)}   exponent from {FIT_FROM}"]
    for name, by_length in costs.items():
        cells = "".join(f"{seconds * 1e3:9.2f}" for seconds in by_length.values())
        out.append(f"{name:32}{cells}{exponent(by_length):11.2f}")
    return out


def save(costs: Costs, folder: Path = FILES) -> list[Path]:
    """Write the numbers as csv and the plot as png."""
    folder.mkdir(parents=True, exist_ok=True)
    table, picture = folder / f"{NAME}.csv", folder / f"{NAME}.png"
    with table.open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["block", "frames", "cpu_ms"])
        for name, by_length in costs.items():
            writer.writerows([name, length, f"{seconds * 1e3:.4g}"] for length, seconds in by_length.items())
    plot(costs, picture)
    return [table, picture]


def load(table: Path = FILES / f"{NAME}.csv") -> dict[str, dict[int, float]]:
    """Read what `save` wrote."""
    costs: dict[str, dict[int, float]] = {}
    with table.open(newline="") as file:
        for row in csv.DictReader(file):
            costs.setdefault(row["block"], {})[int(row["frames"])] = float(row["cpu_ms"]) / 1e3
    return costs


def plot(costs: Costs, path: Path) -> None:
    """Cost over length, both logarithmic, with the exponent of every line, and the slope of a linear cost."""
    figure = new_figure(6.4, 4.2, dpi=150)
    axes = figure.add_axes((0.12, 0.13, 0.84, 0.77))
    styles = ((RIGHT, "o"), (OTHER, "s"), ("#0969da", "^"))
    for (name, by_length), (colour, marker) in zip(costs.items(), styles, strict=False):
        label = f"{name} (frames to the power of {exponent(by_length):.2f})"
        times = [1e3 * seconds for seconds in by_length.values()]
        axes.plot(list(by_length), times, color=colour, marker=marker, markersize=5, label=label)
    lengths = np.array(list(next(iter(costs.values()))))
    cheapest = min(min(by_length.values()) for by_length in costs.values())
    axes.plot(lengths, 500 * cheapest * lengths / lengths[0], color="#8c959f", linestyle=":", label="linear")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks(lengths, [str(length) for length in lengths])
    axes.minorticks_off()
    axes.set_xlabel("frames of the clip")
    axes.set_ylabel("CPU time of a forward pass, ms")
    axes.set_title(f"One temporal block, {JOINTS} joints, {DIM} channels, one thread", fontsize=10)
    axes.grid(color="#d0d7de", linewidth=0.6)
    axes.legend(fontsize=8, frameon=False)
    figure.savefig(path)


def run(*, quick: bool = False) -> dict[str, dict[int, float]]:
    """Measure, print and keep beside the results of the benches."""
    costs = measure(blocks(), rounds=2 if quick else 4)
    print("\n".join(lines(costs)))
    print(f"plot: {save(costs)[1]}")
    return costs


def write_docs() -> list[Path]:
    """Put the last measurement into the documentation, if there is one."""
    table = FILES / f"{NAME}.csv"
    return save(load(table), DOCS) if table.is_file() else []
