"""Lifting: 3D poses from 2D poses, for networks that give one pose per frame or one for the centre of a window."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from kinema.core import losses as core_losses
from kinema.core.align import first_frame_depth, root_relative
from kinema.core.shapes import expect
from kinema.core.skeleton import Skeleton
from kinema.core.spec import DataSpec, Signature
from kinema.data.windows import SEQUENCE, START, Windows
from kinema.errors import ConfigError
from kinema.inference.flip import flip_average as average_flips
from kinema.inference.slide import Join, slide
from kinema.inference.stream import Stream, stream
from kinema.inference.trajectory import Placed, separated
from kinema.protocols.registry import LIFTING as PROTOCOLS
from kinema.protocols.report import Protocol
from kinema.tasks.base import Batch, Task, one_of, options_by_protocol
from kinema.tasks.optim import OptimizerRecipe, SchedulerRecipe

TARGETS = ("root_relative", "first_frame_depth", "absolute")
# Supervision by the clean 2D pose instead of 3D, in image space (MotionBERT's 2D batches).
_FROM_2D = "joint_2d"
# Terms that are means over frames; a frame that does not count can be taken out of them exactly.
_PER_FRAME = frozenset(
    {"mpjpe", "n_mpjpe", "joint_l1", "limb_length", "angle", "weighted_mpjpe", "limb_length_squared", "limb_ratio"}
)


class LiftingTask(Task):
    """Train and judge a network that lifts 2D poses.

    Args:
        model: network with output "pose3d".
        optimizer: recipe.
        scheduler: recipe or null.
        losses: weight of each term of `core.losses.LOSSES` or `joint_2d`; terms of weight 0 are not computed.
        target: what the network predicts: "root_relative" joints (the root itself is predicted too, as zero);
            "first_frame_depth": depths from the root of the clip's first frame, x and y as they are (MotionBERT's
            global models); "absolute" camera-space joints.
        flip_average: predict the mirrored pose as well and take the mean.
        mask_invalid: frames beyond a sequence or with missing joints do not count in the loss. The velocity loses the
            steps next to them; `limb_variance` and `angle_velocity` keep all frames. false: repeated edge frames
            count, as in VideoPose3D's chunks.
        chunk: input frames in one pass when whole videos are predicted; bounds the memory, not the result.
        protocol: name in `protocols.registry.LIFTING`.
        protocol_options: options of each protocol by its name; how the root is treated follows `target` unless stated.
        options: those of `Task`.
    """

    name: ClassVar[str] = "lifting"
    outputs: ClassVar[frozenset[str]] = frozenset({"pose3d"})
    needs: ClassVar[frozenset[str]] = frozenset({"pose2d", "pose3d"})
    modes: ClassVar[frozenset[str]] = frozenset({"render"})

    def __init__(
        self,
        model: nn.Module,
        optimizer: OptimizerRecipe,
        scheduler: SchedulerRecipe | None = None,
        *,
        losses: Mapping[str, float],
        target: str,
        flip_average: bool,
        mask_invalid: bool,
        chunk: int,
        protocol: str,
        protocol_options: Mapping[str, Mapping[str, Any]] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(model, optimizer, scheduler, **options)
        self.weights = _weights(losses)
        self.target = one_of("target", target, TARGETS)
        self.flip_average = flip_average
        self.mask_invalid = mask_invalid
        self.chunk = chunk
        self.protocol = one_of("protocol", protocol, tuple(PROTOCOLS))
        self.protocol_options = options_by_protocol(protocol_options, tuple(PROTOCOLS))
        self._context: dict[str, tuple[int, int]] = {}
        self._has_gaps = True

    def check(self, signature: Signature, spec: DataSpec) -> None:
        """Refuse a protocol or a loss that does not belong to the data's space or skeleton."""
        space = PROTOCOLS[self.protocol].space
        if spec.has_3d and spec.space != space:
            other = next(name for name, its in PROTOCOLS.items() if its.space != space)
            raise ConfigError(
                f"task.protocol={self.protocol} measures {space}-space poses, but this data set has {spec.space} ones. "
                f"Use task.protocol={other}."
            )
        if _FROM_2D in self.weights and spec.space != "image":
            raise ConfigError(
                f"The loss {_FROM_2D} compares predicted x, y with the 2D pose, which only image-space targets allow; "
                f"this data set has {spec.space} space. Use task.losses.{_FROM_2D}=0."
            )
        if spec.has_3d and spec.skeleton is not None:
            core_losses.refuse_unserved(self.weights, spec.skeleton)

    def prepare(self, stage: str, windows: Windows) -> None:
        """Remember the context of the windows, and whether training windows have frames that do not count."""
        self._context[stage] = windows.context
        if stage == "train":
            self._has_gaps = has_gaps(windows)

    # Training.

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Weighted loss of a batch.

        Args:
            batch: `pose` (B, T, J2, C); `pose3d` (B, T', J, 3) unless only `joint_2d` is trained, then `pose2d`
                (B, T, J2, 2 or 3); optional `valid` (B, T') or (B, T', J).

        Returns:
            `loss`, the weighted sum, and every term before its weight.
        """
        pred = full_precision(self._cut(self._settle(self._network()(batch["pose"])), batch))
        terms = self._terms_of(pred, batch)
        total = sum((weight * terms[name] for name, weight in self.weights.items()), start=pred.new_zeros(()))
        return {"loss": total, **terms}

    def _terms_of(self, pred: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Every supervised term of a prediction (B, T', J, 3), before its weight."""
        terms: dict[str, Tensor] = {}
        spatial = [name for name in self.weights if name != _FROM_2D]
        if spatial:
            expect(pred, "B T J 3", "prediction", **expect(batch["pose3d"], "B T J 3", "pose3d"))
            target = self._target(batch["pose3d"])
            valid = self._valid(batch) if self.mask_invalid and self._has_gaps else None
            for name in spatial:
                terms[name] = _term(name, pred, target, self.skeleton, valid)
        if _FROM_2D in self.weights:
            terms[_FROM_2D] = self._loss_2d(pred, batch)
        return terms

    def _target(self, pose3d: Tensor) -> Tensor:
        if self.target == "root_relative":
            return root_relative(pose3d, self.skeleton)
        return first_frame_depth(pose3d, self.skeleton) if self.target == "first_frame_depth" else pose3d

    def _loss_2d(self, pred: Tensor, batch: Batch) -> Tensor:
        pose2d = self._seen(batch, pred.shape[1])
        confidence = pose2d[..., 2:3] if pose2d.shape[-1] > 2 else torch.ones_like(pose2d[..., :1])
        places = pose2d[..., :2]
        if self.target == "root_relative":
            places = root_relative(places, self.skeleton)
        return core_losses.joint_2d(pred, places, confidence)

    def _seen(self, batch: Batch, frames: int) -> Tensor:
        """Keypoints of the target frames (B, frames, J2, C)."""
        before = self._context.get("train", self.signature.context)[0]
        return batch["pose2d"][:, before : before + frames]

    @staticmethod
    def _valid(batch: Batch) -> Tensor | None:
        valid = batch.get("valid")
        return valid if valid is None or valid.ndim == 2 else valid.all(-1)

    # Prediction.

    def predict(  # type: ignore[override]
        self,
        batch: Batch,
        *,
        flip_average: bool | None = None,
        overlap: int = 0,
        join: Join = "first",
        trajectory: bool = False,
    ) -> Tensor:
        """Predict the target frames of windows, clips or whole sequences.

        Args:
            batch: `pose` (B, before + L + after, J2, C).
            flip_average: null follows the task.
            overlap, join: of clips, see `inference.slide.slide`.
            trajectory: add the path of a nested trajectory network to root-relative poses.

        Returns:
            (B, L, J, 3) in the unit of the targets; with `trajectory` in camera space.
        """

        network = self._network(trajectory)

        def run(pose: Tensor) -> Tensor:
            return self._settle(slide(network, pose, chunk=self.chunk, overlap=overlap, join=join))

        pose = batch["pose"]
        averaged = self.flip_average if flip_average is None else flip_average
        out = average_flips(run, pose, self.skeleton2d, self.skeleton) if averaged else run(pose)
        return full_precision(self._cut(out, batch))

    def stream(
        self,
        *,
        look_ahead: int | None = None,
        flip_average: bool | None = None,
        batch: int = 1,
        trajectory: bool = False,
    ) -> Stream:
        """Predict frame by frame, as `predict` does for what has been seen; see `inference.stream.stream`."""
        averaged = self.flip_average if flip_average is None else flip_average
        flip = (self.skeleton2d, self.skeleton) if averaged else None
        network = self._network(trajectory)
        return stream(network, look_ahead=look_ahead, flip=flip, batch=batch, settle=self._settle)

    def _network(self, trajectory: bool = False) -> nn.Module:
        """The network to run: root-relative targets leave a nested trajectory network out (published behaviour)."""
        if self.target != "root_relative":
            return self.model
        return Placed(self.model) if trajectory else separated(self.model)[0]

    def _settle(self, out: Tensor) -> Tensor:
        """Add the trajectory, which stands in the root's slot, to the other joints where targets are not relative."""
        if not self.signature.trajectory or self.target == "root_relative":
            return out
        root = self.skeleton.root
        is_root = torch.arange(out.shape[-2], device=out.device)[:, None] == root
        return torch.where(is_root, out, out + out[..., root : root + 1, :])

    def _cut(self, out: Tensor, batch: Batch) -> Tensor:
        """Cut off outputs in the margin, where the windows' context is wider than the network's."""
        used = self.signature.context
        before, after = self._context.get(self.stage, used)
        first, last = before - used[0], after - used[1]
        return out if first == last == 0 else out[:, first : out.shape[1] - last]

    # Evaluation.

    def protocols(self, windows: Windows) -> dict[str, Protocol]:
        protocol = PROTOCOLS[self.protocol]
        stated = self.protocol_options.get(self.protocol, {})
        options = protocol.root_options(self.target == "root_relative")
        options |= {key: value for key, value in stated.items() if value is not None}
        try:
            return {self.protocol: protocol(windows, **options)}
        except TypeError as error:
            raise ConfigError(f"task.protocol_options.{self.protocol}: {error}. See conf/task/lifting.yaml.") from error

    def scalars(self) -> tuple[str, ...]:
        return tuple(PROTOCOLS[self.protocol].scalars)

    @property
    def skeleton(self) -> Skeleton:
        """Of the targets."""
        return _known(self.spec.skeleton if self.spec else None)

    @property
    def skeleton2d(self) -> Skeleton:
        """Of the input."""
        return _known(self.spec.skeleton2d if self.spec else None)


def full_precision(out: Tensor) -> Tensor:
    """Half precision as float32: errors are small differences."""
    return out.float() if out.dtype in (torch.float16, torch.bfloat16) else out


def has_gaps(windows: Windows) -> bool:
    """Whether some target frames lie beyond their sequence or are marked as missing."""
    if "valid" in windows.sequences.arrays:
        return True
    if windows.targets is None or windows.rule == "given":
        return False
    rows = np.asarray(windows.table)
    length = windows.sequences.table["length"][rows[:, SEQUENCE]]
    return bool((rows[:, START] < 0).any() or (rows[:, START] + windows.targets > length).any())


def _term(name: str, pred: Tensor, target: Tensor, skeleton: Skeleton, valid: Tensor | None) -> Tensor:
    """One term; with `valid` (B, T) only over the frames, or the steps between two frames, that count."""
    if name == "velocity" and valid is not None and pred.shape[1] > 1:
        # The velocity error is the position error of first differences.
        pred, target, valid = pred.diff(dim=1), target.diff(dim=1), valid[:, 1:] & valid[:, :-1]
        name = "mpjpe"
    if valid is None or name not in _PER_FRAME:
        return core_losses.LOSSES[name](pred, target, skeleton)
    # A prediction equal to its target costs nothing; the mean is then over too many frames.
    counted = valid[..., None, None]
    pred, target = torch.where(counted, pred, target.nan_to_num()), torch.where(counted, target, target.nan_to_num())
    return core_losses.LOSSES[name](pred, target, skeleton) * (valid.numel() / valid.sum().clamp_min(1))


def _weights(losses: Mapping[str, float]) -> dict[str, float]:
    known = (*core_losses.LOSSES, _FROM_2D)
    for name in losses:
        one_of("losses", name, known)
    weights = {name: float(weight) for name, weight in losses.items() if weight}
    if not weights:
        raise ConfigError("Every loss has weight 0. Use task.losses.mpjpe=1.")
    return weights


def _known(skeleton: Skeleton | None) -> Skeleton:
    if skeleton is None:
        raise ConfigError("The task does not know the skeleton yet. Call task.describe(spec=..., config=...) first.")
    return skeleton
