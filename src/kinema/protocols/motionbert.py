"""The 2.5D protocol of MotionBERT on Human3.6M: errors per frame, averaged over overlapping clips, then per action."""

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
from kinema.protocols.measures import FRAME_COLUMNS, MEASURES, SCALARS, Tally, frame_measures, report_of
from kinema.protocols.report import Protocol, Report

if TYPE_CHECKING:
    from kinema.data.windows import Windows

_MOTION_COLUMNS = ("mpjve", "acceleration")


class MotionBERTProtocol(Protocol):
    """P1 and P2 on image-space poses scaled to millimetres at the root's depth.

    A prediction in normalised image units becomes pixels with the image size of its clip's first frame, millimetres
    with the factor of each frame, and root-relative. Every frame keeps the mean of its errors over the clips that show
    it (errors are averaged, not poses); a frame that a resampled clip repeats counts once, with its last occurrence.
    Frames without error are left out (published behaviour). Scalars are unweighted means over actions, `*_frames`
    means over frames. Velocity and acceleration compare neighbouring frames inside a clip.

    The target is a perspective image pose, not camera-space 3D: the numbers are not those of the videopose3d protocol.
    States are sums per frame, so the result does not depend on batch size or number of ranks.

    Args:
        windows: evaluation clips; the frames of a clip are in time order.
        root_relative: set the predicted root to zero first, other joints as predicted (published behaviour for models
            of root-relative targets). False leaves the prediction as it is.
        gt_2d: overwrite predicted x and y by the network's input.
        blocked: sequences left out, by their name without the camera; null = the three with wrong ground truth.

    Source: MotionBERT, train.py (evaluate).
    """

    name: ClassVar[str] = "motionbert"
    version: ClassVar[int] = 1
    space: ClassVar[str] = "image"
    scalars: ClassVar[tuple[str, ...]] = SCALARS
    needs: ClassVar[frozenset[str]] = NEEDS
    sums: Tensor
    counts: Tensor

    def __init__(
        self,
        windows: Windows,
        *,
        root_relative: bool = True,
        gt_2d: bool = False,
        blocked: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        self._frames = Frames(windows, blocked, self.name)
        self.skeleton = self._frames.skeleton
        self.root_relative = root_relative
        self.gt_2d = gt_2d
        columns = len(FRAME_COLUMNS) + len(self.skeleton) + len(_MOTION_COLUMNS)
        self.add_state("sums", torch.zeros(self._frames.count, columns, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("counts", torch.zeros(self._frames.count, 3, dtype=torch.float64), dist_reduce_fx="sum")

    @classmethod
    def root_options(cls, root_relative: bool) -> dict[str, Any]:
        """Treatment of the root for a network of root-relative targets, or of others."""
        return {"root_relative": root_relative}

    def millimetres(self, prediction: Tensor, batch: Mapping[str, Tensor]) -> Tensor:
        """Undo the normalisation: (B, T, J, 3) image units to mm, x and y from the image's corner, z from the root.

        Args:
            prediction: (B, T, J, 3).
            batch: `size` (B, T, 2) width and height in pixels, `factor` (B, T) mm per pixel; with `gt_2d` also `pose`.
        """
        if self.root_relative:
            prediction = with_root_at_zero(prediction, self.skeleton)
        if self.gt_2d:
            prediction = torch.cat([batch["pose"][..., :2].to(prediction.dtype), prediction[..., 2:]], dim=-1)
        return millimetres(prediction, batch)

    def update(self, prediction: Tensor, batch: Mapping[str, Tensor]) -> None:
        """Add the errors of a batch of clips.

        Args:
            prediction: (B, T, J, 3) normalised image units.
            batch: `pose3d_eval` (B, T, J, 3) mm; `factor`, `size` as in `millimetres`; `frames` (B, T) rows of the
                store; `index` (B,), -1 = filler; optional `valid` (B, T) or (B, T, J).
        """
        pred, target = relative_pair(self.millimetres(prediction, batch), batch, self.skeleton)
        frames, valid = batch["frames"], self._frames.valid(batch)
        kept = last_of_repeats(frames, valid)
        measures, joints = frame_measures(pred, target, unit=1.0)
        steps = [step_errors(pred, target, frames, valid, self._frames.step, order) for order in (1, 2)]
        motion, neighbours = (torch.stack(parts, dim=-1) for parts in zip(*steps, strict=True))
        values = torch.cat([measures, joints, motion], dim=-1)
        values[..., : -motion.shape[-1]].masked_fill_(~kept[..., None], 0)
        counts = torch.cat([kept[..., None], neighbours], dim=-1).double()
        rows = self._frames.rows(frames)
        self.sums.index_add_(0, rows, values.flatten(0, 1))
        self.counts.index_add_(0, rows, counts.flatten(0, 1))

    def compute(self) -> Report:
        """The report: scalars, tables per action, joint and subject; array of P1 and P2 per frame."""
        sums, counts = self.sums.cpu().numpy(), self.counts.cpu().numpy()
        means = sums[:, : len(FRAME_COLUMNS)] / np.maximum(counts[:, :1], 1)
        # published behaviour: a frame whose error is exactly 0 counts as never seen
        used = (counts[:, 0] > 0) & (sums[:, 0] != 0)
        totals = np.zeros((len(sums), len(MEASURES)))
        weights = np.repeat(used[:, None].astype(np.float64), len(MEASURES), axis=1)
        for column, name in enumerate(FRAME_COLUMNS):
            totals[:, MEASURES.index(name)] = np.where(used, means[:, column], 0)
        joints = sums[:, len(FRAME_COLUMNS) : -len(_MOTION_COLUMNS)] / np.maximum(counts[:, :1], 1)
        for column, name in enumerate(_MOTION_COLUMNS):
            count = counts[:, 1 + column]
            totals[:, MEASURES.index(name)] = sums[:, column - len(_MOTION_COLUMNS)] / np.maximum(count, 1)
            weights[:, MEASURES.index(name)] = count > 0
        tally = Tally(totals, weights, np.where(used[:, None], joints, 0))
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
            self.skeleton.joints,
            tables=tables,
            arrays=arrays,
        )
