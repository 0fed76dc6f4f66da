"""Skeletons in matplotlib: panels that are set up once and updated frame by frame.

No pyplot: a `Figure` of this module belongs to nobody but the caller and is gone with its last reference.
"""

from __future__ import annotations

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from mpl_toolkits.mplot3d.art3d import Line3DCollection
from mpl_toolkits.mplot3d.axes3d import Axes3D

from kinema.core.skeleton import Skeleton

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
        self._picture = axes.imshow(
            np.zeros((1, 1, 3), np.uint8), extent=(0, width, height, 0), zorder=0, visible=False
        )
        colours = bone_colours(skeleton)
        self._bones = LineCollection([], colors=colours, linewidths=2.0, capstyle="round", zorder=2)
        axes.add_collection(self._bones, autolim=False)
        joints = [RIGHT if joint in skeleton.right else OTHER for joint in range(len(skeleton))]
        self._joints = axes.scatter(
            np.zeros(len(skeleton)),
            np.zeros(len(skeleton)),
            s=11,
            c=joints,
            edgecolors="white",
            linewidths=0.5,
            zorder=3,
        )
        self.moving = (self._picture, self._bones, self._joints)

    def update(self, keypoints: np.ndarray, picture: np.ndarray | None = None) -> None:
        """Show keypoints (J, 2) in pixels, over a picture (H, W, 3) of the video if there is one.

        A keypoint that is not finite is left out together with its bones.
        """
        if picture is not None:
            if not self._picture.get_visible():
                self._picture.set_visible(True)
                self._bones.set_color(bone_colours(self.skeleton, other=ON_DARK))
            self._picture.set_data(picture)
        self._bones.set_segments(list(_segments(keypoints, self.skeleton)))
        self._joints.set_offsets(keypoints)

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
        self._floor = Line3DCollection(self._grid(0.0, 0.0), colors=FLOOR, linewidths=0.8)
        self._bones = Line3DCollection([], colors=bone_colours(skeleton), linewidths=2.4, capstyle="round")
        self.moving = (self._floor, self._bones)
        for artist in self.moving:
            # A collection without lines cannot be added to 3D axes.
            artist.set_segments(self._grid(0.0, 0.0))
            axes.add_collection3d(artist, autolim=False)
        self._bones.set_clip_on(False)  # a jump may leave the panel

    def update(self, pose: np.ndarray, errors: np.ndarray | None = None, worst: float = 0.15) -> None:
        """Show a pose (J, 3) in metres, z up; the view follows its root over the floor.

        Args:
            pose: joints of the skeleton.
            errors: (J,) metres; colours each bone by the error of its outer joint instead of by its side.
            worst: error in metres at the red end of the scale.
        """
        x, y = pose[self.skeleton.root, :2]
        centre = np.array((x, y, 0.0))
        self._floor.set_segments(self._grid(x, y))
        self._bones.set_segments(_segments(pose - centre, self.skeleton))
        if errors is not None:
            ends = [child for child, _ in self.skeleton.bones]
            self._bones.set_color(colormaps["turbo"](0.1 + 0.85 * np.clip(errors[ends] / worst, 0, 1)))

    def draw(self) -> None:
        """Draw what changes from frame to frame onto the figure's canvas."""
        self.axes.M = self.axes.get_proj()
        for artist in self.moving:
            artist.do_3d_projection()
            self.axes.draw_artist(artist)

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
