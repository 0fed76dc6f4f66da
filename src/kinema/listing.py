"""Small sub-commands beside the modes: `kinema models`, `kinema datasets`, `kinema summarize DIR`."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

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


def size_of(family: str, arguments: Mapping[str, Any]) -> str:
    """The file of `conf/model/` that is nearest to a network: of its class, with the most of its constructor values.

    Args:
        family: registered name; the answer where no file builds one.
        arguments: constructor values under flat names ("backbone.depth").
    """
    from kinema.models.registry import models

    known = models()
    target = f"{known[family].__module__}.{known[family].__qualname__}" if family in known else None
    alike = {}
    for path in sorted((launch.config_dir() / "model").glob("*.yaml")):
        values = _values(path)
        if values.get("_target_") == target:
            alike[path.stem] = sum(arguments[key] == value for key, value in values.items() if key in arguments)
    return max(alike, key=lambda name: alike[name], default=family)


def _values(path: Path) -> dict[str, Any]:
    """Values of a model's file and of those it builds on, under flat names, interpolations as they are written."""
    node: Any = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    found: dict[str, Any] = {}
    for entry in node.pop("defaults", []):
        for group, name in entry.items() if isinstance(entry, dict) else [("", entry)]:
            if name != "_self_":
                inside = f"{group.partition('@')[2]}." if "@" in group else ""
                found |= {f"{inside}{key}": value for key, value in _values(path.with_name(f"{name}.yaml")).items()}
    return found | _flat(node)


def _flat(node: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in node.items():
        found |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return found
