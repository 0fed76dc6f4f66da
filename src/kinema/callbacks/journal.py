"""Journal of a test: an interrupted evaluation goes on where it stopped, and gives the numbers of a whole one."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import random
import shutil
import socket
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import numpy as np
import torch
from torch import Tensor

from kinema.errors import ConfigError
from kinema.files import write_atomic

log = logging.getLogger(__name__)

FOLDER, ENTRY = "journal", "journal.json"
# What may differ where an evaluation goes on: places and speed, and what only training reads.
_FREE = frozenset({"root", "cache_dir", "num_workers", "batch_size", "optimizer", "scheduler"})


class Journal(pl.Callback):
    """Keep what the protocols of a running test hold in the run directory, and go on from there with `resume`.

    An entry holds the states of every protocol of every variant after a number of batches, and those of the random
    generators; every rank writes its own, rank 0 then names them in `journal.json`, so that a killed run leaves a whole
    entry or none. A test that goes on passes over the batches that are done and ends with the same numbers, bit by bit.
    The journal is removed when the test has ended.

    Where it may go on is said by `offered` and `strict`, which `kinema.runs` sets from `resume`. Of these folders only
    one is taken whose weights, data, configuration and number of devices are those of the running test.

    Args:
        output_dir: the run directory.
        interval: seconds between entries; a batch is never cut in two.

    Attributes:
        offered: journals of interrupted runs, the best first.
        strict: whether an offered journal of another evaluation is refused, and not passed over.
    """

    def __init__(self, output_dir: str, interval: float = 30.0) -> None:
        self.folder = Path(output_dir) / FOLDER
        self.interval = interval
        self.offered: list[Path] = []
        self.strict = False
        self._identity: dict[str, Any] = {}
        self._taken: Path | None = None
        self._entry: dict[str, Any] | None = None
        self._done = 0
        self._written: list[int] = []
        self._last = 0.0
        self._over = False

    def on_test_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Find the journal to go on with, before anything is computed."""
        self._identity = identity(trainer, pl_module)
        self._done, self._written, self._over, self._entry = 0, [], False, None
        self._taken = self._find(trainer)
        if self._taken is not None:
            note = _read(self._taken)
            assert note is not None
            path = self._taken / _name(note["batches"], trainer.global_rank)
            self._entry = torch.load(path, map_location="cpu", weights_only=True)
            self._done = int(note["batches"])
            total = int(trainer.num_test_batches[0])
            log.info("going on with %s: %d of %d batches are judged", self._taken.parent, self._done, total)
        self._last = time.monotonic()

    def on_test_batch_start(
        self, trainer: pl.Trainer, pl_module: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Take up the entry at the first batch; write one between two batches, when it is time."""
        if self._entry is not None and batch_idx == 0:  # the protocols were emptied a moment ago
            pl_module.take_up(self._done, self._entry["standing"])
        if batch_idx <= self._done:
            if self._entry is not None and batch_idx == self._done:
                _set_generators(self._entry["generators"])
                self._entry, self._last = None, time.monotonic()
            return
        due = time.monotonic() - self._last >= self.interval
        if trainer.strategy.reduce_boolean_decision(due, all=False):
            self._write(trainer, pl_module, batch_idx)
            self._last = time.monotonic()

    def _write(self, trainer: pl.Trainer, task: Any, batches: int) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / _name(batches, trainer.global_rank)
        temporary = path.with_name(f".{path.name}")
        torch.save({"standing": task.standing(), "generators": _generators()}, temporary)
        temporary.replace(path)
        trainer.strategy.barrier("journal")
        if trainer.is_global_zero:
            note = {
                "batches": batches, "total": int(trainer.num_test_batches[0]), "pid": os.getpid(),
                "host": socket.gethostname(), "identity": self._identity,
            }  # fmt: skip
            write_atomic(self.folder / ENTRY, json.dumps(note, indent=1))
        self._written.append(batches)
        for old in self._written[:-2]:  # rank 0 may not have named the newest yet
            (self.folder / _name(old, trainer.global_rank)).unlink(missing_ok=True)
        self._written = self._written[-2:]

    def on_test_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Note that the numbers are complete."""
        self._over = True

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Remove the journals of a test that has ended, when its report is written."""
        if self._over and trainer.is_global_zero:
            for folder in (self.folder, self._taken):
                if folder is not None:
                    shutil.rmtree(folder, ignore_errors=True)
        self._over = False

    def _find(self, trainer: pl.Trainer) -> Path | None:
        """The journal to go on with; rank 0 decides for all.

        Raises:
            ConfigError: `strict`, and it is one of another evaluation.
        """
        found: tuple[str | None, str | None] = (None, None)  # folder, fault
        if trainer.is_global_zero:
            for folder in self.offered:
                note = _read(folder)
                reason = "it cannot be read" if note is None else difference(note["identity"], self._identity)
                if reason is None:
                    found = (str(folder), None)
                    break
                if self.strict:
                    found = (None, f"resume={folder.parent} cannot be gone on with: {reason}. Repeat its command with "
                                   "resume=auto, or drop resume to begin anew.")  # fmt: skip
                    break
                log.info("passed over the interrupted evaluation %s: %s", folder.parent, reason)
        found = trainer.strategy.broadcast(found)
        if found[1] is not None:
            raise ConfigError(found[1])
        return None if found[0] is None else Path(found[0])


def journals(trainer: pl.Trainer) -> list[Journal]:
    """The journals among the callbacks of a trainer: one, or none."""
    return [one for one in trainer.callbacks if isinstance(one, Journal)]  # type: ignore[attr-defined]


def identity(trainer: pl.Trainer, task: Any) -> dict[str, Any]:
    """What must be equal for two evaluations to give the same numbers, in plain containers."""
    data: Any = getattr(trainer, "datamodule", None)
    windows = data.windows("test") if data is not None else None
    model = getattr(task, "model", task)
    config = getattr(task, "config", {})
    kept = {group: _kept(config.get(group)) for group in ("dataset", "task")}
    facts = {
        "weights": weights_hash(task),
        "network": type(model).__name__,
        "arguments": getattr(model, "arguments", {}),
        "data": str(getattr(data, "fingerprint", "")),
        "windows": "" if windows is None else _hash([np.ascontiguousarray(windows.table)]),
        "batches": int(trainer.num_test_batches[0]),
        "devices": trainer.world_size,
        "device": task.device.type,
        "precision": str(trainer.precision),
        "protocols": [{name: _shapes(one) for name, one in variant.items()} for variant in task.standing()],
        "seed": config.get("seed"),
        **kept,
    }
    plain: dict[str, Any] = json.loads(json.dumps(facts, default=str))
    return plain


def difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> str | None:
    """In what an interrupted evaluation is another one than the running one; None where it is the same."""
    named = {
        "weights": "it tests other weights",
        "data": "it tests other data",
        "windows": "it tests other windows",
    }
    for key, sentence in named.items():
        if before.get(key) != now.get(key):
            return sentence
    old, new = (dict(_flat(one)) for one in (before, now))
    for key in dict.fromkeys([*old, *new]):
        if old.get(key) != new.get(key):
            return f"its {key} is {old.get(key, 'not set')}, this one's is {new.get(key, 'not set')}"
    return None


def weights_hash(module: torch.nn.Module) -> str:
    """Hash of all parameters and buffers that a checkpoint of the module would hold."""
    state = module.state_dict()
    tensors = (state[name] for name in sorted(state))
    return _hash(one.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy() for one in tensors)


def _hash(arrays: Any) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for array in arrays:
        digest.update(array)
    return digest.hexdigest()


def _kept(node: Any) -> Any:
    return {key: value for key, value in node.items() if key not in _FREE} if isinstance(node, Mapping) else node


def _shapes(standing: Mapping[str, Any]) -> dict[str, Any]:
    """Shapes of the states of a protocol whose sizes do not grow."""
    return {name: list(one.shape) for name, one in standing["states"].items() if isinstance(one, Tensor)}


def _flat(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(node, Mapping):
        for key, value in node.items():
            yield from _flat(value, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, node


def _name(batches: int, rank: int) -> str:
    return f"{batches:08d}-{rank}.pt"


def _read(folder: Path) -> dict[str, Any] | None:
    """The entry of a journal, None where it is not whole."""
    try:
        note: dict[str, Any] = json.loads((folder / ENTRY).read_text())
        ranks = range(int(note["identity"]["devices"]))
        whole = all((folder / _name(int(note["batches"]), rank)).is_file() for rank in ranks)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return note if whole else None


def _generators() -> dict[str, Any]:
    """States of the running generators of this rank."""
    numpy_state: Any = np.random.get_state(legacy=True)
    name, keys, place, has_gauss, cached = numpy_state
    states: dict[str, Any] = {
        "torch": torch.get_rng_state(),
        "numpy": (str(name), torch.from_numpy(keys.astype(np.int64)), int(place), int(has_gauss), float(cached)),
        "python": random.getstate(),
    }
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        states["cuda"] = torch.cuda.get_rng_state()
    return states


def _set_generators(states: Mapping[str, Any]) -> None:
    torch.set_rng_state(states["torch"])
    name, keys, place, has_gauss, cached = states["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), place, has_gauss, cached))
    version, numbers, gauss = states["python"]
    random.setstate((version, tuple(numbers), gauss))
    if "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"])
