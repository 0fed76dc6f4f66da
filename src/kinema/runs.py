"""The run directory: what it was, with what, how it ended, and where an interrupted one goes on."""

from __future__ import annotations

import json
import logging
import platform
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from yaml import YAMLError  # type: ignore[import-untyped]

from kinema import composition, launch
from kinema.errors import ConfigError, KinemaError
from kinema.files import write_atomic

log = logging.getLogger(__name__)
_PACKAGES = ("kinema", "torch", "lightning", "hydra-core", "omegaconf", "torchmetrics", "numpy", "mamba-ssm")


class Run:
    """One run directory, written by rank 0 only."""

    def __init__(self, config: DictConfig) -> None:
        self.folder = composition.output_dir(config)
        self.main = launch.rank() == 0
        if self.main:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._describe(config)
            self.status("running")

    def _describe(self, config: DictConfig) -> None:
        OmegaConf.save(config, self.folder / "config.resolved.yaml", resolve=True)
        write_atomic(self.folder / "command.txt", shlex.join([Path(sys.executable).name, *sys.argv]) + "\n")
        environment = {
            "seed": config.seed,
            "tags": list(config.tags),
            "python": platform.python_version(),
            "platform": platform.platform(),
            "packages": _versions(),
            "device": _device(),
            "git": _git_state(self.folder),
        }
        write_atomic(self.folder / "environment.json", json.dumps(environment, indent=1))

    def status(self, state: str, **more: Any) -> None:
        """Record how the run stands: running (and in which process), finished, interrupted or failed."""
        if self.main:
            more = more | (launch.process() if state == "running" else {})
            write_atomic(self.folder / "status.json", json.dumps({"status": state, **more}, indent=1))

    def metrics(self, values: Mapping[str, float], meta: Mapping[str, Any]) -> None:
        """Merge flat metrics into `metrics.json` (sorted, floats) with what they were measured on."""
        if not self.main:
            return
        path = self.folder / "metrics.json"
        known = json.loads(path.read_text()) if path.is_file() else {}
        merged = {**{k: v for k, v in known.items() if k != "_meta"}, **{k: float(v) for k, v in values.items()}}
        document = {**dict(sorted(merged.items())), "_meta": {**known.get("_meta", {}), **meta}}
        write_atomic(path, json.dumps(document, indent=1))


@contextmanager
def recorded(config: DictConfig) -> Iterator[Run]:
    """Keep `status.json` true however the run ends, and turn interruptions into their exit codes."""
    run = Run(config)
    resume = command("resume=auto", folder=run.folder)
    try:
        yield run
    except KinemaError as error:
        run.status("failed", reason=str(error))
        raise
    except (KeyboardInterrupt, SystemExit) as error:
        # Lightning ends a run on Ctrl-C by SystemExit(1), on SIGTERM by a SystemExit without a code.
        terminated = type(error).__name__ == "SIGTERMException"
        run.status("interrupted", reason="SIGTERM" if terminated else "Ctrl-C", resume=resume)
        log.warning("interrupted; go on with: %s", resume)
        raise SystemExit(143 if terminated else 130) from None
    except Exception as error:
        run.status("failed", reason=f"{type(error).__name__}: {error}")
        raise
    else:
        path = run.folder / "status.json"
        more = json.loads(path.read_text()) if run.main and path.is_file() else {}
        more = {key: value for key, value in more.items() if key not in ("status", *launch.process())}
        run.status("finished", **more)


def overrides() -> list[str]:
    """What was typed for this job, but for `resume`."""
    from hydra.core.hydra_config import HydraConfig

    if not HydraConfig.initialized():
        return []
    return [word for word in HydraConfig.get().overrides.task if not word.startswith("resume=")]


def command(*words: str, folder: Path | None = None) -> str:
    """A command for the shell: this job again, with further words.

    Args:
        words: overrides that come last.
        folder: of the job, where the command is to go on in it and not in a new one beside: kept where the user chose
            it, or a sweep did.
    """
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    place: list[str] = []
    if folder is not None and HydraConfig.initialized():
        typed = HydraConfig.get().overrides.hydra
        if HydraConfig.get().mode == RunMode.MULTIRUN:
            place = [f"hydra.run.dir='{folder}'"]
        else:
            place = [word for word in typed if not word.startswith("hydra.mode=")]
    program = Path(sys.argv[0])
    start = ["python", sys.argv[0]] if program.suffix == ".py" else [program.name]
    if program.name == "__main__.py":
        start = ["python", "-m", "kinema"]
    return shlex.join([*start, *launch.config_flags(sys.argv[1:]), *overrides(), *place, *words])


def _versions() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def _device() -> str:
    import torch

    return torch.cuda.get_device_name(0) if torch.cuda.is_available() else platform.processor() or platform.machine()


