"""Old commands: `python scripts/legacy.py OLD COMMAND` prints the Kinema command that does the same.

    python scripts/legacy.py [--run] [SYSTEM] [python] SCRIPT FLAGS... [-- OVERRIDES...]

    python scripts/legacy.py poseformer run_poseformer.py -k cpn_ft_h36m_dbb -f 27 -lr 0.00004 -lrd 0.99
    python scripts/legacy.py python run.py -k gt -arc 3,3,3 -c checkpoint --evaluate epoch_60.bin
    python scripts/legacy.py --run hmsft run_poseformer.py -k gt -f 81 --evaluate gt81f.bin -- trainer=cpu

SYSTEM is videopose3d, poseformer, poseformerv2, hmsft, motionbert (with its fork for MA-52), smrnet or humanmac; it may
be left out where the script's name, its folder or its flags tell. The command goes to stdout, remarks on it to
stderr; what has no counterpart is refused with exit code 2. --run executes the command; words behind -- are overrides
that are added to it; --table prints what every flag becomes. All of it: docs/old_commands.md.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

if not __package__:  # started as a file: its own folder is on the path, the repository is not
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from scripts.legacy_commands import (
    absent,
    action,
    action_config,
    diffusion,
    diffusion_config,
    motionbert,
    motionbert_config,
    poseformer,
    videopose3d,
)
from scripts.legacy_commands.flags import Flag, LegacyError, Script, UnknownFlagError, spell
from scripts.legacy_commands.yaml_files import Key

SCRIPTS: tuple[Script, ...] = (
    videopose3d.RUN,
    poseformer.POSEFORMER,
    poseformer.POSEFORMERV2,
    poseformer.HMSFT,
    poseformer.RUN_3DHP,
    motionbert.TRAIN_POSE,
    motionbert.INFER_WILD,
    action.ACTION,
    action.ONE_SHOT,
    action.MICRO,
    action.MONITORING,
    action.VERIFY,
    diffusion.SMRNET_MAIN,
    diffusion.HUMANMAC_MAIN,
    absent.MESH,
    absent.INFER_MESH,
    absent.VIS,
)
YAML_KEYS: dict[str, Sequence[Key]] = {
    "MotionBERT's yaml files": motionbert_config.KEYS,
    "Yaml files of the action scripts": action_config.KEYS,
    "Yaml files of SMRNet and HumanMAC": diffusion_config.KEYS,
}
SYSTEMS = tuple(dict.fromkeys(script.system for script in SCRIPTS))


@dataclass(frozen=True)
class Translation:
    """A Kinema command.

    Attributes:
        words: overrides.
        notes: remarks on them.
        environment: NAME=VALUE words that stood before the old command.
    """

    words: list[str]
    notes: list[str]
    environment: list[str]

    def __str__(self) -> str:
        return shlex.join([*self.environment, "python", "run.py", *self.words])


def translate(arguments: Sequence[str]) -> Translation:
    """The Kinema command for an old one.

    Args:
        arguments: words of the old command, as `main` takes them.

    Raises:
        LegacyError: there is none; says why.
    """
    words = list(arguments)
    extra: list[str] = []
    if "--" in words:
        cut = words.index("--")
        words, extra = words[:cut], words[cut + 1 :]
    system = _system(words.pop(0)) if words and _system(words[0]) else None
    environment = []
    while words and re.fullmatch(r"[A-Za-z_]\w*=.*", words[0]):
        environment.append(words.pop(0))
    if words and re.fullmatch(r"python[\d.]*(\.exe)?", PurePosixPath(words[0]).name):
        words.pop(0)
    path = None
    if words and not words[0].startswith("-"):
        path = words.pop(0)
    command, notes = _command(_candidates(system, path), words)
    return Translation([*command, *extra], notes, environment)


def _command(candidates: Sequence[Script], words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Words and notes by the first of some scripts whose flags these are."""
    read, faults = [], []
    for script in candidates:
        try:
            read.append(script.parse(words))
        except LegacyError as error:
            faults.append(error)
    if not read:
        # A flag that one script does not know may be another's, and faulty there.
        raise min(faults, key=lambda fault: isinstance(fault, UnknownFlagError))
    made = read[0].script.translate(read[0])
    notes = list(made.notes)
    if len(read) > 1:
        others = " and ".join(options.script.system for options in read[1:])
        notes.insert(
            0,
            f"read as a command of {read[0].script.system}; {others} would take it, too: begin with the system's name "
            "to say which one it is.",
        )
    return made.words, notes


