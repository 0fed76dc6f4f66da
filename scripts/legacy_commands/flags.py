"""Flags of a published script, how argparse reads them, and how a Kinema command is put together and spelt."""

from __future__ import annotations

import argparse
import difflib
import functools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

from omegaconf import DictConfig, OmegaConf

from kinema.composition import compose

TRAIN, TEST, RENDER, PREDICT = "train", "test", "render", "predict"
MONITOR, DOCTOR = "monitor", "doctor"
ALWAYS = (TRAIN, TEST, RENDER, PREDICT)


class LegacyError(Exception):
    """A command line without an equivalent; the message is for its user."""


class UnknownFlagError(LegacyError):
    """A flag that the script does not have."""


@dataclass(frozen=True)
class Flag:
    """One flag of a script.

    Attributes:
        names: all spellings, the usual one first; without a dash a word that stands by itself, and may be left out.
        kind: what turns its text into a value; None = a switch without value.
        default: the script's own; None = nothing is written where the flag is not typed.
        key: the override that takes its place; "" = none, or the script's `translate` makes more of it.
        value: from the flag's value to the override's.
        here: what takes its place, for the table in the docs, where `key` does not say it.
        note: sentence that is printed where the flag is typed: what it did there, what happens here.
        modes: what the flag matters for; elsewhere it had no effect.
    """

    names: tuple[str, ...]
    kind: Callable[[str], Any] | None = str
    default: Any = None
    key: str = ""
    value: Callable[[Any], Any] | None = None
    here: str = ""
    note: str = ""
    modes: tuple[str, ...] = ALWAYS

    @property
    def name(self) -> str:
        """Name of its value: the longest spelling."""
        return max(self.names, key=len).lstrip("-").replace("-", "_")

    def override(self, typed: Any) -> Any:
        """Value of the override for a value of the flag."""
        return typed if self.value is None else self.value(typed)


@dataclass(frozen=True)
class Script:
    """A published script.

    Attributes:
        system: what it belongs to, as typed before the script.
        file: its name.
        flags: all that it takes.
        translate: from its options to a command.
        title: of its table in the docs.
        hint: by the name of a flag that it does not have, though its relatives do, a sentence about it.
    """

    system: str
    file: str
    flags: tuple[Flag, ...]
    translate: Callable[[Options], Command]
    title: str
    hint: Mapping[str, str] = field(default_factory=dict)

    def parse(self, words: Sequence[str]) -> Options:
        """Read a command line as the script's own argparse did.

        Raises:
            UnknownFlagError: a flag that it does not have.
            LegacyError: anything else that it would have refused.
        """
        parser = _Parser(add_help=False, argument_default=argparse.SUPPRESS)
        for flag in self.flags:
            if flag.kind is None:
                parser.add_argument(*flag.names, dest=flag.name, action="store_true")
            elif not flag.names[0].startswith("-"):
                parser.add_argument(flag.name, nargs="?", type=flag.kind)
            else:
                parser.add_argument(*flag.names, dest=flag.name, type=flag.kind)
        apart = list(_split(words))
        for word in apart:  # argparse would take -arc for -a with the value rc
            if word.startswith("-") and word.lstrip("-") in self.hint:
                raise UnknownFlagError(f"{self._no_flag(word)} {self.hint[word.lstrip('-')]}")
        found, rest = parser.parse_known_args(apart)
        if rest:
            self._refuse(rest)
        return Options(self, vars(found))

    def _refuse(self, rest: Sequence[str]) -> NoReturn:
        unknown = next((word for word in rest if word.startswith("-")), None)
        if unknown is None:
            raise LegacyError(f"{rest[0]!r} belongs to no flag of {self.file} ({self.system}).")
        known = [name for flag in self.flags for name in flag.names]
        near = difflib.get_close_matches(unknown, known, n=1, cutoff=0.65)
        hint = f"Did you mean {near[0]}?" if near else f"It has: {', '.join(known) or 'none'}."
        raise UnknownFlagError(f"{self._no_flag(unknown)} {hint}")

    def _no_flag(self, word: str) -> str:
        return f"{word} is no flag of {self.file} ({self.system})."


class Options:
    """What was typed after a script, with the script's defaults beside it."""

    def __init__(self, script: Script, typed: Mapping[str, Any]) -> None:
        self.script = script
        self.typed = dict(typed)
        self._flags = {flag.name: flag for flag in script.flags}

    def __getitem__(self, name: str) -> Any:
        return self.typed.get(name, self._flags[name].default)

    def __contains__(self, name: str) -> bool:
        return name in self.typed

    def spelt(self, name: str) -> str:
        """The usual spelling of a flag."""
        return self._flags[name].names[0]

    def flags(self) -> Iterable[tuple[Flag, Any, bool]]:
        """Every flag with its value, and whether it was typed."""
        for name, flag in self._flags.items():
            yield flag, self[name], name in self.typed


