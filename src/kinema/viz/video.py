"""Videos under the keypoints: decoded frame by frame by ffmpeg, in the size they are drawn, never held as a whole."""

from __future__ import annotations

import logging
from collections.abc import Generator
from pathlib import Path
from typing import Any

import numpy as np

from kinema.errors import ConfigError, DataError

_FAULTS = (OSError, RuntimeError, IndexError, AttributeError, ValueError)


class Video:
    """The recording that keypoints were found in.

    Attributes:
        path: of the file.
        fps: frames per second, None where the file does not say.
        size: (width, height), pixels, upright.
        frames: about how many there are, None where the file does not say.
    """

    def __init__(self, path: Path) -> None:
        """Look at the head of a file.

        Raises:
            ConfigError: without imageio-ffmpeg.
            DataError: for a missing file, or one that is no video.
        """
        self.path = path
        _ffmpeg()
        if not path.is_file():
            raise DataError(f"There is no video {path}. Correct render.video, or drop it.")
        reader = _ffmpeg().read_frames(str(path))
        try:
            meta: dict[str, Any] = next(reader)
        except _FAULTS as error:
            raise DataError(f"{path} cannot be read as a video. Correct render.video, or drop it.") from error
        finally:
            reader.close()
        self.fps: float | None = float(meta["fps"]) or None
        self.size: tuple[int, int] = meta["size"]
        self.frames = round(meta["duration"] * self.fps) or None if self.fps else None

    def pictures(
        self, *, skip: int = 0, step: int = 1, downsample: int = 1, largest: int | None = None
    ) -> Generator[np.ndarray, None, None]:
        """Decode (H, W, 3) uint8 pictures as they are asked for; a file that breaks off ends there.

        Args:
            skip: frames of the sequence to leave out at the start.
            step: every how many frames of the video the sequence has one.
            downsample: yield the mean of so many frames of the sequence; a remainder is dropped.
            largest: pixels of the longer side at most; None = as in the file.
        """
        factor = min(1.0, (largest or max(self.size)) / max(self.size))
        width, height = (max(1, round(side * factor)) for side in self.size)
        first = skip * step
        # Times are replaced by numbers, so that each frame comes exactly once however unevenly they lie in time.
        filters = (
            f"select='gte(n,{first})*not(mod(n-{first},{step}))',settb=1/25,setpts=N,scale={width}:{height}:flags=area"
        )
        reader = _ffmpeg().read_frames(str(self.path), output_params=["-vf", filters, "-r", "25"])
        try:
            next(reader)
            group = np.zeros((height, width, 3), np.uint32)
            count = 0
            for data in reader:
                picture = np.frombuffer(data, np.uint8).reshape(height, width, 3)
                if downsample == 1:
                    yield picture
                    continue
                group += picture
                count += 1
                if count == downsample:
                    yield (group // downsample).astype(np.uint8)
                    group[:], count = 0, 0
        except (OSError, RuntimeError):
            return  # whoever counts the frames says that there are too few
        finally:
            reader.close()


def _ffmpeg() -> Any:
    try:
        import imageio_ffmpeg
    except ImportError:
        raise ConfigError(
            "Reading a video needs imageio-ffmpeg. Install it with pip install 'kinema[video]', or drop render.video."
        ) from None
    # It warns of pictures that come in another size than the file's, which is what is asked for.
    logging.getLogger("imageio_ffmpeg").setLevel(logging.ERROR)
    return imageio_ffmpeg