_DATA = {
    "prepare_data_h36m.py": "python scripts/convert_h36m.py FOLDER",
    "prepare_data_humaneva.py": "python scripts/convert_humaneva.py FOLDER",
    "prepare_data_2d_custom.py": "python run.py mode=predict dataset=custom input=FILE",
}


def _candidates(system: str | None, path: str | None) -> list[Script]:
    """The scripts that a command may belong to."""
    if path is None:
        found = [script for script in SCRIPTS if script.system == system][:1]
        if found and system != "motionbert":
            return found
        names = ", ".join(dict.fromkeys(script.file for script in SCRIPTS if system in (None, script.system)))
        raise LegacyError(f"Which script? Give its name and its flags. Known: {names}.")
    pure = PurePosixPath(path.replace("\\", "/"))
    name = pure.name if pure.suffix else f"{pure.name}.py"
    found = [script for script in SCRIPTS if script.file == name]
    if not found:
        if name in _DATA:
            raise LegacyError(f"{name} prepares data. Here: {_DATA[name]}; docs/datasets has the steps.")
        known = ", ".join(dict.fromkeys(script.file for script in SCRIPTS))
        systems = ", ".join(SYSTEMS)
        raise LegacyError(f"{path!r} is neither a system ({systems}) nor one of their scripts ({known}).")
    folders = [told for part in pure.parts[:-1] if (told := _system(part, begins=True))]
    wanted = system or (folders[-1] if folders else None)
    chosen = [script for script in found if wanted in (None, script.system)]
    if not chosen:
        files = ", ".join(script.file for script in SCRIPTS if script.system == wanted)
        raise LegacyError(f"{wanted} has no {name}. It has: {files}.")
    return chosen


# Other names of systems. The fork for MA-52 holds MotionBERT's scripts and some of its own.
_ALIASES = {"poseformerv1": "poseformer", "ma52": "motionbert", "microactions": "motionbert"}


def _system(text: str, *, begins: bool = False) -> str | None:
    """The system that a word (or the beginning of a folder's name) means."""
    plain = re.sub(r"[^a-z0-9]", "", text.lower())
    if plain in _ALIASES:
        return _ALIASES[plain]
    if begins:
        return max((one for one in SYSTEMS if plain.startswith(one)), key=len, default=None)
    return plain if plain in SYSTEMS else None


def table(script: Script) -> str:
    """What every flag of a script becomes, as a Markdown table."""
    if not script.flags:
        return "It takes no flags."
    rows = ["| flag | default there | here |", "|---|---|---|"]
    rows += [f"| {_names(flag)} | {_default(flag)} | {_here(flag)} |" for flag in script.flags]
    return "\n".join(rows)


def config_table(keys: Sequence[Key]) -> str:
    """What every key of some yaml files becomes, as a Markdown table."""
    rows = ["| key | here |", "|---|---|"]
    return "\n".join(rows + [f"| `{key.name}` | {key.place} |" for key in keys])


def _names(flag: Flag) -> str:
    return ", ".join(f"`{name}`" for name in flag.names)


def _default(flag: Flag) -> str:
    if flag.kind is None or flag.default is None:
        return ""
    if isinstance(flag.default, list):
        return f"`{','.join(str(one) for one in flag.default)}`"
    return f"`{flag.default}`" if flag.default != "" else ""


def _here(flag: Flag) -> str:
    if flag.here:
        return flag.here
    if not flag.key:
        return f"none: {flag.note}"
    return f"`{flag.key}={spell(flag.override(True))}`" if flag.kind is None else f"`{flag.key}`"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print (and with --run execute) the Kinema command for an old one; returns the exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    own = words[: words.index("--")] if "--" in words else words
    if not own or own[0] in ("-h", "--help"):
        print(__doc__)
        return 0
    if own[0] == "--table":
        print("\n\n".join(f"### {script.title}\n\n{table(script)}" for script in SCRIPTS))
        for title, keys in YAML_KEYS.items():
            print(f"\n### {title}\n\n{config_table(keys)}")
        return 0
    execute = "--run" in own
    if execute:
        words.remove("--run")
    try:
        made = translate(words)
    except LegacyError as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    for note in made.notes:
        sys.stderr.write(f"note: {note}\n")
    sys.stderr.flush()
    print(made, flush=True)
    if not execute:
        return 0
    environment = dict(word.split("=", 1) for word in made.environment)
    return subprocess.call([sys.executable, "-m", "kinema", *made.words], env={**os.environ, **environment})


if __name__ == "__main__":
    sys.exit(main())
