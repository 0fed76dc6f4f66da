"""The protocol of MotionAGFormer on Human3.6M clips: MotionBERT's 2.5D errors with accelerations and velocities."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from kinema.protocols.image_space import (
    NEEDS,
    Frames,
    last_of_repeats,
    millimetres,
    relative_pair,
    step_errors,
    with_root_at_zero,
)
from kinema.protocols.measures import FRAME_COLUMNS, MEASURES, Tally, frame_measures, report_of
from kinema.protocols.report import Protocol, Report

if TYPE_CHECKING:
    from kinema.data.windows import Windows

# Published values, averaged over the same frames as mpjpe, and the acceleration over the frames that have one.
_MOTION_COLUMNS = ("mpjve", "acceleration", "acceleration_corrected")
_MEASURES = (*MEASURES, "acceleration_corrected")


class MotionAGFormerProtocol(Protocol):
    """P1, P2, acceleration and velocity errors of clips, for MotionAGFormer, PoseMamba and DBMambaPose.

    A prediction in normalised image units becomes pixels with the image size of its clip's first frame, millimetres
    with the factor of each frame, and root-relative. Every frame keeps the mean of its errors over the clips that show
    it; a frame that a resampled clip repeats counts once, with its last occurrence. Frames without error are left out.
    Scalars are unweighted means over actions, `*_frames` means over frames. Poses and block list are those of the
    motionbert protocol, so P1 and P2 are comparable with it; these two differ in what they do with time:

    `acceleration` is the published number: the error of a second difference stands at the first of its three frames,
    and the last two frames of every clip count as 0, so that with clips of n frames it is (n - 2) / n of the truth.
    `acceleration_corrected` is the mean over frames that have two neighbours behind them in their clip.
    `mpjve` gives the mean velocity error of a clip to each of its frames.

    States are sums per frame, so the result does not depend on batch size or number of ranks.

    Args:
        windows: evaluation clips; the frames of a clip are in time order.
        root_relative: set the predicted root to zero first, other joints as predicted (published behaviour for models
            of root-relative targets). False leaves the prediction as it is.
        blocked: sequences left out, by their name without the camera; null = the three with wrong ground truth.

    Source: MotionAGFormer, train.py (evaluate); the code of DBMambaPose does the same.
    """

    name: ClassVar[str] = "motionagformer"
    version: ClassVar[int] = 1
    space: ClassVar[str] = "image"
    scalars: ClassVar[tuple[str, ...]] = (*_MEASURES, *(f"{name}_frames" for name in _MEASURES))
    needs: ClassVar[frozenset[str]] = NEEDS
    sums: Tensor
    counts: Tensor

    def __init__(self, windows: Windows, *, root_relative: bool = True, blocked: Sequence[str] | None = None) -> None:
        super().__init__()
        self.root_relative = root_relative
        self._frames = Frames(windows, blocked, self.name)
        columns = len(FRAME_COLUMNS) + len(self._frames.skeleton) + len(_MOTION_COLUMNS)
        rows = self._frames.count
        self.add_state("sums", torch.zeros(rows, columns, dtype=torch.float64), dist_reduce_fx="sum")
        # Clips that show a frame, and those in which it has a corrected acceleration.
        self.add_state("counts", torch.zeros(rows, 2, dtype=torch.float64), dist_reduce_fx="sum")

    @classmethod
    def root_options(cls, root_relative: bool) -> dict[str, Any]:
        """Options for networks of root-relative targets, or of others."""
        return {"root_relative": root_relative}

    def update(self, prediction: Tensor, batch: Mapping[str, Tensor]) -> None:
        """Add the errors of a batch of clips.

        Args:
            prediction: (B, T, J, 3) normalised image units.
            batch: `pose3d_eval` (B, T, J, 3) mm; `factor` (B, T) mm per pixel; `size` (B, T, 2) pixels; `frames`
                (B, T) rows of the store; `index` (B,), -1 = filler; optional `valid` (B, T) or (B, T, J).
        """
        skeleton = self._frames.skeleton
        if self.root_relative:
            prediction = with_root_at_zero(prediction, skeleton)
        pred, target = relative_pair(millimetres(prediction, batch), batch, skeleton)
        frames, valid = batch["frames"], self._frames.valid(batch)
        kept = last_of_repeats(frames, valid)
        measures, joints = frame_measures(pred, target, unit=1.0)
        corrected, exists = step_errors(pred, target, frames, valid, self._frames.step, order=2)
        values = torch.cat(
            [
                measures.masked_fill_(~kept[..., None], 0),
                joints.masked_fill_(~kept[..., None], 0),
                torch.where(kept, _clip_velocity(pred, target, valid), 0)[..., None],
                _published_acceleration(pred, target, frames, valid)[..., None],
                corrected[..., None],
            ],
            dim=-1,
        )
        rows = self._frames.rows(frames)
        self.sums.index_add_(0, rows, values.flatten(0, 1))
        self.counts.index_add_(0, rows, torch.stack([kept, exists], dim=-1).double().flatten(0, 1))

    def compute(self) -> Report:
        """The report: scalars, tables per action, joint and subject; array of P1 and P2 per frame."""
        sums, counts = self.sums.cpu().numpy(), self.counts.cpu().numpy()
        names = (*FRAME_COLUMNS, *(None for _ in self._frames.skeleton.joints), *_MOTION_COLUMNS)
        means = sums / np.maximum(counts[:, :1], 1)
        means[:, -1] = sums[:, -1] / np.maximum(counts[:, 1], 1)
        # published behaviour: a frame whose error is exactly 0 counts as never seen
        used = (counts[:, 0] > 0) & (sums[:, 0] != 0)
        totals = np.zeros((len(sums), len(_MEASURES)))
        weights = np.repeat(used[:, None].astype(np.float64), len(_MEASURES), axis=1)
        weights[:, _MEASURES.index("acceleration_corrected")] = counts[:, 1] > 0
        for column, name in enumerate(names):
            if name is not None:
                totals[:, _MEASURES.index(name)] = means[:, column]
        totals = np.where(weights > 0, totals, 0)
        joints = means[:, len(FRAME_COLUMNS) : -len(_MOTION_COLUMNS)]
        tally = Tally(totals, weights, np.where(used[:, None], joints, 0), _MEASURES)
        subjects = self._frames.sequences.table["subject"]
        tables = {}
        if len(np.unique(subjects)) > 1:
            tables["subject"] = tally.rows("subject", *self._frames.spread(subjects))
        arrays = {
            "frame": np.flatnonzero(used) + self._frames.first,
            "mpjpe": means[used, FRAME_COLUMNS.index("mpjpe")],
            "p_mpjpe": means[used, FRAME_COLUMNS.index("p_mpjpe")],
        }
        return report_of(
            self.name,
            self.version,
            tally,
            self._frames.actions(),
            self._frames.skeleton.joints,
            tables=tables,
            arrays=arrays,
        )


def _clip_velocity(pred: Tensor, target: Tensor, valid: Tensor) -> Tensor:
    """Mean velocity error of each clip at every frame, repeated frames included: (B, T) float64."""
    if pred.shape[1] < 2:
        return torch.zeros(valid.shape, dtype=torch.float64, device=pred.device)
    pairs = valid[:, 1:] & valid[:, :-1]
    steps = torch.linalg.vector_norm((pred - target).diff(dim=1), dim=-1).mean(-1).double()
    mean = torch.where(pairs, steps, 0).sum(1) / pairs.sum(1).clamp_min(1)
    return mean[:, None].expand(valid.shape)


def _published_acceleration(pred: Tensor, target: Tensor, frames: Tensor, valid: Tensor) -> Tensor:
    """Second differences at the first of their frames, 0 at the last two: (B, T) float64.

    published behaviour: differences are taken between neighbours in the clip, whatever frames these are, and the last
    occurrence of a repeated frame is looked for among all but the last two.
    """
    errors = torch.zeros(valid.shape, dtype=torch.float64, device=pred.device)
    if pred.shape[1] < 3:
        return errors
    kept = last_of_repeats(frames[:, :-2], valid[:, :-2] & valid[:, 1:-1] & valid[:, 2:])
    distance = torch.linalg.vector_norm((pred - target).diff(n=2, dim=1), dim=-1).mean(-1)
    errors[:, :-2] = torch.where(kept, distance.double(), 0)
    return errors
