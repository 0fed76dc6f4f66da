"""Cameras: world and camera space, projection with distortion, pixels and normalised screen coordinates.

Every function takes numpy arrays or tensors and gives back the same kind. Constants of the recorded cameras stand in
`h36m_cameras.json` (facts of the Human3.6M and HumanEva-I calibrations, used by the VideoPose3D protocol).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from importlib import resources
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from kinema.errors import DataError

Array = TypeVar("Array", np.ndarray, Tensor)
# A size in pixels: one number, or one per leading entry of the points.
Size = float | np.ndarray | Tensor


@cache
def camera_table() -> dict[str, Any]:
    """Read the shipped calibration table: "h36m", "humaneva15" and "custom" (dummy extrinsics for drawing)."""
    text = resources.files("kinema.core").joinpath("h36m_cameras.json").read_text(encoding="utf-8")
    table: dict[str, Any] = json.loads(text)
    return table


def intrinsics_vector(camera: dict[str, Any]) -> np.ndarray:
    """Pack a camera of the table as [fx, fy, cx, cy, k1, k2, k3, p1, p2] in normalised screen coordinates.

    Args:
        camera: `center` and `focal_length` in pixels, `radial_distortion`, `tangential_distortion`, `res_w`, `res_h`.

    Returns:
        (9,) float32; computed from float32 constants as in VideoPose3D, common/h36m_dataset.py.
    """
    width, height = camera["res_w"], camera["res_h"]
    focal = np.asarray(camera["focal_length"], np.float32) / width * 2
    centre = normalise_screen(np.asarray(camera["center"], np.float32), width, height)
    distortion = [camera["radial_distortion"], camera["tangential_distortion"]]
    return np.concatenate([focal, centre, *distortion]).astype(np.float32)


def recorded_camera(dataset: str, subject: str, index: int) -> dict[str, Any]:
    """Look up one camera of the table in Kinema's units.

    Args:
        dataset: "h36m" or "humaneva15".
        subject: such as "S1"; a HumanEva-I prefix ("Train/S1") is ignored, its cameras are shared.
        index: position of the camera, 0-based.

    Returns:
        `id`, `width`, `height` (pixels), `azimuth` (degrees); `intrinsics` (9,) or None; `orientation` (4,) and
        `translation` (3,) in metres, float32, or None where the calibration was not released.
    """
    table = camera_table().get(dataset, {})
    name = subject.rsplit("/", 1)[-1]
    extrinsics = table.get("extrinsics", {}).get(name) or []
    if not 0 <= index < len(table.get("intrinsics", ())):
        raise DataError(f"No camera {index} of {dataset} is known: the table has {len(table.get('intrinsics', ()))}.")
    inner = table["intrinsics"][index]
    outer = (extrinsics[index] if index < len(extrinsics) else None) or {}
    placed = outer.get("orientation") is not None
    return {
        "id": inner["id"],
        "width": inner["res_w"],
        "height": inner["res_h"],
        "azimuth": inner["azimuth"],
        "intrinsics": intrinsics_vector(inner) if "focal_length" in inner else None,
        "orientation": np.asarray(outer["orientation"], np.float32) if placed else None,
        # float32 first, then millimetres to metres: the order decides the last bit.
        "translation": np.asarray(outer["translation"], np.float32) / 1000 if placed else None,
    }


def qrot(q: Array, v: Array) -> Array:
    """Rotate vectors by quaternions (w, x, y, z); a quaternion is used as it is, without normalisation.

    Args:
        q: (..., 4).
        v: (..., 3), leading axes broadcast with those of `q`.

    Returns:
        (..., 3).
    """
    scalar, axis = q[..., :1], q[..., 1:]
    once = _cross(axis, v)
    return v + 2 * (scalar * once + _cross(axis, once))


def qinverse(q: Array) -> Array:
    """Conjugate quaternions (..., 4); the inverse rotation of a unit quaternion."""
    if isinstance(q, Tensor):
        return torch.cat([q[..., :1], -q[..., 1:]], dim=-1)
    return np.concatenate([q[..., :1], -q[..., 1:]], axis=-1)


def world_to_camera(x: Array, orientation: Array, translation: Array) -> Array:
    """Move points from world to camera space.

    Args:
        x: (..., 3) metres.
        orientation: (4,) or (B, 4) unit quaternions of the camera-to-world rotation; leading axes match those of `x`,
            the axes between are broadcast.
        translation: (3,) or (B, 3), camera centre in the world, metres.
    """
    return qrot(qinverse(_between(orientation, x)), x - _between(translation, x))


def camera_to_world(x: Array, orientation: Array, translation: Array) -> Array:
    """Move points (..., 3) from camera to world space; inverse of `world_to_camera`."""
    return qrot(_between(orientation, x), x) + _between(translation, x)


def project(x: Array, intrinsics: Array) -> Array:
    """Project camera-space points with radial and tangential distortion.

    The tangential terms pair p1 with x and p2 with y, unlike the textbook form: the released constants belong to this
    order. x/z and y/z are clamped to [-1, 1]; points behind the camera are not rejected.

    Args:
        x: (..., 3) metres.
        intrinsics: (9,) or (B, 9) as `intrinsics_vector` gives them.

    Returns:
        (..., 2) normalised screen coordinates.

    Source: VideoPose3D, common/camera.py (project_to_2d).
    """
    parameters = _between(intrinsics, x)
    focal, centre = parameters[..., 0:2], parameters[..., 2:4]
    radial, tangential = parameters[..., 4:7], parameters[..., 7:9]
    points = (x[..., :2] / x[..., 2:]).clip(-1, 1)
    r2 = (points * points).sum(-1)[..., None]
    bend = 1 + r2 * (radial[..., 0:1] + r2 * (radial[..., 1:2] + r2 * radial[..., 2:3]))
    tilt = (tangential * points).sum(-1)[..., None]
    return focal * (points * (bend + tilt) + tangential * r2) + centre


def project_linear(x: Array, intrinsics: Array) -> Array:
    """Project camera-space points (..., 3) with focal length and centre only; arguments as in `project`."""
    parameters = _between(intrinsics, x)
    points = (x[..., :2] / x[..., 2:]).clip(-1, 1)
    return parameters[..., 0:2] * points + parameters[..., 2:4]


def normalise_screen(x: Array, width: Size, height: Size) -> Array:
    """Map pixels to normalised screen coordinates: x in [-1, 1], y on the same scale.

    The division and doubling keep the type of `x`, the subtraction is done in float64, as the published programs do
    with numpy; store the result as float32 to get their bits.

    Args:
        x: (..., 2) pixels.
        width: pixels; a number, or one per leading entry of `x`, (B,) for (B, ..., 2).
        height: likewise.

    Returns:
        (..., 2) float64.
    """
    return from_pixels(x, width, (1, wide(x, height) / wide(x, width)))


def to_pixels(x: Array, width: Size, height: Size) -> Array:
    """Map normalised screen coordinates (..., 2) to pixels, in float64; inverse of `normalise_screen`."""
    return into_pixels(x, width, (1, wide(x, height) / wide(x, width)))


def from_pixels(x: Array, side: Size, offset: Sequence[Size]) -> Array:
    """Compute x / side * 2 - offset with the types of `normalise_screen`.

    Args:
        x: (..., D).
        side: pixels; a number, or one per leading entry of `x`.
        offset: D values of the same kinds as `side`, one per axis of space.
    """
    divisor = _leading(x, side)
    if isinstance(x, Tensor):
        x = x if x.is_floating_point() else x.float()
        return wide(x, x / divisor.to(x.dtype) * 2) - _offset(x, offset)
    x = x if np.issubdtype(x.dtype, np.floating) else x.astype(np.float64)
    return np.asarray(x / divisor.astype(x.dtype) * 2 - _offset(x, offset))


def into_pixels(x: Array, side: Size, offset: Sequence[Size]) -> Array:
    """Compute (x + offset) * side / 2 in float64; inverse of `from_pixels`."""
    out = wide(x, x) + _offset(x, offset)
    out *= _leading(x, side)
    out /= 2
    return out


def wide(x: Array, value: Any) -> Any:
    """Convert `value` to float64 of the kind of `x`: an array, or a tensor on its device (float32 if it has none)."""
    if isinstance(x, Tensor):
        return torch.as_tensor(value, dtype=torch.float32 if x.device.type == "mps" else torch.float64, device=x.device)
    return np.asarray(value, np.float64)


def _leading(x: Array, value: Size) -> Any:
    """A size in float64 with axes appended, so that it counts per leading entry of `x`."""
    sizes = wide(x, value)
    return sizes.reshape(*sizes.shape, *(1,) * (x.ndim - sizes.ndim))


def _offset(x: Array, offset: Sequence[Size]) -> Any:
    """Offsets in float64 as a last axis of points."""
    axes = [_leading(x, value) for value in offset]
    if isinstance(x, Tensor):
        return torch.cat(torch.broadcast_tensors(*axes), dim=-1)
    return np.concatenate(np.broadcast_arrays(*axes), axis=-1)


def _cross(a: Array, b: Array) -> Array:
    if isinstance(a, Tensor):
        return torch.linalg.cross(a, b)
    return np.asarray(np.cross(a, b))


def _between(parameter: Array, x: Array) -> Array:
    """Insert axes between the leading axes of a camera parameter and its last one, to broadcast over points."""
    missing = x.ndim - parameter.ndim
    if missing <= 0:
        return parameter
    return parameter.reshape(*parameter.shape[:-1], *(1,) * missing, parameter.shape[-1])
