"""What the networks of a set of tables cost: parameters and multiply-accumulates, counted here and not quoted."""

from __future__ import annotations

import torch
from torch import nn

from kinema import composition
from kinema.inference.complexity import count_macs, count_parameters
from kinema.results.registry import CostSpec, Registry
from kinema.results.tables import Line, Table

COLUMNS = ("parameters", "MMAC", "MMAC without condition")
RULE = (
    "Counted here: one sequence, one call of the network, every matrix product (linear layers, graph convolutions with "
    "their adjacencies, attention); not norms, softmax, activations and sums."
)


def table(registry: Registry, spec: CostSpec) -> Table:
    """Parameters and multiply-accumulates of a set's networks, each with and without the condition."""
    lines = []
    for name in spec.methods:
        method = registry.methods[name]
        model = _network(f"experiment={method.experiment}", *method.overrides)
        macs = count_macs(model)
        assert macs.unconditional is not None  # what a set of costs names are networks of task=prediction
        values = {
            "parameters": float(count_parameters(model)),
            "MMAC": macs.total / 1e6,
            "MMAC without condition": macs.unconditional / 1e6,
        }
        lines.append(Line(method.name, "counted", values, (RULE,)))
    if len(lines) == 2:
        first, second = lines
        remark = ", ".join(f"{_change(first.values[key], second.values[key])} {key}" for key in COLUMNS[:2])
        first.notes = (*first.notes, f"{first.system} against {second.system}: {remark}.", *spec.notes)
    return Table(f"{spec.set}_cost", spec.title, COLUMNS, lines, digits=1)


def _change(value: float, other: float) -> str:
    share = 100 * (value / other - 1)
    return f"{abs(share):.1f} % {'more' if share > 0 else 'fewer'}"


def _network(*words: str) -> nn.Module:
    config = composition.compose(list(words))
    with torch.device("meta"):
        model: nn.Module = composition.make(config.model)
    return model
