"""The table of methods: every variant of a test in one row, the network beside baselines and other samplers."""

from __future__ import annotations

from collections.abc import Mapping

from kinema.protocols.report import Report, Row


def methods(reports: Mapping[str, Report], first: str, steps: Mapping[str, int] | None = None) -> Report | None:
    """One table of the reports that have a summary.

    Args:
        reports: by name ("test", "test/nearest"), all of one stage.
        first: name of the method that the plain report ("test") is of.
        steps: of sampling by the names of the reports; a report that is not named has none.

    Returns:
        A report with the table "method"; None where no report has a summary.
    """
    told = {name: report for name, report in reports.items() if report.summary}
    if not told:
        return None
    columns = list(dict.fromkeys(column for report in told.values() for column in report.summary))
    rows: list[Row] = []
    for name, report in told.items():
        label = name.partition("/")[2] or first
        row: Row = {"method": label}
        if steps and (name in steps or not rows):  # the first row tells the columns
            row["steps"] = steps.get(name)
        rows.append({**row, **{column: report.summary.get(column) for column in columns}})
    kinds = {(report.protocol, report.version) for report in told.values()}
    protocol, version = next(iter(kinds))
    some = next(iter(told.values()))
    digits = {name: count for report in told.values() for name, count in report.digits.items()}
    return Report(
        f"{protocol}: methods", version=version, scalars={}, tables={"method": rows}, digits=digits, note=some.note,
        missing="-",
    )  # fmt: skip
