"""The published evaluations in plain form: errors per frame, sequence or clip, each read by the host at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from kinema.core.skeleton import Skeleton


def p_mpjpe(pred: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Distances after similarity alignment of every pose: (N, J, 3) twice to (N, J).

    Both poses are centred and divided by their norm; the rotation is that of the singular value decomposition of their
    product, with the last axis turned where it would be a reflection.
    """
    mean_target, mean_pred = target.mean(axis=1, keepdims=True), pred.mean(axis=1, keepdims=True)
    fixed, moving = target - mean_target, pred - mean_pred
    norm_fixed = np.sqrt((fixed**2).sum(axis=(1, 2), keepdims=True))
    norm_moving = np.sqrt((moving**2).sum(axis=(1, 2), keepdims=True))
    fixed, moving = fixed / norm_fixed, moving / norm_moving
    left, singular, right = np.linalg.svd(np.matmul(fixed.transpose(0, 2, 1), moving))
    turned = right.transpose(0, 2, 1)
    rotation = np.matmul(turned, left.transpose(0, 2, 1))
    sign = np.sign(np.expand_dims(np.linalg.det(rotation), axis=1))
    turned[:, :, -1] *= sign
    singular[:, -1] *= sign.flatten()
    rotation = np.matmul(turned, left.transpose(0, 2, 1))
    trace = np.expand_dims(singular.sum(axis=1, keepdims=True), axis=2)
    scale = trace * norm_fixed / norm_moving
    shift = mean_target - scale * np.matmul(mean_pred, rotation)
    aligned = scale * np.matmul(pred, rotation) + shift
    return np.linalg.norm(aligned - target, axis=-1)


def p_mpjpe_per_frame(pred: np.ndarray, target: np.ndarray) -> np.ndarray:
    """`p_mpjpe` called for one frame at a time: (N, J, 3) twice to (N,)."""
    return np.array([p_mpjpe(pred[i : i + 1], target[i : i + 1]).mean() for i in range(len(pred))])


def videopose3d(sequences: Sequence[tuple[Tensor, Tensor]], actions: Sequence[str]) -> dict[str, float]:
    """VideoPose3D's four errors in millimetres, one sequence after another, each number fetched by `.item()`.

    Args:
        sequences: prediction (1, T, J, 3) and root-relative target (1, T, J, 3) in metres.
        actions: of the sequences.

    Returns:
        Unweighted means over actions.
    """
    sums: dict[str, np.ndarray] = {}
    for (pred, target), action in zip(sequences, actions, strict=True):
        frames = pred.shape[0] * pred.shape[1]
        mpjpe = torch.mean(torch.norm(pred - target, dim=-1))
        norm_pred = torch.mean(torch.sum(pred**2, dim=3, keepdim=True), dim=2, keepdim=True)
        norm_target = torch.mean(torch.sum(target * pred, dim=3, keepdim=True), dim=2, keepdim=True)
        n_mpjpe = torch.mean(torch.norm(norm_target / norm_pred * pred - target, dim=-1))
        total = sums.setdefault(action, np.zeros(5))
        total[0] += frames
        total[1] += frames * mpjpe.item()
        total[3] += frames * n_mpjpe.item()
        inputs = target.cpu().numpy().reshape(-1, target.shape[-2], 3)
        outputs = pred.cpu().numpy().reshape(-1, pred.shape[-2], 3)
        total[2] += frames * p_mpjpe(outputs, inputs).mean()
        steps = np.linalg.norm(np.diff(outputs, axis=0) - np.diff(inputs, axis=0), axis=-1)
        total[4] += frames * steps.mean()
    means = np.mean([total[1:] / total[0] for total in sums.values()], axis=0) * 1000
    return dict(zip(("mpjpe", "p_mpjpe", "n_mpjpe", "mpjve"), means.tolist(), strict=True))


def motionbert(
    clips: Sequence[Mapping[str, np.ndarray]], actions: np.ndarray, blocked: np.ndarray, skeleton: Skeleton
) -> dict[str, float]:
    """MotionBERT's evaluation, one clip after another, errors scattered into arrays over all frames.

    Args:
        clips: `prediction` (T, J, 3) normalised image units, `pose3d_eval` (T, J, 3) mm, `factor` (T,) mm per pixel,
            `size` (T, 2) of the image, `frames` (T,) row numbers, `sequence` ().
        actions: (N,) action of every frame, as a number.
        blocked: (S,) sequences left out.
        skeleton: names the root.

    Returns:
        P1 and P2 in millimetres, unweighted means over actions.
    """
    first, second, count = np.zeros(len(actions)), np.zeros(len(actions)), np.zeros(len(actions))
    for clip in clips:
        pred = clip["prediction"].copy()
        pred[:, skeleton.root] = 0
        width, height = clip["size"][0]
        pred[:, :, :2] = (pred[:, :, :2] + np.array([1, height / width])) * width / 2
        pred[:, :, 2:] = pred[:, :, 2:] * width / 2
        if blocked[clip["sequence"]]:
            continue
        pred *= clip["factor"][:, None, None]
        root = slice(skeleton.root, skeleton.root + 1)
        pred, target = pred - pred[:, root], clip["pose3d_eval"] - clip["pose3d_eval"][:, root]
        frames = clip["frames"]
        first[frames] += np.mean(np.linalg.norm(pred - target, axis=-1), axis=1)
        second[frames] += np.mean(p_mpjpe(pred, target), axis=1)
        count[frames] += 1
    by_action: dict[int, list[tuple[float, float]]] = {}
    for frame in range(len(actions)):
        if first[frame] > 0:
            values = (first[frame] / count[frame], second[frame] / count[frame])
            by_action.setdefault(int(actions[frame]), []).append(values)
    means = np.mean([np.mean(values, axis=0) for values in by_action.values()], axis=0)
    return {"mpjpe": float(means[0]), "p_mpjpe": float(means[1])}
