"""Reading a checkpoint file of anybody: nothing in it is executed, and every failure is a sentence."""

from __future__ import annotations

import difflib
import hashlib
import json
import os
import pickle
import re
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch

from kinema.errors import CheckpointError

SUFFIXES = (".bin", ".ckpt", ".pt", ".pth", ".safetensors", ".tr")


def _alias(function: Callable[..., Any], path: str) -> Callable[..., Any]:
    """Give a function the dotted path under which a pickle asks for it; torch compares paths, not objects."""

    def call(*args: Any) -> Any:
        return function(*args)

    call.__module__, _, call.__qualname__ = path.rpartition(".")
    return call


def _constructor(value: Any) -> Callable[..., Any]:
    """The function that a pickle of this numpy object calls; asked from numpy, which moved them in version 2."""
    function: Callable[..., Any] = value.__reduce__()[0]
    return function


# Plain `weights_only=True` knows tensors and builtin containers. The official training scripts also store a numpy
# RandomState (PoseFormer, VideoPose3D) and numpy scalars (min_loss of MotionBERT, min_mpjpe of MotionAGFormer): these
# globals, and nothing wider.
SAFE_GLOBALS: tuple[Any, ...] = (
    np.ndarray,
    np.dtype,
    *dict.fromkeys(type(np.dtype(code)) for code in ("b1", "i4", "i8", "u4", "u8", "f4", "f8")),
    np.random.RandomState,
    np.random.MT19937,
    _alias(_constructor(np.random.RandomState()), "numpy.random._pickle.__randomstate_ctor"),
    _alias(_constructor(np.random.MT19937()), "numpy.random._pickle.__bit_generator_ctor"),
    _alias(np.random.RandomState, "numpy.random.__RandomState_ctor"),  # files of numpy below 1.17
    *(_alias(_constructor(np.empty(0)), f"numpy.{core}.multiarray._reconstruct") for core in ("core", "_core")),
    *(_alias(_constructor(np.float64(0)), f"numpy.{core}.multiarray.scalar") for core in ("core", "_core")),
)


def read_content(path: Path) -> dict[str, Any]:
    """Read a file into a dict on the CPU; nothing in it is executed.

    A safetensors file becomes {"state_dict": tensors, "kinema": record} when Kinema wrote it, else a bare state dict.
    """
    if path.is_dir():
        raise CheckpointError(f"{path} is a folder. {_nearby(path)}")
    if not path.is_file():
        raise CheckpointError(f"{path} not found. {_nearby(path)}")
    start = path.open("rb").read(64)
    if not start:
        raise CheckpointError(f"{path} is empty. Copy it again.")
    if start.startswith((b"version https://git-lfs", b"<")):
        raise CheckpointError(
            f"{path} is a text file that begins with {start[:24]!r}: a page or pointer that was saved in place of the "
            "weights. Download the file itself."
        )
    # safetensors begin with the length of a JSON header; everything that torch ever wrote begins otherwise.
    content = _read_safetensors(path) if start[8:9] == b"{" else _read_torch(path)
    if not isinstance(content, dict):
        raise CheckpointError(
            f"{path} holds a {type(content).__name__}, not a dict. Save the state dict: torch.save(model.state_dict())."
        )
    return content


def _read_torch(path: Path) -> Any:
    try:
        with torch.serialization.safe_globals(list(SAFE_GLOBALS)):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        # torch names the first global or function that is not on the list, before anything is called.
        wanted = re.search(r"GLOBAL (\S+)|function <(?:built-in )?(?:function |class )?([^>]+)>", str(error))
        if wanted is None:
            raise CheckpointError(_damaged(path, error)) from error
        raise CheckpointError(
            f"{path} asks for {wanted[1] or wanted[2]} while it is read, which no state dict needs; nothing was "
            "executed. Where you trust its source, save the weights alone there: torch.save(model.state_dict(), file)."
        ) from error
    except Exception as error:  # a damaged file fails anywhere between zip, pickle and storages
        raise CheckpointError(_damaged(path, error)) from error


def _damaged(path: Path, error: Exception) -> str:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:160]
    return f"{path} ({path.stat().st_size:,} bytes) is truncated or no checkpoint: {reason}. Copy it again."


def _read_safetensors(path: Path) -> dict[str, Any]:
    safetensors = require("safetensors")
    try:
        with safetensors.safe_open(str(path), framework="pt", device="cpu") as file:
            metadata = file.metadata() or {}
            state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
        if "kinema" not in metadata:
            return state
        prefixed = {f"model.{name}": tensor for name, tensor in state.items()}
        return {"state_dict": prefixed, "kinema": json.loads(metadata["kinema"])}
    except Exception as error:  # SafetensorError has no public base; a bad header raises ValueError kinds
        raise CheckpointError(_damaged(path, error)) from error


def require(module: str) -> Any:
    """Import a module of the export extra, or say which extra is absent."""
    try:
        return import_module(module)
    except ImportError as error:
        raise CheckpointError(
            f"This needs {module}, which the export extra brings: pip install 'kinema[export]'."
        ) from error


def _nearby(path: Path) -> str:
    """A sentence that lists the checkpoints in and below the nearest folder that exists."""
    folder = path
    while not folder.is_dir():
        folder = folder.parent
    found: list[Path] = []
    for visited, (root, folders, files) in enumerate(os.walk(folder)):
        depth = len(Path(root).relative_to(folder).parts)
        # Two levels reach checkpoints/ of the runs in this folder; the bound keeps a wrong absolute path quick.
        folders[:] = sorted(name for name in folders if not name.startswith(".")) if depth < 2 else []
        found += [Path(root) / name for name in sorted(files) if name.endswith(SUFFIXES)]
        if visited >= 200 or len(found) >= 50:
            break
    if not found:
        return f"No checkpoint ({', '.join(SUFFIXES)}) lies in {folder.absolute()}."
    names = [str(file) for file in found]
    near = difflib.get_close_matches(str(path), names, n=3, cutoff=0.6)
    names = (near + [name for name in names if name not in near])[:8]
    return f"Checkpoints nearby: {', '.join(names)}."


def sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
