"""Points that detectors see on a body of 17 joints: face, hands and feet at plausible places, in every layout."""

from __future__ import annotations

import numpy as np

from kinema.core.camera import project, to_pixels, world_to_camera
from kinema.core.layouts import convert
from kinema.core.skeleton import skeleton
from kinema.data.synthetic.actions import perform
from kinema.data.synthetic.cameras import rig
from kinema.data.synthetic.skeleton import Body

H36M = skeleton("h36m17")
DETECTORS = ("coco17", "halpe26", "body25", "mediapipe33")


def _unit(x: np.ndarray) -> np.ndarray:
    return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-9)


def landmarks(world: np.ndarray) -> dict[str, np.ndarray]:
    """Named points (T, 3) of a body (T, 17, 3), metres, z up: the joints and what lies around them."""
    at = {name: world[:, i] for i, name in enumerate(H36M.joints)}
    across = _unit(at["left_hip"] - at["right_hip"])
    up = _unit(at["thorax"] - at["pelvis"])
    # Left crossed with up points to the front.
    front = _unit(np.cross(across, up))
    head_up = _unit(at["head"] - at["thorax"])
    head_front = _unit(front - (front * head_up).sum(-1, keepdims=True) * head_up)
    head_left = np.cross(head_up, head_front)
    skull = at["head"] - 0.12 * head_up

    def face(left: float, above: float, before: float) -> np.ndarray:
        return skull + left * head_left + above * head_up + before * head_front

    made = {name: at[name] for name in H36M.joints if name.startswith(("left", "right"))}
    made |= {"nose": face(0, -0.02, 0.11), "head": at["head"]}
    made["neck"] = (at["left_shoulder"] + at["right_shoulder"]) / 2
    made["hip"] = made["mid_hip"] = (at["left_hip"] + at["right_hip"]) / 2
    down = np.array((0.0, 0.0, -1.0))
    for side, sign in (("left", 1.0), ("right", -1.0)):
        made[f"{side}_eye"] = face(sign * 0.032, 0.015, 0.09)
        made[f"{side}_eye_inner"] = face(sign * 0.02, 0.015, 0.095)
        made[f"{side}_eye_outer"] = face(sign * 0.045, 0.015, 0.08)
        made[f"{side}_ear"] = face(sign * 0.075, 0.0, 0.0)
        made[f"mouth_{side}"] = face(sign * 0.025, -0.06, 0.09)
        hand = _unit(at[f"{side}_wrist"] - at[f"{side}_elbow"])
        for finger, reach, aside in (("pinky", 0.08, -0.03), ("index", 0.09, 0.02), ("thumb", 0.05, 0.04)):
            made[f"{side}_{finger}"] = at[f"{side}_wrist"] + reach * hand + aside * front
        flat = _unit(front * (1, 1, 0))
        foot = at[f"{side}_ankle"] + 0.07 * down
        made[f"{side}_heel"] = foot - 0.05 * flat
        made[f"{side}_big_toe"] = made[f"{side}_foot_index"] = foot + 0.19 * flat
        made[f"{side}_small_toe"] = foot + 0.15 * flat + 0.05 * sign * across
    return made


def in_layout(world: np.ndarray, layout: str) -> np.ndarray:
    """The body in a detector's layout: (T, 17, 3) to (T, J, 3)."""
    if layout == "h36m17":
        return world
    found = landmarks(world)
    return np.stack([found[name] for name in skeleton(layout).joints], axis=1)


def synthetic(layout: str, action: str = "walk", camera: int = 0, frames: int = 60) -> np.ndarray:
    """Exact pixels (T, J, 2) of a synthetic actor in one of four cameras."""
    rng = np.random.default_rng(3)
    world = perform(action, Body.draw(rng), rng, frames, 25.0)
    view = rig(rng)[camera]
    detector = "h36m17" if layout == "mpi_inf_3dhp17" else layout
    place = world_to_camera(in_layout(world, detector).astype(np.float32), view.orientation, view.translation)
    pixels = to_pixels(project(place, view.intrinsics), view.width, view.height)
    return np.asarray(convert(pixels.astype(np.float64), detector, layout))
