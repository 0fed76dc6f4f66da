"""Draw actions of the synthetic data set side by side: python scripts/draw_synthetic.py docs/assets/synthetic.gif."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from kinema.data.synthetic.actions import ACTIONS, perform
from kinema.data.synthetic.skeleton import SKELETON, Body
from kinema.viz.clip import write_clip
from kinema.viz.skeleton import Panel3D, new_figure, picture_of


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("output", type=Path, help=".gif or .mp4")
    parser.add_argument("--actions", nargs="*", default=list(ACTIONS), help="names, in reading order")
    parser.add_argument("--columns", type=int, default=6)
    parser.add_argument("--size", type=float, default=1.0, help="inches per action")
    parser.add_argument("--seconds", type=float, default=2.8)
    parser.add_argument("--fps", type=float, default=16.0)
    parser.add_argument("--colours", type=int, default=16, help="of a .gif")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    count = write_clip(options.output, frames(options), options.fps, colours=options.colours)
    print(f"{options.output}: {count} frames, {options.output.stat().st_size / 1024:.0f} KB")


def frames(options: argparse.Namespace) -> Iterator[np.ndarray]:
    """Yield the pictures, one body per action."""
    rows = -(-len(options.actions) // options.columns)
    figure = new_figure(options.size * options.columns, 1.12 * options.size * rows)
    panels, motions = [], []
    for number, name in enumerate(options.actions):
        rng = np.random.default_rng([options.seed, number])
        motions.append(perform(name, Body.draw(rng), rng, round(options.seconds * options.fps), options.fps))
        hips = motions[-1][0, SKELETON.index("left_hip")] - motions[-1][0, SKELETON.index("right_hip")]
        ahead = np.degrees(np.arctan2(-hips[0], hips[1]))
        row, column = divmod(number, options.columns)
        box = (column / options.columns, 1 - (row + 1) / rows, 1 / options.columns, 0.86 / rows)
        axes = figure.add_axes(box, projection="3d")
        panels.append(Panel3D(axes, SKELETON, azimuth=ahead - 50, radius=1.9))
        middle = (column + 0.5) / options.columns
        figure.text(middle, 1 - (row + 0.09) / rows, name.replace("_", " "), fontsize=8, ha="center", va="center")
    for frame in range(len(motions[0])):
        for panel, motion in zip(panels, motions, strict=True):
            panel.update(motion[frame])
        yield picture_of(figure)


if __name__ == "__main__":
    main()
