"""Builds the C++ backend with the compiler of the machine, once, and keeps the library in a cache folder."""

from __future__ import annotations

import ctypes
import hashlib
import logging
import os
import platform
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from functools import cache
from pathlib import Path

log = logging.getLogger(__name__)

SOURCE = Path(__file__).with_name("scan.cpp")
TIMEOUT = 300.0  # seconds; a healthy build takes five to ten
# No -ffast-math: it would change the rounding mode of the whole process and lose NaN and infinity.
_FLAGS = ("-std=c++17", "-O3", "-fopenmp-simd", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=fast",
          "-fPIC", "-shared", "-pthread")  # fmt: skip
_lock = threading.Lock()


class BuildError(Exception):
    """The library cannot be built or loaded here; the text is the reason."""


def library() -> ctypes.CDLL:
    """Return the loaded library, built first where the cache folder does not hold it.

    Raises:
        BuildError: with the reason; it is found and logged once per process and given again at every further call.
    """
    try:
        target = str(folder())
    except RuntimeError:  # an account without a home folder
        target = None
    with _lock:
        found = _library(target)
    if isinstance(found, str):
        raise BuildError(found)
    return found


def folder() -> Path:
    """Return the cache folder: $KINEMA_EXTENSIONS_DIR, or kinema/extensions in the user's cache."""
    chosen = os.environ.get("KINEMA_EXTENSIONS_DIR")
    if chosen:
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "kinema" / "extensions"


@cache
def _library(target: str | None) -> ctypes.CDLL | str:
    try:
        if target is None:
            raise BuildError("there is no home folder to keep the library in. Set KINEMA_EXTENSIONS_DIR.")
        compiler = _compiler()
        path = Path(target) / f"scan-{_key(compiler)}.so"
        if path.is_file():
            try:
                if _whole(path):
                    return ctypes.CDLL(str(path))
            except OSError:  # a damaged file, from a full disk for example
                pass
            path.unlink()
        _build(compiler, path)
        return ctypes.CDLL(str(path))
    except BuildError as error:
        reason = str(error)
    except OSError as error:
        reason = f"the C++ library could not be written or loaded ({error})."
    log.warning("The cpp backend of the selective scan is off: %s", reason)
    return reason


def _size(path: Path) -> Path:
    return path.with_suffix(".size")


def _whole(path: Path) -> bool:
    """Whether the library has the size that it was built with: a shortened one would end the process by a signal."""
    try:
        return _size(path).read_text() == str(path.stat().st_size)
    except OSError:
        return False


def _compiler() -> tuple[str, ...]:
    """Command of the compiler; CXX may hold a launcher or options, such as "ccache g++"."""
    names = [os.environ["CXX"]] if os.environ.get("CXX") else ["g++", "clang++", "c++"]
    for name in names:
        first, *rest = shlex.split(name)
        path = shutil.which(first)
        if path:
            return path, *rest
    raise BuildError(f"no C++ compiler found (looked for {', '.join(names)}). Install g++ or set CXX.")


def _key(compiler: tuple[str, ...]) -> str:
    """Hash all that the library depends on; -march=native makes the instruction set part of it."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    cpu = next((line for line in lines if line.startswith(("flags", "Features"))), platform.processor())
    parts = (SOURCE.read_text(), " ".join(compiler), " ".join(_FLAGS), sys.platform, platform.machine(), cpu)
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _build(compiler: tuple[str, ...], path: Path) -> None:
    """Compile into a temporary file and rename it: another process sees the whole library or none.

    Two processes may build at the same time; both results are good, the later one stays. A lock file would save
    the double work, but hang everybody where its owner was killed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        result = Path(scratch) / path.name
        start = time.perf_counter()
        errors = ""
        for native in (("-march=native",), ()):  # some compilers for arm know no -march=native
            errors = _compile([*compiler, *_FLAGS, *native, str(SOURCE), "-o", str(result)])
            if not errors:
                break
        if errors:
            raise BuildError(f"{compiler[0]} failed: {' '.join(errors.split())[-600:]}")
        _size(path).write_text(str(result.stat().st_size))
        result.replace(path)
    log.info("built the cpp backend of the selective scan in %.0f s (%s)", time.perf_counter() - start, path)


def _compile(command: list[str]) -> str:
    """Run the compiler; the text of its errors, empty after success."""
    try:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            start_new_session=True,
        )
    except OSError as error:
        raise BuildError(f"{command[0]} does not start ({error}).") from None
    try:
        _, errors = process.communicate(timeout=TIMEOUT)
    except subprocess.TimeoutExpired:
        # g++ is only a driver: its children must end with it, or they keep the pipe open.
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        raise BuildError(f"{command[0]} was stopped after {TIMEOUT:.0f} s.") from None
    return "" if process.returncode == 0 else errors or f"exit status {process.returncode}"
