"""Tables of costs: counted from the recipes' networks, with and without the condition, against the formulas."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from scripts import table

from kinema.results import costs, registry

REGISTRY = registry.shipped()


def smrnet(n: int, f: int, d: int, depth: int, m: int) -> int:
    """Multiply-accumulates of one SMRNet call with m condition tokens, by hand from its description.

    A graph convolution of `i` to `o` features on `k` nodes costs k i o + k k o. The two of a block, each (d, d) on n
    nodes and (n, n) on d nodes, and a linear layer; cross-attention with queries of n and keys and values of m tokens.
    """
    transposed = (n * d * d + n * n * d) + (d * n * n + d * d * n) + n * d * d
    block = 2 * transposed + n * d * d + 2 * m * d * d + 2 * n * m * d + 2 * n * d * d
    last = n * d * d  # the layer that nothing reads
    encoder = n * f * d + 3 * n * d * d + 2 * n * n * d + transposed if m > 1 else 0
    return depth * block - last + encoder + 2 * n * f * d + 2 * d * d


@pytest.mark.parametrize("cost", REGISTRY.costs, ids=lambda cost: cost.set)
def test_counts_are_those_of_the_formulas_and_of_the_notes(cost: registry.CostSpec) -> None:
    made = costs.table(REGISTRY, cost)
    ours, other = (line.values for line in made.lines)
    n, f, depth = (20, 48, 8) if cost.set.startswith("h36m") else (10, 42, 4)
    assert ours["MMAC"] == pytest.approx(smrnet(n, f, 512, depth, n) / 1e6)
    assert ours["MMAC without condition"] == pytest.approx(smrnet(n, f, 512, depth, 1) / 1e6)
    # With the dead layer, which is never computed here, these are 505.48, 389.82 and 133.68, 98.26.
    published = (505.48, 389.82) if depth == 8 else (133.68, 98.26)
    dead = n * 512 * 512 / 1e6
    assert ours["MMAC"] + dead == pytest.approx(published[0], abs=0.01)
    assert ours["MMAC without condition"] + dead == pytest.approx(published[1], abs=0.1)  # told with a product less
    assert other["MMAC"] == pytest.approx(391.15 if depth == 8 else 100.15, abs=0.01)
    assert other["MMAC without condition"] == pytest.approx(390.66 if depth == 8 else 99.93, abs=0.01)
    assert any("SMRNet against HumanMAC" in note and "fewer parameters" in note for note in made.notes)
    assert any("36.13 %" in note for note in made.notes)


@pytest.mark.parametrize("name", [cost.set for cost in REGISTRY.costs])
def test_the_command_prints_the_tables_where_nothing_is_at_hand(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folders = [f"--{option}={tmp_path / 'none'}" for option in ("data", "checkpoints", "runs")]
    assert table.main([name, *folders, f"--output={tmp_path / 'tables'}"]) == 0
    assert "SMRNet against HumanMAC" in capsys.readouterr().out
    with (tmp_path / "tables" / f"{name}.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    metrics = list(REGISTRY.of_set(name)[0].columns)
    (empty,) = [row for row in rows if row["system"] == "SMRNet" and row["values"] != "counted"]
    assert not any(empty[metric] for metric in metrics) and "could not be obtained" in empty["notes"]
    counted = [row for row in rows if row["values"] == "counted"]
    assert [row["system"] for row in counted] == ["SMRNet", "HumanMAC"]
    assert all(float(row[column]) > 0 for row in counted for column in costs.COLUMNS)
