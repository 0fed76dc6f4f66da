"""The table of methods: every variant of a test in one row, the network beside baselines and other samplers."""

from __future__ import annotations

from collections.abc import Mapping

from kinema.protocols.report import Report, Row


def methods(reports: Mapping[str, Report], first: str) -> Report | None:
    """One table of the reports that have a summary.

    Args:
        reports: by name ("test", "test/nearest"), all of one stage.
        first: name of the method that the plain report ("test") is of.

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
        rows.append({"method": label, **{column: report.summary.get(column) for column in columns}})
    kinds = {(report.protocol, report.version) for report in told.values()}
    protocol, version = next(iter(kinds))
    some = next(iter(told.values()))
    digits = {name: count for report in told.values() for name, count in report.digits.items()}
    return Report(
        f"{protocol}: methods", version=version, scalars={}, tables={"method": rows}, digits=digits, note=some.note,
        missing="-",
    )  # fmt: skip
