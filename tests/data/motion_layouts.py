"""Small BVH files as programs write them, and motion to put into files."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np

from kinema.core.skeleton import skeleton
from kinema.data.synthetic.actions import perform
from kinema.data.synthetic.skeleton import Body

H36M = skeleton("h36m17")

# (name, parent, offset in centimetres); an end site has no name. MotionBuilder's names, a T pose with y up, facing z.
PERSON: tuple[tuple[str, str, tuple[float, float, float]], ...] = (
    ("Hips", "", (0, 95, 0)),
    ("LeftUpLeg", "Hips", (9, 0, 0)),
    ("LeftLeg", "LeftUpLeg", (0, -43, 0)),
    ("LeftFoot", "LeftLeg", (0, -42, 0)),
    ("", "LeftFoot", (0, -8, 14)),
    ("RightUpLeg", "Hips", (-9, 0, 0)),
    ("RightLeg", "RightUpLeg", (0, -43, 0)),
    ("RightFoot", "RightLeg", (0, -42, 0)),
    ("", "RightFoot", (0, -8, 14)),
    ("Spine", "Hips", (0, 12, 0)),
    ("Spine1", "Spine", (0, 14, 0)),
    ("Spine2", "Spine1", (0, 14, 0)),
    ("Neck", "Spine2", (0, 14, 0)),
    ("Head", "Neck", (0, 10, 2)),
    ("", "Head", (0, 18, 0)),
    ("LeftShoulder", "Spine2", (5, 10, 0)),
    ("LeftArm", "LeftShoulder", (13, 0, 0)),
    ("LeftForeArm", "LeftArm", (28, 0, 0)),
    ("LeftHand", "LeftForeArm", (25, 0, 0)),
    ("", "LeftHand", (9, 0, 0)),
    ("RightShoulder", "Spine2", (-5, 10, 0)),
    ("RightArm", "RightShoulder", (-13, 0, 0)),
    ("RightForeArm", "RightArm", (-28, 0, 0)),
    ("RightHand", "RightForeArm", (-25, 0, 0)),
    ("", "RightHand", (-9, 0, 0)),
)
POSITION = ("Xposition", "Yposition", "Zposition")
ROTATION = ("Zrotation", "Xrotation", "Yrotation")


def bvh(
    frames: np.ndarray,
    joints: Sequence[tuple[str, str, tuple[float, float, float]]] = PERSON,
    *,
    rotation: Sequence[str] = ROTATION,
    fps: float = 50.0,
    scale: float = 1.0,
) -> str:
    """Text of a file: the root has six channels, the others three; `frames` is (T, 3 + 3 * joints)."""
    names = [name for name, _, _ in joints if name]
    assert frames.shape[1] == 3 + 3 * len(names)

    def block(index: int, indent: str) -> list[str]:
        name, parent, offset = joints[index]
        head = "End Site" if not name else f"JOINT {name}" if parent else f"ROOT {name}"
        channels = [*POSITION, *rotation] if not parent else list(rotation)
        inner = indent + "\t"
        lines = [indent + head, indent + "{", inner + "OFFSET " + " ".join(f"{scale * v:.6f}" for v in offset)]
        if name:
            lines.append(f"{inner}CHANNELS {len(channels)} {' '.join(channels)}")
            for child, (_, above, _) in enumerate(joints):
                if above == name and child > index:
                    lines += block(child, inner)
        return [*lines, indent + "}"]

    rows = [" ".join(f"{value:.6f}" for value in row) for row in frames]
    head = ["HIERARCHY", *block(0, ""), "MOTION", f"Frames: {len(frames)}", f"Frame Time: {1 / fps:.6f}"]
    return "\n".join([*head, *rows]) + "\n"


def moving(frames: int = 60, seed: int = 0, *, joints: int = 20, scale: float = 1.0) -> np.ndarray:
    """Channels of somebody who walks and waves: smooth, and another one for every seed."""
    rng = np.random.default_rng(seed)
    time = np.arange(frames)[:, None] / 50
    angles = 18 * np.sin(2 * np.pi * rng.uniform(0.4, 1.2, 3 * joints) * time + rng.uniform(0, 6, 3 * joints))
    angles[:, :3] *= 0.3  # the root stays upright
    place = np.concatenate([time * 80, 95 + np.sin(6 * time), time * 20], axis=1) * scale
    return np.concatenate([place, angles], axis=1)


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@cache
def walk(seed: int = 0, frames: int = 200, action: str = "walk") -> np.ndarray:
    """(T, 17, 3) world metres, z up."""
    rng = np.random.default_rng(seed)
    return perform(action, Body.draw(rng), rng, frames, 50.0).astype(np.float32)


def save(path: Path, pose: np.ndarray, **entries: object) -> Path:
    """Write a .npy, or a .npz with `pose3d`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npy":
        np.save(path, pose)
    else:
        np.savez(path, pose3d=pose, **entries)  # type: ignore[arg-type]
    return path