def _git_state(folder: Path) -> dict[str, Any] | None:
    """Commit and local changes of the code that runs; None outside a clone. The diff lies in `git.diff`."""
    source = Path(__file__).resolve().parent

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", "-C", str(source), *words], capture_output=True, text=True, check=True, timeout=20
        ).stdout

    try:
        commit = git("rev-parse", "HEAD").strip()
        diff = git("diff", "HEAD")
    except (OSError, subprocess.SubprocessError):
        return None
    if diff:
        write_atomic(folder / "git.diff", diff)
    return {"commit": commit, "dirty": bool(diff)}


# --- going on with an interrupted run -------------------------------------------------------------------------------


def checkpoint_to_resume(config: DictConfig) -> Path | None:
    """The checkpoint that `resume` means, or None to begin from the start.

    `auto` takes the furthest readable checkpoint of this run directory, else of the newest run beside it that was cut
    short in the same training: the same network, data set, task and seed.

    Raises:
        ConfigError: for a missing file (naming those that exist) or a training that has already finished.
    """
    if not config.resume:
        return None
    if config.resume == "auto":
        found = _cut_short(config)
        if found is None:
            return None
    else:
        found = Path(config.resume)
        if not found.is_file():
            near = sorted(str(path) for path in found.parent.glob("*.ckpt")) if found.parent.is_dir() else []
            listed = f" There: {', '.join(near)}." if near else ""
            raise ConfigError(f"resume={found} does not exist.{listed} Use resume=auto for the newest run.")
    progress = _progress(found)
    if progress is None:
        raise ConfigError(
            f"resume={found} is no training state of Kinema (it may hold weights only). "
            f"Use init={found} to start from its weights, or ckpt={found} to evaluate them."
        )
    epoch, step, _ = progress
    done = _already_finished(config, epoch, step)
    if done and _tested(found, config):
        raise ConfigError(f"{found} has already finished: {done}, or drop resume.")
    log.info("resuming from %s (epoch %d, step %d)", found, epoch, step)
    if done:
        log.info("its training is complete, its test is not")
    return found


def _tested(checkpoint: Path, config: DictConfig) -> bool:
    """Whether the run of a checkpoint is over, its test included."""
    from kinema.callbacks.journal import ENTRY, FOLDER

    folder = checkpoint.parent.parent
    if (folder / FOLDER / ENTRY).is_file():
        return False
    try:
        status = json.loads((folder / "status.json").read_text())
    except (OSError, ValueError):
        return True
    # The run that asks has written its own status already, where it goes on in the folder of the interrupted one.
    ours = folder.absolute() == composition.output_dir(config)
    return ours or launch.standing(status) not in ("interrupted", "lost", "failed")


def offer_journals(config: DictConfig, trainer: Any, checkpoint: Path | None = None) -> None:
    """Tell the journal of a trainer which interrupted evaluations it may go on with, as `resume` says.

    Args:
        config: of the run.
        trainer: with or without a journal among its callbacks.
        checkpoint: from which a training is resumed: its test may have been interrupted.

    Raises:
        ConfigError: mode=test, and `resume` names no interrupted evaluation.
    """
    from kinema.callbacks.journal import ENTRY, FOLDER, journals

    folder = composition.output_dir(config)
    if config.mode == "train":
        offered = [] if checkpoint is None else [checkpoint.parent.parent]
    elif config.resume in (None, "auto"):
        offered = [folder, *(path for path in folder.parent.glob("*/") if path.absolute() != folder)]
        offered = offered if config.resume else []
    else:
        offered = [_evaluated(Path(config.resume))]
    found = [path / FOLDER for path in offered if (path / FOLDER / ENTRY).is_file()]
    found.sort(key=lambda path: (path / ENTRY).stat().st_mtime, reverse=True)
    ready = [path for path in found if not launch.alive(_note(path)) or path.parent.absolute() == folder]
    strict = config.mode != "train" and config.resume not in (None, "auto")
    if strict and not ready:
        number = _note(found[0]).get("pid")
        raise ConfigError(f"resume={config.resume} is still being evaluated (process {number}). Wait for its end.")
    if strict and not journals(trainer):
        raise ConfigError(f"resume={config.resume} needs the journal, which is not among the callbacks. "
                          "Use callbacks=default.")  # fmt: skip
    for journal in journals(trainer):
        journal.offered, journal.strict = ready, strict
    if config.resume == "auto" and config.mode != "train" and not ready:
        log.info("resume=auto: no interrupted evaluation to go on with; starting from the beginning")


