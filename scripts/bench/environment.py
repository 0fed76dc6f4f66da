"""The machine and the versions a result belongs to."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from scripts.bench.measure import REPOSITORY

_PACKAGES = ("torch", "numpy", "lightning", "torchmetrics", "hydra-core")
_FLAGS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "bf16")


def environment() -> dict[str, Any]:
    """Versions, git revision, processor and GPU, as plain values."""
    name, flags = _processor()
    return {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "revision": _revision(),
        "python": platform.python_version(),
        "packages": {package: _version(package) for package in _PACKAGES},
        "machine": platform.machine(),
        "processor": name,
        "cpu_flags": flags,
        "cpu_capability": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(),
        "load": [round(value, 2) for value in os.getloadavg()] if hasattr(os, "getloadavg") else None,
        "threads": torch.get_num_threads(),
        "gpu": _gpu(),
    }


def _revision() -> str:
    def git(*words: str) -> str:
        done = subprocess.run(["git", *words], cwd=REPOSITORY, capture_output=True, text=True, check=False)
        return done.stdout.strip() if done.returncode == 0 else ""

    try:
        commit = git("rev-parse", "--short", "HEAD")
        return commit + ("+" if commit and git("status", "--porcelain", "src") else "") or "unknown"
    except OSError:
        return "unknown"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _processor() -> tuple[str, list[str]]:
    info = Path("/proc/cpuinfo")
    if not info.is_file():
        return platform.processor(), []
    lines = [line.partition(":") for line in info.read_text().splitlines()]
    fields = {key.strip(): value.strip() for key, _, value in reversed(lines)}
    known = set(fields.get("flags", fields.get("Features", "")).split())
    return fields.get("model name", platform.processor()), [flag for flag in _FLAGS if flag in known]


def _gpu() -> dict[str, Any] | None:
    if not torch.cuda.is_available():
        return None
    query = "name,driver_version,clocks.sm,clocks.mem,clocks.max.sm"
    try:
        done = subprocess.run(
            ["nvidia-smi", f"--query-gpu={query}", "--format=csv,noheader"], capture_output=True, text=True, check=False
        )
        values = [value.strip() for value in done.stdout.splitlines()[0].split(",")] if done.returncode == 0 else []
    except OSError:
        values = []
    return {"name": torch.cuda.get_device_name(), **dict(zip(query.split(",")[1:], values[1:], strict=False))}
