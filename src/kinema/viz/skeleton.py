"""Skeletons in matplotlib: panels that are set up once and updated frame by frame.

No pyplot: a `Figure` of this module belongs to nobody but the caller and is gone with its last reference.
"""

from __future__ import annotations

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from mpl_toolkits.mplot3d.axes3d import Axes3D

from kinema.core.skeleton import Skeleton
from kinema.viz.strokes import Backdrop, Dots, Lines

RIGHT, OTHER, FLOOR, PAPER = "#d1242f", "#24292f", "#d0d7de", "#f6f8fa"
ON_DARK = "#f0f3f6"
RADIUS = 1.7  # metres across a 3D panel, as VideoPose3D draws it
ELEVATION = 15.0
# Fills the panel with the cube of axes that are switched off (Axes3D.dist has no effect in current matplotlib).
_ZOOM = 1.55
_GRID = 0.5  # metres between the lines of the floor


def new_figure(width: float, height: float, dpi: float = 100.0) -> Figure:
    """An empty figure of a size in inches with an Agg canvas of its own."""
    figure = Figure(figsize=(width, height), dpi=dpi, facecolor="white")
    FigureCanvasAgg(figure)
    return figure


def picture_of(figure: Figure) -> np.ndarray:
    """Draw a figure made by `new_figure` into pixels (H, W, 3) uint8."""
    figure.canvas.draw()
    return np.array(figure.canvas.buffer_rgba())[..., :3]  # type: ignore[attr-defined]


def bone_colours(skeleton: Skeleton, right: str = RIGHT, other: str = OTHER) -> list[str]:
    """One colour per bone of `skeleton.bones`: bones that end in a right joint stand out."""
    return [right if child in skeleton.right else other for child, _ in skeleton.bones]


def _segments(points: np.ndarray, skeleton: Skeleton) -> np.ndarray:
    """Bones (bones, 2, D) of joints (J, D)."""
    return points[np.array(skeleton.bones)]


class Panel2D:
    """The picture plane: a frame of the video, or a plain ground, with the keypoints on it."""

    def __init__(self, axes: Axes, skeleton: Skeleton, size: tuple[float, float], title: str = "") -> None:
        """Set up axes for keypoints in pixels of a picture of size (width, height)."""
        self.axes, self.skeleton = axes, skeleton
        width, height = size
        axes.set_xlim(0, width)
        axes.set_ylim(height, 0)
        axes.set_aspect("equal")
        axes.set_xticks([])
        axes.set_yticks([])
        axes.set_facecolor(PAPER)
        for spine in axes.spines.values():
            spine.set_color(FLOOR)
        if title:
            axes.set_title(title, fontsize=11)
        place = axes.transData.transform
        self._picture = Backdrop(axes, size)
        self._bones = Lines(lambda ends: place(ends.reshape(-1, 2)).reshape(ends.shape), 2.0, zorder=2)
        self._bones.set_colours(bone_colours(skeleton))
        joints = [RIGHT if joint in skeleton.right else OTHER for joint in range(len(skeleton))]
        self._joints = Dots(place, 3.3, joints, zorder=3)
        for artist in (self._picture, self._bones, self._joints):
            axes.add_artist(artist)
        self.moving = (self._picture, self._bones, self._joints)

    def update(self, keypoints: np.ndarray, picture: np.ndarray | None = None) -> None:
        """Show keypoints (J, 2) in pixels, over a picture (H, W, 3) of the video if there is one.

        A keypoint that is not finite is left out together with its bones.
        """
        if picture is not None:
            self._picture.set_picture(picture)
            self._bones.set_colours(bone_colours(self.skeleton, other=ON_DARK))
        self._bones.set_segments(_segments(keypoints, self.skeleton))
        self._joints.set_points(keypoints)

    def zoom(self, keypoints: np.ndarray, margin: float = 1.3) -> None:
        """Look at the square around some keypoints (J, 2) only."""
        known = keypoints[np.isfinite(keypoints).all(-1)]
        if not len(known):
            return
        low, high = known.min(0), known.max(0)
        (x, y), half = (low + high) / 2, margin * max(float((high - low).max()), 1.0) / 2
        self.axes.set_xlim(x - half, x + half)
        self.axes.set_ylim(y + half, y - half)

    def draw(self) -> None:
        """Draw what changes from frame to frame onto the figure's canvas."""
        for artist in self.moving:
            self.axes.draw_artist(artist)