class Command:
    """A Kinema command in the making.

    Args:
        mode: what it does.
        choices: words that choose from groups, such as "model=poseformer".
    """

    def __init__(self, mode: str, *choices: str) -> None:
        self.mode = mode
        self.choices = list(choices)
        self.notes: list[str] = []
        self._settings: dict[str, tuple[Any, bool]] = {}

    def choose(self, word: str) -> None:
        """Choose from a group; another choice from the same group is replaced."""
        group = word.split("=")[0] + "="
        self.choices = [one for one in self.choices if not one.startswith(group)] + [word]

    def set(self, key: str, value: Any, *, typed: bool = True) -> None:
        """Give a key a value. One that was not typed is only written where Kinema's own default is another."""
        self._settings[key] = (value, typed)

    def note(self, sentence: str) -> None:
        """Tell the user something about the translation, once."""
        if sentence not in self.notes:
            self.notes.append(sentence)

    def apply(self, options: Options) -> None:
        """Write the override of every flag that has one, and the notes of those that were typed."""
        idle = []
        for flag, value, typed in options.flags():
            if typed and flag.note:
                self.note(f"{flag.names[0]}: {flag.note}")
            if not flag.key or (not typed and (value is None or flag.kind is None)):
                continue
            if not typed and flag.key.startswith("model.") and self.mode != TRAIN:
                continue  # the checkpoint tells its own sizes
            if self.mode in flag.modes:
                self.set(flag.key, flag.override(value), typed=typed)
            elif typed:
                idle.append(flag.names[0])
        if idle:
            self.note(f"{', '.join(idle)}: without effect there in a command that does not {_doing(options, idle)}.")

    @property
    def words(self) -> list[str]:
        """The overrides of the command."""
        mode = [] if self.mode == TRAIN else [f"mode={self.mode}"]
        config = _composed(tuple(self.choices))
        written = []
        for key, (value, typed) in self._settings.items():
            if typed or _plain(OmegaConf.select(config, key)) != value:
                written.append(f"{key}={spell(value)}")
        return [*mode, *self.choices, *written]


def _doing(options: Options, idle: Sequence[str]) -> str:
    flags = {flag.names[0]: flag for flag in options.script.flags}
    modes = {mode for name in idle for mode in flags[name].modes}
    return "draw" if not modes & {TRAIN, TEST} else "train" if TRAIN in modes and TEST not in modes else "measure"


@functools.lru_cache(maxsize=64)
def _composed(choices: tuple[str, ...]) -> DictConfig:
    return compose(choices)


def _plain(value: Any) -> Any:
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value


def spell(value: Any) -> str:
    """A value as it stands in an override."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (int, float)):
        return repr(value)
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{key}:{spell(one)}" for key, one in value.items()) + "}"
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(spell(one) for one in value) + "]"
    text = str(value)
    bare = re.fullmatch(r"[\w/.*@%+-]+", text, re.ASCII) and not re.fullmatch(
        r"(?i)null|true|false|nan|inf|[\d._e+-]+", text
    )
    if bare:
        return text
    if '"' not in text and not text.endswith("\\"):
        return f'"{text}"'
    escaped = re.sub(r"(\\*)'", r"\1\1\\'", text)
    return "'" + re.sub(r"(\\+)$", r"\1\1", escaped) + "'"


class _Parser(argparse.ArgumentParser):
    """argparse with its abbreviations, but exceptions instead of exits."""

    def error(self, message: str) -> NoReturn:
        ambiguous = re.match(r"ambiguous option: (\S+) could match (.*)", message)
        if ambiguous:
            flag, others = ambiguous[1], ambiguous[2].replace(", ", " or ")
            raise LegacyError(f"{flag} is ambiguous here: it could mean {others}. Write it out.")
        raise LegacyError(message[:1].upper() + message[1:].rstrip(".") + ".")


def _split(words: Sequence[str]) -> Iterable[str]:
    """Take -flag=value apart, which argparse does not do for abbreviated flags with one dash."""
    for word in words:
        joined = re.match(r"(-{1,2}[A-Za-z][\w-]*)=([^-].*|-\d.*)?$", word, re.DOTALL)
        if joined:
            yield from (joined[1], joined[2] or "")
        else:
            yield word
