"""Tables: published beside measured rows, versions apart, warnings, three ways of writing."""

from __future__ import annotations

import csv
import io

import pytest

from kinema.results import registry, tables
from kinema.results.registry import AVERAGE, Method, Published, Registry, TableSpec
from kinema.results.tables import Measured, Table

SPEC = TableSpec(
    "t", "s", "Data, 50% & more", "videopose3d",
    {"Walk": "mpjpe/Walking", "Sit": "mpjpe/Sitting", AVERAGE: "mpjpe"}, ("steps",),
    {"Walk": (1, 100), "Sit": (1, 100), AVERAGE: (1, 90)},
)  # fmt: skip
MIXED = TableSpec(
    "m",
    "s",
    "Mixed",
    "videopose3d",
    {"A": "a", "B": "b", AVERAGE: None},
    (),
    {"A": (1, 100), "B": (0, 1), AVERAGE: (1, 100)},
)
METHODS = {
    "net": Method("Net_1, 27 frames", "Somebody 2020", experiment="net/a", overrides=("model.x=[1,2]",)),
    "other": Method("Other", "Somebody else"),
    "own": Method("HMSFT, 81 frames", "no paper", experiment="hmsft/h36m_cpn", design="ours"),
}
ROWS = {
    "t": (
        Published("net", {"Walk": 40.0, "Sit": 50.0, AVERAGE: 45.0}, "paper, table 1", "from other weights"),
        Published("other", {AVERAGE: 60.0}, "paper", ""),
        Published("own", {}, "", ""),
    ),
    "m": (Published("net", {"A": 40.0}, "paper", ""), Published("own", {}, "", "")),
}
REGISTRY = Registry({"t": SPEC, "m": MIXED}, METHODS, ROWS)


def numbers(mpjpe: float, version: int = 1, **more: float) -> Measured:
    metrics = {"mpjpe": mpjpe, "mpjpe/Walking": mpjpe - 5, "mpjpe/Sitting": mpjpe + 5, "pck": 1.0}
    return Measured("seed 0", metrics, "videopose3d", version, more)


def build(measured: Measured | None = None, missing: str = "Get it there.") -> Table:
    found = {"net": [measured]} if measured else {}
    return tables.build(SPEC, REGISTRY, found, {"net": [missing], "own": [missing]}, 1)


def line(table: Table, system: str, whose: str) -> tables.Line:
    return next(one for one in table.lines if one.system == system and one.whose == whose)


def test_measured_values_stand_below_the_published_ones() -> None:
    table = build(numbers(46.0, steps=12000))
    assert [(one.system, one.whose) for one in table.lines] == [
        ("Net_1, 27 frames", "published"),
        ("Net_1, 27 frames", "ours"),
        ("Other", "published"),
        ("HMSFT, 81 frames", "ours"),
    ]
    assert table.cells(table.lines[0])[2:6] == ["40.0", "50.0", "45.0", "-"]
    assert table.cells(table.lines[1])[2:6] == ["41.0", "51.0", "46.0", "12,000"]
    assert "protocol videopose3d, version 1" in table.title


def test_what_is_missing_is_a_dash_and_a_sentence() -> None:
    table = build()
    ours = line(table, "Net_1, 27 frames", "ours")
    assert set(table.cells(ours)[2:-1]) == {"-"} and ours.notes == ("Get it there.",)
    assert table.notes.count("Get it there.") == 1, "a sentence of two rows stands there once"


def test_our_own_design_is_named_with_and_without_numbers() -> None:
    assert any("no reproduction" in note for note in line(build(), "HMSFT, 81 frames", "ours").notes)
    found = tables.build(SPEC, REGISTRY, {"own": [numbers(44.0)]}, {}, 1)
    assert any("no reproduction" in note for note in line(found, "HMSFT, 81 frames", "ours").notes)


def test_versions_of_a_protocol_are_never_mixed() -> None:
    table = tables.build(SPEC, REGISTRY, {"net": [numbers(46.0), numbers(30.0, version=2)]}, {}, 1)
    ours = [one for one in table.lines if one.whose == "ours" and one.values]
    assert len(ours) == 1 and ours[0].values[AVERAGE] == 46.0
    assert any("version 2" in note for note in ours[0].notes)
    older = tables.build(SPEC, REGISTRY, {"net": [numbers(46.0)]}, {}, 2)
    assert not line(older, "Net_1, 27 frames", "ours").values


def test_another_protocol_gives_no_number() -> None:
    foreign = Measured("seed 0", {"mpjpe": 40.0}, "motionbert", 1)
    table = tables.build(SPEC, REGISTRY, {"net": [foreign]}, {"net": ["None."]}, 1)
    assert not line(table, "Net_1, 27 frames", "ours").values