def _evaluated(path: Path) -> Path:
    """The run directory of an interrupted evaluation that `resume` names."""
    from kinema.callbacks.journal import ENTRY, FOLDER

    if path.is_file():
        raise ConfigError(
            f"resume={path} is a file, and mode=test goes on with an interrupted evaluation. "
            f"Use ckpt={path} for the weights, and resume=auto or resume=RUN_DIRECTORY."
        )
    folder = path.parent if path.name == FOLDER else path
    if not (folder / FOLDER / ENTRY).is_file():
        what = "holds no interrupted evaluation: it ended, or was stopped before its first entry"
        raise ConfigError(f"resume={path} {what if path.is_dir() else 'does not exist'}. "
                          "Use resume=auto for the newest one, or drop resume.")  # fmt: skip
    return folder


def _note(journal: Path) -> dict[str, Any]:
    from kinema.callbacks.journal import ENTRY

    try:
        note = json.loads((journal / ENTRY).read_text())
    except (OSError, ValueError):
        return {}
    return note if isinstance(note, dict) else {}


def _already_finished(config: DictConfig, epoch: int, step: int) -> str | None:
    if config.trainer.max_steps > 0 and step >= config.trainer.max_steps:
        return f"step {step}. Raise trainer.max_steps (now {config.trainer.max_steps})"
    if config.trainer.max_epochs and 0 < config.trainer.max_epochs <= epoch:
        return f"epoch {epoch}. Raise trainer.max_epochs (now {config.trainer.max_epochs})"
    return None


# What may change in a training that goes on, of the data set and of the task: places, speed and evaluation.
_FREE = frozenset(
    {"root", "cache_dir", "num_workers", "eval_batch_size", "test_clips", "variants", "objective", "objective_mode"}
    | {"protocol", "protocol_options", "flip_average", "chunk", "scan_backend"}
)


def _cut_short(config: DictConfig) -> Path | None:
    """The checkpoint that `resume=auto` goes on with; says what it passes over where there is none."""
    folder = composition.output_dir(config)
    own = _furthest(folder)
    if own is not None:
        return own
    beside = [path for path in folder.parent.glob("*/") if path.absolute() != folder]
    written = {path: [file.stat().st_mtime for file in path.glob("checkpoints/*.ckpt")] for path in beside}
    passed = []
    for candidate in sorted((path for path in beside if written[path]), key=lambda path: max(written[path]))[::-1]:
        reason = _another_training(candidate, config)
        found = None if reason else _furthest(candidate)
        if found is not None:
            return found
        passed.append(f"{candidate.name} ({reason or 'cannot be read'})")
    log.info("resume=auto: no interrupted run to go on with; starting from the beginning")
    if passed:
        more = f" and {len(passed) - 3} more" if len(passed) > 3 else ""
        log.info("resume=auto passed over %s%s; one of them: resume=FILE", ", ".join(passed[:3]), more)
    return None


def _another_training(folder: Path, config: DictConfig) -> str | None:
    """Why a run beside is none to go on with; None where it is one."""
    try:
        status = json.loads((folder / "status.json").read_text())
        stored: Any = OmegaConf.to_container(OmegaConf.load(folder / "config.resolved.yaml"), resolve=True)
    except (OSError, ValueError, YAMLError) as error:
        return f"its {Path(getattr(error, 'filename', None) or 'status.json').name} cannot be read"
    if status.get("status") == "finished" or launch.alive(status):  # those of other machines may have been killed
        return "finished" if status.get("status") == "finished" else "still running"
    if stored.get("mode") != "train":
        return "no training"
    ours = composition.plain(config)
    for group in ("model", "dataset", "task"):
        theirs = stored.get(group) or {}
        for key, value in ours[group].items():  # what only one of them has is of another version of Kinema
            if key not in _FREE and key in theirs and theirs[key] != value:
                return f"another {group}" if key in ("_target_", "name") else f"another {group}.{key}"
    return None if stored.get("seed") == ours["seed"] else "another seed"


def _furthest(folder: Path) -> Path | None:
    ranked = []
    for path in folder.glob("checkpoints/*.ckpt"):
        progress = _progress(path)
        if progress is None:
            log.warning("resume=auto: %s cannot be read and is skipped", path)
        else:
            ranked.append((progress, path.name == "last.ckpt", path))
    return max(ranked)[-1] if ranked else None


def _progress(path: Path) -> tuple[int, int, int] | None:
    """(finished epochs, optimiser steps, batches of the running epoch) of a training state, None if it is none."""
    import torch

    try:
        state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        loop = state["loops"]["fit_loop"]
        progress = loop["epoch_loop.batch_progress"]
        epochs, batches = loop["epoch_progress"]["current"], int(progress["current"]["processed"])
        # A checkpoint at the end of an epoch is written before Lightning counts that epoch as completed.
        finished = int(epochs["processed"] if progress["is_last_batch"] else epochs["completed"])
        return finished, int(state["global_step"]), batches
    except Exception:  # whatever is wrong with the file, it is no checkpoint to go on with
        return None
