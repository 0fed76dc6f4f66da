"""Curves through a few keys, and the rhythm of steps: what actions are drawn with."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from kinema.data.synthetic.skeleton import Motion, in_frame

Key = tuple[float, float]
# Where the body is after so many strides: strides (...) -> place (..., 2) in metres and heading (...) in radians.
Path = Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]


def curve(time: np.ndarray, keys: Sequence[Key], period: float | None = None) -> np.ndarray:
    """Values at `time` of a smooth curve through keys (time, value), without overshoot between them.

    Monotone cubic interpolation; before the first and after the last key the value is held. With a period the keys
    describe one cycle and the curve repeats (the keys lie in [0, period)).

    Source: Fritsch and Butland 1984 (slopes: weighted harmonic mean).
    """
    x, y = np.array(keys, float).T
    if period is not None:
        x = np.concatenate((x - period, x, x + period))
        y = np.tile(y, 3)
        time = np.mod(time, period)
    step = np.diff(x)
    slope = np.diff(y) / step
    before, after = slope[:-1], slope[1:]
    weight_before, weight_after = 2 * step[1:] + step[:-1], step[1:] + 2 * step[:-1]
    rising = before * after > 0
    safe_before, safe_after = np.where(rising, before, 1.0), np.where(rising, after, 1.0)
    mean = (weight_before + weight_after) / (weight_before / safe_before + weight_after / safe_after)
    tangent = np.concatenate(([0.0], np.where(rising, mean, 0.0), [0.0]))
    held = np.clip(time, x[0], x[-1])
    at = np.clip(np.searchsorted(x, held, side="right") - 1, 0, len(step) - 1)
    u = (held - x[at]) / step[at]
    return np.asarray(
        y[at] * (1 + 2 * u) * (1 - u) ** 2
        + step[at] * tangent[at] * u * (1 - u) ** 2
        + y[at + 1] * u**2 * (3 - 2 * u)
        + step[at] * tangent[at + 1] * u**2 * (u - 1)
    )


def wander(time: np.ndarray, rng: np.random.Generator, amplitude: float, rate: float = 0.5) -> np.ndarray:
    """Slow irregular movement of a living body: a sum of four sines around a rate in Hz, of a standard deviation."""
    rates = rate * rng.uniform(0.4, 1.8, 4)
    phases = rng.uniform(0.0, 2 * np.pi, 4)
    return np.asarray(amplitude * np.sqrt(0.5) * np.sin(2 * np.pi * rates * time[:, None] + phases).sum(-1))


def ellipse(
    centre: np.ndarray, radii: tuple[float, float], tilt: float, start: float, stride: float, turn: int
) -> Path:
    """A path around an ellipse at even speed: `stride` metres per stride, `turn` +1 to the left, -1 to the right."""
    angle = np.linspace(0.0, 2 * np.pi, 4097)
    outline = np.stack((radii[0] * np.cos(angle), turn * radii[1] * np.sin(angle)), -1)
    cos, sin = np.cos(tilt), np.sin(tilt)
    outline = outline @ np.array(((cos, sin), (-sin, cos)))
    length = np.concatenate(([0.0], np.cumsum(np.linalg.norm(np.diff(outline, axis=0), axis=-1))))
    tangent = np.gradient(outline, axis=0)
    facing = np.unwrap(np.arctan2(tangent[:, 1], tangent[:, 0]))
    # The one-sided differences at the seam would leave a kink once per lap.
    facing[0] = 0.5 * (facing[0] + facing[-1] - turn * 2 * np.pi)
    facing[-1] = facing[0] + turn * 2 * np.pi

    def path(strides: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        laps, along = np.divmod(strides * stride + start * length[-1], length[-1])
        place = np.stack([np.interp(along, length, axis) for axis in outline.T], -1)
        return centre + place, np.interp(along, length, facing) + laps * turn * 2 * np.pi

    return path


def step(
    motion: Motion,
    strides: np.ndarray,
    path: Path,
    duty: float,
    along: Sequence[Key],
    lift: Sequence[Key],
    width: float,
) -> None:
    """Put pelvis, heading and ankles of a walker: every footprint is left alone while the foot stands on it.

    Args:
        motion: changed in place.
        strides: (T,) phase of the left foot: whole numbers are its heel strikes; the right foot is half a stride later.
        path: of the pelvis.
        duty: part of a stride that a foot stands.
        along: keys (phase in [0, 1], part of the way from this footprint to the next).
        lift: keys (phase in [0, 1], height of the ankle over standing, metres).
        width: of the feet from the path, metres.
    """
    place, motion.heading = path(strides)
    motion.root = np.concatenate((place, motion.root[:, 2:]), -1)
    for side, sign, late in (("left", 1.0, 0.0), ("right", -1.0, 0.5)):
        number, phase = np.divmod(strides - late, 1.0)
        prints = []
        for which in (number, number + 1):
            spot, facing = path(which + late + 0.5 * duty)
            prints.append(
                np.concatenate((spot, np.zeros((len(spot), 1))), -1) + in_frame(facing, 0.0, sign * width, 0.0)
            )
        ankle = prints[0] + (prints[1] - prints[0]) * curve(phase, along)[:, None]
        # Someone who stays where he is does not lift his feet.
        moved = np.linalg.norm(prints[1] - prints[0], axis=-1)
        ankle[:, 2] = motion.body.ankle + curve(phase, lift) * np.clip(moved / 0.1, 0.0, 1.0)
        motion.ankles[side] = ankle
