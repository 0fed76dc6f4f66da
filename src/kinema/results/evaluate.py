"""Numbers of checkpoints at hand, measured by `mode=test` as a user would; what was measured once is read again."""

from __future__ import annotations

import fnmatch
import hashlib
import json
import logging
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf

from kinema import composition
from kinema.checkpoints.files import sha256
from kinema.errors import KinemaError
from kinema.files import write_atomic
from kinema.results.registry import Method
from kinema.results.runs_at_hand import read_metrics
from kinema.results.tables import Measured

log = logging.getLogger(__name__)

State = tuple[str, str]  # hash of the data, and the settings that shape the numbers


@dataclass(frozen=True)
class Places:
    """Where things lie.

    Attributes:
        data: the data sets, as `paths.data_dir`.
        checkpoints: folders that are searched for the authors' files.
        runs: folder of trainings.
        output: of the tables and of evaluations.
        extra: overrides that every evaluation and training gets.
    """

    data: Path
    checkpoints: tuple[Path, ...]
    runs: Path
    output: Path
    extra: tuple[str, ...] = ()


def files_of(method: Method, folders: Sequence[Path]) -> list[Path]:
    """Checkpoints of a row below some folders, found by name."""
    return _named(method.checkpoints, folders)


def start_of(method: Method, folders: Sequence[Path]) -> Path | None:
    """The weights that a training of a row starts from, found by name; None where there are none, or need not be."""
    return next(iter(_named((method.init,), folders)), None) if method.init else None


def _named(patterns: Sequence[str], folders: Sequence[Path]) -> list[Path]:
    found = []
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            name = "/" + path.as_posix().lower()
            if path.is_file() and any(fnmatch.fnmatchcase(name, f"*/{one.lower()}") for one in patterns):
                found.append(path)
    return found


def training_words(method: Method, places: Places) -> list[str]:
    """Overrides that train a row."""
    assert method.experiment is not None
    return [
        f"experiment={method.experiment}",
        *method.overrides,
        f"paths.data_dir={quoted(places.data)}",
        *places.extra,
    ]


def test_words(method: Method, places: Places) -> list[str]:
    """Overrides that evaluate a row, but for the checkpoint."""
    return ["mode=test", *training_words(method, places), *method.test_overrides]


def quoted(path: Path) -> str:
    """A path as a value of an override: with spaces, commas, quotes or equals signs."""
    text = str(path).replace("'", "\\'")
    return f"'{text}'"


def state_of_data(method: Method, places: Places) -> State:
    """Hash of the data that a row is evaluated on, and of every setting that shapes its numbers.

    Raises:
        DataError: the data is not there; says where to get it.
        KinemaError: the row's configuration is not possible.
    """
    config = composition.compose(test_words(method, places))
    with torch.device("meta"):
        model = composition.make(config.model)
    data = composition.build_data(config, model.signature).fingerprint
    plain = composition.plain(config)
    elsewhere = {"root", "cache_dir", "seed", "num_workers"}
    dataset = {key: value for key, value in plain["dataset"].items() if key not in elsewhere}
    shape = json.dumps([plain["task"], dataset, plain["trainer"]["limit_test_batches"]], sort_keys=True, default=str)
    return str(data), shape


def measured(
    method: Method, name: str, checkpoint: Path, places: Places, state: State, protocol: str, version: int
) -> Measured:
    """Evaluate a checkpoint, or read what an earlier call found for the same weights, data, settings and version.

    The evaluation is a process of its own: whatever ends it takes no other row along. `state` is that of the row's
    data (`state_of_data`).

    Raises:
        KinemaError: the evaluation failed; holds its last message.
    """
    data, settings = state
    weights = sha256(checkpoint)
    key = hashlib.blake2b("\0".join([weights, data, settings, protocol, str(version)]).encode(), digest_size=6)
    folder = places.output / "evaluations" / f"{name}-{key.hexdigest()}"
    words = [*test_words(method, places), f"ckpt={quoted(checkpoint.absolute())}"]
    if not _finished(folder):
        log.info("evaluating %s: %s", method.name, checkpoint)
        start([*words, "logger=none", "callbacks.figures=null"], folder)
    values, meta = read_metrics(folder)
    config: Any = OmegaConf.load(folder / "config.resolved.yaml")
    return Measured(
        label=f"evaluated here, {checkpoint.name} (sha256 {weights[:12]}), data {data}",
        metrics=values,
        protocol=str(config.task.protocol),
        version=int(meta.get("protocol_versions", {}).get("test", 0)),
    )


def _finished(folder: Path) -> bool:
    try:
        return bool(json.loads((folder / "status.json").read_text())["status"] == "finished")
    except (OSError, ValueError, KeyError):
        return False


def start(words: Sequence[str], folder: Path | None) -> None:
    """Run one command of Kinema in a process of its own, its output in `process.log` of the folder.

    Args:
        words: overrides.
        folder: run directory; None = the usual one, with the output on the terminal.

    Raises:
        KinemaError: it failed; holds its last message.
    """
    where = [] if folder is None else [f"hydra.run.dir={quoted(folder.absolute())}"]
    command = [sys.executable, "-m", "kinema", *words, *where]
    done = subprocess.run(
        command,
        text=True,
        stdin=subprocess.DEVNULL,
        stdout=None if folder is None else subprocess.PIPE,
        stderr=None if folder is None else subprocess.STDOUT,
        env={**os.environ, "COLUMNS": "160"},
    )
    output = done.stdout or ""
    if folder is not None:
        write_atomic(folder / "process.log", output)
    if done.returncode:
        lines = [line for line in output.strip().splitlines() if line.strip()]
        errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
        last = (errors or lines or [f"exit code {done.returncode}"])[-1]
        raise KinemaError(last if folder is None else f"{last} (all of it: {folder / 'process.log'})")
