"""A set of tables from what is at hand: finished trainings, checkpoints, data; what lacks is said, never guessed."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from kinema.errors import KinemaError
from kinema.files import write_atomic
from kinema.protocols.registry import ACTION, LIFTING, PREDICTION
from kinema.results import costs, evaluate, runs_at_hand
from kinema.results.evaluate import Places, State
from kinema.results.registry import Method, Registry, TableSpec
from kinema.results.runs_at_hand import Training
from kinema.results.tables import Measured, Table, build, to_csv

log = logging.getLogger(__name__)


def tables(registry: Registry, name: str, places: Places, *, train: bool = False) -> list[Table]:
    """The tables of a set.

    Args:
        registry: of published results.
        name: of the set.
        places: where data, checkpoints and runs lie.
        train: first train every row that has a recipe and no finished run.
    """
    specs = registry.of_set(name)
    data = _Data(places)
    found = _trained(registry, specs, places, data) if train else _trainings(places)
    counted = [costs.table(registry, cost) for cost in registry.costs if cost.set == name]
    return [*(_table(registry, spec, places, found, data) for spec in specs), *counted]


def _trainings(places: Places) -> list[Training]:
    return runs_at_hand.trainings(places.runs) if places.runs.is_dir() else []


def _table(registry: Registry, spec: TableSpec, places: Places, found: Sequence[Training], data: _Data) -> Table:
    measured: dict[str, list[Measured]] = {}
    missing: dict[str, list[str]] = {}
    failures: dict[str, list[str]] = {}
    version = int({**LIFTING, **ACTION, **PREDICTION}[spec.protocol].version)
    rows = [row.method for row in registry.results[spec.name] if registry.methods[row.method].experiment]
    for name in rows:
        method = registry.methods[name]
        mine, changed = runs_at_hand.of_method(method, found)
        measured[name] = [runs_at_hand.measured(training) for training in mine]
        state = data.of(method)
        missing[name] = [*([state] if isinstance(state, str) else []), *ways(method, places, changed)]
        if isinstance(state, str):
            continue
        for checkpoint in evaluate.files_of(method, places.checkpoints):
            try:
                one = evaluate.measured(method, name, checkpoint, places, state, spec.protocol, version)
                measured[name].append(one)
            except Exception as error:  # one row never takes the others along
                log.warning("%s, %s: %s", method.name, checkpoint, error)
                failures.setdefault(name, []).append(f"{method.name}: {checkpoint.name} failed: {error}")
    return build(spec, registry, measured, missing, version, failures)


class _Data:
    """The state of the data of each row; rows that read the same by the same overrides ask once."""

    def __init__(self, places: Places) -> None:
        self.places = places
        self.known: dict[tuple[str | None, tuple[str, ...], tuple[str, ...]], State | str] = {}

    def of(self, method: Method) -> State | str:
        """The state of a row's data, or the sentence why it cannot be read, with where to get it."""
        key = (method.experiment, method.overrides, method.test_overrides)
        if key not in self.known:
            self.known[key] = self._found(method)
        return self.known[key]

    def _found(self, method: Method) -> State | str:
        try:
            return evaluate.state_of_data(method, self.places)
        except Exception as error:  # trouble of another kind is a sentence of the table too
            return " ".join(str(error).split())


def ways(method: Method, places: Places, changed: Sequence[Training]) -> list[str]:
    """Sentences on how to get a number of a row for which none was found."""
    found = []
    if method.checkpoints and not evaluate.files_of(method, places.checkpoints):
        names, folders = " or ".join(method.checkpoints), " or ".join(str(folder) for folder in places.checkpoints)
        found.append(f"{method.name}: no checkpoint. {method.weights} offers {names}; put it into {folders}.")
    if method.trains:
        found.append(f"{method.name}: not trained here. Train it: `{method.command}`.")
        if method.init and evaluate.start_of(method, places.checkpoints) is None:
            found.append(_no_start(method, places))
    if changed:
        found.append(runs_at_hand.left_out(method, changed))
    return found


def _no_start(method: Method, places: Places) -> str:
    folders = " or ".join(str(folder) for folder in places.checkpoints)
    return f"{method.name}: its training starts from {method.init} of {method.weights}; put it into {folders}."


def _trained(registry: Registry, specs: Sequence[TableSpec], places: Places, data: _Data) -> list[Training]:
    """Train every row that has a recipe and no finished run, one after another; a failure is logged.

    Returns:
        All finished trainings then.
    """
    found = _trainings(places)
    for name in dict.fromkeys(row.method for spec in specs for row in registry.results[spec.name]):
        method = registry.methods[name]
        if method.experiment is None or not method.trains:
            continue
        if runs_at_hand.of_method(method, found)[0]:
            continue
        state = data.of(method)
        if isinstance(state, str):
            log.warning("%s is not trained: %s", method.name, state)
            continue
        start = evaluate.start_of(method, places.checkpoints)
        if method.init and start is None:
            log.warning("%s is not trained: there is no %s. %s", method.name, method.init, _no_start(method, places))
            continue
        log.info("training %s: %s", method.name, method.command)
        first = [] if start is None else [f"init={evaluate.quoted(start.absolute())}"]
        root = f"paths.output_root={evaluate.quoted(places.runs.absolute())}"
        try:
            evaluate.start([*evaluate.training_words(method, places), *first, root], None)
        except KinemaError as error:
            log.warning("%s was not trained: %s", method.name, error)
        found = _trainings(places)
    return found


def write(name: str, made: Sequence[Table], folder: Path) -> list[Path]:
    """Write the tables of a set as Markdown, LaTeX and CSV; returns the files."""
    contents = {
        "md": "\n".join(table.to_markdown() for table in made),
        "tex": "\n".join(table.to_latex() for table in made),
        "csv": to_csv(made),
    }
    files = []
    for ending, text in contents.items():
        files.append(folder / f"{name}.{ending}")
        write_atomic(files[-1], text)
    return files
