"""The actions by name, and their performance: each take differs in speed, size, place and style."""

from __future__ import annotations

import difflib
from collections.abc import Callable

import numpy as np

from kinema.data.synthetic import gait, gestures
from kinema.data.synthetic.curves import wander
from kinema.data.synthetic.skeleton import ANGLES, SIDES, Body, Motion, smooth, solve
from kinema.data.synthetic.take import Take
from kinema.errors import ConfigError

ACTIONS: dict[str, Callable[[Take], Motion]] = {
    make.__name__: make
    for make in (
        gait.walk,
        gait.run,
        gait.turn,
        gait.jump,
        gait.jumping_jack,
        gestures.squat,
        gestures.sit_down,
        gestures.kick,
        gestures.punch,
        gestures.wave,
        gestures.throw,
        gestures.pick_up,
    )
}


def perform(
    name: str, body: Body, rng: np.random.Generator, frames: int, fps: float, *, tempo: float = 0.0
) -> np.ndarray:
    """Act one take.

    Args:
        name: of the action.
        body: who acts.
        rng: of this take.
        frames: its length.
        fps: frames per second.
        tempo: how far the tempo drifts within the take, relative standard deviation; 0 keeps it even. Flights then last
            a little longer or shorter than gravity says.

    Returns:
        (T, 17, 3) world positions, metres, z up, floor at 0.

    Raises:
        ConfigError: for an unknown action, with the nearest known one.
    """
    if name not in ACTIONS:
        near = difflib.get_close_matches(name, ACTIONS, n=1)
        hint = f"Did you mean {near[0]!r}?" if near else f"Known: {', '.join(ACTIONS)}."
        raise ConfigError(f"No synthetic action is called {name!r}. {hint}")
    side = SIDES[int(rng.random() < 0.85)]  # most people are right-handed
    time = np.arange(frames) / fps
    if tempo > 0:
        pace = np.exp(wander(time, rng, tempo, 0.2))
        time = np.cumsum(pace) / fps - pace[0] / fps
    take = Take(body, rng, time, rng.uniform(-0.4, 0.4, 2), rng.uniform(-np.pi, np.pi), side)
    motion = ACTIONS[name](take)
    for angle in ANGLES:
        trunk = angle.split("_")[0] in ("spine", "pelvis")
        motion.angles[angle] = motion.angles[angle] + wander(take.time, rng, 0.6 if trunk else 1.6)
    motion.shift(wander(take.time, rng, 0.006, 0.3), wander(take.time, rng, 0.006, 0.3))
    # Keys have corners in their acceleration; bodies have mass. 40 ms blur them and leave the posture alone.
    width = 0.04 * fps
    motion.angles = {angle: smooth(values, width) for angle, values in motion.angles.items()}
    motion.root = smooth(motion.root, 0.5 * width)
    motion.ankles = {foot: smooth(path, 0.35 * width) for foot, path in motion.ankles.items()}
    return solve(motion)
