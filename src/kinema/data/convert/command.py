"""The command line that the converters share."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import NoReturn, TypeVar

from rich.console import Console
from rich.progress import track

from kinema.errors import KinemaError

Item = TypeVar("Item")


def parser(description: str | None, source: str, output: str) -> argparse.ArgumentParser:
    """A parser with what every converter takes.

    Args:
        description: docstring of the script.
        source: help of the positional argument.
        output: default folder of the result.
    """
    made = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("source", type=Path, nargs="+", help=source)
    made.add_argument("--output", type=Path, default=Path(output), help=f"folder of the result (default: {output})")
    made.add_argument("--partial", action="store_true", help="accept less than the complete data set")
    made.add_argument("--overwrite", action="store_true", help="replace files of an earlier conversion")
    return made


def tracked(items: Iterable[Item], what: str, total: int) -> Iterator[Item]:
    """Show progress on the error stream where that is a terminal."""
    console = Console(stderr=True)
    yield from track(items, what, total=total, console=console, transient=True, disable=not console.is_terminal)


def run(work: Callable[[], str]) -> None:
    """Do the work and print what it returns; a fault ends the program with its sentence.

    Args:
        work: converts and returns the summary.
    """
    try:
        print(work())
    except KinemaError as error:
        _fail(str(error))
    except OSError as error:  # a full disk, a folder that may not be written
        _fail(f"{error}. Nothing was written.")


def _fail(message: str) -> NoReturn:
    sys.stderr.write(f"error: {message}\n")
    sys.exit(2)
