"""Predicted motions side by side: a grid of bodies that move, and a still picture of poses over time.

The look is that of HumanMAC's pictures: what was observed in grey, black and red, what is predicted in purple, black
and green, what a motion is switched to in orange, black and blue, given joints in dark blue. Everything is projected
once, and a frame is a few strokes onto a canvas.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgba
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from PIL import Image

from kinema.core.skeleton import Skeleton
from kinema.errors import DataError
from kinema.viz.action_figures import inches
from kinema.viz.clip import opened
from kinema.viz.figures import DPI
from kinema.viz.skeleton import ELEVATION, FLOOR, OTHER, PAPER, RADIUS, new_figure
from kinema.viz.strokes import Lines

# Colours of the left, the middle and the right of a body.
OBSERVED = ("#8c959f", OTHER, "#d1242f")
PREDICTED = ("#8250df", OTHER, "#1a7f37")
SWITCHED = ("#e16f24", OTHER, "#0969da")
GIVEN = "#0a2a8c"
# The published viewer stands in the direction of x.
PUBLISHED_AZIMUTH = 0.0
# Viewer's angle beside the direction that a body faces, degrees: depth shows.
_BESIDE = 40.0
_DISTANCE = 8.0  # metres from the viewer to the body
_MARGIN = 0.1  # of a cell, metres
_TITLES, _LABELS, _CLOCK = 0.26, 0.24, 0.3  # inches above, left and below the cells
_WIDTH = 2.2  # of the strokes, points, in a cell of 2 inches
_GIF_FPS, _FALLBACK_FPS = 25.0, 25.0
_QUIET = "#57606a"


@dataclass(frozen=True)
class Cell:
    """One body of a grid.

    Attributes:
        motion: (N, J, 3) metres, z up; drawn around its root.
        title: above the cell.
        given: joints that were given to the sampler over all frames: their bones are dark blue after the history.
        frozen: the motion stands still at the last observed frame.
        truth: drawn in the colours of the observed part to its end.
    """

    motion: np.ndarray
    title: str = ""
    given: tuple[int, ...] = ()
    frozen: bool = False
    truth: bool = False


@dataclass(frozen=True)
class MotionGrid:
    """What is drawn: rows of cells, all of one length.

    Attributes:
        rows: cells, the same number in every row.
        skeleton: of the motions.
        history: observed frames, the first of every motion.
        fps: frames per second; None = unknown.
        labels: of the rows.
        azimuth: of the viewer in degrees; None = almost from the front of the last observed body of each row.
        switched: frame from which predictions have the colours of the target; None = none.
        name: above the still picture.
    """

    rows: Sequence[Sequence[Cell]]
    skeleton: Skeleton
    history: int
    fps: float | None = None
    labels: Sequence[str] = field(default_factory=tuple)
    azimuth: float | None = None
    switched: int | None = None
    name: str = ""

    def __post_init__(self) -> None:
        shapes = {cell.motion.shape for row in self.rows for cell in row}
        counts = {len(row) for row in self.rows}
        if len(shapes) != 1 or len(counts) != 1:
            raise DataError(
                f"A grid needs cells of one shape, as many in every row, not {shapes or 'none'} in {counts}."
            )
        (shape,) = shapes
        if shape[1:] != (len(self.skeleton), 3):
            raise DataError(f"Motions {shape} are drawn with the {len(self.skeleton)} joints of {self.skeleton.name}.")
        if not 0 < self.history <= shape[0]:
            raise DataError(f"{self.history} observed frames do not fit into motions of {shape[0]} frames.")

    def __len__(self) -> int:
        return self.rows[0][0].motion.shape[0]

    def azimuth_of(self, row: int) -> float:
        """Viewer's angle of a row, degrees."""
        if self.azimuth is not None:
            return self.azimuth
        return facing(self.rows[row][0].motion[self.history - 1], self.skeleton)

    def moment(self, frame: int) -> str:
        """A frame as a time from the last observed one, where the speed is known."""
        after = frame - (self.history - 1)
        return f"{after / self.fps:+.2f} s" if self.fps else f"{after:+d} frames"


