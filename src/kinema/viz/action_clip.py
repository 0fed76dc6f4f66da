"""A recognised clip in motion: the bodies, what the network thinks at that moment, and its labels over time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from kinema.core.skeleton import Skeleton
from kinema.viz.action_figures import DPI as STRIP_DPI
from kinema.viz.clip import opened
from kinema.viz.figures import DPI
from kinema.viz.prepare import LEVEL_AZIMUTH, on_floor, upright
from kinema.viz.skeleton import OTHER, RADIUS, Panel2D, Panel3D, new_figure, picture_of
from kinema.viz.strokes import Lines
from kinema.viz.timeline import QUIET, colours_of, timeline

_SHOWN = 6  # classes with a bar
_MOMENTS = 6  # bodies on a still picture
_BARS = 0.86  # width of the bars beside the bodies
_GIF_FPS, _FALLBACK_FPS = 25.0, 25.0
# Bodies that are not about as tall as people are drawn as tall as this, metres.
_TALL, _LIKELY = 1.7, (0.8, 2.4)
# Viewer's angle beside the direction that a body faces, so that depth shows.
_BESIDE = np.deg2rad(LEVEL_AZIMUTH + 90)


@dataclass(frozen=True)
class ActionClip:
    """What is drawn.

    Attributes:
        points: (M, T, J, 3) joints in space, or (M, T, J, 2) pixels, y downwards.
        skeleton: of the points.
        probabilities: (W, K) of the windows; rows sum to 1.
        spans: (W, 2) frames; a window counts from its first one to the one where the next begins.
        names: of the K classes.
        fps: frames per second, None = unknown.
        title: above the labels over time.
    """

    points: np.ndarray
    skeleton: Skeleton
    probabilities: np.ndarray
    spans: np.ndarray
    names: Sequence[str]
    fps: float | None = None
    title: str = "Labels over time"

    def __len__(self) -> int:
        return self.points.shape[1]

    def window(self, frame: int) -> int:
        """The window that a frame belongs to."""
        return int(np.searchsorted(self.spans[:, 0], frame, side="right")) - 1

    def moment(self, frame: int) -> str:
        """A frame as a time, where that is known."""
        return f"{frame / self.fps:.2f} s" if self.fps else f"frame {frame}"


def write(paths: Sequence[Path], clip: ActionClip, *, size: float = 4.2, bitrate: int = 3000) -> None:
    """Write a still (.png) and moving pictures (.gif, .mp4), by the ending of the paths.

    Args:
        paths: of the files.
        clip: what is drawn.
        size: inches of the panel with the bodies, 100 pixels each.
        bitrate: of an .mp4, kbit/s.
    """
    for path in (path for path in paths if path.suffix.lower() == ".png"):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(still(clip)).save(path)
    moving = [path for path in paths if path.suffix.lower() != ".png"]
    if not moving:
        return
    fps = clip.fps or _FALLBACK_FPS
    steps = [max(1, round(fps / _GIF_FPS)) if path.suffix.lower() == ".gif" else 1 for path in moving]
    with ExitStack() as stack:
        writers = [
            stack.enter_context(opened(path, fps / step, bitrate=bitrate, colours=128))
            for path, step in zip(moving, steps, strict=True)
        ]
        frames = [number for number in range(len(clip)) if any(number % step == 0 for step in steps)]
        for number, picture in zip(frames, pictures(clip, frames, size), strict=True):
            for add, step in zip(writers, steps, strict=True):
                if number % step == 0:
                    add(picture)


def still(clip: ActionClip) -> np.ndarray:
    """Moments of a clip over its labels, (H, W, 3) uint8."""
    strip = _Strip(clip, 9.0)
    frames = np.unique(np.linspace(0, len(clip) - 1, _MOMENTS).round().astype(int))
    width = strip.picture.shape[1] // len(frames)
    bodies = Bodies(clip.points, clip.skeleton, min(width / DPI, 1.9))
    shown = [bodies.draw(int(frame), clip.moment(int(frame))) for frame in frames]
    row = np.hstack([_wide(picture, width) for picture in shown])
    return np.vstack([_wide(row, strip.picture.shape[1]), strip.picture])


def pictures(clip: ActionClip, frames: Sequence[int], size: float) -> Iterator[np.ndarray]:
    """One picture (H, W, 3) uint8 for each frame: bodies and probabilities above, the labels over time below."""
    bodies = Bodies(clip.points, clip.skeleton, size)
    bars = _Bars(clip, _BARS * size, size)
    strip = _Strip(clip, (1 + _BARS) * size * DPI / STRIP_DPI)
    for frame in frames:
        above = np.hstack([bodies.draw(frame), bars.draw(frame)])
        yield np.vstack([_wide(above, strip.picture.shape[1]), strip.draw(frame)])


class Bodies:
    """One panel with all persons of a clip."""

    def __init__(self, points: np.ndarray, skeleton: Skeleton, size: float) -> None:
        """Set up a panel of `size` inches, 100 pixels each.

        Args:
            points: (M, T, J, 3) in space, any unit and any axes whose bodies mostly stand, or (M, T, J, 2) pixels.
            skeleton: of the points.
            size: inches.
        """
        points = np.array(points, np.float64)
        points[~points.any((2, 3))] = np.nan  # nobody there
        self._figure = new_figure(size, size, DPI)
        self._panels: list[Panel2D | Panel3D]
        if points.shape[-1] == 2:
            low = np.nanmin(points, axis=(0, 1, 2))
            points = points - low
            extent = np.nanmax(points, axis=(0, 1, 2))
            axes = self._figure.add_axes((0.03, 0.02, 0.94, 0.9))
            view = (max(float(extent[0]), 1.0), max(float(extent[1]), 1.0))
            plane = [Panel2D(axes, skeleton, view) for _ in points]
            plane[0].zoom(points.reshape(-1, 2), margin=1.1)
            self._panels = [*plane]
        else:
            points = standing(points, skeleton)
            self._about = np.nanmean(points[:, :, skeleton.root, :2], axis=0)
            apart = np.nanmax(np.abs(points[..., :2] - self._about[None, :, None]))
            radius = max(RADIUS, 1.1 * float(np.nanmax(points[..., 2])), 2.1 * float(apart))
            spatial = self._figure.add_axes((0, 0, 1, 0.94), projection="3d")
            facing = azimuth(points, skeleton)
            self._panels = [Panel3D(spatial, skeleton, azimuth=facing, radius=radius) for _ in points]
        self._points = points
        self._label = self._figure.text(0.5, 0.98, "", fontsize=9, ha="center", va="top", color=OTHER)
        self._label.set_animated(True)
        for panel in self._panels:
            for artist in panel.moving:
                artist.set_animated(True)
        self._figure.canvas.draw()
        self._ground = self._figure.canvas.copy_from_bbox(self._figure.bbox)  # type: ignore[attr-defined]

    def draw(self, frame: int, label: str = "") -> np.ndarray:
        """The persons of one frame, (H, W, 3) uint8."""
        canvas = self._figure.canvas
        canvas.restore_region(self._ground)  # type: ignore[attr-defined]
        for number, (panel, person) in enumerate(zip(self._panels, self._points, strict=True)):
            if isinstance(panel, Panel2D):
                panel.update(person[frame])
                panel.draw()
                continue
            panel.update(person[frame], about=self._about[frame])
            for artist in panel.moving[1:] if number else panel.moving:  # one floor is enough
                panel.axes.draw_artist(artist)
        self._label.set_text(label)
        self._figure.draw_artist(self._label)
        return _pixels(canvas)


class _Bars:
    """What the network thinks at one moment: the likeliest classes of the clip, each with its probability then."""

    def __init__(self, clip: ActionClip, width: float, height: float) -> None:
        self._clip = clip
        shown = np.argsort(-clip.probabilities.max(0), kind="stable")[:_SHOWN]
        colours = colours_of(clip.probabilities.argmax(1))
        self._shown, self._colours = shown, [colours.get(int(one), QUIET) for one in shown]
        self._figure = new_figure(width, height, DPI)
        axes = self._figure.add_axes((0.05, 0.04, 0.78, 0.8))
        axes.set_xlim(0, 1)
        axes.set_ylim(len(shown) - 0.4, -0.6)
        axes.set_axis_off()
        for row, one in enumerate(shown):
            axes.text(0, row - 0.22, clip.names[one], fontsize=9, va="bottom", color=OTHER)
        self._axes = axes
        place = axes.transData.transform
        self._bars = Lines(lambda ends: place(ends.reshape(-1, 2)).reshape(ends.shape), 7.0, zorder=2)
        self._bars.set_colours(self._colours)
        self._now = self._figure.text(0.05, 0.93, "", fontsize=13, weight="bold", va="center")
        self._time = self._figure.text(0.96, 0.93, "", fontsize=9, va="center", ha="right", color=OTHER)
        self._shares = [
            axes.text(1.16, row, "", fontsize=8.5, ha="right", va="center", color=OTHER) for row in range(len(shown))
        ]
        axes.add_artist(self._bars)
        for artist in (self._bars, self._now, self._time, *self._shares):
            artist.set_animated(True)
        self._figure.canvas.draw()
        self._ground = self._figure.canvas.copy_from_bbox(self._figure.bbox)  # type: ignore[attr-defined]

    def draw(self, frame: int) -> np.ndarray:
        canvas = self._figure.canvas
        canvas.restore_region(self._ground)  # type: ignore[attr-defined]
        probabilities = self._clip.probabilities[self._clip.window(frame)]
        shares = probabilities[self._shown]
        rows = np.arange(len(shares))
        segments = np.zeros((len(shares), 2, 2))
        segments[:, :, 1] = rows[:, None] + 0.02
        segments[:, 1, 0] = np.maximum(shares, 1e-3)
        self._bars.set_segments(segments)
        self._axes.draw_artist(self._bars)
        best = int(probabilities.argmax())
        self._now.set_text(_fitting(self._clip.names[best]))
        self._now.set_color(self._colours[int(np.flatnonzero(self._shown == best)[0])])
        self._time.set_text(self._clip.moment(frame))
        for text, share in zip(self._shares, shares, strict=True):
            text.set_text(f"{100 * share:.0f} %")
            self._axes.draw_artist(text)
        for artist in (self._now, self._time):
            self._figure.draw_artist(artist)
        return _pixels(canvas)


class _Strip:
    """The labels over time with a line at the moment."""

    def __init__(self, clip: ActionClip, width: float) -> None:
        scale = clip.fps or 1.0
        self._clip = clip
        figure = timeline(
            clip.probabilities, clip.spans / scale, clip.names, unit="s" if clip.fps else "frame", width=width,
            top=_SHOWN, title=clip.title,
        )  # fmt: skip
        self.picture = picture_of(figure)
        height, wide = self.picture.shape[:2]
        boxes = [axes.get_position() for axes in figure.axes]
        self._left, self._right = boxes[0].x0 * wide, boxes[0].x1 * wide
        top, bottom = max(box.y1 for box in boxes), min(box.y0 for box in boxes)
        self._rows = slice(round((1 - top) * height), round((1 - bottom) * height))

    def draw(self, frame: int) -> np.ndarray:
        picture = self.picture.copy()
        start, end = float(self._clip.spans[0, 0]), float(self._clip.spans[-1, 1])
        share = (frame - start) / max(end - start, 1e-9)
        at = round(self._left + share * (self._right - self._left))
        picture[self._rows, max(at - 1, 0) : at + 1] = (36, 41, 47)
        return picture


def standing(points: np.ndarray, skeleton: Skeleton) -> np.ndarray:
    """Bodies (M, T, J, 3) of unknown axes and unit, upright on the floor, z up, about as tall as people.

    Upwards is the axis that the trunk of the first person points along most of the time.
    """
    joints = skeleton.tables.get("prenormalise")
    if joints:
        lower, upper = joints["spine"]
        trunk = np.nanmean(points[0, :, upper] - points[0, :, lower], axis=0)
        axis = int(np.abs(trunk).argmax())
        if axis == 1:  # y, downwards in a camera and upwards in a Kinect
            points = (
                upright(points) if trunk[1] < 0 else np.stack([points[..., 0], -points[..., 2], points[..., 1]], -1)
            )
        elif axis == 2 and trunk[2] < 0:
            points = points * np.array((1.0, -1.0, -1.0))
    tall = float(np.nanmedian(np.ptp(points[0], axis=1).max(-1)))
    if not _LIKELY[0] <= tall <= _LIKELY[1]:
        points = points * (_TALL / max(tall, 1e-9))
    return on_floor(points) if np.isfinite(points).all() else points - np.array((0, 0, np.nanmin(points[..., 2])))


def azimuth(points: np.ndarray, skeleton: Skeleton) -> float:
    """Viewer's angle in degrees from which the first person of (M, T, J, 3), z up, is seen almost from the front."""
    if not {"left_hip", "right_hip"} <= set(skeleton.joints):
        return LEVEL_AZIMUTH
    hips = points[0, :, skeleton.index("left_hip")] - points[0, :, skeleton.index("right_hip")]
    x, y = np.nanmean(hips[:, :2], axis=0)
    if not np.hypot(x, y) > 1e-6:
        return LEVEL_AZIMUTH
    return float(np.rad2deg(np.arctan2(-x, y) + _BESIDE))


def _fitting(name: str, most: int = 30) -> str:
    return name if len(name) <= most else f"{name[: most - 1]}…"


def _pixels(canvas: object) -> np.ndarray:
    """The canvas as it is drawn, (H, W, 3) uint8."""
    return np.array(Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB"))  # type: ignore[attr-defined]


def _wide(picture: np.ndarray, width: int) -> np.ndarray:
    """A picture cut or filled up with white, evenly on both sides, to a width in pixels."""
    lacking = width - picture.shape[1]
    if lacking <= 0:
        start = -lacking // 2
        return picture[:, start : start + width]
    return np.pad(picture, ((0, 0), (lacking // 2, lacking - lacking // 2), (0, 0)), constant_values=255)
