"""`report.html`: the numbers, tables and pictures of an evaluation on one page, with what was run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kinema.protocols.report import Report
from kinema.viz.html import Page

_LONG = 12  # rows above which a table is folded, but for the first


def report_page(
    reports: Mapping[str, Report],
    pictures: Mapping[str, Mapping[str, bytes]],
    *,
    title: str,
    folder: Path | None = None,
) -> str:
    """Write reports as one self-contained page.

    Args:
        reports: by name ("test", "test/single").
        pictures: name of a report -> name of a picture -> PNG.
        title: of the page.
        folder: run directory whose command, commit and versions stand at the end.
    """
    page = Page(title, f"{folder or ''}")
    for name, report in reports.items():
        page.section(name)
        page.text(f"Protocol {report.protocol}, version {report.version}.")
        if report.note:
            page.text(report.note)
        if report.scalars:
            page.numbers(_tiles(report))
        first = next(iter(report.tables), None)
        short = {table: rows for table, rows in report.tables.items() if len(rows) <= _LONG or table == first}
        for table, rows in short.items():
            page.table(rows, title=_heading(table), footers=report.footers.get(table, ()), shown=report.shown)
        if pictures.get(name):
            page.figures(pictures[name])
        for table, rows in report.tables.items():
            if table not in short:
                footers = report.footers.get(table, ())
                page.table(rows, title=_heading(table), footers=footers, shown=report.shown, folded=True)
    facts = _facts(folder) if folder is not None else {}
    if facts:
        page.section("run")
        page.facts(facts)
    return page.render()


def _tiles(report: Report) -> dict[str, str]:
    """Scalars as text; an interval (`top1_low`, `top1_high`) joins what it belongs to."""
    tiles = {}
    for name in report.scalars:
        base = name.removesuffix("_low").removesuffix("_high")
        if base != name and {base, f"{base}_low", f"{base}_high"} <= set(report.scalars):
            continue
        label = name
        if {f"{name}_low", f"{name}_high"} <= set(report.scalars):
            low, high = (report.shown(name, {name: report.scalars[f"{name}_{end}"]}) for end in ("low", "high"))
            label = f"{name} ({low} to {high})"
        tiles[label] = report.shown(name, report.scalars)
    return tiles


def _heading(table: str) -> str:
    return f"By {table.replace('_', ' ')}"


def _facts(folder: Path) -> dict[str, str]:
    """What the files of a run directory tell about it; files that are not there are left out."""
    facts = {}
    command = folder / "command.txt"
    if command.is_file():
        facts["command"] = command.read_text().strip()
    meta = _read(folder / "metrics.json").get("_meta", {})
    for key in ("parameters", "epoch", "step", "fit_seconds"):
        if key in meta:
            facts[key.replace("_", " ")] = f"{meta[key]:,}"
    for key in ("dataset", "checkpoint"):
        if key in meta:
            value = meta[key]
            facts[key] = ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, dict) else str(value)
    environment = _read(folder / "environment.json")
    for key in ("seed", "tags", "device", "platform", "python"):
        if environment.get(key) not in (None, []):
            facts[key] = str(environment[key])
    if environment.get("packages"):
        facts["packages"] = ", ".join(f"{name} {version}" for name, version in environment["packages"].items())
    if environment.get("git"):
        git = environment["git"]
        facts["commit"] = git["commit"] + (" with changes (git.diff)" if git["dirty"] else "")
    return facts


def _read(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text()) if path.is_file() else {}