class Panel3D:
    """A view of the world, z up, centred on the body; the floor passes below as the body moves over it."""

    def __init__(
        self,
        axes: Axes3D,
        skeleton: Skeleton,
        *,
        title: str = "",
        azimuth: float = 70.0,
        elevation: float = ELEVATION,
        radius: float = RADIUS,
    ) -> None:
        """Set up 3D axes for poses in metres.

        Args:
            axes: made with `projection="3d"`.
            skeleton: of the poses.
            title: over the panel.
            azimuth: of the viewer in degrees; the camera's own gives its view.
            elevation: of the viewer over the horizon, degrees.
            radius: metres across the panel.
        """
        self.axes, self.skeleton, self.radius = axes, skeleton, radius
        axes.set_proj_type("persp", focal_length=1.6)
        axes.view_init(elev=elevation, azim=azimuth)
        axes.set_xlim(-radius / 2, radius / 2)
        axes.set_ylim(-radius / 2, radius / 2)
        axes.set_zlim(0, radius)
        axes.set_box_aspect((1, 1, 1), zoom=_ZOOM)
        axes.set_axis_off()
        if title:
            axes.set_title(title, fontsize=11)
        self._floor = Lines(self._place, 0.8, zorder=1)
        self._floor.set_colours(FLOOR)
        self._bones = Lines(self._place, 2.4, zorder=2)
        self._bones.set_colours(bone_colours(skeleton))
        self.moving = (self._floor, self._bones)
        for artist in self.moving:
            axes.add_artist(artist)
        self._bones.set_clip_on(False)  # a jump may leave the panel

    def update(
        self,
        pose: np.ndarray,
        errors: np.ndarray | None = None,
        worst: float = 0.15,
        about: np.ndarray | None = None,
    ) -> None:
        """Show a pose (J, 3) in metres, z up; the view follows its root over the floor.

        Args:
            pose: joints of the skeleton.
            errors: (J,) metres; colours each bone by the error of its outer joint instead of by its side.
            worst: error in metres at the red end of the scale.
            about: (x, y) that the view follows instead; for several persons in one view.
        """
        x, y = pose[self.skeleton.root, :2] if about is None else about
        centre = np.array((x, y, 0.0))
        self._floor.set_segments(self._grid(x, y))
        self._bones.set_segments(_segments(pose - centre, self.skeleton))
        if errors is not None:
            ends = [child for child, _ in self.skeleton.bones]
            shades = colormaps["turbo"](0.1 + 0.85 * np.clip(errors[ends] / worst, 0, 1))
            self._bones.set_colours([to_hex(shade) for shade in shades])

    def draw(self) -> None:
        """Draw what changes from frame to frame onto the figure's canvas."""
        for artist in self.moving:
            self.axes.draw_artist(artist)

    def _place(self, points: np.ndarray) -> np.ndarray:
        """Pixels (..., 2) of points (..., 3); the axes have the matrix since they were drawn."""
        matrix = np.asarray(self.axes.M)
        seen = points @ matrix[:, :3].T + matrix[:, 3]  # homogeneous
        flat = (seen[..., :2] / seen[..., 3:]).reshape(-1, 2)
        return np.asarray(self.axes.transData.transform(flat)).reshape(*points.shape[:-1], 2)

    def _grid(self, x: float, y: float) -> np.ndarray:
        """Floor lines (lines, 2, 3) that lie still in the world while the view is centred on (x, y)."""
        reach = self.radius / 2
        lines = []
        for axis, at in ((0, x), (1, y)):
            ticks = np.arange(np.ceil((at - reach) / _GRID), np.floor((at + reach) / _GRID) + 1) * _GRID - at
            line = np.zeros((len(ticks), 2, 3))
            line[..., axis] = ticks[:, None]
            line[..., 1 - axis] = (-reach, reach)
            lines.append(line)
        return np.concatenate(lines)
