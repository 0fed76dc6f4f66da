"""The built-in data set: people of different sizes acting in front of four cameras, made from a seed in seconds."""

from __future__ import annotations

import difflib
import hashlib
import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from kinema.core.camera import project, to_pixels, world_to_camera
from kinema.core.preprocess import preprocess as named_preprocess
from kinema.data.raw import known_options
from kinema.data.sequences import Sequences
from kinema.data.synthetic.actions import ACTIONS, perform
from kinema.data.synthetic.cameras import detect, rig
from kinema.data.synthetic.skeleton import SKELETON, Body
from kinema.errors import ConfigError

# Raised when the result of `read` changes: part of the cache's key.
VERSION = 1

# The subjects of Human3.6M, so that its usual split (train on five, test on S9 and S11) works unchanged.
SUBJECTS = ("S1", "S5", "S6", "S7", "S8", "S9", "S11")


def files(root: Path, **options: Any) -> list[Path]:
    """No raw files: everything is computed. Unknown options are refused here, before anything is."""
    known_options("synthetic", options, {key: None for key in inspect.signature(read).parameters if key != "root"})
    return []


def describe() -> str:
    """One paragraph for --info and the doctor."""
    return (
        "Synthetic motion: an articulated 17-joint skeleton driven by parametrised actions "
        f"({', '.join(ACTIONS)}), seven subjects of different sizes, four cameras, 50 frames per second, keypoints of "
        "a simulated detector. Nothing to download; the same seed gives the same motion."
    )


def read(
    root: Path,
    *,
    seed: int = 0,
    actions: Sequence[str] | None = None,
    takes: int = 1,
    frames: int = 200,
    fps: float = 50.0,
    noise: float = 1.0,
    preprocess: str = "videopose3d",
) -> Sequences:
    """Generate the data set.

    Args:
        root: not read.
        seed: of bodies, cameras, motion and detector noise.
        actions: names to perform; None = all.
        takes: of every action by every subject.
        frames: per take.
        fps: frames per second.
        noise: strength of the simulated detector's errors; 0 gives exact keypoints with score 1.
        preprocess: way from pixels to network units.

    Returns:
        One row per subject, action, take and camera, with `pose2d` (N, 17, 3), scores as third channel, and
        `pose3d` (N, 17, 3) in camera space; the column `label` numbers the actions as `meta["classes"]` lists them.
    """
    chosen = tuple(ACTIONS) if actions is None else tuple(actions)
    _check(chosen, takes, frames, fps, noise)
    way = named_preprocess(preprocess)
    items = []
    for subject in SUBJECTS:
        body = Body.draw(generator(seed, subject, "body"))
        cameras = rig(generator(seed, subject, "cameras"))
        for action in chosen:
            for take in range(takes):
                # Takes are named as in Human3.6M: "walk", "walk 1", ...
                trial = f"{action} {take}" if take else action
                world = perform(action, body, generator(seed, subject, trial), frames, fps).astype(np.float32)
                for number, camera in enumerate(cameras):
                    pose3d = world_to_camera(world, camera.orientation, camera.translation)
                    exact = to_pixels(project(pose3d, camera.intrinsics), camera.width, camera.height)
                    pixels, score = exact, np.ones(exact.shape[:2])
                    if noise > 0:
                        pixels, score = detect(exact, SKELETON, generator(seed, subject, trial, number), fps, noise)
                    seen = np.concatenate((pixels, score[..., None]), -1).astype(np.float32)
                    items.append(
                        {
                            "pose2d": way.to_network(seen, camera.width, camera.height),
                            "pose3d": pose3d.astype(np.float32),
                            "subject": subject,
                            "action": action,
                            "trial": trial,
                            "camera": str(number),
                            "label": chosen.index(action),
                            "fps": float(fps),
                            "width": camera.width,
                            "height": camera.height,
                            "intrinsics": camera.intrinsics,
                            "orientation": camera.orientation,
                            "translation": camera.translation,
                            "azimuth": np.float32(camera.azimuth),
                        }
                    )
    return Sequences.from_arrays(
        items, skeleton=SKELETON, skeleton2d=SKELETON, space="camera", meta={"classes": list(chosen)}
    )


def _check(actions: tuple[str, ...], takes: int, frames: int, fps: float, noise: float) -> None:
    refuse_unknown(actions)
    for key, value, least in (("takes", takes, 1), ("frames", frames, 2), ("fps", fps, 1), ("noise", noise, 0)):
        if value < least:
            raise ConfigError(f"dataset.reader_options.{key}={value}: synthetic motion needs at least {least}.")


def refuse_unknown(actions: Sequence[str]) -> None:
    """Refuse names that are no synthetic action.

    Raises:
        ConfigError: with the nearest known one.
    """
    for name in actions:
        if name not in ACTIONS:
            near = difflib.get_close_matches(name, ACTIONS, n=1)
            hint = f"Did you mean {near[0]!r}?" if near else f"Known: {', '.join(ACTIONS)}."
            raise ConfigError(f"No synthetic action is called {name!r}. {hint}")


def generator(seed: int, *names: object) -> np.random.Generator:
    """A counter-based generator keyed by the seed and by what is drawn: no draw depends on another's order."""
    text = "/".join(str(name) for name in (seed, *names))
    return np.random.Generator(
        np.random.Philox(key=int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], "little"))
    )
