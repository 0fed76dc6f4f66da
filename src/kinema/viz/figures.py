"""Figures and clips made of panels: input beside reconstruction and truth, contact sheets, error bars."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from kinema.core.skeleton import Skeleton
from kinema.viz.prepare import Clip
from kinema.viz.skeleton import OTHER, RIGHT, Panel2D, Panel3D, new_figure

DPI = 100.0


@dataclass(frozen=True)
class Shot:
    """One moment of one sequence.

    Attributes:
        keypoints: (J2, 2) pixels.
        poses: title -> (J, 3) metres, z up; the prediction first, the truth (if any) second.
        viewport: (width, height) of the picture, pixels.
        azimuth: of the viewer, degrees.
        label: under the moment.
        errors: (J,) metres; colours the prediction by its error.
        picture: (H, W, 3) uint8 of the video.
    """

    keypoints: np.ndarray
    poses: dict[str, np.ndarray] = field(default_factory=dict)
    viewport: tuple[float, float] = (1000, 1000)
    azimuth: float = 70.0
    label: str = ""
    errors: np.ndarray | None = None
    picture: np.ndarray | None = None


class Scene:
    """Panels side by side, drawn again for every frame of a clip without drawing the axes again."""

    def __init__(self, clip: Clip, skeleton2d: Skeleton, skeleton: Skeleton, size: float = 4.0) -> None:
        """Set up the input and one panel per pose, `size` inches each (100 dots per inch)."""
        count = 1 + len(clip.poses)
        self.figure = new_figure(size * count, size, DPI)
        width = 1 / count
        plane = self.figure.add_axes((0.04 * width, 0.02, 0.92 * width, 0.88))
        self._input = Panel2D(plane, skeleton2d, clip.viewport)
        self._views = []
        for number in range(1, count):
            axes = self.figure.add_axes((number * width, 0.0, width, 0.92), projection="3d")
            self._views.append(Panel3D(axes, skeleton, azimuth=clip.azimuth))
        for number, title in enumerate(("Input", *clip.poses)):
            self.figure.text((number + 0.5) * width, 0.955, title, fontsize=11, ha="center", va="center")
        for artist in (*self._input.moving, *(artist for view in self._views for artist in view.moving)):
            artist.set_animated(True)
        self.figure.canvas.draw()
        self._still = self.figure.canvas.copy_from_bbox(self.figure.bbox)  # type: ignore[attr-defined]

    def draw(self, keypoints: np.ndarray, poses: Sequence[np.ndarray], picture: np.ndarray | None = None) -> np.ndarray:
        """Return one frame (H, W, 3) uint8."""
        canvas = self.figure.canvas
        canvas.restore_region(self._still)  # type: ignore[attr-defined]
        self._input.update(keypoints, picture)
        self._input.draw()
        for panel, pose in zip(self._views, poses, strict=True):
            panel.update(pose)
            panel.draw()
        # Pillow drops the fourth channel several times faster than numpy's strided copy.
        return np.array(Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB"))  # type: ignore[attr-defined]

    def frames(self, clip: Clip, pictures: Iterator[np.ndarray] | None = None) -> Iterator[np.ndarray]:
        """Yield the frames of a clip, one at a time, until its end or that of its video."""
        for number, keypoints in enumerate(clip.keypoints):
            picture = None if pictures is None else next(pictures, None)
            if pictures is not None and picture is None:
                return
            yield self.draw(keypoints, [pose[number] for pose in clip.poses.values()], picture)


def moments(clip: Clip, count: int = 8) -> list[int]:
    """Frames of a clip for a contact sheet, evenly spaced."""
    return [int(frame) for frame in np.unique(np.linspace(0, len(clip) - 1, count).round())]


def contact_sheet(
    clip: Clip,
    skeleton2d: Skeleton,
    skeleton: Skeleton,
    pictures: Mapping[int, np.ndarray] | None = None,
    size: float = 1.9,
) -> Figure:
    """Moments of a clip, one column each: the input above, the poses below.

    Args:
        clip: what is drawn.
        skeleton2d: of the keypoints.
        skeleton: of the poses.
        pictures: frame -> picture of the video under its keypoints, the frames to show; None = `moments` without any.
        size: inches per panel.
    """
    shots = [
        Shot(
            keypoints=clip.keypoints[frame],
            poses={name: pose[frame] for name, pose in clip.poses.items()},
            viewport=clip.viewport,
            azimuth=clip.azimuth,
            label=f"{frame / clip.fps:.2f} s" if clip.fps else f"frame {frame}",
            picture=None if pictures is None else pictures[frame],
        )
        for frame in (moments(clip) if pictures is None else pictures)
    ]
    return sheet(shots, skeleton2d, skeleton, size=size)


def sheet(
    shots: Sequence[Shot], skeleton2d: Skeleton, skeleton: Skeleton, *, size: float = 1.9, title: str = ""
) -> Figure:
    """Draw moments side by side: a row for the input and one for each pose, a column per moment.

    Where a moment has errors, its prediction is coloured by them from blue (0) to red (150 mm).
    """
    titles = list(shots[0].poses)
    rows, margin, top = 1 + len(titles), 0.32, 0.34
    width, height = margin + size * len(shots), top + size * rows
    figure = new_figure(width, height, DPI)
    if title:
        figure.text(margin / width, 1 - 0.06 / height, title, fontsize=9, va="top")
    for column, shot in enumerate(shots):
        left = (margin + column * size) / width

        def box(row: int, left: float = left) -> tuple[float, float, float, float]:
            return left, (height - top - (row + 1) * size) / height, 0.96 * size / width, 0.96 * size / height

        plane = Panel2D(figure.add_axes(box(0)), skeleton2d, shot.viewport)
        plane.update(shot.keypoints, shot.picture)
        plane.zoom(shot.keypoints)
        for row, pose in enumerate(shot.poses.values(), start=1):
            view = Panel3D(figure.add_axes(box(row), projection="3d"), skeleton, azimuth=shot.azimuth)
            view.update(pose, errors=shot.errors if row == 1 else None)
        middle = left + 0.48 * size / width
        figure.text(middle, 1 - 0.20 / height, shot.label, fontsize=8, ha="center", va="top", color=OTHER)
    for row, name in enumerate(["Input", *titles]):
        middle = (height - top - (row + 0.5) * size) / height
        figure.text(0.11 / width, middle, name, fontsize=9, rotation=90, ha="center", va="center")
        if row == 1 and any(shot.errors is not None for shot in shots):
            scale = "blue 0, red 150 mm"
            figure.text(0.25 / width, middle, scale, fontsize=6.5, rotation=90, ha="center", va="center", color=OTHER)
    return figure


def error_bars(
    values: dict[str, float], *, title: str, unit: str = "mm", digits: int = 1, highlight: Sequence[str] = ()
) -> Figure:
    """Horizontal bars, one per name in the given order, with the value at its end; a line marks their mean."""
    figure = new_figure(6.4, 0.9 + 0.24 * len(values), DPI)
    axes = figure.add_axes((0.26, 0.34 / figure.get_figheight(), 0.66, 1 - 0.72 / figure.get_figheight()))
    names, sizes = list(values), np.array(list(values.values()), float)
    axes.barh(
        range(len(names)), sizes, color=[RIGHT if name in highlight else "#57606a" for name in names], height=0.72
    )
    axes.set_yticks(range(len(names)), [name.replace("_", " ") for name in names], fontsize=8)
    axes.invert_yaxis()
    axes.set_ylim(len(names) - 0.4, -0.6)
    top = float(np.nanmax(sizes)) if np.isfinite(sizes).any() else 1.0
    axes.set_xlim(0, 1.13 * max(top, 1e-9))
    for number, size in enumerate(sizes):
        if np.isfinite(size):
            axes.text(size + 0.012 * top, number, f"{size:.{digits}f}", va="center", fontsize=7.5, color=OTHER)
    if np.isfinite(sizes).any():
        axes.axvline(float(np.nanmean(sizes)), color="#afb8c1", linewidth=1.0, zorder=0)
    axes.tick_params(axis="x", labelsize=8)
    axes.set_title(f"{title} ({unit})", fontsize=10, loc="left")
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    return figure
