"""Clips: frames in, one at a time, a GIF (Pillow) or an MP4 (ffmpeg) out; memory does not grow with length."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

import numpy as np

from kinema.errors import ConfigError, DataError
from kinema.viz.gif import SAME, GifWriter

FORMATS = (".gif", ".mp4", ".png")


def ffmpeg() -> str | None:
    """Path of an ffmpeg program: of the system, else the one that imageio-ffmpeg brings; None without either."""
    found = shutil.which("ffmpeg")
    if found:
        return found
    try:
        import imageio_ffmpeg

        return str(imageio_ffmpeg.get_ffmpeg_exe())
    except (ImportError, RuntimeError):
        return None


def check_format(path: Path) -> None:
    """Refuse a file name that no writer serves, before anything is computed.

    Raises:
        ConfigError: for an unknown ending, or .mp4 without ffmpeg.
    """
    if path.suffix.lower() not in FORMATS:
        raise ConfigError(f"{path} ends in {path.suffix or 'nothing'}. Pictures can be {', '.join(FORMATS)}.")
    if path.suffix.lower() == ".mp4" and ffmpeg() is None:
        raise ConfigError(
            f"No ffmpeg was found to write {path.name}. pip install 'kinema[video]' brings one; or write a .gif."
        )


def write_clip(
    path: Path, frames: Iterable[np.ndarray], fps: float, *, bitrate: int = 3000, colours: int = SAME
) -> int:
    """Write frames (H, W, 3) uint8 to a GIF or an MP4, see `opened`; returns how many there were."""
    count = 0
    with opened(path, fps, bitrate=bitrate, colours=colours) as add:
        for frame in frames:
            add(frame)
            count += 1
    return count


@contextmanager
def opened(
    path: Path, fps: float, *, bitrate: int = 3000, colours: int = SAME, sample: np.ndarray | None = None
) -> Iterator[Callable[[np.ndarray], None]]:
    """Give the function that appends a frame (H, W, 3) uint8 to a new GIF or MP4, by the ending of the name.

    A file of that name is replaced when the block ends well.

    Args:
        path: .gif or .mp4.
        fps: frames per second.
        bitrate: of an MP4, kbit/s.
        colours: of a GIF, 255 at most; drawings without a video need few, and the file shrinks.
        sample: picture with the colours of a GIF; None = those of the first frame.

    Raises:
        ConfigError: for another ending or a speed that cannot be played.
        DataError: where no frame came, or ffmpeg failed.
    """
    check_format(path)
    if path.suffix.lower() == ".png":
        raise ConfigError(f"{path} is a still picture; a clip ends in .gif or .mp4.")
    if not fps > 0:
        raise ConfigError(f"A clip of {fps} frames per second cannot be played. Give render.fps a positive number.")
    count = 0
    with _replacing(path) as temporary, tempfile.TemporaryFile() as complaints:
        gif = path.suffix.lower() == ".gif"
        writer = (
            GifWriter(temporary, fps, colours, sample)
            if gif
            else _Mp4Writer(temporary, path.name, fps, bitrate, complaints)
        )

        def add(frame: np.ndarray) -> None:
            nonlocal count
            writer.add(frame)
            count += 1

        try:
            yield add
        except BaseException:
            writer.close()
            raise
        writer.close()
        if isinstance(writer, _Mp4Writer):
            writer.check()
        if not count:
            raise DataError(f"There is no frame to write to {path.name}: skip, limit or downsample leave nothing.")


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """A temporary name beside `path` that takes its place when the block ends well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{os.getpid()}-{path.name}")
    try:
        yield temporary
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


class _Mp4Writer:
    """Raw frames piped to ffmpeg; odd sizes get one more row or column."""

    def __init__(self, path: Path, name: str, fps: float, bitrate: int, complaints: IO[bytes]) -> None:
        self._path, self._name, self._fps, self._bitrate = path, name, fps, bitrate
        self._process: subprocess.Popen[bytes] | None = None
        self._complaints = complaints
        self._fault = ""

    def add(self, frame: np.ndarray) -> None:
        if self._process is None:
            self._process = self._start(*frame.shape[:2])
        pipe: IO[bytes] = self._process.stdin  # type: ignore[assignment]
        try:
            pipe.write(np.ascontiguousarray(frame, np.uint8).data)
        except BrokenPipeError:
            self.close()
            self._fault = self._fault or "it stopped early"
            self.check()

    def close(self) -> None:
        """Let ffmpeg finish what it has."""
        if self._process is not None:
            with suppress(BrokenPipeError):  # `check` says why
                self._process.stdin.close()  # type: ignore[union-attr]
            if self._process.wait():
                self._complaints.seek(0)
                words = self._complaints.read().decode(errors="replace").strip().splitlines()
                self._fault = words[-1] if words else f"exit status {self._process.returncode}"

    def check(self) -> None:
        """Raise a DataError with ffmpeg's last words, where it failed."""
        if self._fault:
            raise DataError(f"ffmpeg could not write {self._name}: {self._fault.rstrip('.')}.")

    def _start(self, height: int, width: int) -> subprocess.Popen[bytes]:
        program = ffmpeg()
        assert program is not None  # check_format has seen to it
        command = [
            program, "-y", "-loglevel", "error", "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}",
            "-r", f"{self._fps:g}", "-i", "-", "-vf", "pad=ceil(iw/2)*2:ceil(ih/2)*2:color=white",
            "-pix_fmt", "yuv420p", "-preset", "veryfast", "-b:v", f"{self._bitrate}k", "-threads", "1",
            "-f", "mp4", str(self._path),
        ]  # fmt: skip
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=self._complaints)
