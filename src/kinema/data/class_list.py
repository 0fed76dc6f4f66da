"""Class lists of action recognition: names, coarse groups and other names, shipped or from anybody's file."""

from __future__ import annotations

import difflib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from kinema.errors import ConfigError, DataError

SHIPPED = Path(__file__).parent / "labels"

_FORMS = (
    "Write .json ({id: name}, a list of names, or {groups, classes} as in docs/datasets/clip_folder.md) or "
    ".txt (one name per line, or `id name`)."
)


@dataclass(frozen=True)
class ClassList:
    """Classes in the order of their ids.

    Attributes:
        names: one per class, each once.
        groups: id of the coarse group of each class, or None where there are no groups.
        group_names: one per group.
        aliases: other names and codes of classes, in lower case, to ids.
        clips: published number of clips per split, where a benchmark has one.
        source: where the list comes from.
    """

    names: tuple[str, ...]
    groups: tuple[int, ...] | None = None
    group_names: tuple[str, ...] | None = None
    aliases: Mapping[str, int] = field(default_factory=dict)
    clips: Mapping[str, int] = field(default_factory=dict)
    source: str = ""

    def __post_init__(self) -> None:
        twice = [name for name, count in Counter(self.names).items() if count > 1]
        if twice:
            raise DataError(f"Class list{self._where}: {twice[0]!r} stands there twice. Give every class its own name.")
        if not self.names:
            raise DataError(f"Class list{self._where} is empty. {_FORMS}")
        if self.groups is None:
            return
        count = len(self.group_names or ())
        wrong = [name for name, group in zip(self.names, self.groups, strict=False) if not 0 <= group < count]
        if len(self.groups) != len(self.names) or wrong:
            named = repr(wrong[0]) if wrong else "a class"
            raise DataError(
                f"Class list{self._where}: {named} is in none of the {count} named groups. "
                "Give every class the number of its group, or leave all groups out."
            )

    @property
    def _where(self) -> str:
        return f" {self.source}" if self.source else ""

    def __len__(self) -> int:
        return len(self.names)

    @property
    def num_groups(self) -> int:
        """Number of coarse groups, 0 where there are none."""
        return len(self.group_names or ())

    def index(self, name: str) -> int:
        """Id of a class by its name, another name or its code.

        Raises:
            ConfigError: for an unknown name, with the nearest one.
        """
        if name in self.names:
            return self.names.index(name)
        known = {each.lower(): i for i, each in enumerate(self.names)} | dict(self.aliases)
        if name.lower() in known:
            return known[name.lower()]
        near = difflib.get_close_matches(name.lower(), known, n=1)
        hint = f"Did you mean {near[0]!r}?" if near else f"Known: {', '.join(self.names[:12])}."
        raise ConfigError(f"No class is called {name!r}. {hint}")

    def name(self, label: int) -> str:
        """Name of a class by its id; empty for -1, a label that is withheld."""
        return self.names[label] if label >= 0 else ""


def shipped() -> list[str]:
    """Names of the class lists that come with Kinema."""
    return sorted(path.stem for path in SHIPPED.glob("*.json"))


def class_list(source: str | Path | Sequence[str]) -> ClassList:
    """Read a class list.

    Args:
        source: "ma52", "ntu60", "ntu120" or another shipped list; a path to a .json or .txt file; or the names.

    Raises:
        ConfigError: for an unknown name.
        DataError: for a file that is missing or holds something else.
    """
    if not isinstance(source, (str, Path)):
        return ClassList(tuple(str(name) for name in source))
    return _read(str(source))


@lru_cache(maxsize=16)
def _shipped(name: str) -> ClassList:
    return _from_json(json.loads((SHIPPED / f"{name}.json").read_text(encoding="utf-8")), name)


def _read(source: str) -> ClassList:
    if source in shipped():
        return _shipped(source)
    path = Path(source).expanduser()
    if path.suffix not in (".json", ".txt"):
        near = difflib.get_close_matches(source, shipped(), n=1)
        hint = f"Did you mean dataset.classes={near[0]}?" if near else f"Known: {', '.join(shipped())}; or a file."
        raise ConfigError(f"dataset.classes={source} is no class list. {hint} {_FORMS}")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise DataError(
            f"The class list {path} cannot be read ({error.strerror}). Put it there, or name it: "
            "dataset.classes=/where/it/is.txt."
        ) from error
    if path.suffix == ".txt":
        return _from_lines(text, str(path))
    try:
        return _from_json(json.loads(text), str(path))
    except json.JSONDecodeError as error:
        raise DataError(f"The class list {path} is no JSON: {error}. {_FORMS}") from error


def _from_lines(text: str, where: str) -> ClassList:
    """One name per line, or `id name` on every line."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    parts = [line.split(maxsplit=1) for line in lines]
    if lines and all(len(part) == 2 and part[0].isdecimal() for part in parts):
        return ClassList(_by_id({part[0]: part[1] for part in parts}, len(parts), where), source=where)
    return ClassList(tuple(lines), source=where)


def _by_id(names: Mapping[Any, Any], count: int, where: str) -> tuple[str, ...]:
    """Names in the order of their ids, which must be 0 to count - 1."""
    try:
        numbered = {int(key): str(value) for key, value in names.items()}
    except ValueError as error:
        raise DataError(f"The class list {where} has an id that is no number: {error}. {_FORMS}") from error
    if sorted(numbered) != list(range(count)):
        missing = sorted(set(range(count)) - set(numbered))
        raise DataError(
            f"The class list {where} has {count} entries, but not the ids 0 to {count - 1}: {missing[:3]} missing. "
            "Number the classes from 0, each once."
        )
    return tuple(numbered[i] for i in range(count))


def _from_json(values: Any, where: str) -> ClassList:
    if isinstance(values, dict) and isinstance(values.get("classes"), list):
        return _full(values, where)
    if isinstance(values, dict):
        return ClassList(_by_id(values, len(values), where), source=where)
    if isinstance(values, list) and all(isinstance(name, str) for name in values):
        return ClassList(tuple(values), source=where)
    raise DataError(f"{where} holds no class list. {_FORMS}")


def _full(values: dict[str, Any], where: str) -> ClassList:
    """The long form: `groups` (name) and `classes` (name, and by need code, group, aliases)."""
    try:
        entries = [{"name": entry} if isinstance(entry, str) else dict(entry) for entry in values["classes"]]
        names = tuple(str(entry["name"]) for entry in entries)
        grouped = [entry["group"] for entry in entries if "group" in entry]
        group_names = [str(group if isinstance(group, str) else group["name"]) for group in values.get("groups", [])]
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(f"{where}: an entry of `classes` or `groups` has no name ({error}). {_FORMS}") from error
    if grouped and len(grouped) != len(entries):
        raise DataError(f"{where}: some classes have a group and some have none. Give every class the number of one.")
    aliases: dict[str, int] = {}
    for label, entry in enumerate(entries):
        for other in [entry.get("code"), *entry.get("aliases", [])]:
            if other:
                aliases[str(other).lower()] = label
    return ClassList(
        names,
        groups=tuple(int(group) for group in grouped) if grouped else None,
        group_names=tuple(group_names) if grouped else None,
        aliases=aliases,
        clips=dict(values.get("clips", {})),
        source=where,
    )
