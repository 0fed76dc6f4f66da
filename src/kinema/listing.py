"""Small sub-commands beside the modes: `kinema models`, `kinema datasets`, `kinema summarize DIR`."""

from __future__ import annotations

import sys
from pathlib import Path

from kinema import launch
from kinema.errors import KinemaError


def main(arguments: list[str]) -> int:
    """Run one sub-command and return its exit code."""
    command, *rest = arguments
    try:
        if command == "summarize":
            if len(rest) != 1:
                sys.stderr.write("usage: kinema summarize multirun/DIR\n")
                return 2
            from kinema.summary import summarise

            summarise(Path(rest[0]))
        else:
            _list_group(command.removesuffix("s"))
    except KinemaError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    return 0


def _list_group(group: str) -> None:
    """Print every option of a group with the comment at the top of its file."""
    from rich.console import Console
    from rich.table import Table

    table = Table("name", "what it is", title=f"{group}=...", show_lines=False)
    for path in sorted((launch.config_dir() / group).glob("*.yaml")):
        if path.stem.startswith("_"):
            continue
        lines = []
        for line in path.read_text().splitlines():
            if not line.startswith("#"):
                break
            lines.append(line.lstrip("# "))
        table.add_row(path.stem, " ".join(line for line in lines if not line.startswith("@package")))
    Console().print(table)
