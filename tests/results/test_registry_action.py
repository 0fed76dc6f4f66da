"""Facts of the registry of action recognition: sources, sums, and recipes that evaluate what their table says."""

from __future__ import annotations

import re

import pytest

from kinema import launch
from kinema.composition import compose
from kinema.errors import ConfigError
from kinema.protocols.registry import ACTION
from kinema.results import registry, tables

REGISTRY = registry.read(registry.PUBLISHED_ACTION)
ROWS = [(table, row) for table, rows in REGISTRY.results.items() for row in rows]
EXPERIMENTS = launch.config_dir() / "experiment"
RECIPES = [(table, row) for table, row in ROWS if REGISTRY.methods[row.method].experiment is not None]


def test_every_table_is_measured_by_a_protocol_of_actions() -> None:
    for table in REGISTRY.tables.values():
        assert set(table.columns.values()) <= set(ACTION[table.protocol].scalars), table.name


def test_rows_are_complete() -> None:
    for table, row in ROWS:
        assert row.values or row.method.startswith("ma52_"), (table, row.method)
        low, high = next(iter(REGISTRY.tables[table].ranges.values()))
        assert all(low <= value <= high for value in row.values.values())
    for table, rows in REGISTRY.results.items():
        assert len({row.method for row in rows}) == len(rows), table
    assert {row.method for _, row in ROWS} == set(REGISTRY.methods)


def test_f1_means_are_the_means_of_their_four_parts() -> None:
    """Micro F1 of single labels is accuracy, so `top-1` and `body top-1` are two of the four."""
    checked = 0
    for table, row in ROWS:
        parts = [row.values.get(column) for column in ("F1 body", "body top-1", "F1 action", "top-1")]
        if table.startswith("ma52") and None not in parts:
            assert sum(parts) / 4 == pytest.approx(row.values["F1 mean"], abs=0.011), row.method  # type: ignore[arg-type]
            checked += 1
    assert checked == 11


def test_more_streams_are_never_worse_in_pyskl() -> None:
    """A slip of a column would show here."""
    for table, rows in REGISTRY.results.items():
        value = {row.method: row.values.get("top-1", 0.0) for row in rows}
        for net in ("stgcnpp_3d", "stgcnpp_2d", "ctrgcn_3d", "ctrgcn_2d", "msg3d_2d", "dgstgcn_3d"):
            found = [value.get(f"{net}_{table}", value.get(f"{net}_1")), value.get(f"{net}_2"), value.get(f"{net}_4")]
            if None not in found:
                assert found == sorted(found), (table, net)  # type: ignore[type-var]


@pytest.mark.parametrize(("table", "row"), RECIPES, ids=[row.method for _, row in RECIPES])
def test_recipes_evaluate_what_their_table_says(table: str, row: registry.Published) -> None:
    method = REGISTRY.methods[row.method]
    config = compose([f"experiment={method.experiment}", *method.overrides, *method.test_overrides])
    spec = REGISTRY.tables[table]
    assert config.task.protocol == spec.protocol
    benchmark, _, part = table.partition("_")
    assert config.dataset.name.startswith(benchmark)
    if benchmark.startswith("ntu"):
        assert config.dataset.protocol == part
        assert config.model.mask_persons is False, "published networks average absent persons too"
        assert config.dataset.has_3d == ("_3d_" in row.method)
    if part == "val":
        assert (config.dataset.split_test, config.dataset.split_val) == ("val", None)
        assert config.dataset.validation.by and config.dataset.selection == "val", "chosen on other clips"


@pytest.mark.parametrize("experiment", sorted({REGISTRY.methods[row.method].experiment for _, row in RECIPES}))
def test_headers_state_the_registered_numbers(experiment: str) -> None:
    lines = (EXPERIMENTS / f"{experiment}.yaml").read_text().splitlines()
    text = " ".join(line.lstrip("# ") for line in lines[: next(i for i, line in enumerate(lines) if line[:1] != "#")])
    known = {
        value
        for _, row in RECIPES
        if REGISTRY.methods[row.method].experiment == experiment
        for value in row.values.values()
    }
    found = {float(value) for value in re.findall(r"(\d+\.\d) %", text)}
    assert found == known


def test_shipped_tables_are_those_of_all_files_and_names_are_used_once(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = registry.shipped()
    assert {"h36m", "cmu", "ntu", "ma52", "h36m-prediction"} <= set(whole.sets())
    files = (registry.PUBLISHED, registry.PUBLISHED_ACTION, registry.PUBLISHED_PREDICTION)
    assert len(whole.methods) == sum(len(registry.read(path).methods) for path in files)
    monkeypatch.setattr(registry, "PUBLISHED_ACTION", registry.PUBLISHED)
    with pytest.raises(ConfigError, match=r"Two registries define tables .*h36m_cpn_p1"):
        registry.shipped()


def test_a_table_of_two_decimals_prints_them() -> None:
    spec = REGISTRY.tables["ma52_test"]
    table = tables.build(spec, REGISTRY, {}, {}, version=1)
    assert "| MANet, RGB and label embedding | published | 65.59 | 61.33 |" in table.to_markdown()
    assert "65.59 & 61.33" in table.to_latex()
