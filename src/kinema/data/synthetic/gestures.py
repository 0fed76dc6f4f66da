"""Actions in one place: squat, sit down, kick, punch, wave, throw, pick up."""

from __future__ import annotations

import numpy as np

from kinema.data.synthetic.curves import Key, curve, wander
from kinema.data.synthetic.skeleton import SIDES, Motion, smooth
from kinema.data.synthetic.take import OTHER, Take


def squat(take: Take) -> Motion:
    """Bend the knees deep with the arms held forward, and stand up, again and again."""
    motion, body = take.stand(take.between(1.2, 1.5)), take.body
    time, period = take.cycle(2.2, 3.2)
    deep = curve(np.mod(time / period, 1.0), [(0, 0), (0.08, 0), (0.45, 1), (0.55, 1), (0.92, 0)], 1.0)
    depth = take.between(0.42, 0.56) * body.leg
    motion.shift(forward=-0.16 * deep, up=-0.004 - depth * deep)
    motion.angles["pelvis_pitch"] += take.between(28, 40) * deep
    motion.angles["spine_bend"] += take.between(6, 14) * deep
    motion.angles["head_nod"] -= 30 * deep
    motion.both("flex", 4 + take.between(105, 125) * deep)
    motion.both("across", take.between(0, 12) * deep)
    motion.both("elbow", 16 - 4 * deep)
    motion.both("toe_out", take.between(16, 28))
    return motion


def sit_down(take: Take) -> Motion:
    """Sit down on a seat behind, rest with the hands on the thighs, and stand up."""
    motion, body = take.stand(), take.body
    time, period = take.cycle(3.8, 5.0)
    phase = np.mod(time / period, 1.0)
    seat = take.between(0.50, 0.56) - body.hip_height
    low = curve(phase, [(0, 0), (0.10, 0), (0.34, 1), (0.72, 1), (0.94, 0)], 1.0)
    back = curve(phase, [(0, 0), (0.07, 0), (0.32, 1), (0.74, 1), (0.96, 0)], 1.0)
    motion.shift(forward=-take.between(0.86, 0.95) * body.bone("left_knee") * back, up=-0.004 + seat * low)
    # The trunk swings forward over the feet whenever the seat is left or reached.
    keys: list[Key] = [(0, 0), (0.05, 0), (0.22, 1), (0.38, 0.12), (0.64, 0.10), (0.77, 1), (0.95, 0)]
    lean = curve(phase, keys, 1.0)
    motion.angles["pelvis_pitch"] += take.between(30, 40) * lean - 4 * low
    motion.angles["spine_bend"] += take.between(12, 22) * lean + take.between(0, 8) * low
    motion.angles["head_nod"] -= 20 * lean
    motion.angles["head_turn"] += low * wander(take.time, take.rng, 14, 0.3)
    # Hands: reach forward for balance, then come to rest on the thighs.
    motion.both("flex", 2 + 30 * low + take.between(10, 30) * lean)
    motion.both("elbow", 16 + 34 * low)
    motion.both("twist", 12 + 12 * low)
    motion.both("abduct", 9 + 3 * low)
    return motion


