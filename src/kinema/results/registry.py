"""The registry of published results: `published.yaml` and its sisters as checked, typed records."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from kinema.errors import ConfigError

PUBLISHED = Path(__file__).with_name("published.yaml")
PUBLISHED_ACTION = Path(__file__).with_name("published_action.yaml")
PUBLISHED_PREDICTION = Path(__file__).with_name("published_prediction.yaml")
AVERAGE = "Average"


@dataclass(frozen=True)
class TableSpec:
    """What one table compares: one protocol, one set of columns.

    Attributes:
        name: key of the table.
        set: the make target that prints it ("h36m" for `make table-h36m`).
        title: data, input, measure and unit.
        protocol: name of the protocol that measures it.
        columns: what is printed -> key in `metrics.json` behind "test/"; None = mean of the other columns.
        facts: further columns that tell of the training of a row ("parameters", "steps", "CPU min", "seed").
        ranges: values that a cell can have, by column, in the column's unit.
        digits: decimals of the values.
    """

    name: str
    set: str
    title: str
    protocol: str
    columns: Mapping[str, str | None]
    facts: tuple[str, ...]
    ranges: Mapping[str, tuple[float, float]]
    digits: int = 1


@dataclass(frozen=True)
class Method:
    """A row: a system in one size, for one input.

    Attributes:
        name: as printed.
        paper: who published it.
        experiment: recipe that trains it here, None where there is none.
        overrides: that belong to the row, in training and evaluation.
        test_overrides: of the evaluation alone.
        checkpoints: patterns for the names of the authors' files.
        weights: repository that offers those files.
        init: name of the file that a training of the row starts from (`init=`), such as "MB_release/latest_epoch.bin";
            empty = from scratch.
        variant: of the test whose numbers the row shows, such as a baseline; empty = the plain ones.
        trains: whether runs of the experiment are this row.
        design: "published", or "ours" where the authors' network is unknown and another one stands in.
    """

    name: str
    paper: str
    experiment: str | None = None
    overrides: tuple[str, ...] = ()
    test_overrides: tuple[str, ...] = ()
    checkpoints: tuple[str, ...] = ()
    weights: str = ""
    init: str = ""
    variant: str = ""
    trains: bool = True
    design: str = "published"

    @property
    def command(self) -> str:
        """The command that trains the row."""
        words = [f"'{word}'" if set(word) & set("[]{} ") else word for word in self.overrides]
        if self.init:
            words.append(f"init={self.init}")
        return " ".join(["python run.py", f"experiment={self.experiment}", *words])


@dataclass(frozen=True)
class Published:
    """What was published about a method in one table; `values` is empty where nothing was."""

    method: str
    values: Mapping[str, float]
    source: str
    note: str


@dataclass(frozen=True)
class CostSpec:
    """A table of what networks cost, below the results of a set.

    Attributes:
        set: as in TableSpec.
        title: of the table.
        methods: whose networks are counted; of two, the first is compared with the second.
        notes: sentences about the counts.
    """

    set: str
    title: str
    methods: tuple[str, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Registry:
    """All tables, methods and results.

    Attributes:
        tables: by name.
        methods: by name.
        results: rows of each table, in order.
        costs: tables of what networks cost.
    """

    tables: Mapping[str, TableSpec]
    methods: Mapping[str, Method]
    results: Mapping[str, tuple[Published, ...]]
    costs: tuple[CostSpec, ...] = ()

    def sets(self) -> tuple[str, ...]:
        """Names of the sets of tables."""
        return tuple(dict.fromkeys(table.set for table in self.tables.values()))

    def of_set(self, name: str) -> list[TableSpec]:
        """The tables of a set.

        Raises:
            ConfigError: for an unknown set, with the known ones.
        """
        found = [table for table in self.tables.values() if table.set == name]
        if not found:
            near = difflib.get_close_matches(name, self.sets(), n=1) or [self.sets()[0]]
            raise ConfigError(f"There is no table {name!r} ({', '.join(self.sets())}). Use {near[0]}.")
        return found


def shipped() -> Registry:
    """Every table that comes with Kinema.

    Raises:
        ConfigError: as `read`, or a name that two files use.
    """
    parts = [read(path) for path in (PUBLISHED, PUBLISHED_ACTION, PUBLISHED_PREDICTION)]
    for what in ("tables", "methods"):
        names = [name for part in parts for name in getattr(part, what)]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ConfigError(f"Two registries define {what} {', '.join(twice)}. Give them names of their own.")
    tables, methods, results = ({}, {}, {})  # type: tuple[dict[str, TableSpec], dict[str, Method], dict[str, Any]]
    for part in parts:
        tables |= part.tables
        methods |= part.methods
        results |= part.results
    return Registry(tables, methods, results, tuple(cost for part in parts for cost in part.costs))


def read(path: Path = PUBLISHED) -> Registry:
    """Read and check a registry.

    Raises:
        ConfigError: an entry names what the file does not define, has another number of values than its table has
            columns, or a key that is not known.
    """
    raw: Any = OmegaConf.to_container(OmegaConf.load(path))
    tables = {name: _table(name, entry, raw["actions"]) for name, entry in raw["tables"].items()}
    methods = {name: _method(name, entry) for name, entry in raw["methods"].items()}
    results = {}
    for name, rows in raw["results"].items():
        if name not in tables:
            raise ConfigError(f"{path.name}: results of {name}, which is no table. Define it under tables:.")
        results[name] = tuple(_published(tables[name], row, methods) for row in rows)
    costs = tuple(_cost(entry, methods) for entry in raw.get("costs", []))
    return Registry(tables, methods, results, costs)


def _cost(entry: dict[str, Any], methods: Mapping[str, Method]) -> CostSpec:
    for name in entry["methods"]:
        if name not in methods or methods[name].experiment is None:
            raise ConfigError(f"Costs of {entry['set']}: {name} is no method with an experiment. Define it.")
    return CostSpec(entry["set"], entry["title"], tuple(entry["methods"]), tuple(entry.get("notes", ())))


def _table(name: str, entry: dict[str, Any], actions: Mapping[str, Mapping[str, str]]) -> TableSpec:
    columns: dict[str, str | None]
    if "actions" in entry:
        measure = entry["measure"]
        columns = {label: f"{measure}/{action}" for label, action in actions[entry["actions"]].items()}
        columns[AVERAGE] = measure
    else:
        columns = dict(entry["columns"])
        if "average" in entry:
            columns[AVERAGE] = None if entry["average"] == "mean" else entry["average"]
    own = entry.get("ranges", {})
    if not set(own) <= set(columns):
        raise ConfigError(f"{name}: ranges of {', '.join(sorted(set(own) - set(columns)))}. Columns: {list(columns)}.")
    ranges = {label: _range(own.get(label, entry["range"])) for label in columns}
    facts = tuple(entry.get("facts", ()))
    digits = int(entry.get("digits", 1))
    return TableSpec(name, entry["set"], entry["title"], entry["protocol"], columns, facts, ranges, digits)


def _range(ends: list[float]) -> tuple[float, float]:
    low, high = ends
    return low, high


def _method(name: str, entry: dict[str, Any]) -> Method:
    known = {field.name for field in fields(Method)}
    if not set(entry) <= known:
        raise ConfigError(f"Method {name}: unknown {', '.join(sorted(set(entry) - known))}. Known: {sorted(known)}.")
    values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in entry.items()}
    return Method(**values)


def _published(table: TableSpec, row: dict[str, Any], methods: Mapping[str, Method]) -> Published:
    name = row["method"]
    where = f"{table.name}, {name}"
    if name not in methods:
        raise ConfigError(f"{where}: this method is not defined. Define it under methods:.")
    values = dict(row.get("values", {}))
    if "actions" in row:
        labels = [label for label in table.columns if label != AVERAGE]
        if len(labels) != len(row["actions"]):
            raise ConfigError(f"{where}: {len(row['actions'])} values for {len(labels)} columns ({', '.join(labels)}).")
        values |= dict(zip(labels, row["actions"], strict=True))
    if "average" in row:
        values[AVERAGE] = row["average"]
    unknown = set(values) - set(table.columns)
    if unknown:
        raise ConfigError(f"{where}: no column {', '.join(sorted(unknown))}. Columns: {', '.join(table.columns)}.")
    if values and not row.get("source"):
        raise ConfigError(f"{where}: values without a source. Say where they were published.")
    return Published(name, values, row.get("source", ""), row.get("note", ""))
