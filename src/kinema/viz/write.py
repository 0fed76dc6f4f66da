"""A clip into files: contact sheets and moving pictures, all drawn in one pass that holds one frame at a time."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path

import numpy as np

from kinema.core.skeleton import Skeleton
from kinema.errors import DataError
from kinema.viz.clip import opened
from kinema.viz.figures import Scene, contact_sheet, moments
from kinema.viz.prepare import Clip

# GIFs of more frames per second are large and shown too slowly by many programs: frames are left out, the speed stays.
_GIF_FPS = 25.0


def write(
    paths: Sequence[Path],
    clip: Clip,
    skeleton2d: Skeleton,
    skeleton: Skeleton,
    size: float = 5.0,
    bitrate: int = 3000,
    pictures: Generator[np.ndarray, None, None] | None = None,
) -> int:
    """Write a clip as contact sheets (.png) and moving pictures (.gif, .mp4), by the ending of the paths.

    Every frame is decoded and drawn once for all files and then forgotten.

    Returns:
        Frames drawn: all, or those before the end of the video.
    """
    assert clip.fps is not None
    sheets = [path for path in paths if path.suffix.lower() == ".png"]
    colours = 255 if pictures is not None else 32
    wanted = set(moments(clip))
    kept: dict[int, np.ndarray] = {}
    drawn = len(clip)
    with ExitStack() as stack:
        if pictures is not None:
            stack.enter_context(closing(pictures))
        writers = []
        for path in (path for path in paths if path not in sheets):
            every = max(1, round(clip.fps / _GIF_FPS)) if path.suffix.lower() == ".gif" else 1
            writer = opened(path, clip.fps / every, bitrate=bitrate, colours=colours)
            writers.append((every, stack.enter_context(writer)))
        scene = Scene(clip, skeleton2d, skeleton, size) if writers else None
        for number in range(len(clip)) if writers or pictures is not None else ():
            picture = None if pictures is None else next(pictures, None)
            if pictures is not None and picture is None:
                drawn = number
                break
            if picture is not None and number in wanted:
                kept[number] = picture
            due = [add for every, add in writers if number % every == 0]
            if scene is not None and due:
                frame = scene.draw(clip.keypoints[number], [pose[number] for pose in clip.poses.values()], picture)
                for add in due:
                    add(frame)
        if not drawn:
            raise DataError("The video ends before the first frame that is to be drawn. Use a smaller render.skip.")
    for path in sheets:
        path.parent.mkdir(parents=True, exist_ok=True)
        shown = kept if pictures is not None else None
        contact_sheet(clip, skeleton2d, skeleton, shown).savefig(path)
    return drawn
