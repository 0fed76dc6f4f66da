"""What moves in a picture, drawn straight onto the canvas: lines, dots, and a frame of a video.

Matplotlib's own collections cost several milliseconds for a skeleton, ten times what the lines themselves take: each
copies its segments into objects, and there is one call for each line.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.backend_bases import RendererBase
from matplotlib.colors import to_rgba
from matplotlib.path import Path
from matplotlib.transforms import Affine2D, IdentityTransform
from PIL import Image

# From points (..., D) of an axes' data to pixels (..., 2) of the canvas.
Place = Callable[[np.ndarray], np.ndarray]
_CIRCLE, _HERE = Path.unit_circle(), IdentityTransform()


class Lines(Artist):
    """Straight lines, drawn with one call per colour; lines with a point that is not finite are left out."""

    def __init__(self, place: Place, width: float, zorder: float) -> None:
        """Set up lines of a width in points."""
        super().__init__()
        self._place, self._width = place, width
        self._segments, self._colours = np.zeros((0, 2, 2)), np.zeros(0, str)
        self.set_zorder(zorder)

    def set_segments(self, segments: np.ndarray) -> None:
        """Take lines (N, 2, D) in the units of the data."""
        self._segments = segments

    def set_colours(self, colours: str | Sequence[str]) -> None:
        """Take one colour for all or one for each."""
        self._colours = np.asarray(colours)

    def draw(self, renderer: RendererBase) -> None:
        """Draw the lines, matplotlib's hook."""
        if not self.get_visible():
            return
        points = np.asarray(self._place(self._segments))  # (N, 2, 2)
        known = np.isfinite(points).all((-2, -1))
        context = _context(self, renderer)
        context.set_linewidth(_pixels(renderer, self._width))
        context.set_capstyle("round")
        for colour in np.unique(self._colours):
            ends = points[known & (self._colours == colour)].reshape(-1, 2)
            codes = np.resize(np.array((Path.MOVETO, Path.LINETO), np.uint8), len(ends))
            context.set_foreground(to_rgba(str(colour)), isRGBA=True)
            if len(ends):
                renderer.draw_path(context, Path(ends, codes), _HERE)
        context.restore()


class Dots(Artist):
    """Round marks with a white edge; those that are not finite are left out."""

    def __init__(self, place: Place, size: float, colours: Sequence[str], zorder: float) -> None:
        """Set up one mark per colour, of a diameter in points."""
        super().__init__()
        self._place, self._size = place, size
        self._points, self._colours = np.zeros((len(colours), 2)), np.asarray(colours)
        self.set_zorder(zorder)

    def set_points(self, points: np.ndarray) -> None:
        """Take places (N, D) in the units of the data."""
        self._points = points

    def draw(self, renderer: RendererBase) -> None:
        """Draw the marks, matplotlib's hook."""
        points = np.asarray(self._place(self._points))
        known = np.isfinite(points).all(-1)
        context = _context(self, renderer)
        context.set_linewidth(_pixels(renderer, 0.5))
        context.set_foreground("white")
        scale = Affine2D().scale(_pixels(renderer, self._size) / 2)
        for colour in np.unique(self._colours):
            marks = points[known & (self._colours == colour)]
            if len(marks):
                renderer.draw_markers(context, _CIRCLE, scale, Path(marks), _HERE, to_rgba(str(colour)))
        context.restore()


class Backdrop(Artist):
    """A picture that covers (0, 0) to (width, height) of axes whose y points down, cut to what they show."""

    def __init__(self, axes: Axes, size: tuple[float, float]) -> None:
        """Set up without a picture."""
        super().__init__()
        self._within, self._size = axes, size
        self._picture: np.ndarray | None = None
        self.set_zorder(0.5)  # above the ground of the axes

    def set_picture(self, picture: np.ndarray) -> None:
        """Take a picture (H, W, 3) uint8, of any size."""
        self._picture = picture

    def draw(self, renderer: RendererBase) -> None:
        """Draw the picture in the pixels of the canvas, matplotlib's hook."""
        if self._picture is None:
            return
        (left, right), (bottom, top) = self._within.get_xlim(), self._within.get_ylim()
        left, right = max(left, 0.0), min(right, self._size[0])
        top, bottom = max(top, 0.0), min(bottom, self._size[1])
        if left >= right or top >= bottom:
            return
        corners = self._within.transData.transform(((left, bottom), (right, top)))
        (x0, y0), (x1, y1) = np.rint(corners).astype(int)
        if x1 <= x0 or y1 <= y0:
            return
        scale = np.array(self._picture.shape[1::-1]) / self._size
        box = (left * scale[0], top * scale[1], right * scale[0], bottom * scale[1])
        shown = Image.fromarray(self._picture)
        if (*shown.size,) != (x1 - x0, y1 - y0) or box != (0.0, 0.0, *shown.size):
            shown = shown.resize((x1 - x0, y1 - y0), Image.Resampling.BILINEAR, box=box, reducing_gap=2.0)
        pixels = np.asarray(shown.convert("RGBA"))
        context = _context(self, renderer)
        renderer.draw_image(context, x0, y0, np.ascontiguousarray(pixels[::-1]))
        context.restore()


def _context(artist: Artist, renderer: RendererBase) -> Any:
    """Drawing state with the clipping of an artist."""
    context = renderer.new_gc()
    artist._set_gc_clip(context)  # type: ignore[attr-defined]
    return context


def _pixels(renderer: RendererBase, points: float) -> float:
    return float(np.asarray(renderer.points_to_pixels(points)))
