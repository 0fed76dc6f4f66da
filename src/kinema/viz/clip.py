"""Clips: frames in, one at a time, a GIF (Pillow) or an MP4 (ffmpeg) out; memory does not grow with length."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import GifImagePlugin, Image

from kinema.errors import ConfigError, DataError

FORMATS = (".gif", ".mp4", ".png")
# Index of the GIF's palette that means "as in the frame before".
_SAME = 255
# Browsers play a frame of less than 2 hundredths of a second much slower.
_SHORTEST = 2


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
    path: Path, frames: Iterable[np.ndarray], fps: float, *, bitrate: int = 3000, colours: int = _SAME
) -> int:
    """Write frames (H, W, 3) uint8 to a GIF or an MP4, by the ending of the name.

    A file of that name is replaced when the new one is complete.

    Args:
        path: .gif or .mp4.
        frames: consumed one by one.
        fps: frames per second.
        bitrate: of an MP4, kbit/s.
        colours: of a GIF, 255 at most; drawings without a video need few, and the file shrinks.

    Returns:
        Number of frames taken.
    """
    check_format(path)
    if path.suffix.lower() == ".png":
        raise ConfigError(f"{path} is a still picture; a clip ends in .gif or .mp4.")
    if not fps > 0:
        raise ConfigError(f"A clip of {fps} frames per second cannot be played. Give render.fps a positive number.")
    with _replacing(path) as temporary:
        if path.suffix.lower() == ".gif":
            return _write_gif(temporary, iter(frames), fps, colours)
        return _write_mp4(temporary, iter(frames), fps, bitrate)


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


def _first(frames: Iterator[np.ndarray], path: Path) -> np.ndarray:
    for frame in frames:
        return frame
    raise DataError(f"There is no frame to write to {path.name}: skip, limit or downsample leave nothing.")


def _write_gif(path: Path, frames: Iterator[np.ndarray], fps: float, colours: int) -> int:
    """Stream a looping GIF: one palette for all, and of each frame only the rectangle that changed."""
    first = _first(frames, path)
    palette = _Palette(first, colours)
    count, shown, late = 0, None, Fraction(0)
    height, width = first.shape[:2]
    with path.open("wb") as file:
        file.write(b"GIF89a" + struct.pack("<HHBBB", width, height, 0xF7, 0, 0))
        file.write(palette.table())
        file.write(b"!\xff\x0bNETSCAPE2.0\x03\x01\0\0\0")
        for frame in chain((first,), frames):
            count += 1
            # Delays are whole hundredths of a second: what rounding leaves over goes to the next frame.
            late += Fraction(100) / Fraction(fps).limit_denominator(1000)
            if late < _SHORTEST:
                continue
            delay = int(late)
            late -= delay
            indices = palette.indices(frame)
            file.writelines(_gif_frame(indices, shown, delay))
            shown = indices
        file.write(b";")
    return count


class _Palette:
    """Colours chosen from one picture; its most frequent colour stays exact (quantisation tints a white ground)."""

    def __init__(self, picture: np.ndarray, colours: int) -> None:
        self._chosen = Image.fromarray(picture).quantize(min(colours, _SAME), method=Image.Quantize.MEDIANCUT)
        indices = np.asarray(self._chosen)
        self._most = int(np.bincount(indices.ravel()).argmax())
        self._ground = np.median(picture[indices == self._most], axis=0).astype(np.uint8)

    def table(self) -> bytes:
        """The 256 colours as the file has them."""
        values = bytearray(self._chosen.getpalette() or [])[: 3 * _SAME].ljust(3 * 256, b"\0")
        values[3 * self._most : 3 * self._most + 3] = self._ground.tobytes()
        return bytes(values)

    def indices(self, picture: np.ndarray) -> np.ndarray:
        """Nearest colours (H, W) of a picture (H, W, 3)."""
        near = np.array(Image.fromarray(picture).quantize(palette=self._chosen, dither=Image.Dither.NONE))
        near[(picture == self._ground).all(-1)] = self._most
        return near


def _gif_frame(indices: np.ndarray, shown: np.ndarray | None, delay: int) -> list[bytes]:
    """Blocks of one frame, drawn over the frame shown before it."""
    left = top = 0
    if shown is not None:
        changed = indices != shown
        rows, columns = np.flatnonzero(changed.any(1)), np.flatnonzero(changed.any(0))
        # A frame equal to the one before still needs one pixel to carry its delay.
        top, bottom = (rows[0], rows[-1] + 1) if len(rows) else (0, 1)
        left, right = (columns[0], columns[-1] + 1) if len(columns) else (0, 1)
        indices = np.where(changed, indices, _SAME)[top:bottom, left:right]
    picture = Image.fromarray(np.ascontiguousarray(indices, np.uint8))
    offset = (int(left), int(top))
    blocks = GifImagePlugin.getdata(picture, offset, duration=10 * delay, transparency=_SAME, disposal=1)
    return [bytes(block) for block in blocks]


def _write_mp4(path: Path, frames: Iterator[np.ndarray], fps: float, bitrate: int) -> int:
    """Pipe raw frames to ffmpeg; odd sizes get one more row or column."""
    first = _first(frames, path)
    height, width = first.shape[:2]
    program = ffmpeg()
    assert program is not None  # check_format has seen to it
    command = [
        program, "-y", "-loglevel", "error", "-f", "rawvideo", "-pix_fmt", "rgb24", "-s", f"{width}x{height}",
        "-r", f"{fps:g}", "-i", "-", "-vf", "pad=ceil(iw/2)*2:ceil(ih/2)*2:color=white", "-pix_fmt", "yuv420p",
        "-b:v", f"{bitrate}k", "-threads", "1", "-f", "mp4", str(path),
    ]  # fmt: skip
    count = 0
    with tempfile.TemporaryFile() as complaints:
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=complaints)
        try:
            pipe: IO[bytes] = process.stdin  # type: ignore[assignment]
            try:
                for frame in chain((first,), frames):
                    pipe.write(np.ascontiguousarray(frame, np.uint8).tobytes())
                    count += 1
                pipe.close()
            except BrokenPipeError:
                pass  # ffmpeg says why below
            failed = process.wait()
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
        if failed:
            complaints.seek(0)
            reason = complaints.read().decode(errors="replace").strip().splitlines()[-1:]
            raise DataError(f"ffmpeg could not write {path.name}: {' '.join(reason) or f'exit status {failed}'}.")
    return count


def read_video(path: Path) -> tuple[dict[str, Any], Generator[np.ndarray, None, None]]:
    """Open a video and decode it frame by frame.

    Returns:
        `fps` and `size` (width, height) of the video, and an iterator over frames (H, W, 3) uint8.

    Raises:
        ConfigError: without imageio-ffmpeg.
        DataError: for a missing file, or one that is no video.
    """
    try:
        import imageio_ffmpeg
    except ImportError:
        raise ConfigError(
            "Reading a video needs imageio-ffmpeg. Install it with pip install 'kinema[video]', or drop render.video."
        ) from None
    if not path.is_file():
        raise DataError(f"There is no video {path}. Correct render.video, or drop it.")
    reader = imageio_ffmpeg.read_frames(str(path))
    try:
        meta = next(reader)
    except OSError as error:
        raise DataError(f"{path} cannot be read as a video. Correct render.video, or drop it.") from error
    width, height = meta["size"]
    pictures = (np.frombuffer(data, np.uint8).reshape(height, width, 3) for data in reader)
    return {"fps": float(meta["fps"]), "size": (width, height)}, pictures
