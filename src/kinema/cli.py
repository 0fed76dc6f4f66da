"""The command line: `python run.py`, `python -m kinema` and `kinema` are this function.

Nothing heavy is imported before the configuration is composed: a wrong override must cost two seconds.
"""

from __future__ import annotations

import difflib
import importlib
import os
import pkgutil
import re
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from kinema import launch
from kinema.errors import ConfigError, KinemaError

if TYPE_CHECKING:
    from omegaconf import DictConfig

_ABSENT: Any = object()
_INTERRUPTED = 143  # exit code of a run ended by SIGTERM


def main() -> None:
    """Run one command: a small sub-command, or a mode composed by Hydra."""
    if len(sys.argv) > 1 and sys.argv[1] in ("models", "datasets", "summarize"):
        from kinema import listing

        sys.exit(listing.main(sys.argv[1:]))
    launch.adopt_rank_arguments()
    launch.register_resolvers()
    run = hydra.main(version_base="1.3", config_path=str(launch.config_dir()), config_name="config")(_job)
    # Hydra prints its own reports and exits; with full errors it hands them over, and we add what to type instead.
    before = os.environ.get("HYDRA_FULL_ERROR")
    wants_trace = bool(before) or "traceback=true" in sys.argv
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        run()
    except KinemaError as error:
        _fail(str(error), trace=wants_trace)
    except (HydraException, OmegaConfBaseException) as error:
        _fail(_explain(error), trace=wants_trace)
    finally:
        if before is None:  # whatever this process starts next decides for itself
            os.environ.pop("HYDRA_FULL_ERROR", None)
        if launch.rank() == 0 and "kinema.summary" in sys.modules:
            sys.modules["kinema.summary"].summarise_multirun()


def _job(config: DictConfig) -> float | None:
    """Run one composed job, alone or as a member of a sweep."""
    hydra_config = HydraConfig.get()
    in_sweep = hydra_config.mode == RunMode.MULTIRUN
    output_dir = Path(hydra_config.runtime.output_dir).absolute()
    try:
        with launch.one_job(output_dir, list(hydra_config.overrides.task), launch.config_flags(sys.argv[1:])):
            return mode_function(config.mode)(config)
    except KinemaError as error:
        if in_sweep:  # Hydra ends a sweep on SystemExit and goes on after an Exception
            raise
        _fail(str(error), trace=bool(config.traceback))


def mode_function(mode: str):
    """Find the function of a mode: `run` in `kinema/modes/<mode>.py`.

    Raises:
        ConfigError: for an unknown mode, with the nearest known one.
    """
    import kinema.modes as package

    known = [module.name for module in pkgutil.iter_modules(package.__path__)]
    if mode not in known:
        near = difflib.get_close_matches(str(mode), known, n=1)
        raise ConfigError(f"mode={mode} is unknown ({', '.join(known)}). Use mode={near[0] if near else 'train'}.")
    return importlib.import_module(f"kinema.modes.{mode}").run


def _explain(error: Exception) -> str:
    """Turn a Hydra message into one that says what to type."""
    text = str(error).strip()
    unknown = re.search(r"[Kk]ey '([^']+)' (?:is )?not in|Could not override '([^']+)'", text)
    if unknown:
        key = unknown[1] or unknown[2]
        text = text.split("\nTo append")[0]
        tasks = _tasks_with(key.removeprefix("task.")) if key.startswith("task.") else []
        near = difflib.get_close_matches(key.rsplit(".", 1)[-1], _keys_of_config(), n=3)
        if tasks:
            text += f"\nThat is a key of another task: add {' or '.join(f'task={name}' for name in tasks)}."
        elif near:
            text += f"\nDid you mean {', '.join(near)}?"
        text += "\nSee every key with its value: --cfg job"
    return text


def _tasks_with(key: str) -> list[str]:
    """Files of `conf/task` that have a key, dotted where it is inside another."""
    found = []
    for path in sorted((launch.config_dir() / "task").glob("*.yaml")):
        node = OmegaConf.to_container(OmegaConf.load(path), resolve=False)
        for word in key.split("."):
            node = node.get(word, _ABSENT) if isinstance(node, dict) else _ABSENT
        if node is not _ABSENT:
            found.append(path.stem)
    return found


def _keys_of_config() -> set[str]:
    """Every word that stands before a colon in `conf/`: candidates for a mistyped key."""
    words: set[str] = set()
    for path in launch.config_dir().rglob("*.yaml"):
        words.update(re.findall(r"^\s*([A-Za-z_]\w*):", path.read_text(), flags=re.MULTILINE))
    return words


def _fail(message: str, trace: bool) -> NoReturn:
    if trace:
        traceback.print_exc()
    sys.stderr.write(f"error: {message}\n")
    sys.exit(2)
