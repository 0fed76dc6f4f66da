"""Paper tables: `python -m scripts.table h36m` sets published results beside those of what is at hand.

    python -m scripts.table cmu --data DIR --train
    python -m scripts.table h36m --checkpoints weights trainer=gpu

Words with a `=` are overrides for every evaluation (and training). See docs/results/tables.md.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from pathlib import Path

from kinema.callbacks.report import wide_console
from kinema.composition import quieten_lightning
from kinema.errors import KinemaError
from kinema.results import collect, registry
from kinema.results.evaluate import Places


def main(arguments: list[str] | None = None) -> int:
    """Make the tables of one set and return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m scripts.table", description=__doc__.split("\n")[0])
    parser.add_argument(
        "set", help="which tables: h36m, humaneva, 3dhp, cmu, ntu, ma52, h36m-prediction, humaneva-prediction"
    )
    parser.add_argument("overrides", nargs="*", help="overrides for evaluations, such as trainer=gpu")
    parser.add_argument(
        "--data", type=Path, default=Path(os.environ.get("KINEMA_DATA", "data")), help="as paths.data_dir"
    )
    parser.add_argument(
        "--checkpoints", type=Path, action="append", help="searched for the authors' files (repeatable)"
    )
    parser.add_argument("--runs", type=Path, default=Path("outputs"), help="searched for finished trainings")
    parser.add_argument("--output", type=Path, default=Path("outputs/tables"), help="where the tables go")
    parser.add_argument("--train", action="store_true", help="first train what has a recipe and no finished run")
    parser.add_argument("--registry", type=Path, help="another file of published results")
    options = parser.parse_intermixed_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    quieten_lightning()
    folders = options.checkpoints or [options.data / "checkpoint", options.data / "checkpoints", Path("checkpoint")]
    places = Places(options.data, tuple(folders), options.runs, options.output, tuple(options.overrides))
    try:
        known = registry.read(options.registry) if options.registry else registry.shipped()
        made = collect.tables(known, options.set, places, train=options.train)
    except KinemaError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    console = wide_console()
    if not console.is_terminal:
        console.width = 220
    for table in made:
        console.print(table.to_rich())
        for number, note in enumerate(table.notes, start=1):
            console.print(f"{number}. {note}", markup=False, highlight=False, soft_wrap=True)
        console.print()
    for path in collect.write(options.set, made, options.output):
        console.print(f"written: {path}", markup=False, soft_wrap=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
