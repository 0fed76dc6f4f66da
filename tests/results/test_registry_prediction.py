"""Facts of the registry of motion prediction: sources, orders of magnitude, recipes, variants of a test as rows."""

from __future__ import annotations

import pytest

from kinema.composition import compose
from kinema.protocols.registry import PREDICTION
from kinema.results import registry, tables
from kinema.results.tables import Measured

REGISTRY = registry.read(registry.PUBLISHED_PREDICTION)
ROWS = [(table, row) for table, rows in REGISTRY.results.items() for row in rows]
RECIPES = [(table, row) for table, row in ROWS if REGISTRY.methods[row.method].experiment is not None]


def test_every_column_is_measured_by_the_protocol() -> None:
    for table in REGISTRY.tables.values():
        assert set(table.columns.values()) <= set(PREDICTION[table.protocol].scalars), table.name


def test_rows_are_complete_and_possible() -> None:
    for table, row in ROWS:
        spec, method = REGISTRY.tables[table], REGISTRY.methods[row.method]
        assert set(row.values) == set(spec.columns) or (not row.values and method.experiment), row.method
        for column, value in row.values.items():
            low, high = spec.ranges[column]
            assert low <= value <= high, (row.method, column)
        if row.values:
            assert row.values["ADE"] <= row.values["MMADE"] and row.source, row.method
    assert {row.method for _, row in ROWS} == set(REGISTRY.methods)


def test_the_row_of_smrnet_is_empty_because_its_table_is_unknown() -> None:
    own = [row for _, row in ROWS if row.method.startswith("smrnet_")]
    assert len(own) == len(REGISTRY.tables)
    assert all(not row.values and "could not be obtained" in row.note for row in own)


@pytest.mark.parametrize(("table", "row"), RECIPES, ids=[row.method for _, row in RECIPES])
def test_recipes_evaluate_what_their_table_says(table: str, row: registry.Published) -> None:
    method = REGISTRY.methods[row.method]
    config = compose([f"experiment={method.experiment}", *method.overrides, *method.test_overrides])
    assert config.task.protocol == REGISTRY.tables[table].protocol
    assert config.dataset.name.startswith(table.partition("_")[0])
    assert config.task.num_samples == 50
    if method.variant:
        assert method.variant in config.task.variants, "a row shows a variant that the recipe tests"


def test_a_variant_of_a_test_is_a_row_of_its_own() -> None:
    spec = REGISTRY.tables["h36m_prediction"]
    plain = {name: value for name, value in zip(spec.columns.values(), (6.0, 0.4, 0.5, 0.5, 0.6), strict=True)}
    still = {f"zero_velocity/{name}": value + 1 for name, value in plain.items()}
    one = Measured("run", {**plain, **still}, "prediction", 1)
    measured = {name: [one] for name, method in REGISTRY.methods.items() if method.experiment == "smrnet/h36m"}
    table = tables.build(spec, REGISTRY, measured, {}, version=1)
    values = {line.system: line.values for line in table.lines if line.whose == "ours"}
    assert values["SMRNet"]["ADE"] == 0.4 and values["zero velocity"]["ADE"] == pytest.approx(1.4)
    assert values["nearest neighbours"] == {}
