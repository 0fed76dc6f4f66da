"""Transforms: functions batch -> batch on the device, named in a dataset's yaml; they make `pose`, what a network sees.

Each is `(batch, draws, **options) -> batch`. Everything random comes from `draws`, so that it depends on (seed, epoch,
position in the epoch's order) alone. What changes the input only (noise, masks) reads `pose`, or `pose2d` where there
is no `pose` yet, and writes `pose`: `pose2d` and `pose3d` stay clean targets.
"""

from __future__ import annotations

import difflib
import importlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any

import torch
from torch import Tensor

from kinema.core import detections, random
from kinema.core.skeleton import Skeleton
from kinema.data.mirror import INTRINSICS_NEGATED
from kinema.errors import ConfigError

Batch = dict[str, Tensor]
Transform = Callable[[Batch, "Draws"], Batch]


class Draws:
    """Random numbers of one batch: functions of (seed, epoch, position, name), see `core/random.py`.

    Attributes:
        seed, epoch: of the run.
        draw: (B,) positions in the epoch's order.
        step: (1,) number of the batch in its epoch, for what a paper draws once per batch.
    """

    def __init__(self, seed: int, epoch: int, draw: Tensor, step: Tensor) -> None:
        self.seed, self.epoch, self.draw, self.step = seed, epoch, draw, step

    def uniform(self, name: str, shape: Sequence[int] = ()) -> Tensor:
        """(B, *shape) float32 in [0, 1)."""
        return random.uniform(self.seed, self.epoch, self.draw, name, shape)

    def normal(self, name: str, shape: Sequence[int] = ()) -> Tensor:
        """(B, *shape) float32 standard normal."""
        return random.normal(self.seed, self.epoch, self.draw, name, shape)


def needs(*keys: str) -> Callable[[Transform], Transform]:
    """Declare which batch keys a transform reads beside `pose2d` and `pose3d`; they are then gathered."""

    def mark(function: Transform) -> Transform:
        function.needs = keys  # type: ignore[attr-defined]
        return function

    return mark


def flip(
    batch: Batch, draws: Draws, *, probability: float, skeleton: Skeleton | None, skeleton2d: Skeleton | None
) -> Batch:
    """Mirror random samples: input, targets, camera vector and what is valid.

    Args:
        batch: any.
        draws: of the batch.
        probability: of a sample to be mirrored.
        skeleton, skeleton2d: the data set's.
    """
    chosen = draws.uniform("flip") < probability  # (B,)
    flipped = {}
    for key, body in (("pose", skeleton2d), ("pose2d", skeleton2d), ("pose3d", skeleton)):
        if key in batch and body is not None:
            flipped[key] = torch.where(chosen[:, None, None, None], _mirror(batch[key], body), batch[key])
    if "valid" in batch and batch["valid"].ndim == 3 and skeleton is not None:
        order = _order(skeleton.flip_index, chosen.device)
        flipped["valid"] = torch.where(chosen[:, None, None], batch["valid"][..., order], batch["valid"])
    if "intrinsics" in batch:
        sign = torch.ones_like(batch["intrinsics"])
        for entry in INTRINSICS_NEGATED:
            sign[:, entry] = torch.where(chosen, -1.0, 1.0)
        flipped["intrinsics"] = batch["intrinsics"] * sign
    return {**batch, **flipped, "flip": batch["flip"] ^ chosen}


def pose2d_from_target(batch: Batch, draws: Draws) -> Batch:
    """Let the input be the true image points: x and y of an image-space target, with score 1.

    Source: MotionBERT's option gt_2d, and its `synthetic` training data, which has no detections.
    """
    target = batch["pose3d"]
    return {**batch, "pose2d": torch.cat([target[..., :2], torch.ones_like(target[..., :1])], dim=-1)}


def noise(batch: Batch, draws: Draws, *, std: float) -> Batch:
    """Add independent Gaussian noise to x and y of the input.

    Args:
        batch: any.
        draws: of the batch.
        std: standard deviation in network units (half an image width is 1).
    """
    seen = _seen(batch)
    jitter = std * draws.normal("noise", (*seen.shape[1:3], 2))
    return {**batch, "pose": torch.cat([seen[..., :2] + jitter, seen[..., 2:]], dim=-1)}


def mask(batch: Batch, draws: Draws, *, joints: float, frames: float) -> Batch:
    """Hide random joints, and whole frames for the batch as one, by zeros in all channels.

    Args:
        batch: any.
        draws: of the batch.
        joints: share of joints to hide.
        frames: share of frames to hide.

    Source: MotionBERT, lib/data/augmentation.py (add_mask).
    """
    seen = _seen(batch)
    made = detections.count_mask_draws(draws.seed, draws.epoch, draws.draw, draws.step, seen.shape[1], seen.shape[2])
    return {**batch, "pose": detections.mask(seen, made, joints, frames)}


