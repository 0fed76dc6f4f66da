"""A model of 2D detector noise, and masking: what turns clean 2D poses into network input for pretraining.

The functions take their random draws; `count_draws` makes them from counters, `legacy_draws` in the published order
from a torch generator. The published constants stand in `detection_noise.json`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, lru_cache
from importlib import resources
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from kinema.core import random
from kinema.core.shapes import expect
from kinema.errors import ConfigError


@dataclass(frozen=True)
class NoiseModel:
    """Fitted noise of one detector, in normalised image units.

    Attributes:
        mean: (J, 2) of the Gaussian displacement.
        std: (J, 2) of the Gaussian displacement.
        weight: (J,) probability that a key frame's displacement is Gaussian, else uniform.
        uniform_range: width of the uniform displacement, centred at 0.
        jitter: standard deviation of the displacement of every single frame.
        key_frames: number of independent displacements per clip, interpolated in time.
        confidence: (a, b, m, s) of score = a / (d + a) + b d + N(m, s), d the length of the displacement.
    """

    mean: tuple[tuple[float, float], ...]
    std: tuple[tuple[float, float], ...]
    weight: tuple[float, ...]
    uniform_range: float
    jitter: float
    key_frames: int
    confidence: tuple[float, float, float, float]

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> NoiseModel:
        """Read the layout of `detection_noise.json`, for models fitted by a user as well."""
        return cls(
            mean=tuple((float(x), float(y)) for x, y in values["mean"]),
            std=tuple((float(x), float(y)) for x, y in values["std"]),
            weight=tuple(float(w) for w in values["weight"]),
            uniform_range=float(values["uniform_range"]),
            jitter=float(values["jitter"]),
            key_frames=int(values["key_frames"]),
            confidence=tuple(float(values["confidence"][key]) for key in "abms"),  # type: ignore[arg-type]
        )


@cache
def noise_model(skeleton_name: str = "h36m17") -> NoiseModel:
    """Load the published noise model of a 2D layout.

    Raises:
        ConfigError: where none was published.
    """
    text = resources.files("kinema.core").joinpath("detection_noise.json").read_text(encoding="utf-8")
    table = json.loads(text)
    if skeleton_name not in table:
        raise ConfigError(f"No detection noise is known for {skeleton_name}. Fit one, or use the h36m17 layout.")
    return NoiseModel.from_dict(table[skeleton_name])


class NoiseDraws(NamedTuple):
    """Random numbers of `add_noise` for B clips of T frames, K key frames."""

    selector: Tensor
    """(B, K, J, 1) uniform in [0, 1): Gaussian or uniform."""
    gaussian: Tensor
    """(B, K, J, 2) standard normal."""
    uniform: Tensor
    """(B, K, J, 2) uniform in [0, 1)."""
    jitter: Tensor
    """(T, J, 2) or (B, T, J, 2) standard normal; published: shared by the batch."""
    confidence: Tensor
    """(B, T, J) standard normal."""


class MaskDraws(NamedTuple):
    """Random numbers of `mask` for B clips of T frames."""

    joints: Tensor
    """(B, T, J, 1) uniform in [0, 1)."""
    frames: Tensor
    """(1, T, 1, 1) or (B, T, 1, 1) uniform in [0, 1); published: shared by the batch."""


def add_noise(pose: Tensor, model: NoiseModel, draws: NoiseDraws) -> Tensor:
    """Move 2D joints as a detector would, and give them its scores.

    Args:
        pose: (B, T, J, 2 or 3) clean normalised 2D; a third channel is replaced.
        model: fitted for these joints.
        draws: as `count_draws` or `legacy_draws` make them.

    Returns:
        (B, T, J, 3): x, y, confidence in [0, 1].

    Source: MotionBERT, lib/data/augmentation.py (add_noise).
    """
    sizes = expect(pose, "B T J C", "pose", J=len(model.weight))
    mean, std, weight = _constants(model, pose.device, pose.dtype)
    displaced = torch.where(
        draws.selector < weight, mean + std * draws.gaussian, (draws.uniform - 0.5) * model.uniform_range
    )  # (B, K, J, 2)
    smooth = F.interpolate(displaced.flatten(2).mT, size=sizes["T"], mode="linear", align_corners=True)
    moved = smooth.mT.unflatten(2, (sizes["J"], 2)) + model.jitter * draws.jitter  # (B, T, J, 2)
    distance = torch.linalg.vector_norm(moved, dim=-1)
    a, b, m, s = model.confidence
    score = a / (distance + a) + b * distance + (m + s * draws.confidence)
    return torch.cat([pose[..., :2] + moved, score.clip(0, 1)[..., None]], dim=-1)


def mask(pose: Tensor, draws: MaskDraws, joint_ratio: float, frame_ratio: float) -> Tensor:
    """Set single joints and whole frames to zero, confidence included.

    Args:
        pose: (B, T, J, C).
        draws: as `count_mask_draws` or `legacy_mask_draws` make them.
        joint_ratio: share of joints to hide.
        frame_ratio: share of frames to hide.

    Returns:
        (B, T, J, C), a copy.

    Source: MotionBERT, lib/data/augmentation.py (add_mask).
    """
    return pose * ((draws.joints > joint_ratio) & (draws.frames > frame_ratio))


def count_draws(seed: int, epoch: int, draw: Tensor, step: Tensor, frames: int, model: NoiseModel) -> NoiseDraws:
    """Draw for `add_noise` by counters (see `core/random.py`).

    Args:
        seed: of the run.
        epoch: number of the epoch.
        draw: (B,) int64, batch key `draw`.
        step: (1,) int64 for a per-frame jitter shared by the batch (published), or `draw` for one per sample.
        frames: T.
        model: gives joints and key frames.
    """
    joints, keys = len(model.weight), model.key_frames
    jitter = random.normal(seed, epoch, step, "noise/jitter", (frames, joints, 2))
    return NoiseDraws(
        selector=random.uniform(seed, epoch, draw, "noise/selector", (keys, joints, 1)),
        gaussian=random.normal(seed, epoch, draw, "noise/gaussian", (keys, joints, 2)),
        uniform=random.uniform(seed, epoch, draw, "noise/uniform", (keys, joints, 2)),
        jitter=jitter,
        confidence=random.normal(seed, epoch, draw, "noise/confidence", (frames, joints)),
    )


def count_mask_draws(seed: int, epoch: int, draw: Tensor, step: Tensor, frames: int, joints: int) -> MaskDraws:
    """Draw for `mask` by counters; arguments as in `count_draws`."""
    return MaskDraws(
        joints=random.uniform(seed, epoch, draw, "mask/joints", (frames, joints, 1)),
        frames=random.uniform(seed, epoch, step, "mask/frames", (frames, 1, 1)),
    )


def legacy_draws(batch: int, frames: int, model: NoiseModel, generator: torch.Generator) -> NoiseDraws:
    """Draw for `add_noise` in the order of MotionBERT, from a CPU generator."""
    joints, keys = len(model.weight), model.key_frames
    return NoiseDraws(
        selector=torch.rand((batch, keys, joints, 1), generator=generator),
        gaussian=torch.randn((batch, keys, joints, 2), generator=generator),
        uniform=torch.rand((batch, keys, joints, 2), generator=generator),
        jitter=torch.randn((frames, joints, 2), generator=generator),
        confidence=torch.randn((batch, frames, joints), generator=generator),
    )


def legacy_mask_draws(batch: int, frames: int, joints: int, generator: torch.Generator) -> MaskDraws:
    """Draw for `mask` in the order of MotionBERT."""
    return MaskDraws(
        joints=torch.rand((batch, frames, joints, 1), generator=generator),
        frames=torch.rand((1, frames, 1, 1), generator=generator),
    )


@lru_cache
def _constants(model: NoiseModel, device: torch.device, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Mean, std (J, 2) and weight (J, 1) on the device, kept so that no step copies them again."""
    with torch.inference_mode(False):
        mean = torch.tensor(model.mean, device=device, dtype=dtype)
        std = torch.tensor(model.std, device=device, dtype=dtype)
        return mean, std, torch.tensor(model.weight, device=device, dtype=dtype)[:, None]
