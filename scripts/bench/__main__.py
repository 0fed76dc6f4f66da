"""python -m scripts.bench: measure the library against plain references."""

from __future__ import annotations

import argparse
import fnmatch
import sys
import time
import warnings

from scripts.bench import threads

threads.limit()

from scripts.bench import length, report  # noqa: E402
from scripts.bench.environment import environment  # noqa: E402
from scripts.bench.rows import Row, rows  # noqa: E402
from scripts.bench.run import NotEqualError, measure_apart  # noqa: E402


def main(arguments: list[str] | None = None) -> int:
    """Measure the rows asked for; 1 where two forms are not equal, else 0."""
    options = _options(arguments)
    chosen = [row for row in rows().values() if _is_chosen(row, options)]
    if options.list:
        for row in chosen:
            missing = row.missing()
            print(f"{row.name:28}{row.operation}{f' (skipped: {missing})' if missing else ''}")
        if _is_length_chosen(options):
            print(f"{length.NAME:28}{length.__doc__.split(':')[0].lower()}")
        return 0
    if options.docs:
        report.write_page(report.load(), rows())
        print(report.PAGE, *length.write_docs(), sep="\n")
        return 0
    warnings.filterwarnings("ignore")
    facts, started = environment(), time.monotonic()
    print(f"{report.machine(facts)}; revision {facts['revision']}; load {facts['load']}")
    results, faults = [], []
    for row in chosen:
        missing = row.missing()
        if missing:
            print(f"{row.name}: skipped, {missing}", flush=True)
            continue
        try:
            result = measure_apart(row, facts, quick=options.quick)
        except NotEqualError as error:
            faults.append(str(error))
            print(f"NOT EQUAL {error}", flush=True)
            continue
        results.append(result)
        report.save(result)
        print(f"{row.name}: {report.value_of(result)}", flush=True)
        if not result["reached"]:
            print(report.warning(row, result), flush=True)
    if results:
        report.show(results)
    if _is_length_chosen(options):
        length.run(quick=options.quick)
    print(f"{len(results)} rows in {time.monotonic() - started:.0f} s, kept in {report.RESULTS}")
    for line in faults:
        print(f"NOT EQUAL {line}")
    return 1 if faults else 0


def _is_chosen(row: Row, options: argparse.Namespace) -> bool:
    if options.memory and row.kind != "memory":
        return False
    return any(fnmatch.fnmatch(row.name, f"*{pattern}*") for pattern in options.only or ["*"])


def _is_length_chosen(options: argparse.Namespace) -> bool:
    return not options.memory and any(fnmatch.fnmatch(length.NAME, f"*{p}*") for p in options.only or ["*"])


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m scripts.bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="half the rounds, the same shapes")
    parser.add_argument("--only", action="append", metavar="PATTERN", help="rows whose name holds this, such as gpu_*")
    parser.add_argument("--memory", action="store_true", help="only the rows that weigh memory in fresh processes")
    parser.add_argument("--list", action="store_true", help="print the rows and end")
    parser.add_argument("--docs", action="store_true", help="write bench/results into the documentation and end")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
