"""The 2.5D protocol of MotionBERT on Human3.6M: errors per frame, averaged over overlapping clips, then per action."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from kinema.core import align, pose_errors
from kinema.core.preprocess import preprocess
from kinema.core.shapes import expect
from kinema.errors import ConfigError
from kinema.protocols.measures import FRAME_COLUMNS, MEASURES, SCALARS, Tally, frame_measures, groups_of, report_of
from kinema.protocols.report import Protocol, Report

if TYPE_CHECKING:
    from kinema.data.windows import Windows

_MOTION_COLUMNS = ("mpjve", "acceleration")
# Videos with wrong ground truth, all cameras: S9 Greet, SittingDown and Wait.
BLOCKED = ("s_09_act_05_subact_02", "s_09_act_10_subact_02", "s_09_act_13_subact_01")


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
    needs: ClassVar[frozenset[str]] = frozenset({"pose3d_eval", "factor", "size", "frames", "index"})
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
        sequences = windows.sequences
        missing = {"pose3d_eval", "factor", "size"} - set(sequences.arrays)
        if sequences.skeleton is None or missing:
            raise ConfigError(
                f"The motionbert protocol needs {', '.join(sorted(missing)) or '3D truth'} in the data, as the "
                f"MotionBERT Human3.6M file has. Use task.protocol=videopose3d, or dataset=h36m_sh."
            )
        self.skeleton = sequences.skeleton
        self.root_relative = root_relative
        self.gt_2d = gt_2d
        self.step = sequences.step
        self._sequences = sequences
        table = sequences.table
        self._first = int(table["start"].min())
        self._frames = int((table["start"] + (table["length"] - 1) * self.step).max()) + 1 - self._first
        names = BLOCKED if blocked is None else tuple(blocked)
        left_out = torch.tensor([str(trial) in names for trial in table["trial"]])
        rows = torch.from_numpy(np.asarray(windows.table)[:, 0].astype(np.int64))
        # No buffer: what averages the weights of a module averages its buffers too.
        self._left_out = left_out[rows]
        columns = len(FRAME_COLUMNS) + len(self.skeleton) + len(_MOTION_COLUMNS)
        self.add_state("sums", torch.zeros(self._frames, columns, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("counts", torch.zeros(self._frames, 3, dtype=torch.float64), dist_reduce_fx="sum")

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
            is_root = torch.arange(len(self.skeleton), device=prediction.device)[:, None] == self.skeleton.root
            prediction = torch.where(is_root, 0, prediction)
        if self.gt_2d:
            prediction = torch.cat([batch["pose"][..., :2].to(prediction.dtype), prediction[..., 2:]], dim=-1)
        size = batch["size"][:, 0].double()  # the ratio of the sides must not be rounded to float32
        pixels = preprocess("motionbert").image_from_network(prediction, size[:, 0], size[:, 1])
        return pixels * batch["factor"][..., None, None]

    def update(self, prediction: Tensor, batch: Mapping[str, Tensor]) -> None:
        """Add the errors of a batch of clips.

        Args:
            prediction: (B, T, J, 3) normalised image units.
            batch: `pose3d_eval` (B, T, J, 3) mm; `factor`, `size` as in `millimetres`; `frames` (B, T) rows of the
                store; `index` (B,), -1 = filler; optional `valid` (B, T) or (B, T, J).
        """
        sizes = expect(batch["pose3d_eval"], "B T J 3", "pose3d_eval", J=len(self.skeleton))
        expect(prediction, "B T J 3", "prediction", **sizes)
        pred = align.root_relative(self.millimetres(prediction, batch), self.skeleton)
        target = align.root_relative(batch["pose3d_eval"].to(pred.dtype), self.skeleton)
        index, frames = batch["index"], batch["frames"]
        self._left_out = self._left_out.to(index.device)
        valid = ((index >= 0) & ~self._left_out[index.clamp_min(0)])[:, None].expand(frames.shape)
        if "valid" in batch:
            known = batch["valid"].bool()
            valid = valid & (known if known.ndim == 2 else known.all(-1))
        # Of a frame that a clip repeats the last occurrence counts; clips are in time order.
        kept = valid.clone()
        kept[:, :-1] &= ~(valid[:, 1:] & (frames[:, 1:] == frames[:, :-1]))
        measures, joints = frame_measures(pred, target, unit=1.0)
        motion, neighbours = self._motion(pred, target, frames, valid)
        values = torch.cat([measures, joints, motion], dim=-1)
        values[..., : -motion.shape[-1]].masked_fill_(~kept[..., None], 0)
        counts = torch.cat([kept[..., None], neighbours], dim=-1).double()
        rows = (frames - self._first).flatten()
        self.sums.index_add_(0, rows, values.flatten(0, 1))
        self.counts.index_add_(0, rows, counts.flatten(0, 1))

    def _motion(self, pred: Tensor, target: Tensor, frames: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T, 2) velocity and acceleration errors at the first of their frames, and whether they exist."""
        errors = torch.zeros(*frames.shape, 2, dtype=torch.float64, device=frames.device)
        exists = torch.zeros(*frames.shape, 2, dtype=torch.bool, device=frames.device)
        next_door = (frames.diff(dim=1) == self.step) & valid[:, 1:] & valid[:, :-1]
        for column, order in enumerate((1, 2)):
            length = frames.shape[1] - order
            if length < 1:
                continue
            pairs = next_door if order == 1 else next_door[:, 1:] & next_door[:, :-1]
            error = pose_errors.mpjve if order == 1 else pose_errors.acceleration_error
            errors[:, :length, column] = torch.where(pairs, error(pred, target).double(), 0)
            exists[:, :length, column] = pairs
        return errors, exists

    def compute(self) -> Report:
        """The report: scalars, tables per action, joint and subject; array of P1 and P2 per frame."""
        sums, counts = self.sums.cpu().numpy(), self.counts.cpu().numpy()
        means = sums[:, : len(FRAME_COLUMNS)] / np.maximum(counts[:, :1], 1)
        # published behaviour: a frame whose error is exactly 0 counts as never seen
        used = (counts[:, 0] > 0) & (sums[:, 0] != 0)
        totals = np.zeros((self._frames, len(MEASURES)))
        weights = np.repeat(used[:, None].astype(np.float64), len(MEASURES), axis=1)
        for column, name in enumerate(FRAME_COLUMNS):
            totals[:, MEASURES.index(name)] = np.where(used, means[:, column], 0)
        joints = sums[:, len(FRAME_COLUMNS) : -len(_MOTION_COLUMNS)] / np.maximum(counts[:, :1], 1)
        for column, name in enumerate(_MOTION_COLUMNS):
            count = counts[:, 1 + column]
            totals[:, MEASURES.index(name)] = sums[:, column - len(_MOTION_COLUMNS)] / np.maximum(count, 1)
            weights[:, MEASURES.index(name)] = count > 0
        tally = Tally(totals, weights, np.where(used[:, None], joints, 0))
        table = self._sequences.table
        tables = {}
        if len(np.unique(table["subject"])) > 1:
            tables["subject"] = tally.rows("subject", *self._per_frame(table["subject"]))
        arrays = {
            "frame": np.flatnonzero(used) + self._first,
            "mpjpe": means[used, FRAME_COLUMNS.index("mpjpe")],
            "p_mpjpe": means[used, FRAME_COLUMNS.index("p_mpjpe")],
        }
        return report_of(
            self.name,
            self.version,
            tally,
            self._actions(),
            self.skeleton.joints,
            tables=tables,
            arrays=arrays,
        )

    def _actions(self) -> tuple[np.ndarray, list[str]]:
        """Action of every frame: the file's own column where the store kept it, else that of its sequence."""
        if "action" in self._sequences.arrays:
            column = np.asarray(self._sequences.arrays["action"][self._first : self._first + self._frames])
            return column.astype(np.int64), list(self._sequences.meta["actions"])
        return self._per_frame(self._sequences.table["action"])

    def _per_frame(self, column: np.ndarray) -> tuple[np.ndarray, list[str]]:
        """Spread a column of the table over the frames of its sequences; -1 between them."""
        of_sequence, names = groups_of(column)
        spread = np.full(self._frames, -1)
        table = self._sequences.table
        for start, length, group in zip(table["start"] - self._first, table["length"], of_sequence, strict=True):
            spread[start : start + length * self.step] = group
        return spread, names