def kick(take: Take) -> Motion:
    """Step into a kick: swing the leg back, forward and high, and set it down again."""
    motion = take.stand()
    foot, stand = take.side, OTHER[take.side]
    sign = take.sign
    time, period = take.cycle(1.7, 2.3)
    phase = np.mod(time / period, 1.0)
    high = take.between(0.45, 0.85)
    forward: list[Key] = [
        (0, 0),
        (0.10, 0),
        (0.26, -0.42),
        (0.33, -0.20),
        (0.44, take.between(0.78, 0.86)),
        (0.60, 0.22),
        (0.72, 0),
    ]
    up: list[Key] = [(0, 0), (0.08, 0), (0.26, 0.34), (0.34, 0.12), (0.44, high), (0.60, 0.28), (0.72, 0.02), (0.76, 0)]
    move = np.stack([curve(phase, keys, 1.0) for keys in (forward, up)], -1)
    motion.ankles[foot][:, :2] += move[:, :1] * take.facing
    motion.ankles[foot][:, 2] += move[:, 1]
    away = np.clip(np.abs(move).sum(-1) / 0.3, 0, 1)
    swing = np.clip(move[:, 0] / 0.7, -0.6, 1)
    motion.shift(forward=-0.04 * swing, left=-sign * 0.085 * smooth(away, 3.0), up=-0.006 - 0.03 * away)
    motion.angles["pelvis_pitch"] -= 16 * swing
    motion.angles["pelvis_turn"] += -sign * 14 * swing
    motion.angles["spine_bend"] += 14 * np.clip(swing, 0, 1)
    motion.angles["spine_turn"] += sign * 22 * swing
    motion.both("abduct", 14 + 30 * away)
    motion.angles[f"{stand}_flex"] = 4 + 48 * swing
    motion.angles[f"{foot}_flex"] = 4 - 42 * swing
    motion.both("elbow", 22 + 20 * away)
    return motion


def punch(take: Take) -> Motion:
    """Box: guard up, light on bent knees, punching with one hand and the other."""
    motion = take.stand(1.25)
    back = take.side
    sign = take.sign
    for foot in SIDES:
        motion.ankles[foot][:, :2] += (-0.20 if foot == back else 0.20) * take.facing
    time, period = take.cycle(1.25, 1.8)
    phase = np.mod(time / period, 1.0)
    jab = curve(phase, [(0, 0), (0.04, 0), (0.16, 1), (0.20, 1), (0.36, 0)], 1.0)
    cross = curve(phase, [(0, 0), (0.46, 0), (0.60, 1), (0.65, 1), (0.84, 0)], 1.0)
    bounce = np.sin(2 * np.pi * 2 * time / period)
    motion.shift(forward=0.05 * cross - 0.02 * jab, up=-0.07 + 0.012 * bounce)
    # Side on in the guard; the rear shoulder turns forward into its punch.
    open_ = sign * 13.0
    motion.angles["pelvis_turn"] += open_ - sign * 18 * cross
    motion.angles["spine_turn"] += open_ + sign * (10 * jab - 24 * cross)
    motion.angles["head_turn"] = -(motion.angles["pelvis_turn"] + motion.angles["spine_turn"])
    motion.angles["spine_bend"] += 10
    motion.angles["head_nod"] -= 2
    motion.both("toe_out", 16)
    for hand, hit in ((OTHER[back], jab), (back, cross)):
        motion.angles[f"{hand}_flex"] = 42 + 46 * hit
        motion.angles[f"{hand}_elbow"] = 128 - 116 * hit
        motion.angles[f"{hand}_abduct"] = 12 + 6 * hit
        motion.angles[f"{hand}_across"] = 6 + 12 * hit
        motion.angles[f"{hand}_twist"] = 8 + 12 * hit
    return motion


def wave(take: Take) -> Motion:
    """Raise one hand and wave with the forearm."""
    motion = take.stand()
    hand = take.side
    sign = take.sign
    begin, end = take.between(-0.6, 0.5), take.time[-1] - take.between(-0.4, 0.7)
    up = curve(take.time, [(begin, 0), (begin + 0.7, 1), (end - 0.7, 1), (end, 0)])
    swing = up**2 * np.sin(2 * np.pi * take.between(1.3, 2.1) * take.time + take.between(0, 6))
    raised = take.between(70, 105)
    motion.angles[f"{hand}_abduct"] = 9 + (raised - 9) * up
    motion.angles[f"{hand}_flex"] = 2 + take.between(66, 84) * up
    motion.angles[f"{hand}_twist"] = 12 * (1 - up) + take.between(8, 14) * swing
    motion.angles[f"{hand}_elbow"] = 16 + take.between(48, 66) * up + take.between(20, 28) * swing
    motion.angles["spine_side"] += sign * take.between(0, 5) * up
    motion.angles["spine_turn"] += sign * 3 * swing
    motion.angles["head_tilt"] += -sign * take.between(0, 6) * up
    motion.shift(left=wander(take.time, take.rng, 0.018, 0.25), up=-0.004)
    return motion


