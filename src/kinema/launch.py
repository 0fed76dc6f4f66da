"""Where a run writes, and how its further DDP ranks find the same job: light to import, before Hydra parses."""

from __future__ import annotations

import json
import logging
import os
import re
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, TextIO

RANK_ARGUMENTS = "KINEMA_RANK_ARGS"
_KEPT = ("hydra.job.name=", "hydra.output_subdir=")  # appended by Lightning for ranks above 0, still wanted
# Folders that tell the time of a run or its number in a sweep, and names that the files of any training have.
_STAMP = re.compile(r"\d{4}-\d\d-\d\d|\d+$")
_GENERIC = re.compile(r"(best|last|latest|epoch|step|model|checkpoint)([_=-].*)?$")
# Modes of motions alone, which ask the checkpoint and no `task=`.
_OF_MOTION = ("switch", "control", "inbetween", "zero_shot")
_LAUNCHER_IDS = ("TORCHELASTIC_RUN_ID", "SLURM_JOB_ID")


def rank() -> int:
    """Global rank of this process as the launcher's environment tells it; 0 in a single process."""
    for key in ("RANK", "SLURM_PROCID", "LOCAL_RANK"):
        if os.environ.get(key, "").isdigit():
            return int(os.environ[key])
    return 0


def adopt_rank_arguments() -> None:
    """Turn a rank that Lightning started again into a plain single run of its parent's job.

    Lightning repeats the command line of the parent, which in a multirun would start the whole sweep once more.
    """
    if RANK_ARGUMENTS in os.environ and "LOCAL_RANK" in os.environ:
        handed_over = json.loads(os.environ[RANK_ARGUMENTS])
        sys.argv[1:] = handed_over + [word for word in sys.argv[1:] if word.startswith(_KEPT)]
        _end_with_parent()


def _end_with_parent() -> None:
    """Ask the kernel to end this rank when the main process dies, so that a killed run leaves no orphan (Linux)."""
    if sys.platform != "linux":
        return
    import ctypes
    import signal

    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # 1 = PR_SET_PDEATHSIG


@contextmanager
def one_job(output_dir: Path, overrides: list[str], config_flags: list[str]) -> Iterator[None]:
    """Let Lightning start ranks for this job only, and leave no trace for the next job of a sweep.

    Args:
        output_dir: absolute folder of this job, shared by its ranks.
        overrides: the job's own overrides, without those of the sweep.
        config_flags: --config-dir and --config-name as given.
    """
    if "LOCAL_RANK" in os.environ:
        yield
        return
    before = dict(os.environ)
    os.environ[RANK_ARGUMENTS] = json.dumps([*config_flags, *overrides, f"hydra.run.dir='{output_dir}'"])
    try:
        yield
    finally:
        dist = sys.modules.get("torch.distributed")
        if dist is not None and dist.is_available() and dist.is_initialized():
            dist.destroy_process_group()
        os.environ.clear()
        os.environ.update(before)


def config_flags(arguments: list[str]) -> list[str]:
    """--config-name and --config-dir as given, which every rank needs again."""
    kept = []
    for i, word in enumerate(arguments):
        if word.startswith(("--config-name", "--config-dir", "-cn", "-cd")):
            kept.append(word)
            if "=" not in word and i + 1 < len(arguments):
                kept.append(arguments[i + 1])
    return kept


def stamp(pattern: str) -> str:
    """Name a run by the launcher's job id where ranks start separately (torchrun, SLURM), else by the clock."""
    if "LOCAL_RANK" in os.environ or "SLURM_PROCID" in os.environ:
        for key in _LAUNCHER_IDS:
            if os.environ.get(key, "none") != "none":
                return os.environ[key][:8]
    return datetime.now().strftime(pattern)


def process() -> dict[str, Any]:
    """What `alive` needs to know of this process."""
    return {"pid": os.getpid(), "host": socket.gethostname()}


