"""Animated GIFs, one frame after the other: a palette for all frames, and of each frame only what changed."""

from __future__ import annotations

import struct
from fractions import Fraction
from pathlib import Path

import numpy as np
from PIL import GifImagePlugin, Image

# Index of the palette that means "as in the frame before"; all below may be colours.
SAME = 255
# Browsers play a frame of less than 2 hundredths of a second much slower.
_SHORTEST = 2
# Steps of a colour channel that the table of nearest colours tells apart: 2**6.
_BITS = 6


class GifWriter:
    """A looping GIF that grows by `add`; holds one frame, the palette and an open file.

    Args:
        path: of the file.
        fps: frames per second.
        colours: of the palette; 255 at most.
        sample: picture (H', W', 3) uint8 that they are chosen from; None = the first frame.
    """

    def __init__(self, path: Path, fps: float, colours: int = SAME, sample: np.ndarray | None = None) -> None:
        self._file = path.open("wb")
        self._between = Fraction(100) / Fraction(fps).limit_denominator(1000)  # hundredths of a second
        self._colours, self._sample = colours, sample
        self._palette: _Palette | None = None
        self._picture = self._shown = np.zeros(0)
        self._late = Fraction(0)

    def add(self, frame: np.ndarray) -> None:
        """Append a frame (H, W, 3) uint8."""
        # Delays are whole hundredths of a second: what rounding leaves over goes to the next frame.
        self._late += self._between
        if self._palette is None:
            delay = max(_SHORTEST, int(self._late))  # there is always a first frame; those after it catch up
            self._begin(frame)
            self._write(self._shown, (0, 0), delay)
        elif self._late < _SHORTEST:
            return
        else:
            delay = int(self._late)
            self._change(frame, delay)
        self._late -= delay

    def close(self) -> None:
        """Write the end of the file, or leave an unfinished one."""
        if self._palette is not None:
            self._file.write(b";")
        self._file.close()

    def _begin(self, frame: np.ndarray) -> None:
        self._palette = _Palette(frame if self._sample is None else self._sample, self._colours)
        height, width = frame.shape[:2]
        self._file.write(b"GIF89a" + struct.pack("<HHBBB", width, height, 0xF7, 0, 0))
        self._file.write(self._palette.table())
        self._file.write(b"!\xff\x0bNETSCAPE2.0\x03\x01\0\0\0")
        self._picture, self._shown = frame.copy(), self._palette.indices(frame)

    def _change(self, frame: np.ndarray, delay: int) -> None:
        """Write the rectangle in which a frame differs from the one before."""
        assert self._palette is not None
        top, bottom, left, right = _box(frame != self._picture)
        part = self._palette.indices(frame[top:bottom, left:right])
        shown = self._shown[top:bottom, left:right]
        self._write(np.where(part == shown, SAME, part), (left, top), delay)
        self._picture[top:bottom, left:right] = frame[top:bottom, left:right]
        self._shown[top:bottom, left:right] = part

    def _write(self, indices: np.ndarray, offset: tuple[int, int], delay: int) -> None:
        picture = Image.fromarray(np.ascontiguousarray(indices, np.uint8))
        blocks = GifImagePlugin.getdata(picture, offset, duration=10 * delay, transparency=SAME, disposal=1)
        self._file.writelines(bytes(block) for block in blocks)


def _box(changed: np.ndarray) -> tuple[int, int, int, int]:
    """Top, bottom, left and right of what is True in (H, W, 3); one pixel where nothing is, to carry the delay."""
    height, width = changed.shape[:2]
    flat = changed.reshape(height, -1)  # much faster than reducing the short last axis first
    rows, columns = np.flatnonzero(flat.any(1)), np.flatnonzero(flat.any(0).reshape(width, -1).any(1))
    if not len(rows):
        return 0, 1, 0, 1
    return int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1


class _Palette:
    """Colours chosen from one picture; its most frequent colour stays exact (quantisation tints a white ground).

    The nearest colour of every colour stands in a table, because searching it anew for every pixel takes longer than
    drawing the frame.
    """

    def __init__(self, picture: np.ndarray, colours: int) -> None:
        self._chosen = Image.fromarray(picture).quantize(min(colours, SAME), method=Image.Quantize.MEDIANCUT)
        indices = np.asarray(self._chosen)
        self._most = int(np.bincount(indices.ravel()).argmax())
        self._ground = np.median(picture[indices == self._most], axis=0).astype(np.uint8)
        steps = np.arange(1 << _BITS, dtype=np.uint8) * (1 << 8 - _BITS) + (1 << 7 - _BITS)
        cube = np.stack(np.meshgrid(steps, steps, steps, indexing="ij"), -1).reshape(1 << 2 * _BITS, -1, 3)
        nearest = Image.fromarray(cube).quantize(palette=self._chosen, dither=Image.Dither.NONE)
        self._nearest = np.array(nearest).ravel()
        self._nearest[_cell(self._ground)] = self._most

    def table(self) -> bytes:
        """The 256 colours as the file has them."""
        values = bytearray(self._chosen.getpalette() or [])[: 3 * SAME].ljust(3 * 256, b"\0")
        values[3 * self._most : 3 * self._most + 3] = self._ground.tobytes()
        return bytes(values)

    def indices(self, picture: np.ndarray) -> np.ndarray:
        """Nearest colours (H, W) of a picture (H, W, 3)."""
        return self._nearest.take(_cell(picture))


def _cell(colour: np.ndarray) -> np.ndarray:
    """Places in the table of nearest colours of colours (..., 3)."""
    steps = colour >> (8 - _BITS)
    place = steps[..., 0].astype(np.intp)
    for channel in (1, 2):
        place = place << _BITS | steps[..., channel]
    return place
