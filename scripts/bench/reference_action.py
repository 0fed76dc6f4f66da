"""Action recognition in plain form: a clip is prepared item by item in numpy, networks run layer by layer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset

from scripts.bench.reference_networks import dstformer_features

Item = tuple[Tensor, int]


class MicroActionClips(Dataset[Item]):
    """MA-52 as the published program reads it: resampled in the beginning, an item is moved and cropped.

    Args:
        clips: (T, J, 3) each, prepared.
        labels: class of each.
        frames: of an item.
        draws: (N, frames) uniforms that frames are drawn by.
        moves: (N, 4, 2) angle in degrees, scale and shifts at both ends of a clip.
        ratios: (N,) of the crop. All draws are made beforehand, so that both forms can be compared.
    """

    def __init__(
        self,
        clips: Sequence[np.ndarray],
        labels: Sequence[int],
        frames: int,
        draws: np.ndarray,
        moves: np.ndarray,
        ratios: np.ndarray,
    ) -> None:
        self.labels, self.moves, self.ratios = labels, moves, ratios
        self.motions = np.zeros((len(clips), 2, frames, *clips[0].shape[1:]), np.float32)  # the second one is empty
        for number, clip in enumerate(clips):
            self.motions[number, 0] = clip[resampled(len(clip), frames, draws[number])]

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, item: int) -> Item:
        motion = random_move(self.motions[item].copy(), self.moves[item])
        return torch.from_numpy(crop_scale(motion, float(self.ratios[item]))), self.labels[item]


def resampled(length: int, count: int, draws: np.ndarray) -> np.ndarray:
    """Frame numbers of a clip: one of each interval, or in a short clip the ones around each place by a coin."""
    even = np.arange(count) * (length / count)
    if length < count:
        chosen = np.sort(np.where(draws < 0.5, np.ceil(even), np.floor(even)))
    else:
        chosen = even + draws * (length / count)
    return np.clip(chosen, 0, length - 1).astype(np.int64)


def random_move(motion: np.ndarray, ends: np.ndarray) -> np.ndarray:
    """Turn, scale and shift (M, T, J, 3) frame by frame, by amounts between those at both ends."""
    frames = motion.shape[1]
    angle, scale, shift_x, shift_y = (np.linspace(first, last, frames) for first, last in ends)
    angle = np.deg2rad(angle)
    turns = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) * scale
    for frame in range(frames):
        points = turns[:, :, frame] @ motion[:, frame, :, :2].reshape(-1, 2).T
        moved = points + np.array([[shift_x[frame]], [shift_y[frame]]])
        motion[:, frame, :, :2] = moved.T.reshape(len(motion), -1, 2)
    return motion


def crop_scale(motion: np.ndarray, ratio: float) -> np.ndarray:
    """Move and scale the box of all points with a third channel to [-1, 1] times 1 / ratio."""
    seen = motion[motion[..., 2] != 0][:, :2]
    if len(seen) < 4:
        return np.zeros(motion.shape, np.float32)
    low, high = seen.min(0), seen.max(0)
    side = (high - low).max() * ratio
    if side == 0:
        return np.zeros(motion.shape, np.float32)
    out = motion.copy()
    out[..., :2] = ((motion[..., :2] - (low + high - side) / 2) / side - 0.5) * 2
    return out.clip(-1, 1).astype(np.float32)


class KinectClips(Dataset[Item]):
    """NTU RGB+D as PYSKL feeds graph networks: an item is set upright, sampled, and filled up to two persons.

    Args:
        clips: (M, T, 25, 3) each, as recorded.
        labels: class of each.
        frames: of an item.
        draws: (N, frames + 1) uniforms that frames are drawn by.
        joints: of the body that turn it: "centre", "spine", "shoulders".
    """

    def __init__(
        self,
        clips: Sequence[np.ndarray],
        labels: Sequence[int],
        frames: int,
        draws: np.ndarray,
        joints: dict[str, Any],
    ) -> None:
        self.clips, self.labels, self.frames, self.draws, self.joints = clips, labels, frames, draws, joints

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, item: int) -> Item:
        clip = upright(self.clips[item], self.joints)
        chosen = clip[:, uniform(clip.shape[1], self.frames, self.draws[item])]
        if len(chosen) < 2:
            chosen = np.concatenate([chosen, np.zeros_like(chosen)])
        return torch.from_numpy(np.ascontiguousarray(chosen[:2], np.float32)), self.labels[item]


def upright(clip: np.ndarray, joints: dict[str, Any]) -> np.ndarray:
    """Put the first frame into the origin, its spine along z, its shoulders along x."""
    measured = ((clip != 0).sum(-1) > 0)[..., None]
    clip = (clip - clip[0, 0, joints["centre"]]) * measured
    lower, upper = joints["spine"]
    clip = _turned(clip, clip[0, 0, upper] - clip[0, 0, lower], np.array([0.0, 0.0, 1.0]))
    right, left = joints["shoulders"]
    return _turned(clip, clip[0, 0, right] - clip[0, 0, left], np.array([1.0, 0.0, 0.0]))


def _turned(clip: np.ndarray, start: np.ndarray, end: np.ndarray) -> np.ndarray:
    """Turn a clip so that one direction becomes another."""
    axis = np.cross(start, end)
    axis = axis / np.linalg.norm(axis)
    angle = np.arccos(np.clip(start @ end / np.linalg.norm(start) / np.linalg.norm(end), -1, 1))
    x, y, z = axis
    across = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    turn = np.eye(3) + np.sin(angle) * across + (1 - np.cos(angle)) * across @ across
    return np.einsum("mtvc,kc->mtvk", clip, turn)


def uniform(length: int, count: int, draws: np.ndarray) -> np.ndarray:
    """Frame numbers of a clip by its length: played again, some frames left out, or one of each part."""
    if length < count:
        return (int(draws[0] * length) + np.arange(count)) % length
    if length < 2 * count:
        left_out = np.zeros(count + 1, np.int64)
        left_out[np.argsort(draws, kind="stable")[: length - count]] = 1
        return np.arange(count) + np.cumsum(left_out)[:-1]
    starts = np.array([part * length // count for part in range(count + 1)])
    return starts[:-1] + (draws[:count] * np.diff(starts)).astype(np.int64)


def action_net(model: Any, pose: Tensor, persons: Tensor | None = None) -> Tensor:
    """MotionBERT's action network on (B, M, T, J, C): all persons go through the backbone, there or not.

    Args:
        model: an ActionNet with a head "class" on a DSTformer.
        pose: (B, M, T, J, C).
        persons: (B, M) who are in the mean; None = all, as published.
    """
    batch, count = pose.shape[:2]
    features = dstformer_features(model.backbone, pose.reshape(batch * count, *pose.shape[2:]))
    features = F.dropout(features, model.dropout.p, model.training).reshape(batch, count, *features.shape[1:])
    pooled = features.permute(0, 1, 3, 4, 2).mean(-1).reshape(batch, count, -1)
    weights = pooled.new_ones(1, count) if persons is None else persons
    pooled = (pooled * weights[..., None]).sum(1) / weights.sum(1, keepdim=True)
    head = model.head
    return head.fc2(F.relu(head.bn(head.fc1(pooled))))


def stgcn(model: Any, pose: Tensor) -> Tensor:
    """ST-GCN++ as PYSKL computes it: channels before joints by an einsum, every branch on its own.

    Args:
        model: an STGCN with learned links, residuals inside and branches over time.
        pose: (B, M, T, V, C).
    """
    batch, count, frames, joints, channels = pose.shape
    x = pose.permute(0, 1, 3, 4, 2).reshape(batch * count, joints * channels, frames)
    x = model.backbone.data_bn(x).reshape(batch * count, joints, channels, frames)
    x = x.permute(0, 2, 3, 1).contiguous()
    for stage in model.backbone.gcn:
        out = _branches(stage.tcn, _graph(stage.gcn, x))
        if not stage.first:
            carried = stage.residual
            out = out + (carried.bn(carried.conv(x)) if hasattr(carried, "conv") else x)
        x = F.relu(out)
    return model.cls_head.fc_cls(x.mean((2, 3)).reshape(batch, count, -1).mean(1))


def _graph(unit: Any, x: Tensor) -> Tensor:
    values = unit.conv(x)
    rows, _, frames, joints = values.shape
    values = values.reshape(rows, len(unit.A), -1, frames, joints)
    mixed = torch.einsum("nkctv,kvw->nctw", values, unit.A).contiguous()
    carried = unit.down[1](unit.down[0](x)) if isinstance(unit.down, torch.nn.Sequential) else x
    return F.relu(unit.bn(mixed) + carried)


def _branches(unit: Any, x: Tensor) -> Tensor:
    outs = []
    for branch in unit.branches:
        if isinstance(branch, torch.nn.Conv2d):
            outs.append(branch(x))
            continue
        entry, norm, _, last = branch
        active = F.relu(norm(entry(x)))
        outs.append(last.conv(active) if hasattr(last, "conv") else last(active))
    norm, _, conv = unit.transform
    return unit.bn(conv(F.relu(norm(torch.cat(outs, dim=1)))))


def train(
    batches: Iterable[tuple[Any, ...]], forward: Callable[..., Tensor], optimizer: torch.optim.Optimizer
) -> list[Tensor]:
    """Train on some batches (input ..., label); the losses."""
    losses = []
    for *inputs, label in batches:
        loss = F.cross_entropy(forward(*inputs), label)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        losses.append(loss.detach())
    return losses