def write(
    paths: Sequence[Path], grid: MotionGrid, *, size: float = 2.0, fps: float | None = None, bitrate: int = 3000
) -> None:
    """Write a still (.png) and moving pictures (.gif, .mp4), by the ending of the paths.

    Args:
        paths: of the files.
        grid: what is drawn.
        size: height of a cell in inches, 100 pixels each.
        fps: of the pictures; None = as the grid's, that is as fast as it was.
        bitrate: of an .mp4, kbit/s.
    """
    for path in (path for path in paths if path.suffix.lower() == ".png"):
        path.parent.mkdir(parents=True, exist_ok=True)
        still(grid).savefig(path, dpi=150)
    moving = [path for path in paths if path.suffix.lower() != ".png"]
    if not moving:
        return
    speed = fps or grid.fps or _FALLBACK_FPS
    steps = [max(1, round(speed / _GIF_FPS)) if path.suffix.lower() == ".gif" else 1 for path in moving]
    scene = _Scene(grid, size)
    sample = _with_every_colour(scene.draw(0))
    with ExitStack() as stack:
        writers = [
            stack.enter_context(opened(path, speed / step, bitrate=bitrate, colours=96, sample=sample))
            for path, step in zip(moving, steps, strict=True)
        ]
        for number in range(len(grid)):
            due = [add for add, step in zip(writers, steps, strict=True) if number % step == 0]
            if not due:
                continue
            picture = scene.draw(number)
            for add in due:
                add(picture)


