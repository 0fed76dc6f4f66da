"""Facts of the registry: complete rows, averages that are averages, recipes that exist and state the same numbers."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from kinema import launch
from kinema.composition import compose
from kinema.errors import ConfigError
from kinema.protocols.registry import LIFTING
from kinema.results import registry
from kinema.results.registry import AVERAGE

REGISTRY = registry.read()
SHIPPED = registry.shipped()
ROWS = [(table, row) for table, rows in REGISTRY.results.items() for row in rows]
EXPERIMENTS = launch.config_dir() / "experiment"
README = Path(__file__).resolve().parents[2] / "README.md"


def published(experiment: str) -> dict[str, set[float]]:
    """Published averages (or values) of the rows of a recipe, by measure; of poses and of actions."""
    found: dict[str, set[float]] = {}
    for table, rows in SHIPPED.results.items():
        columns = SHIPPED.tables[table].columns
        for row in rows:
            if SHIPPED.methods[row.method].experiment == experiment:
                for column, value in row.values.items():
                    if column == AVERAGE or AVERAGE not in columns:
                        found.setdefault(str(columns[column]), set()).add(value)
    return found


def header(experiment: str) -> str:
    """The comment at the top of a recipe, as one line."""
    lines = (EXPERIMENTS / f"{experiment}.yaml").read_text().splitlines()
    comment = [line.lstrip("# ") for line in lines[: next(i for i, line in enumerate(lines) if line[:1] != "#")]]
    return " ".join(comment)


def test_every_set_has_a_make_target() -> None:
    targets = re.findall(r"^table-([\w-]+):", (README.parent / "Makefile").read_text(), re.MULTILINE)
    assert sorted(targets) == sorted(registry.shipped().sets())


def test_every_table_is_measured_by_a_protocol_of_the_house() -> None:
    for table in REGISTRY.tables.values():
        assert table.protocol in LIFTING
        measures = {str(key).split("/")[0] for key in table.columns.values() if key is not None}
        known = set(LIFTING[table.protocol].scalars)
        for measure in measures:
            assert re.sub(r"_(subject_action|sequence|group)$", "", measure) in known, (table.name, measure)


def test_human36m_rows_have_fifteen_actions_or_none() -> None:
    for table, row in ROWS:
        if table.startswith("h36m"):
            assert len(row.values) in (0, 1, 16), (table, row.method)
    assert sum(len(row.values) == 16 for _, row in ROWS) == 11


def test_averages_are_the_means_of_their_actions() -> None:
    checked = 0
    for table, row in ROWS:
        actions = [value for column, value in row.values.items() if column != AVERAGE]
        if AVERAGE in row.values and actions:
            # Both are printed with one decimal: the mean of rounded values is off by up to 0.05, the average too.
            assert sum(actions) / len(actions) == pytest.approx(row.values[AVERAGE], abs=0.1), (table, row.method)
            checked += 1
    assert checked == 11


def test_values_are_of_the_unit_of_their_table() -> None:
    for table, row in ROWS:
        for column, value in row.values.items():
            low, high = REGISTRY.tables[table].ranges[column]
            assert low <= value <= high, (table, row.method, column)
            assert round(value, 1) == value, "published with one decimal"


def test_every_column_has_a_range_of_its_unit() -> None:
    for table in REGISTRY.tables.values():
        assert set(table.ranges) == set(table.columns) and all(low < high for low, high in table.ranges.values())
    ranges = REGISTRY.tables["mpi_inf_3dhp"].ranges
    assert ranges["PCK"][1] == ranges["AUC"][1] == 100 < ranges["MPJPE"][1] == ranges["TS6"][1]


def test_a_table_has_one_2d_input_and_names_it() -> None:
    inputs = {
        "CPN 2D",
        "Mask R-CNN 2D",
        "ground-truth 2D",
        "true 2D",
        "COCO detections",
        "Stacked Hourglass 2D",
        "noisy 2D",
    }
    for table in REGISTRY.tables.values():
        assert len([word for word in inputs if word in table.title]) == 1, table.title


def keypoints(name: str) -> str:
    """The 2D that the composed evaluation of a row reads."""
    method = REGISTRY.methods[name]
    words = [f"experiment={method.experiment}", *method.overrides, *method.test_overrides]
    return str(compose(words).dataset.reader_options.keypoints)


@pytest.mark.parametrize("name", [name for name, table in REGISTRY.tables.items() if table.protocol == "videopose3d"])
def test_rows_read_the_2d_of_their_title(name: str) -> None:
    said = {
        "CPN 2D": "cpn_ft_h36m_dbb",
        "ground-truth 2D": "gt",
        "COCO detections": "detectron_pt_coco",
        "noisy 2D": "noisy",
        "Mask R-CNN 2D": "",  # published rows alone
    }
    (wanted,) = [value for word, value in said.items() if word in REGISTRY.tables[name].title]
    rows = [row.method for row in REGISTRY.results[name] if REGISTRY.methods[row.method].experiment]
    assert {keypoints(row) for row in rows} <= {wanted}


def test_no_method_stands_twice_in_a_table_and_each_is_used() -> None:
    for table, rows in REGISTRY.results.items():
        assert len({row.method for row in rows}) == len(rows), table
    assert {row.method for _, row in ROWS} == set(REGISTRY.methods)


def test_values_have_sources() -> None:
    assert all(row.source for _, row in ROWS if row.values)


def test_a_row_of_our_own_design_says_so() -> None:
    for name, method in REGISTRY.methods.items():
        own = "hmsft" in name or "dbmamba" in name
        assert (method.design == "ours") == own, name


RECIPES = sorted({method.experiment for method in REGISTRY.methods.values() if method.experiment is not None})


@pytest.mark.parametrize("experiment", RECIPES)
def test_recipes_exist_and_state_the_registered_numbers(experiment: str) -> None:
    assert (EXPERIMENTS / f"{experiment}.yaml").is_file()
    if experiment.startswith("cmu/"):
        return  # measured here, not published
    text, known = header(experiment), published(experiment)
    for measure, pattern in {
        "mpjpe": r"(\d+\.\d) mm P1|MPJPE (\d+\.\d) mm",
        "p_mpjpe": r"(\d+\.\d) mm P2",
        "pck": r"PCK (\d+\.\d)",
        "auc": r"AUC (\d+\.\d)",
    }.items():
        for first, *others in re.findall(rf"({pattern})", text):
            value = float(next(word for word in others or [re.findall(r"[\d.]+", first)[0]] if word))
            said_otherwise = re.search(rf"(users|Listed)[^.]*{re.escape(first)}", text)
            assert value in known.get(measure, set()) or said_otherwise, f"{experiment}: {first}"


@pytest.mark.parametrize("experiment", [name for name in RECIPES if not name.startswith("cmu/")])
def test_millimetres_in_a_header_are_registered(experiment: str) -> None:
    """Whatever measure they name, unless the words around them say that they belong to something else."""
    known = {value for values in published(experiment).values() for value in values}
    text = header(experiment)
    for found in re.finditer(r"(\d+\.\d) mm", text):
        elsewhere = re.search(r"(PoseFormer: |users|Users[^.]*|ground-truth 2D \()$", text[: found.start()])
        after = re.match(r" mm for users", text[found.end(1) :])
        assert float(found[1]) in known or elsewhere or after, f"{experiment}: {found[0]}"


def test_the_data_set_has_two_names_in_the_recipes_of_hmsft() -> None:
    one, other = (compose([f"experiment=hmsft/{name}"]) for name in ("3dhp", "mpi_inf_3dhp"))
    assert one == other and one.dataset.name == "mpi_inf_3dhp"


def test_the_readme_states_the_registered_numbers() -> None:
    rows = re.findall(
        r"^\|([^|\n]+)\|([^|\n]+)\|([^|\n]*)\|[^|\n]*\|([^|\n]*experiment=[^|\n]*)\|$", README.read_text(), re.M
    )
    assert len(rows) > 10
    for system, _, cell, commands in rows:
        known = {35.3, 45.7, 37.5, 39.3}  # told beside the published values: other sources, see the notes of their rows
        for experiment in re.findall(r"experiment=([\w/]+)", commands):
            known |= {value for values in published(experiment).values() for value in values}
        assert {float(value) for value in re.findall(r"\d+\.\d+", cell)} <= known, system


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("method: videopose3d_243\n", "method: videopose\n"), "not defined"),
        (("[45.2, 46.7, ", "[46.7, "), "14 values for 15 columns"),
        (("weights: zczcwh", "weight: zczcwh"), "unknown weight"),
        (("source: paper, table 1\n", "\n"), "without a source"),
        (("values: {PCK: 88.6", "values: {PKC: 88.6"), "no column PKC"),
        (("ranges: {PCK:", "ranges: {PKC:"), "ranges of PKC. Columns: .*PCK"),
    ],
)
def test_faults_are_named(change: tuple[str, str], message: str, tmp_path: Path) -> None:
    path = tmp_path / "published.yaml"
    text = registry.PUBLISHED.read_text()
    assert change[0] in text
    path.write_text(text.replace(*change, 1))
    with pytest.raises(ConfigError, match=message):
        registry.read(path)


def test_an_unknown_set_gets_the_nearest_name() -> None:
    with pytest.raises(ConfigError, match="Use h36m"):
        REGISTRY.of_set("h36")
