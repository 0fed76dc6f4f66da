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
from functools import partial
from typing import Any

import torch
from torch import Tensor

from kinema.core import detections
from kinema.core.skeleton import Skeleton
from kinema.data import reprojection
from kinema.data.clip_transforms import CLIP_TRANSFORMS
from kinema.data.draws import Batch, Draws, joint_order, mirror_some, needs
from kinema.data.mirror import INTRINSICS_NEGATED
from kinema.data.motion_transforms import MOTION_TRANSFORMS
from kinema.errors import ConfigError

# What a batch holds per frame, beside `pose`.
_IN_TIME = ("pose2d", "pose3d", "pose3d_eval", "factor", "size", "action", "valid", "frames")


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
    bodies = {"pose": skeleton2d, "pose2d": skeleton2d}
    bodies |= dict.fromkeys(("pose3d", reprojection.WIDE, reprojection.MOTION), skeleton)
    for key, body in bodies.items():
        if key in batch and body is not None:
            flipped[key] = mirror_some(batch[key], chosen, body)
    if "valid" in batch and batch["valid"].ndim == 3 and skeleton is not None:
        order = joint_order(skeleton.flip_index, chosen.device)
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


@needs("width")
def pixel_noise(batch: Batch, draws: Draws, *, std: float) -> Batch:
    """Add independent Gaussian noise of so many pixels to x and y of the input, at every stage: a test of robustness.

    Args:
        batch: with `width` (B,) of the images.
        draws: of the batch.
        std: standard deviation in pixels of the images that the keypoints were found in.

    Source: the option `-std` of PoseFormer V2, which draws once at load time and without a seed.
    """
    seen = _seen(batch)
    scale = 2 * std / batch["width"].to(seen)[:, None, None, None]
    jitter = scale * draws.normal("pixel_noise", (*seen.shape[1:3], 2))
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


def relative_input(batch: Batch, draws: Draws, *, scale: float, skeleton2d: Skeleton) -> Batch:
    """Let the input be where the root stands, and where the other joints stand from it, enlarged; for every stage.

    The shape of the body, a few tenths of the image, then fills the range that the first layer sees, wherever the body
    stands. Nothing is lost: the root stays absolute. CMU data, 400 steps of an early `cmu/lifting` (validation,
    noisy input): 70.6 mm with a scale of 4 and 71.8 with 1, against 85.3 with joints as they are.

    Args:
        batch: any.
        draws: unused.
        scale: of the distances from the root.
        skeleton2d: of the input.
    """
    seen = _seen(batch)
    root = seen[..., skeleton2d.root : skeleton2d.root + 1, :2]
    is_root = torch.arange(seen.shape[-2], device=seen.device)[:, None] == skeleton2d.root
    places = torch.where(is_root, root, scale * (seen[..., :2] - root))
    return {**batch, "pose": torch.cat([places, seen[..., 2:]], dim=-1)}


def pose(batch: Batch, draws: Draws, *, channels: int, confidence: bool, context: tuple[int, int] = (0, 0)) -> Batch:
    """Make `pose` of what stands there so far, with as many channels as the network takes: the last transform.

    Args:
        batch: any.
        draws: unused.
        channels: 2 (x, y), 3 (x, y, score) or 5 (x, y, score, and the way of x and y to the next frame). With 5 the
            last frame of a clip, which has no next one, is dropped with its targets; without targets it stays, and
            moves on as the frame before it did.
        confidence: whether a third channel holds the detector's scores, where there are any, or always 1.
        context: input frames before and after the targets.

    Raises:
        ConfigError: where a motion was edited and not reprojected, and for ways in windows with context.

    Source of the five channels: MotionAGFormer, data/reader/motion_dataset.py (add_velocity).
    """
    if reprojection.MOTION in batch:
        raise ConfigError(
            "dataset.augment edits the motion in 3D but makes no input of it. Add reproject: {errors: own} behind."
        )
    seen = _seen(batch)
    if channels == 2:
        return {**batch, "pose": seen[..., :2]}
    if seen.shape[-1] == 2 or not confidence:
        seen = torch.cat([seen[..., :2], torch.ones_like(seen[..., :1])], dim=-1)
    if channels == 3:
        return {**batch, "pose": seen}
    if tuple(context) != (0, 0) or seen.shape[1] < 2:
        raise ConfigError("Five input channels hold velocities, which need clips. Use model.in_channels=3.")
    way = seen[..., :2].diff(dim=1)
    if "pose3d" not in batch:
        return {**batch, "pose": torch.cat([seen, torch.cat([way, way[:, -1:]], dim=1)], dim=-1)}
    cut = {key: batch[key][:, :-1] for key in _IN_TIME if key in batch}
    return {**batch, **cut, "pose": torch.cat([seen[:, :-1], way], dim=-1)}


