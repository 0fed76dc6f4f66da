"""Differentiable losses of the papers, each a scalar in the unit of its input.

Pose losses are `f(pred, target, skeleton)` on (B, T, J, 3) and stand in `LOSSES` under the name used in yaml. Where a
loss needs two frames and gets one it is 0. Half-precision predictions should be cast to float32 before.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn import functional as F

from kinema.core import pose_errors
from kinema.core.camera import project, project_linear
from kinema.core.skeleton import SKELETONS, Skeleton
from kinema.errors import ConfigError

PoseLoss = Callable[[Tensor, Tensor, Skeleton], Tensor]

# Metres; nearer depths would make a weight of 1 / depth explode.
_NEAREST = 0.1


def mpjpe(pred: Tensor, target: Tensor, skeleton: Skeleton) -> Tensor:
    """Mean distance over joints and frames."""
    return pose_errors.mpjpe(pred, target).mean()


def n_mpjpe(pred: Tensor, target: Tensor, skeleton: Skeleton) -> Tensor:
    """Mean distance after scaling each frame of the prediction; gradient flows through the factor."""
    return pose_errors.n_mpjpe(pred, target).mean()


def velocity(pred: Tensor, target: Tensor, skeleton: Skeleton) -> Tensor:
    """Mean distance of first differences in time (T at axis -3)."""
    return _mean_over_time(pose_errors.mpjve(pred, target))


def joint_l1(pred: Tensor, target: Tensor, skeleton: Skeleton) -> Tensor:
    """Mean absolute difference of coordinates."""
    return (pred - target).abs().mean()


def limb_variance(pred: Tensor, target: Tensor, skeleton: Skeleton) -> Tensor:
    """Mean over limbs of the unbiased variance in time of the predicted limb lengths; the target is not used."""
    lengths = limb_lengths(pred, skeleton)
    if lengths.shape[-2] <= 1:
        return _zero(pred)
    return lengths.var(dim=-2).mean()


def limb_length(pred: Tensor, target: Tensor, skeleton: Skeleton) -> Tensor:
    """Mean absolute difference of limb lengths."""
    return (limb_lengths(pred, skeleton) - limb_lengths(target, skeleton)).abs().mean()


def angle(pred: Tensor, target: Tensor, skeleton: Skeleton) -> Tensor:
    """Mean absolute difference of the angles between limbs, radians."""
    return (limb_angles(pred, skeleton) - limb_angles(target, skeleton)).abs().mean()


def angle_velocity(pred: Tensor, target: Tensor, skeleton: Skeleton) -> Tensor:
    """Mean absolute difference of the first differences in time of limb angles, radians per frame."""
    difference = limb_angles(pred, skeleton).diff(dim=-2) - limb_angles(target, skeleton).diff(dim=-2)
    return _mean_over_time(difference.abs())


def published_weighted_mpjpe(pred: Tensor, target: Tensor, skeleton: Skeleton) -> Tensor:
    """`weighted_mpjpe` with the joint weights that were published for this skeleton."""
    return weighted_mpjpe(pred, target, joint_weights(skeleton, pred))


def tcl(pred: Tensor, target: Tensor, skeleton: Skeleton) -> Tensor:
    """`temporal_consistency` with the published joint weights; the target is not used."""
    return temporal_consistency(pred, joint_weights(skeleton, pred))


def limb_length_squared(pred: Tensor, target: Tensor, skeleton: Skeleton) -> Tensor:
    """Mean squared difference of limb lengths; 0.001 times this is the published weighted_bonelen_loss."""
    return (limb_lengths(pred, skeleton) - limb_lengths(target, skeleton)).square().mean()


def limb_ratio(pred: Tensor, target: Tensor, skeleton: Skeleton) -> Tensor:
    """Mean squared relative difference of limb lengths; 0.1 times this is the published weighted_boneratio_loss.

    Limbs without length in the target count as met.
    """
    wanted = limb_lengths(target, skeleton)
    known = wanted > 0
    difference = limb_lengths(pred, skeleton) - wanted
    return torch.where(known, difference / torch.where(known, wanted, 1), 0).square().mean()


# MotionBERT, lib/model/loss.py, and its descendants (MotionAGFormer, PoseMamba); the names of the yaml `losses` node.
LOSSES: dict[str, PoseLoss] = {
    "mpjpe": mpjpe,
    "n_mpjpe": n_mpjpe,
    "velocity": velocity,
    "joint_l1": joint_l1,
    "limb_variance": limb_variance,
    "limb_length": limb_length,
    "angle": angle,
    "angle_velocity": angle_velocity,
    "weighted_mpjpe": published_weighted_mpjpe,
    "tcl": tcl,
    "limb_length_squared": limb_length_squared,
    "limb_ratio": limb_ratio,
}


@lru_cache
def limbs(skeleton: Skeleton) -> tuple[tuple[int, int], ...]:
    """Limbs (start, end) of a skeleton: its published table, else every bone from parent to child."""
    return tuple(skeleton.tables.get("limbs") or ((parent, child) for child, parent in skeleton.bones))


@lru_cache
def angle_pairs(skeleton: Skeleton) -> tuple[tuple[int, int], ...]:
    """Pairs of limbs whose angle is measured: the published table, else all pairs of limbs that share a joint."""
    if "angle_pairs" in skeleton.tables:
        return tuple(skeleton.tables["angle_pairs"])
    ends = [set(limb) for limb in limbs(skeleton)]
    return tuple((i, j) for i in range(len(ends)) for j in range(i + 1, len(ends)) if ends[i] & ends[j])


@dataclass(frozen=True)
class Need:
    """What a loss needs of a skeleton.

    Attributes:
        of: the skeleton's share of it; the loss cannot be computed where this is empty.
        name: of what is missing then, for a sentence.
    """

    of: Callable[[Skeleton], Collection[object]]
    name: str


_JOINT_WEIGHTS = Need(lambda skeleton: skeleton.tables.get("joint_weights", ()), "published joint weights")
_LIMBS = Need(limbs, "limbs")
_ANGLES = Need(angle_pairs, "limbs that share a joint")

# Losses that not every skeleton serves; whoever adds a loss to `LOSSES` says here what it needs.
NEEDS: dict[str, Need] = {
    "limb_variance": _LIMBS,
    "limb_length": _LIMBS,
    "limb_length_squared": _LIMBS,
    "limb_ratio": _LIMBS,
    "angle": _ANGLES,
    "angle_velocity": _ANGLES,
    "weighted_mpjpe": _JOINT_WEIGHTS,
    "tcl": _JOINT_WEIGHTS,
}


def refuse_unserved(names: Collection[str], skeleton: Skeleton) -> None:
    """Refuse losses that need what a skeleton does not have, before a batch is computed.

    Args:
        names: losses that are computed, known to `LOSSES` or not.
        skeleton: of the targets.

    Raises:
        ConfigError: naming them, what is missing, a skeleton that has it, and the overrides that leave them out.
    """
    lacking = [name for name in names if name in NEEDS and not NEEDS[name].of(skeleton)]
    if not lacking:
        return
    need = NEEDS[lacking[0]]
    together = [name for name in lacking if NEEDS[name] is need]
    served = [other.name for other in SKELETONS.values() if need.of(other)]
    raise ConfigError(
        f"{' and '.join(together)} cannot be trained with the skeleton {skeleton.name}, which has no {need.name} "
        f"(such as {served[0]} has). Use {' '.join(f'task.losses.{name}=0' for name in lacking)}."
    )


def temporal_consistency(pred: Tensor, weight: Tensor) -> Tensor:
    """Mean of weighted squared first differences in time of the prediction itself, which pulls towards stillness.

    Args:
        pred: (..., T, J, D).
        weight: (J,).

    Source: PoseMamba, loss/pose3d.py (loss_TCL).
    """
    return _mean_over_time(weight[:, None] * pred.diff(dim=-3).square())


def joint_weights(skeleton: Skeleton, like: Tensor) -> Tensor:
    """Published weights of the joints, (J,) in the type and on the device of `like`.

    Raises:
        ConfigError: for a skeleton without published weights.
    """
    refuse_unserved([name for name, need in NEEDS.items() if need is _JOINT_WEIGHTS], skeleton)
    return _weights(tuple(skeleton.tables["joint_weights"]), like.device, like.dtype)


def weighted_mpjpe(pred: Tensor, target: Tensor, weight: Tensor) -> Tensor:
    """Mean of weighted joint distances.

    Args:
        pred: (..., J, D).
        target: (..., J, D).
        weight: broadcasts with (..., J).
    """
    return (weight * pose_errors.joint_errors(pred, target)).mean()


def joint_2d(pred: Tensor, target: Tensor, confidence: Tensor) -> Tensor:
    """Mean over joints and frames of the confidence-weighted distance in the image plane (2D supervision).

    Args:
        pred: (..., J, 2 or more); only x and y are used.
        target: (..., J, 2 or more).
        confidence: (..., J, 1), inside the norm.

    Source: MotionBERT, lib/model/loss.py (loss_2d_weighted).
    """
    return torch.linalg.vector_norm((pred[..., :2] - target[..., :2]) * confidence, dim=-1).mean()


def trajectory_errors(pred: Tensor, target: Tensor) -> Tensor:
    """Distance of a predicted point from the true one, divided by the true distance from the image plane.

    What is far away is seen small: its place is known less well, and matters less.

    Args:
        pred: (..., 3) camera-space metres.
        target: (..., 3) likewise; depths below 0.1 m, which no camera sees a person at, count as that.

    Returns:
        (...,).

    Source: Pavllo et al. 2019, section 4 (weighted MPJPE of the trajectory).
    """
    return pose_errors.joint_errors(pred, target) / target[..., 2].clamp_min(_NEAREST)


def reprojection_errors(pose: Tensor, pose2d: Tensor, intrinsics: Tensor, *, linear: bool) -> Tensor:
    """Mean distance in the image between a projected pose and the keypoints, per frame.

    Args:
        pose: (B, T, J, 3) camera-space metres, the root not subtracted.
        pose2d: (B, T, J, 2 or more) normalised screen coordinates; only x and y are used.
        intrinsics: (B, 9) as `camera.intrinsics_vector` gives them.
        linear: leave the distortion of the lens out.

    Returns:
        (B, T) in half image widths.

    Source: Pavllo et al. 2019, section 4 (back-projection).
    """
    seen = (project_linear if linear else project)(pose, intrinsics)
    return pose_errors.joint_errors(seen, pose2d[..., :2]).mean(-1)


def bone_lengths(pose: Tensor, skeleton: Skeleton) -> Tensor:
    """Distance of every joint but the root from its parent: (..., J, 3) to (..., J - 1)."""
    child, parent = _index(skeleton.bones, pose.device)
    return torch.linalg.vector_norm(pose[..., child, :] - pose[..., parent, :], dim=-1)


def limb_lengths(pose: Tensor, skeleton: Skeleton) -> Tensor:
    """Lengths of the limbs: (..., J, 3) to (..., L); limbs as in `limbs`."""
    return torch.linalg.vector_norm(_limb_vectors(pose, skeleton), dim=-1)


def limb_angles(pose: Tensor, skeleton: Skeleton) -> Tensor:
    """Angles in radians between pairs of limbs: (..., J, 3) to (..., A); pairs as in `angle_pairs`."""
    first, second = _index(angle_pairs(skeleton), pose.device)
    vectors = _limb_vectors(pose, skeleton)
    cosine = F.cosine_similarity(vectors[..., first, :], vectors[..., second, :], dim=-1)
    # The slope of acos is infinite at +-1, where straight limbs are.
    return torch.acos(cosine.clamp(-1 + 1e-7, 1 - 1e-7))


def supcon(
    features: Tensor,
    labels: Tensor | None = None,
    *,
    mask: Tensor | None = None,
    temperature: float = 0.07,
    base_temperature: float = 0.07,
    anchors: str = "all",
    published: bool = False,
) -> Tensor:
    """Supervised contrastive loss; without labels its self-supervised form (SimCLR).

    For each anchor, -(temperature / base_temperature) times the mean over its positives p of
    S_ip - log sum_{k != i} exp S_ik, with S = F F^T / temperature; mean over the anchors that have positives.

    Args:
        features: (B, V, D) of unit length, V views of each sample.
        labels: (B,) classes; None makes the other views of a sample its only positives.
        mask: (B, B) in place of labels: 1 where the column's sample is a positive of the row's, or a weight.
        temperature: of the softmax.
        base_temperature: scale of the loss.
        anchors: "all" views, or "one" for the first view of each sample only.
        published: count anchors without positives too, as the published program does: one of them makes the loss NaN.

    Source: Khosla et al. 2020, equation 2; MotionBERT, lib/model/loss_supcon.py.
    """
    if anchors not in ("all", "one"):
        raise ValueError(f"anchors={anchors!r} is unknown. Use 'all' or 'one'.")
    if labels is not None and mask is not None:
        raise ValueError("supcon takes labels or a mask, not both. Leave one out.")
    samples, views, _ = features.shape
    contrast = features.transpose(0, 1).flatten(0, 1)  # (V*B, D): view by view
    count = len(contrast) if anchors == "all" else samples
    logits = contrast[:count] @ contrast.mT / temperature
    if mask is None:
        labels = torch.arange(samples, device=features.device) if labels is None else labels
        mask = labels[:, None] == labels[None, :]
    itself = torch.eye(count, len(contrast), dtype=torch.bool, device=features.device)
    positive = mask.to(features).repeat(views, views)[:count].masked_fill(itself, 0)
    # The smallest number instead of -inf: a batch of one sample has no other k, and must not give NaN gradients.
    others = logits.masked_fill(itself, torch.finfo(logits.dtype).min)
    log_probability = logits - others.logsumexp(dim=1, keepdim=True)
    number = positive.sum(1)
    total = torch.where(positive > 0, positive * log_probability, 0).sum(1)
    if published:
        return -(temperature / base_temperature) * (total / number).mean()
    mean_positive = total / torch.where(number > 0, number, 1)
    return -(temperature / base_temperature) * mean_positive.sum() / (number > 0).sum().clamp_min(1)


def _limb_vectors(pose: Tensor, skeleton: Skeleton) -> Tensor:
    start, end = _index(limbs(skeleton), pose.device)
    return pose[..., start, :] - pose[..., end, :]


@lru_cache
def _index(pairs: tuple[tuple[int, int], ...], device: torch.device) -> tuple[Tensor, Tensor]:
    """Both columns of an index table on the device, kept so that no step copies them again."""
    # A tensor born in inference mode could not be saved for a later backward pass.
    with torch.inference_mode(False):
        table = torch.tensor(pairs, device=device)
        return table[:, 0], table[:, 1]


@lru_cache
def _weights(values: tuple[float, ...], device: torch.device, dtype: torch.dtype) -> Tensor:
    with torch.inference_mode(False):
        return torch.tensor(values, device=device, dtype=dtype)


def _mean_over_time(values: Tensor) -> Tensor:
    return values.mean() if values.numel() else values.sum()


def _zero(pred: Tensor) -> Tensor:
    """Zero that still belongs to the graph of the prediction."""
    return pred[:0].sum()