@pytest.mark.parametrize(("value", "warned"), [(45.0, False), (89.0, False), (91.0, True), (22.0, True), (23.0, False)])
def test_a_wrong_order_of_magnitude_is_flagged(value: float, warned: bool) -> None:
    notes = line(build(numbers(value)), "Net_1, 27 frames", "ours").notes
    assert any("WRONG ORDER OF MAGNITUDE" in note and "Likely causes" in note for note in notes) == warned


@pytest.mark.parametrize(
    ("value", "warned"), [(44.0, False), (89.0, False), (91.0, True), (0.044, True), (440.0, True)]
)
def test_where_nothing_was_published_the_range_of_the_column_decides(value: float, warned: bool) -> None:
    found = tables.build(SPEC, REGISTRY, {"own": [Measured("seed 0", {"mpjpe": value}, "videopose3d", 1)]}, {}, 1)
    flagged = [note for note in line(found, "HMSFT, 81 frames", "ours").notes if "WRONG ORDER OF MAGNITUDE" in note]
    assert bool(flagged) == warned
    assert all("1 to 90; nothing was published" in note and "Likely causes" in note for note in flagged)


@pytest.mark.parametrize(("share", "warned"), [(0.9, False), (90.0, True), (float("nan"), True)])
def test_columns_of_another_unit_have_ranges_of_their_own(share: float, warned: bool) -> None:
    """A value of 90 is one of A and none of B."""
    measured = {"own": [Measured("seed 0", {"a": 90.0, "b": share}, "videopose3d", 1)]}
    notes = line(tables.build(MIXED, REGISTRY, measured, {}, 1), "HMSFT, 81 frames", "ours").notes
    assert any("WRONG ORDER OF MAGNITUDE. HMSFT, 81 frames, B: " in note for note in notes) == warned


def test_not_a_number_is_flagged_and_shown_as_a_dash() -> None:
    table = build(numbers(float("nan")))
    ours = line(table, "Net_1, 27 frames", "ours")
    assert any("WRONG ORDER" in note for note in ours.notes) and table.cells(ours)[4] == "-"


def test_without_published_averages_common_columns_are_compared() -> None:
    found = {"net": [Measured("seed 0", {"a": 400.0, "b": 20.0}, "videopose3d", 1)]}
    table = tables.build(MIXED, REGISTRY, found, {}, 1)
    assert table.lines[1].values == {"A": 400.0, "B": 20.0, AVERAGE: 210.0}
    assert any("10 times the published 40.0" in note for note in table.lines[1].notes)


def test_a_mean_of_columns_needs_all_of_them() -> None:
    found = {"net": [Measured("seed 0", {"a": 40.0}, "videopose3d", 1)]}
    assert AVERAGE not in tables.build(MIXED, REGISTRY, found, {}, 1).lines[1].values


def test_failures_are_told_beside_numbers() -> None:
    table = tables.build(SPEC, REGISTRY, {"net": [numbers(46.0)]}, {}, 1, {"net": ["x.bin failed."]})
    assert "x.bin failed." in line(table, "Net_1, 27 frames", "ours").notes


def test_markdown_has_one_cell_per_column() -> None:
    text = build(numbers(46.0)).to_markdown()
    rows = [row for row in text.splitlines() if row.startswith("|")]
    assert {row.count("|") for row in rows} == {len(SPEC.columns) + len(SPEC.facts) + 4}
    assert "| Net_1, 27 frames | ours | 41.0 | 51.0 | 46.0 | - |" in text


def test_latex_escapes_and_closes() -> None:
    text = build(numbers(46.0)).to_latex()
    assert r"50\% \& more" in text and r"Net\_1, 27 frames & ours & 41.0" in text
    assert text.count(r"\begin") == text.count(r"\end")
    rows = [row for row in text.splitlines() if row.endswith(r"\\")]
    assert {row.replace(r"\&", "").count("&") for row in rows} == {len(SPEC.columns) + len(SPEC.facts) + 2}
    assert tables.latex("\\{}#$~^") == r"\textbackslash{}\{\}\#\$\textasciitilde{}\textasciicircum{}"


def test_csv_keeps_every_digit() -> None:
    table = build(numbers(46.123456, steps=3))
    rows = list(csv.DictReader(io.StringIO(tables.to_csv([table]))))
    ours = next(row for row in rows if row["system"] == "Net_1, 27 frames" and row["values"] == "ours")
    assert float(ours[AVERAGE]) == 46.123456 and ours["steps"] == "3" and ours["table"] == "t"
    assert "seed 0" in ours["notes"]


def test_every_table_of_the_registry_is_written(capsys: pytest.CaptureFixture[str]) -> None:
    from rich.console import Console

    known = registry.read()
    for spec in known.tables.values():
        table = tables.build(spec, known, {}, {}, 1)
        assert table.to_markdown().count("\n| ") == len(table.lines) + 2  # and two of the header
        Console(width=250).print(table.to_rich())
    shown = capsys.readouterr().out
    assert "VideoPose3D, 243 frames" in shown and "45.2" in shown and "…" not in shown
