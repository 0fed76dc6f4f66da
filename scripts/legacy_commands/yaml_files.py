"""The flat yaml files of MotionBERT and of repositories made from it: how they are found, read and written anew."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from scripts.legacy_commands.flags import Command, LegacyError


@dataclass(frozen=True)
class Key:
    """One key of a yaml file.

    Attributes:
        name: of the key.
        key: the override that takes its place; "" = see `here`.
        here: for the table in the docs, where `key` does not say it.
        value: from its value to the override's.
        only: the one value that is possible here; with another one the file is refused with `why`.
        ignored: sentence for a value other than `usual`, which changed nothing there or changes nothing here.
        usual: value in every published file; ... = any.
    """

    name: str
    key: str = ""
    here: str = ""
    value: Callable[[Any], Any] | None = None
    only: Any = None
    why: str = ""
    ignored: str = ""
    usual: Any = None

    @property
    def place(self) -> str:
        """What takes its place, for the table in the docs."""
        if self.here or self.key:
            return self.here or f"`{self.key}`"
        return f"`{self.only}` only. {self.why}" if self.only is not None else f"none: {self.ignored}"

    def write(self, command: Command, value: Any) -> None:
        """Set what takes its place.

        Raises:
            LegacyError: nothing does, for this value.
        """
        if self.only is not None and value != self.only:
            raise LegacyError(
                f"{self.name}: {value} in the yaml has no counterpart in this version of Kinema. {self.why}"
            )
        if self.ignored and self.usual is not ... and value != self.usual:
            command.note(f"{self.name}: {value} in the yaml {self.ignored}.")
        if self.key:
            command.set(self.key, value if self.value is None else self.value(value), typed=False)


def folder_and_name(text: str) -> tuple[str, str]:
    """Last folder and name, without suffix, of a path with slashes of either kind."""
    parts = PureWindowsPath(text).with_suffix("").parts
    return (parts[-2] if len(parts) > 1 else ""), parts[-1]


def official(text: str, names: Iterable[str]) -> str:
    """Which of some "folder/name" a path means; the folder may be left out. "" = none."""
    folder, stem = folder_and_name(text)
    return next((one for one in names if one == f"{folder}/{stem}" or (not folder and one.endswith(f"/{stem}"))), "")


def load(path: Path, known: Mapping[str, Key], what: str) -> dict[str, Any]:
    """The keys of a yaml file, all of them known.

    Args:
        path: of the file.
        known: keys by name.
        what: whose keys they are, for the message.

    Raises:
        LegacyError: it is no yaml file, or has an unknown key.
    """
    try:
        # OmegaConf's loader builds plain values only; nothing is resolved.
        found = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
    except (YAMLError, OmegaConfBaseException, UnicodeDecodeError) as error:
        raise LegacyError(f"--config {path} is no yaml file: {' '.join(str(error).split())}") from error
    if not isinstance(found, dict) or not all(isinstance(key, str) for key in found):
        raise LegacyError(f"--config {path} holds no keys with values.")
    for key in found:
        if key not in known:
            near = difflib.get_close_matches(str(key), known, n=1, cutoff=0.6)
            hint = f"Did you mean {near[0]}?" if near else f"Known: {', '.join(known)}."
            raise LegacyError(f"--config {path}: the key {key!r} is none of {what}. {hint}")
    return {str(key): value for key, value in found.items()}