def throw(take: Take) -> Motion:
    """Throw overarm: wind up with the trunk turned away, whip the arm over, follow through."""
    motion = take.stand(1.1)
    hand = take.side
    sign = take.sign
    for foot in SIDES:
        motion.ankles[foot][:, :2] += (-0.16 if foot == hand else 0.20) * take.facing
    time, period = take.cycle(2.0, 2.7)
    phase = np.mod(time / period, 1.0)
    wind = curve(phase, [(0, 0), (0.08, 0), (0.34, 1), (0.40, 1), (0.50, 0), (0.60, -1), (0.80, 0)], 1.0)
    at = (0.0, 0.08, 0.34, 0.41, 0.48, 0.58, 0.80)
    postures = {
        "abduct": (14, 14, 96, 100, 96, 40, 16),
        "flex": (6, 6, 40, 84, 88, 62, 16),
        "across": (0, 0, -30, -14, 20, 50, 10),
        "twist": (10, 10, -20, -30, 0, 24, 12),
        "elbow": (24, 24, 96, 84, 18, 22, 30),
    }  # fmt: skip
    for name, values in postures.items():
        motion.angles[f"{hand}_{name}"] = curve(phase, list(zip(at, values, strict=True)), 1.0)
    aim = curve(phase, [(0, 0), (0.08, 0), (0.32, 1), (0.46, 0.4), (0.60, -0.3), (0.80, 0)], 1.0)
    free = OTHER[hand]
    motion.angles[f"{free}_flex"] = 8 + 66 * aim
    motion.angles[f"{free}_abduct"] = 14 + 12 * aim
    motion.angles[f"{free}_elbow"] = 24 - 6 * aim
    motion.angles["pelvis_turn"] += sign * 16 * wind
    motion.angles["spine_turn"] += sign * 30 * wind
    motion.angles["head_turn"] -= sign * 38 * wind
    motion.angles["spine_bend"] += 6 - 14 * wind
    motion.angles["pelvis_pitch"] += 4 - 6 * wind
    motion.shift(forward=-0.09 * wind, up=-0.03)
    return motion


def pick_up(take: Take) -> Motion:
    """Bend down, pick something up from the floor in front, straighten and lift it to the chest."""
    motion, body = take.stand(1.1), take.body
    hand = take.side
    sign = take.sign
    time, period = take.cycle(3.0, 4.0)
    phase = np.mod(time / period, 1.0)
    low = curve(phase, [(0, 0), (0.08, 0), (0.34, 1), (0.44, 1), (0.70, 0)], 1.0)
    hold = curve(phase, [(0, 0), (0.46, 0), (0.68, 1), (0.84, 1), (0.98, 0)], 1.0)
    motion.shift(forward=-0.20 * low, up=-0.004 - take.between(0.34, 0.42) * body.leg * low)
    motion.angles["pelvis_pitch"] += take.between(54, 62) * low
    motion.angles["spine_bend"] += take.between(34, 44) * low
    motion.angles["spine_turn"] -= sign * 12 * low
    motion.angles["spine_side"] -= sign * 6 * low
    motion.angles["head_nod"] += 6 * low + 14 * hold
    motion.angles[f"{hand}_flex"] = 2 + 84 * low + 26 * hold
    motion.angles[f"{hand}_elbow"] = 16 - 6 * low + 82 * hold
    motion.angles[f"{hand}_twist"] = 12 + 30 * hold
    free = OTHER[hand]
    motion.angles[f"{free}_flex"] = 2 + take.between(40, 60) * low
    motion.angles[f"{free}_elbow"] = 16 + take.between(30, 50) * low
    return motion