def alive(status: Mapping[str, Any]) -> bool | None:
    """Whether the process of a `status.json` still runs; None where that cannot be known from this machine."""
    number = status.get("pid")
    if not isinstance(number, int) or status.get("host") != socket.gethostname():
        return None
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    except OSError:  # somebody else's process
        return True
    return True


def standing(status: Mapping[str, Any]) -> str:
    """How a run stands by its `status.json`: "lost" where it says running and its process is gone."""
    state = str(status.get("status", ""))
    return "lost" if state == "running" and alive(status) is False else state


def run_task(task: str, mode: str) -> str:
    """Folder of the runs of a task; a mode that is of one task alone goes by it, whatever `task` defaults to."""
    return "prediction" if mode in _OF_MOTION else task


def run_name(experiment: str | None, model: str, dataset: str, checkpoint: str | None = None) -> str:
    """Folder name of a run: its experiment, the checkpoint it looks at, or model and dataset."""
    if experiment and experiment not in ("null", "None"):
        return experiment.replace("/", "_")
    if checkpoint and checkpoint not in ("null", "None"):
        return _checkpoint_name(Path(checkpoint))
    return f"{model}-{dataset}".replace("/", "_")


def _checkpoint_name(path: Path) -> str:
    """A checkpoint's file, after the run or the folder that it lies in where the file alone says little.

    "outputs/action/stgcnpp-ntu60/<time>/checkpoints/best.ckpt" is "stgcnpp-ntu60-best".
    """
    folders = [part for part in path.absolute().parent.parts[1:] if part != "checkpoints" and not _STAMP.match(part)]
    words = [*folders[-1:], path.stem] if _GENERIC.match(path.stem) else [path.stem]
    return re.sub(r"[^\w.+-]+", "_", "-".join(words))


def log_name() -> str:
    """One log file per rank."""
    return "run.log" if rank() == 0 else f"run.rank{rank()}.log"


def cache_dir() -> str:
    """$KINEMA_CACHE, else `kinema` in the user's cache folder."""
    if os.environ.get("KINEMA_CACHE"):
        return os.environ["KINEMA_CACHE"]
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return str(Path(base) / "kinema")


def terminal() -> bool:
    """Whether somebody watches: progress bars in pipes and logs are garbage."""
    return sys.stdout.isatty() and not os.environ.get("CI")


def class_groups(classes: Any) -> list[int] | None:
    """Group of every class of a class list (`dataset.classes`); None where it has no groups."""
    from kinema.data.class_list import class_list

    groups = class_list(classes if isinstance(classes, str) else list(classes)).groups
    return None if groups is None else list(groups)


class ConsoleHandler(logging.StreamHandler[TextIO]):
    """Log lines for a person: rank 0 only but for errors, warnings marked."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether this process shows a record."""
        return bool(super().filter(record)) and (rank() == 0 or record.levelno >= logging.ERROR)

    def format(self, record: logging.LogRecord) -> str:
        """The message, with its level where it is more than information."""
        mark = "" if record.levelno < logging.WARNING else f"{record.levelname.lower()}: "
        return mark + super().format(record)


def register_resolvers() -> None:
    """Make the resolvers of `conf/` known; safe to call again."""
    from omegaconf import OmegaConf

    for name, function in (
        ("kinema.stamp", stamp),
        ("kinema.run_name", run_name),
        ("kinema.run_task", run_task),
        ("kinema.log_name", log_name),
        ("kinema.cache_dir", cache_dir),
        ("kinema.terminal", terminal),
        ("kinema.class_groups", class_groups),
    ):
        # Cached, so that every access of one configuration sees one time.
        OmegaConf.register_new_resolver(name, function, use_cache=name == "kinema.stamp", replace=True)


def config_dir() -> Path:
    """`conf/`: inside the package in a wheel, at the top of the repository in a clone."""
    package = Path(__file__).resolve().parent
    inside = package / "conf"
    return inside if (inside / "config.yaml").is_file() else package.parents[1] / "conf"