TRANSFORMS: dict[str, Callable[..., Batch]] = {
    "flip": flip,
    "pose2d_from_target": pose2d_from_target,
    "noise": noise,
    "pixel_noise": pixel_noise,
    "mask": mask,
    "motionbert_noise": motionbert_noise,
    "swap_upper_body": reprojection.swap_upper_body,
    "swap_arms": reprojection.swap_arms,
    "scale_bones": reprojection.scale_bones,
    "random_heading": reprojection.random_heading,
    "reproject": reprojection.reproject,
    "relative_input": relative_input,
    "pose": pose,
    **CLIP_TRANSFORMS,
    **MOTION_TRANSFORMS,
}


# What these change is what a detector sees, not how it is written: a checkpoint may be tested with other ones.
_OF_CONTENT = frozenset({"flip", "pose2d_from_target", "noise", "pixel_noise", "mask", "motionbert_noise"})


def writing(entries: Sequence[str | Mapping[str, Any]]) -> list[tuple[str, dict[str, Any]]]:
    """The transforms of a list that decide how input is written for a network, as (name, options)."""
    parts = [_parts(entry) for entry in entries]
    return [(name, options) for name, options in parts if name not in _OF_CONTENT]


def spelt(entries: Sequence[str | Mapping[str, Any]]) -> str:
    """A list of transforms as an override spells it: [{relative_input:{scale:4.0}},pose]."""

    def value(item: Any) -> str:
        if isinstance(item, Mapping):
            return "{" + ",".join(f"{key}:{value(inner)}" for key, inner in item.items()) + "}"
        if isinstance(item, Sequence) and not isinstance(item, str):
            return "[" + ",".join(map(value, item)) + "]"
        return "null" if item is None else str(item)

    return value(list(entries))


def refuse_places(stream: str, **lists: Sequence[str | Mapping[str, Any]]) -> None:
    """Refuse transforms of where a body stands on a stream of bones or motions, which stand nowhere.

    Args:
        stream: of the stored clips.
        lists: the data set's lists of transforms by their option.

    Raises:
        ConfigError: for a crop, or a shift; it names the override without them.
    """
    if stream == "joint":
        return
    faults: list[str] = []
    remedies: list[str] = []
    for option, entries in lists.items():
        kept: list[dict[str, Any]] = []
        found = len(faults)
        for name, options in map(_parts, entries):
            if name == "crop_scale":
                faults.append("crop_scale looks for the box around the joints")
                continue
            if name == "random_move" and options.get("shift", 0.1):
                faults.append("random_move shifts them")
                options["shift"] = 0
            kept.append({name: options})
        if len(faults) > found:
            remedies.append(f"'dataset.{option}={spelt(kept)}'")
    if faults:
        raise ConfigError(
            f"dataset.stream={stream} holds differences, which stand nowhere, but {' and '.join(faults)}. "
            f"Use {' '.join(remedies)}, or dataset.stream=joint."
        )


def _parts(entry: str | Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    name, options = (entry, {}) if isinstance(entry, str) else next(iter(entry.items()))
    return name, dict(options or {})


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
        name, options = _parts(entry)
        function = _find(name, option)
        parameters = dict(list(inspect.signature(function).parameters.items())[2:])
        own = {key: value for key, value in parameters.items() if key not in given}
        for key in options:
            if key not in own:
                raise ConfigError(
                    f"dataset.{option}: {name} has no option {key!r}. It has: {', '.join(own) or 'none'}."
                )
        empty = inspect.Parameter.empty
        missing = [key for key, value in own.items() if value.default is empty and key not in options]
        if missing:
            raise ConfigError(
                f"dataset.{option}: {name} needs {', '.join(missing)}, as in {name}: {{{missing[0]}: ...}}."
            )
        bound = partial(function, **options, **{key: given[key] for key in parameters if key in given})
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