def motionbert_noise(batch: Batch, draws: Draws, *, skeleton2d: Skeleton) -> Batch:
    """Move the input's joints as a detector would and give them its scores: the model fitted by MotionBERT.

    Source: MotionBERT, lib/data/augmentation.py (add_noise).
    """
    seen = _seen(batch)
    model = detections.noise_model(skeleton2d.name)
    made = detections.count_draws(draws.seed, draws.epoch, draws.draw, draws.step, seen.shape[1], model)
    return {**batch, "pose": detections.add_noise(seen, model, made)}


def pose(batch: Batch, draws: Draws, *, channels: int, confidence: bool) -> Batch:
    """Make `pose` of what stands there so far, with as many channels as the network takes: the last transform.

    Args:
        batch: any.
        draws: unused.
        channels: 2 (x, y) or 3 (x, y, score).
        confidence: whether a third channel holds the detector's scores, where there are any, or always 1.
    """
    seen = _seen(batch)
    if channels == 2:
        return {**batch, "pose": seen[..., :2]}
    if seen.shape[-1] == 2 or not confidence:
        seen = torch.cat([seen[..., :2], torch.ones_like(seen[..., :1])], dim=-1)
    return {**batch, "pose": seen}


TRANSFORMS: dict[str, Callable[..., Batch]] = {
    "flip": flip,
    "pose2d_from_target": pose2d_from_target,
    "noise": noise,
    "mask": mask,
    "motionbert_noise": motionbert_noise,
    "pose": pose,
}


def resolve(entries: Sequence[str | Mapping[str, Any]], option: str, **given: Any) -> list[Callable[..., Batch]]:
    """Turn a list from yaml into functions (batch, draws) -> batch.

    Args:
        entries: a name, or {name: options}; a dotted path names a function of another package.
        option: where the list stands, for messages.
        given: values the data set hands to the transforms that have a parameter of that name.

    Raises:
        ConfigError: for an unknown name or option.
    """
    made: list[Callable[..., Batch]] = []
    for entry in entries:
        name, options = (entry, {}) if isinstance(entry, str) else next(iter(entry.items()))
        function = _find(name, option)
        parameters = dict(list(inspect.signature(function).parameters.items())[2:])
        own = {key: value for key, value in parameters.items() if key not in given}
        for key in options or {}:
            if key not in own:
                raise ConfigError(
                    f"dataset.{option}: {name} has no option {key!r}. It has: {', '.join(own) or 'none'}."
                )
        empty = inspect.Parameter.empty
        missing = [key for key, value in own.items() if value.default is empty and key not in (options or {})]
        if missing:
            raise ConfigError(
                f"dataset.{option}: {name} needs {', '.join(missing)}, as in {name}: {{{missing[0]}: ...}}."
            )
        bound = partial(function, **(options or {}), **{key: given[key] for key in parameters if key in given})
        bound.needs = getattr(function, "needs", ())  # type: ignore[attr-defined]
        made.append(bound)
    return made


def _find(name: str, option: str) -> Callable[..., Batch]:
    if name in TRANSFORMS:
        return TRANSFORMS[name]
    module, _, attribute = name.rpartition(".")
    if module:
        try:
            found: Callable[..., Batch] = getattr(importlib.import_module(module), attribute)
            return found
        except (ImportError, AttributeError) as error:
            raise ConfigError(f"dataset.{option}: {name} cannot be imported ({error}).") from error
    near = difflib.get_close_matches(name, TRANSFORMS, n=1)
    hint = f"Did you mean {near[0]!r}?" if near else f"Known: {', '.join(TRANSFORMS)}."
    raise ConfigError(f"dataset.{option}: no transform is called {name!r}. {hint}")


def _seen(batch: Batch) -> Tensor:
    return batch["pose"] if "pose" in batch else batch["pose2d"]


def _mirror(pose: Tensor, skeleton: Skeleton) -> Tensor:
    swapped = pose.index_select(-2, _order(skeleton.flip_index, pose.device))
    return torch.cat([-swapped[..., :1], swapped[..., 1:]], dim=-1)


@lru_cache(maxsize=64)
def _order(order: tuple[int, ...], device: torch.device) -> Tensor:
    """A joint order on the device, copied there once and not at every step."""
    with torch.inference_mode(False):  # a tensor born in inference mode could not be used in training
        return torch.tensor(order, device=device)
