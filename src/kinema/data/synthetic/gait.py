"""Actions that go somewhere or leave the floor: walk, run, turn, jump, jumping jack."""

from __future__ import annotations

import numpy as np

from kinema.data.synthetic.curves import Key, Path, curve, ellipse, step, wander
from kinema.data.synthetic.skeleton import SIDES, Motion, smooth
from kinema.data.synthetic.take import Take

_GRAVITY = 9.81


def _gait_arms(motion: Motion, strides: np.ndarray, swing: float, elbow: tuple[float, float], forward: float) -> None:
    """Swing the arms against the legs; `elbow` bends from its first value behind to its second in front."""
    wave = np.cos(2 * np.pi * strides)
    for side, sign in (("left", -1.0), ("right", 1.0)):
        motion.angles[f"{side}_flex"] = forward + sign * swing * wave
        motion.angles[f"{side}_elbow"] = elbow[0] + (elbow[1] - elbow[0]) * 0.5 * (1 + sign * wave)


def _round_trip(take: Take, stride: float, wide: float, narrow: float) -> tuple[Path, int]:
    turn = 1 if take.rng.random() < 0.5 else -1
    centre = 0.3 * take.place
    return ellipse(centre, (wide, narrow), take.heading, take.between(0.0, 1.0), stride, turn), turn


def walk(take: Take) -> Motion:
    """Walk around an ellipse."""
    motion, body = take.stand(), take.body
    speed = take.between(0.9, 1.4)
    rate = 0.93 * (speed / 1.25) ** 0.5 * (0.9 / body.leg) ** 0.5  # strides per second grow with speed
    strides = take.between(0.0, 1.0) + rate * take.time + 0.02 * wander(take.time, take.rng, 1.0, 0.2)
    path, turn = _round_trip(take, speed / rate, take.between(1.25, 1.55), take.between(1.0, 1.25))
    along: list[Key] = [(0, 0), (0.44, 0), (0.54, 0.015), (0.62, 0.06), (0.72, 0.30), (0.85, 0.76), (0.95, 0.985),
                        (1, 1)]  # fmt: skip
    high = take.between(0.10, 0.14)
    lift: list[Key] = [(0, 0.012), (0.06, 0), (0.40, 0), (0.53, 0.03), (0.62, 0.075), (0.72, high), (0.86, 0.045),
                       (0.94, 0.03), (1, 0.012)]  # fmt: skip
    step(motion, strides, path, 0.62, along, lift, take.between(0.055, 0.085))
    beat = 2 * np.pi * strides
    motion.shift(
        left=0.022 * np.cos(beat - 2 * np.pi * 0.31), up=-0.028 - 0.018 * np.cos(2 * (beat - 2 * np.pi * 0.06))
    )
    motion.angles["pelvis_turn"] = -take.between(4, 8) * np.cos(beat)
    motion.angles["pelvis_roll"] = 3 * np.cos(beat - 2 * np.pi * 0.2) - turn * 2
    motion.angles["spine_turn"] = take.between(9, 16) * np.cos(beat)
    motion.angles["spine_bend"] += take.between(0, 7)
    motion.angles["head_turn"] = -0.5 * motion.angles["spine_turn"] + turn * take.between(3, 12)
    elbow = take.between(12, 24)
    _gait_arms(motion, strides - 0.04, take.between(18, 32), (elbow, elbow + take.between(10, 25)), 2.0)
    return motion


def run(take: Take) -> Motion:
    """Run around an ellipse, leaning into it, with both feet off the floor twice per stride."""
    motion, body = take.stand(), take.body
    speed = take.between(2.0, 2.7)
    rate = take.between(1.30, 1.45) * (0.9 / body.leg) ** 0.5
    strides = take.between(0.0, 1.0) + rate * take.time
    path, turn = _round_trip(take, speed / rate, take.between(1.4, 1.6), take.between(1.2, 1.35))
    along: list[Key] = [(0, 0), (0.27, 0), (0.36, 0.05), (0.55, 0.36), (0.72, 0.74), (0.88, 1.0), (1, 1)]
    heel = take.between(0.30, 0.40)
    lift: list[Key] = [
        (0, 0.01),
        (0.06, 0),
        (0.20, 0),
        (0.36, 0.12),
        (0.54, heel),
        (0.72, 0.26),
        (0.88, 0.09),
        (1, 0.01),
    ]
    step(motion, strides, path, 0.36, along, lift, 0.045)
    beat = 2 * np.pi * strides
    # Half of the balanced lean tan(a) = v^2 / (r g): feet under the body's track, shoulders inside the curve.
    lean = np.degrees(np.arctan(speed**2 / (1.35 * _GRAVITY))) * 0.5
    motion.shift(left=turn * 0.06, up=-0.045 - 0.045 * np.cos(2 * (beat - 2 * np.pi * 0.17)))
    motion.angles["pelvis_pitch"] += take.between(6, 11)
    motion.angles["pelvis_turn"] = -take.between(6, 10) * np.cos(beat + 0.85)
    motion.angles["pelvis_roll"] = 3 * np.cos(beat - 2 * np.pi * 0.17) - turn * 0.6 * lean
    motion.angles["spine_side"] -= turn * 0.4 * lean
    motion.angles["spine_turn"] = take.between(14, 22) * np.cos(beat + 0.85)
    motion.angles["spine_bend"] += take.between(2, 8)
    motion.angles["head_turn"] = -0.5 * motion.angles["spine_turn"] + turn * 8
    motion.angles["head_nod"] -= 8
    elbow = take.between(75, 90)
    motion.both("abduct", take.between(12, 20))
    motion.both("twist", take.between(15, 30))
    _gait_arms(motion, strides + 0.14, take.between(32, 45), (elbow, elbow + take.between(5, 25)), -6.0)
    return motion