def _with_every_colour(picture: np.ndarray) -> np.ndarray:
    """A picture above a band with each colour of the strokes and its blends with the ground.

    The palette of a GIF is chosen by how much there is of a colour, and most are in no first frame.
    """
    colours = dict.fromkeys((*OBSERVED, *PREDICTED, *SWITCHED, GIVEN))
    own = 255 * np.array([to_rgba(one)[:3] for one in colours])
    blends = np.concatenate([255 + share * (own - 255) for share in (1.0, 1.0, 0.75, 0.5, 0.25)]).astype(np.uint8)
    row = np.repeat(blends, -(-picture.shape[1] // len(blends)), axis=0)[: picture.shape[1]]
    return np.vstack([picture, np.repeat(row[None], picture.shape[0] // 3, axis=0)])


def pictures(grid: MotionGrid, size: float = 2.0, frames: Sequence[int] | None = None) -> Iterator[np.ndarray]:
    """One picture (H, W, 3) uint8 for each frame, all of them unless some are named."""
    scene = _Scene(grid, size)
    for frame in range(len(grid)) if frames is None else frames:
        yield scene.draw(frame)


def facing(pose: np.ndarray, skeleton: Skeleton) -> float:
    """Viewer's angle in degrees from which a pose (J, 3), z up, is seen from the front and a little aside."""
    pairs = list(zip(skeleton.left, skeleton.right, strict=True))
    across = sum((pose[left, :2] - pose[right, :2] for left, right in pairs), np.zeros(2))
    if not np.hypot(*across) > 1e-6:  # no sides are known
        return PUBLISHED_AZIMUTH
    # The left is a quarter turn ahead of the front.
    return float(np.rad2deg(np.arctan2(-across[0], across[1])) + _BESIDE)


def project(points: np.ndarray, azimuth: float, elevation: float = ELEVATION) -> np.ndarray:
    """Picture plane (..., 2) in metres, y up, of points (..., 3) about the origin, z up, seen in perspective."""
    turn, lift = np.deg2rad(azimuth), np.deg2rad(elevation)
    right = (-np.sin(turn), np.cos(turn), 0.0)
    up = (-np.sin(lift) * np.cos(turn), -np.sin(lift) * np.sin(turn), np.cos(lift))
    near = (np.cos(lift) * np.cos(turn), np.cos(lift) * np.sin(turn), np.sin(lift))
    seen = points @ np.array((right, up, near), np.float64).T
    return np.asarray(seen[..., :2] * (_DISTANCE / (_DISTANCE - np.minimum(seen[..., 2:], 0.9 * _DISTANCE))))


def _projected(grid: MotionGrid) -> np.ndarray:
    """Joints (R, C, N, J, 2) on the picture plane, every body about its root."""
    root, made = grid.skeleton.root, []
    for number, row in enumerate(grid.rows):
        motion = np.stack([cell.motion for cell in row]).astype(np.float64)
        made.append(project(motion - motion[..., root : root + 1, :], grid.azimuth_of(number)))
    return np.stack(made)


def _frame_of(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest corner (2,) of what a cell shows: the bodies, and the published cube at least in height.

    A few wild frames do not make all bodies small: a thousandth of the joints may lie outside.
    """
    flat = points.reshape(-1, 2)
    flat = flat[np.isfinite(flat).all(-1)]
    if not len(flat):
        return np.full(2, -RADIUS / 2), np.full(2, RADIUS / 2)
    low, high = np.quantile(flat, 0.001, axis=0) - _MARGIN, np.quantile(flat, 0.999, axis=0) + _MARGIN
    lacking = max(0.0, RADIUS - (high[1] - low[1])) / 2
    half = max(-low[0], high[0], 0.32 * (high[1] - low[1]))  # bodies stand in the middle of their cells
    return np.array((-half, low[1] - lacking)), np.array((half, high[1] + lacking))


def _colours(grid: MotionGrid, cell: Cell, frame: int) -> list[str]:
    """One colour for each bone of a cell at a frame."""
    body = grid.skeleton
    if frame < grid.history or cell.frozen or cell.truth:
        left, middle, right = OBSERVED
    else:
        switched = grid.switched is not None and frame >= grid.switched
        left, middle, right = SWITCHED if switched else PREDICTED
    sides = [left if child in body.left else right if child in body.right else middle for child, _ in body.bones]
    if cell.given and frame >= grid.history and not (cell.frozen or cell.truth):
        return [GIVEN if child in cell.given else side for (child, _), side in zip(body.bones, sides, strict=True)]
    return sides


class _Scene:
    """The grid on a canvas of its own: titles once, bodies and the clock for every frame."""

    def __init__(self, grid: MotionGrid, size: float) -> None:
        self._grid = grid
        points = _projected(grid)
        rows, columns = points.shape[:2]
        low, high = _frame_of(points)
        self._scale = size * DPI / (high[1] - low[1])  # pixels per metre
        wide, tall = (high - low) * self._scale
        left = _LABELS * DPI if any(grid.labels) else 0.06 * DPI
        below, above = _CLOCK * DPI, _TITLES * DPI
        width, height = left + columns * wide + 0.06 * DPI, above + rows * tall + below
        self._figure = new_figure(round(width) / DPI, round(height) / DPI, DPI)
        self._axes = self._figure.add_axes((0, 0, 1, 1))
        self._axes.set_xlim(0, width)
        self._axes.set_ylim(0, height)
        self._axes.set_axis_off()
        corners = np.array(
            [[(left + c * wide, height - above - (r + 1) * tall) for c in range(columns)] for r in range(rows)]
        )
        pixels = (points - low) * self._scale + corners[:, :, None, None]
        self._joints = np.moveaxis(pixels, 2, 0)  # (N, R, C, J, 2)
        self._bones = np.array(grid.skeleton.bones)
        self._cells = [cell for row in grid.rows for cell in row]
        self._texts(corners, wide, tall, height)
        self._legend(width)
        self._bar = (left + 2, 0.07 * DPI, width - left - 0.06 * DPI - 4)
        (x, y, length) = self._bar
        self._axes.add_line(Line2D((x, x + length), (y, y), color=FLOOR, linewidth=3.0, solid_capstyle="round"))
        place = self._axes.transData.transform
        self._strokes = Lines(lambda ends: ends, _WIDTH * size / 2.0, zorder=3)
        self._strokes.set_clip_on(False)
        self._clock = Lines(lambda ends: place(ends.reshape(-1, 2)).reshape(ends.shape), 3.0, zorder=2)
        self._time = self._axes.text(left, 0.13 * DPI, "", fontsize=8, color=_QUIET, ha="left", va="bottom", zorder=2)
        self._axes.add_artist(self._strokes)
        self._axes.add_artist(self._clock)
        for artist in (self._strokes, self._clock, self._time):
            artist.set_animated(True)
        self._figure.canvas.draw()
        self._ground = self._figure.canvas.copy_from_bbox(self._figure.bbox)  # type: ignore[attr-defined]

    def _texts(self, corners: np.ndarray, wide: float, tall: float, height: float) -> None:
        """Titles over the first row, labels beside the rows, a tinted ground under what was observed or is true."""
        for r, row in enumerate(self._grid.rows):
            for c, cell in enumerate(row):
                x, y = corners[r, c]
                if cell.frozen or cell.truth:
                    self._axes.add_patch(Rectangle((x + 1, y + 1), wide - 2, tall - 2, color=PAPER, lw=0, zorder=0))
                # As in the published pictures only the first row has titles, unless a later row has others.
                if cell.title and (r == 0 or cell.title != self._grid.rows[0][c].title):
                    at = height - 0.5 * _TITLES * DPI if r == 0 else y + tall - 0.1 * DPI
                    self._axes.text(
                        x + wide / 2,
                        at,
                        cell.title,
                        fontsize=9 if r == 0 else 7.5,
                        ha="center",
                        va="center",
                        color=OTHER,
                    )
        for r, label in enumerate(self._grid.labels):
            y = corners[r, 0, 1] + tall / 2
            self._axes.text(
                0.55 * _LABELS * DPI, y, label, fontsize=8, color=_QUIET, rotation=90, ha="center", va="center"
            )

    def _legend(self, width: float) -> None:
        """What the colours mean, right below."""
        given = any(cell.given for cell in self._cells)
        parts: list[tuple[str, tuple[str, ...]]] = [("given joints", (GIVEN,))] if given else []
        parts += [("to the target", SWITCHED)] if self._grid.switched is not None else []
        x, y = width - 0.06 * DPI, 0.22 * DPI
        for word, colours in [*parts, ("predicted", PREDICTED), ("observed", OBSERVED)]:
            self._axes.text(x, y, word, fontsize=7.5, color=_QUIET, ha="right", va="center", zorder=2)
            x -= DPI * (inches([word], 7.5) + 0.05)
            for colour in reversed(colours):
                x -= 11
                self._axes.add_patch(Rectangle((x, y - 3.5), 10, 7, facecolor=colour, lw=0, zorder=2))
            x -= 14

    def draw(self, frame: int) -> np.ndarray:
        """Pixels (H, W, 3) uint8 of a frame."""
        canvas, grid = self._figure.canvas, self._grid
        canvas.restore_region(self._ground)  # type: ignore[attr-defined]
        shown = [min(frame, grid.history - 1) if cell.frozen else frame for cell in self._cells]
        joints = self._joints.reshape(len(grid), len(self._cells), -1, 2)[shown, range(len(self._cells))]
        self._strokes.set_segments(joints[:, self._bones].reshape(-1, 2, 2))
        self._strokes.set_colours([one for cell in self._cells for one in _colours(grid, cell, frame)])
        self._tick(frame)
        for artist in (self._clock, self._time, self._strokes):
            self._axes.draw_artist(artist)
        return np.array(Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB"))  # type: ignore[attr-defined]

    def _tick(self, frame: int) -> None:
        """The line below: how far the observed and the predicted part have gone."""
        last = self._grid.history - 1
        parts = [(0, min(frame, last), _QUIET), (min(frame, last), frame, PREDICTED[0])]
        left, y, width = self._bar
        per = width / max(len(self._grid) - 1, 1)
        self._clock.set_segments(np.array([((left + a * per, y), (left + b * per, y)) for a, b, _ in parts]))
        # The second part has no length while there is only history, and then lies under the first.
        self._clock.set_colours([_QUIET if a == b else colour for a, b, colour in parts])
        word = "observed" if frame <= last else "predicted"
        self._time.set_text(f"{word}  {self._grid.moment(frame)}")


def still(grid: MotionGrid, *, strips: int = 8, key_poses: int = 11) -> Figure:
    """Poses over time, one strip for each motion, with the poses between as ghosts.

    Args:
        grid: what is drawn; of several rows as many motions each as there is room for.
        strips: at most.
        key_poses: clear poses in a strip.

    Returns:
        The figure.
    """
    rows = range(min(len(grid.rows), strips))
    each = max(1, strips // len(rows))
    points = _projected(grid)
    # The frozen context is the truth's own beginning.
    chosen = [(r, [c for c, cell in enumerate(grid.rows[r]) if not cell.frozen][:each]) for r in rows]
    shown = [(r, c) for r, cells in chosen for c in cells] or [(r, 0) for r in rows]
    low, high = _frame_of(points)
    tall, apart = float(high[1] - low[1]), 0.62 * float(high[1] - low[1])
    frames = _key_frames(grid, key_poses)
    per = apart * (key_poses - 1) / max(len(grid) - 1, 1)  # metres on paper from one frame to the next
    width, half = per * (len(grid) - 1), float(high[0])
    inch = min(1.05 / tall, 9.4 / (width + 2 * half))
    labels = [_label(grid, r, c) for r, c in shown]
    left, above = inches([line for label in labels for line in label.split("\n")], 8) + 0.2, 0.5 if grid.name else 0.25
    paper = (left + (width + 2 * half) * inch, above + len(shown) * tall * inch + 0.35)
    figure = new_figure(*paper, DPI)
    for place, (r, c) in enumerate(shown):
        bottom = 1 - (above + (place + 1) * tall * inch) / paper[1]
        axes = figure.add_axes((left / paper[0], bottom, 1 - left / paper[0], tall * inch / paper[1]))
        axes.set_xlim(-half, width + half)
        axes.set_ylim(low[1], high[1])
        axes.set_axis_off()
        cell = grid.rows[r][c]
        axes.axvspan(-half, (grid.history - 0.5) * per, color=PAPER, lw=0, zorder=0)
        _strip(axes, grid, cell, points[r, c], frames, per)
        figure.text((left - 0.1) / paper[0], bottom + 0.5 * tall * inch / paper[1], labels[place], fontsize=8,
                    ha="right", va="center", color=OTHER)  # fmt: skip
        if place == len(shown) - 1:
            for frame in frames:
                text = grid.moment(int(frame)).replace(" frames", "")
                axes.annotate(text, (frame * per, 0), xycoords=("data", "axes fraction"), xytext=(0, -3),
                              textcoords="offset points", fontsize=7, ha="center", va="top", color=_QUIET,
                              annotation_clip=False)  # fmt: skip
    if grid.name:
        figure.text(left / paper[0], 1 - 0.22 / paper[1], grid.name, fontsize=10, va="center", color=OTHER)
    return figure


def _key_frames(grid: MotionGrid, count: int) -> np.ndarray:
    """About so many frames, evenly from the last observed one in both directions."""
    last, step = grid.history - 1, max(1, round((len(grid) - 1) / max(count - 1, 1)))
    before, after = np.arange(last, -1, -step)[:0:-1], np.arange(last, len(grid), step)
    return np.concatenate([before, after])


def _label(grid: MotionGrid, row: int, column: int) -> str:
    """What stands before a strip; the row only where there are several."""
    title = grid.rows[row][column].title
    return f"{grid.labels[row]}\n{title}" if len(grid.rows) > 1 and any(grid.labels) else title


def _strip(axes: Axes, grid: MotionGrid, cell: Cell, points: np.ndarray, frames: np.ndarray, per: float) -> None:
    """Poses of one motion (N, J, 2) along a line of time."""
    bones, clear = np.array(grid.skeleton.bones), set(frames.tolist())
    step = max(1, round(len(grid) / 45))
    ghosts = [frame for frame in range(0, len(grid), step) if frame not in clear]
    for numbers, alpha, thick in ((ghosts, 0.14, 0.9), (sorted(clear), 1.0, 1.7)):
        if not numbers:
            continue
        placed = points[numbers] + np.array([(per * frame, 0.0) for frame in numbers])[:, None]
        colours = [to_rgba(one, alpha) for frame in numbers for one in _colours(grid, cell, frame)]
        lines = LineCollection(placed[:, bones].reshape(-1, 2, 2), colors=colours, linewidths=thick, capstyle="round",
                               clip_on=False)  # fmt: skip
        axes.add_collection(lines)
