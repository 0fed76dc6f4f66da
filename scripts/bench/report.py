"""What is printed and kept: a table, one json file per row, and the table in the docs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from scripts.bench.measure import REPOSITORY
from scripts.bench.rows import Row

RESULTS = REPOSITORY / "bench" / "results"
PAGE = REPOSITORY / "docs" / "benchmarks.md"
_COLUMNS = ("operation", "against", "CPU ms", "ours", "wall ms", "ours", "result", "bound", "goal", "difference")


def save(result: Mapping[str, Any], folder: Path = RESULTS) -> Path:
    """Write one row's result as <name>.json."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{result['name']}.json"
    path.write_text(json.dumps(result, indent=1) + "\n")
    return path


def load(folder: Path = RESULTS) -> list[dict[str, Any]]:
    """Every result that was kept."""
    return [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]


def show(results: Iterable[Mapping[str, Any]]) -> None:
    """Print the table."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title="Library against plain references; * counts wall time, + GPU events", title_justify="left")
    for number, column in enumerate(_COLUMNS):
        table.add_column(column, justify="left" if number < 2 else "right", overflow="fold")
    for result in results:
        mark = {"wall": " *", "cuda": " +"}.get(result["clock"], "")
        table.add_row(
            result["operation"] + mark, result["against"], *cells(result), style=None if result["reached"] else "red"
        )
    Console(width=200 if not Console().is_terminal else None).print(table)


def cells(result: Mapping[str, Any]) -> list[str]:
    """The numbers of a row: both forms by the clock that counts and by the wall, result, bound, goal, difference."""
    if result["kind"] == "memory":
        times = [f"{result[form]['peak_bytes'] / 2**20:.0f} MB" for form in ("reference", "fast")] + ["", ""]
    else:
        times = [f"{result[form][part] * 1e3:.3g}" for part in ("median", "wall") for form in ("reference", "fast")]
    sign = "" if result["kind"] == "ratio" else "<= "
    return [
        *times,
        value_of(result),
        f"{sign}{result['bound']:g}",
        f"{result['goal']:g}",
        f"{result['difference']:.1g}",
    ]


def value_of(result: Mapping[str, Any]) -> str:
    """The result with its unit."""
    return f"{result['value']:.2f}" + (" ms" if result["kind"] == "overhead" else "")


def warning(row: Row, result: Mapping[str, Any]) -> str:
    """The line for a row that keeps off its bound after a repetition."""
    side = "below its minimum" if row.kind == "ratio" else "above its maximum"
    first = result["first_value"]
    return f"WARNING {row.name}: {value_of(result)} is {side} of {row.bound:g} (first try {first:.2f})"


def machine(environment: Mapping[str, Any]) -> str:
    """One line about the machine of a result."""
    gpu = environment.get("gpu")
    where = gpu["name"] if gpu else f"{environment['processor']}, {environment['cpu_capability']}"
    return f"{where}, {environment['cores']} cores, torch {environment['packages']['torch']}"


def write_page(results: list[dict[str, Any]], order: Iterable[str], page: Path = PAGE) -> None:
    """Put results into the docs: the table of the last run, and a column of the history.

    Results of a revision that has a column already replace it; rows not measured keep what stood there.
    """
    text = page.read_text()
    by_name = {result["name"]: result for result in results}
    results = [by_name[name] for name in order if name in by_name]
    lines = ["| row | what | against | measured | minimum | goal |", "|---|---|---|---:|---:|---:|"]
    for result in results:
        bound = f"{'' if result['kind'] == 'ratio' else 'at most '}{result['bound']:g}"
        row = (f"`{result['name']}`", result["operation"], result["against"], value_of(result), bound)
        lines.append("| " + " | ".join((*row, f"{result['goal']:g}")) + " |")
    machines = dict.fromkeys(machine(result["environment"]) for result in results)
    revisions = dict.fromkeys(result["environment"]["revision"] for result in results)
    dates = dict.fromkeys(result["environment"]["date"][:10] for result in results)
    lines += ["", f"{', '.join(dates)}; {'; '.join(machines)}; revision {', '.join(revisions)}."]
    text = _between(text, "last run", "\n".join(lines))
    text = _between(text, "history", _history(_section(text, "history"), results))
    page.write_text(text)


def _history(table: str, results: list[dict[str, Any]]) -> str:
    """The history with a column for these results: rows are benches, columns are runs."""
    heads, cells_of = ["row"], {}
    for number, line in enumerate(line for line in table.splitlines() if line.startswith("|")):
        parts = [part.strip() for part in line.strip().strip("|").split("|")]
        if number == 0:
            heads = parts
        elif number > 1:
            cells_of[parts[0]] = dict(zip(heads[1:], parts[1:], strict=True))
    for result in results:
        environment = result["environment"]
        place = environment["gpu"]["name"] if environment["gpu"] else environment["processor"]
        head = f"{environment['date'][:10]} {environment['revision']}, {place}"
        if head not in heads:
            heads.append(head)
        cells_of.setdefault(result["name"], {})[head] = value_of(result)
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for name, values in cells_of.items():
        lines.append("| " + " | ".join([name, *(values.get(head, "") for head in heads[1:])]) + " |")
    return "\n".join(lines)


def _section(text: str, name: str) -> str:
    start, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    return text.split(start, 1)[1].split(end, 1)[0]


def _between(text: str, name: str, content: str) -> str:
    start, end = f"<!-- {name} -->", f"<!-- end of {name} -->"
    before, rest = text.split(start, 1)
    return f"{before}{start}\n\n{content}\n\n{end}{rest.split(end, 1)[1]}"