def turn(take: Take) -> Motion:
    """Turn around in place by small steps, look about, and turn on."""
    motion = take.stand()
    rate = take.between(0.85, 1.05)
    strides = take.between(0.0, 1.0) + rate * take.time
    way = 1 if take.rng.random() < 0.5 else -1
    keys: list[Key] = [(strides[0] - 1, take.heading)]
    while keys[-1][0] < strides[-1] + 2:
        last, facing = keys[-1]
        rested = last + take.between(0.4, 1.0)
        angle = way * take.between(1.2, 3.1)
        keys += [(rested, facing), (rested + abs(angle) / take.between(0.9, 1.3), facing + angle)]
        way = -way if take.rng.random() < 0.4 else way
    spot = take.place

    def path(at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.tile(spot, (len(at), 1)), curve(at, keys)

    along: list[Key] = [(0, 0), (0.60, 0), (0.70, 0.15), (0.90, 0.9), (1, 1)]
    step(motion, strides, path, 0.62, along, [(0, 0), (0.58, 0), (0.78, 0.09), (1, 0)], 0.9 * take.body.hip_width)
    pace = np.gradient(motion.heading, take.time)
    motion.shift(left=0.025 * np.clip(np.abs(pace), 0, 1) * np.cos(2 * np.pi * (strides - 0.31)), up=-0.006)
    # Head and shoulders go ahead of the pelvis.
    motion.angles["head_turn"] = np.degrees(np.clip(0.30 * pace, -0.7, 0.7))
    motion.angles["spine_turn"] = np.degrees(np.clip(0.12 * pace, -0.3, 0.3))
    motion.both("abduct", 9 + 5 * np.clip(np.abs(pace), 0, 1))
    return motion


def jump(take: Take) -> Motion:
    """Jump on the spot again and again: crouch with the arms back, push off, fly, land soft, stand."""
    motion = take.stand(take.between(0.9, 1.2))
    height = take.between(0.16, 0.34)
    flight = 2 * np.sqrt(2 * height / _GRAVITY)
    dip, rest = take.between(0.22, 0.32), take.between(0.15, 0.6)
    crouch, push, land = take.between(0.45, 0.6), 0.26, 0.24
    off = rest + crouch + push
    period = off + flight + land + 0.55
    time = np.mod(take.time + take.between(0.0, 0.5) * rest, period)
    rise = 0.02 + 0.05  # heels off the floor at take-off: the body leaves higher than it stands
    keys: list[Key] = [(0, -0.004), (rest, -0.004), (rest + crouch, -dip), (off - 0.04, rise - 0.10), (off, rise)]
    up = curve(time, keys)
    since = time - off
    flying = (since >= 0) & (since < flight)
    up = np.where(flying, rise + 0.5 * _GRAVITY * since * (flight - since), up)
    after = since - flight
    down: list[Key] = [(0, rise), (0.07, rise - 0.13), (land, -0.8 * dip), (land + 0.55, -0.004)]
    up = np.where(after >= 0, curve(after, down), up)
    # Gait of the pelvis over the feet: back in the crouch, above them in the air.
    motion.shift(forward=0.25 * np.clip(up, -1, 0), up=smooth(up, 1.0))
    heel = np.interp(time, [off - 0.14, off, off + flight, off + flight + 0.06], [0.0, rise, rise, 0.0])
    tuck = take.between(0.0, 0.12) * np.sin(np.pi * np.clip(since / flight, 0, 1)) ** 2
    for foot in SIDES:
        motion.ankles[foot][:, 2] += heel + tuck + np.where(flying, up - rise, 0.0)
    bent = np.clip(-up / dip, 0, 1)
    motion.angles["pelvis_pitch"] += 38 * bent
    motion.angles["spine_bend"] += 14 * bent
    motion.angles["head_nod"] -= 22 * bent
    reach = take.between(70, 140)
    swing: list[Key] = [(0, 3), (rest, 3), (rest + crouch, -42), (off, 0.6 * reach), (off + 0.5 * flight, reach),
                        (off + flight, 0.6 * reach), (off + flight + land, 22), (period, 3)]  # fmt: skip
    motion.both("flex", curve(time, swing))
    motion.both("elbow", 18 + 22 * np.clip(curve(time, swing) / reach, 0, 1))
    return motion


def jumping_jack(take: Take) -> Motion:
    """Hop feet apart and together while the arms swing up and down at the sides."""
    motion = take.stand(0.8)
    time, period = take.cycle(0.95, 1.3)
    phase = np.mod(time / period, 1.0)
    apart = curve(phase, [(0, 0), (0.13, 0), (0.35, 1), (0.63, 1), (0.85, 0)], 1.0)
    hop = take.between(0.05, 0.10)
    # Two hops per cycle: outwards and back.
    air = np.sin(np.pi * np.clip((np.mod(phase - 0.08, 0.5)) / 0.32, 0, 1)) ** 2
    spread = take.between(0.26, 0.36)
    for foot, sign in (("left", 1.0), ("right", -1.0)):
        moved = motion.ankles[foot] + sign * spread * apart[:, None] * np.array(
            (-np.sin(take.heading), np.cos(take.heading), 0)
        )
        moved[:, 2] += hop * air
        motion.ankles[foot] = moved
    motion.shift(up=-0.02 + 0.9 * hop * air - 0.02 * (1 - air))
    motion.both("abduct", 10 + take.between(135, 155) * apart)
    motion.both("flex", 4.0)
    motion.both("elbow", 12 + 26 * apart)
    motion.both("twist", -20 * apart)
    motion.both("toe_out", 8 + 14 * apart)
    motion.angles["spine_bend"] += 3
    return motion
