"""Semi-supervised lifting: a pose and a trajectory network, also trained on keypoints of persons without 3D."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from kinema.core import losses as core_losses
from kinema.core.spec import DataSpec, Signature
from kinema.data.windows import Windows
from kinema.errors import ConfigError
from kinema.inference.trajectory import separated
from kinema.tasks.base import Batch
from kinema.tasks.lifting import LiftingTask, full_precision
from kinema.tasks.optim import OptimizerRecipe, SchedulerRecipe

# Terms of this task beside those of lifting; the last two need an unlabelled batch.
TRAJECTORY, PROJECTION, BONE_LENGTH = "trajectory", "projection", "bone_length"

# Ways from pixels to the coordinates that a projection gives.
_PROJECTED = ("videopose3d", "motionbert")


class LiftingSemiTask(LiftingTask):
    """Train a pose network and its nested trajectory network together, with or without unlabelled data.

    Labelled batches give the terms of `LiftingTask` and the error of the trajectory, weighted by 1 / depth. After
    `warmup` epochs an unlabelled batch beside each gives two more: its predicted poses, moved by the predicted
    trajectory, must be seen where the keypoints are, and its bones must be as long, on average, as those predicted for
    the labelled batch. Both batches go through the networks as one, so BatchNorm sees both.

    Args:
        model: with a nested trajectory network (VideoPose3D with `trajectory`).
        optimizer: recipe.
        scheduler: recipe or null.
        losses: weights as in `LiftingTask`, and `trajectory`, `projection`, `bone_length`.
        warmup: epochs of supervised training before the unlabelled data count.
        linear_projection: leave the distortion of the lenses out.
        options: those of `LiftingTask`.

    Source: Pavllo et al. 2019, section 4; VideoPose3D, run.py.
    """

    name: ClassVar[str] = "lifting_semi"
    sources: ClassVar[frozenset[str]] = frozenset({"unlabeled"})

    def __init__(
        self,
        model: nn.Module,
        optimizer: OptimizerRecipe,
        scheduler: SchedulerRecipe | None = None,
        *,
        losses: Mapping[str, float],
        warmup: int,
        linear_projection: bool,
        **options: Any,
    ) -> None:
        own = (TRAJECTORY, PROJECTION, BONE_LENGTH)
        supervised = {name: weight for name, weight in losses.items() if name not in own}
        super().__init__(model, optimizer, scheduler, losses=supervised, **options)
        self.own_weights = {name: float(losses[name]) for name in own if losses.get(name)}
        self.warmup = warmup
        self.linear_projection = linear_projection

    def check(self, signature: Signature, spec: DataSpec) -> None:
        """Refuse networks without a trajectory, and data whose targets have no place in front of a camera."""
        super().check(signature, spec)
        if not signature.trajectory:
            raise ConfigError(
                f"task={self.name} also trains a trajectory network, and this model holds none. "
                "Use model=videopose3d model.trajectory=true, or task=lifting for the pose alone."
            )
        if self.target != "root_relative" or spec.space != "camera":
            raise ConfigError(
                f"task={self.name} predicts root-relative poses and their path in camera space; here are "
                f"{self.target} targets in {spec.space} space. Use task.target=root_relative with a data set in camera "
                "space, such as dataset=h36m_gt."
            )

    def prepare(self, stage: str, windows: Windows) -> None:
        """Ask the unlabelled data for the lenses they were seen through."""
        super().prepare(stage, windows)
        others = getattr(self._data(), "unlabeled", None) if stage == "train" else None
        if others is None or PROJECTION not in self.own_weights:
            return
        _refuse_unprojectable(others.windows("train").sequences.cameras, others.spec)
        others.require("intrinsics")

    # Training.

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        """Weighted loss of a labelled batch, and of an unlabelled one where there is one and warm-up is over.

        Args:
            batch: of `LiftingTask`, or {"labeled": such a batch, "unlabeled": batch}; the latter has `pose`
                (B', T, J2, C), `pose2d` (B', T, J2, C'), `intrinsics` (B', 9) where the projection has a weight.

        Returns:
            `loss`, the weighted sum, and every term before its weight.
        """
        labeled: Any = batch.get("labeled", batch)
        unlabeled: Any = batch.get("unlabeled") if self._warmed_up() else None
        both = [labeled] if unlabeled is None else [labeled, unlabeled]
        sizes = [len(part["pose"]) for part in both]
        seen = torch.cat([part["pose"] for part in both])
        network, twin = separated(self.model)
        assert twin is not None
        poses, paths = (full_precision(self._cut(run(seen), batch)).split(sizes) for run in (network, twin))
        terms = self._terms_of(poses[0], labeled)
        counted = [self._counted(part, pose) for part, pose in zip(both, poses, strict=True)]
        if TRAJECTORY in self.own_weights:
            root = labeled["pose3d"][:, :, self.skeleton.root]
            terms[TRAJECTORY] = _mean(core_losses.trajectory_errors(paths[0][:, :, 0], root), counted[0])
        shares = self._shares(counted)
        total = sum((weight * terms[name] for name, weight in self.weights.items()), start=poses[0].new_zeros(()))
        total = shares[0] * (total + self.own_weights.get(TRAJECTORY, 0) * terms.get(TRAJECTORY, 0))
        if unlabeled is None:
            return {"loss": total, **terms}
        if PROJECTION in self.own_weights:
            keypoints, placed = self._seen(unlabeled, poses[1].shape[1]), poses[1] + paths[1]
            lens, linear = unlabeled["intrinsics"], self.linear_projection
            errors = core_losses.reprojection_errors(placed, keypoints, lens, linear=linear)
            terms[PROJECTION] = _mean(errors, counted[1])
            total = total + self.own_weights[PROJECTION] * shares[1] * terms[PROJECTION]
        if BONE_LENGTH in self.own_weights:
            means = [self._bones(pose, part) for pose, part in zip(poses, counted, strict=True)]
            terms[BONE_LENGTH] = (means[0] - means[1]).abs().mean()
            total = total + self.own_weights[BONE_LENGTH] * terms[BONE_LENGTH]
        return {"loss": total, **terms}

    def _share(self, batch: Batch, batch_idx: int) -> tuple[int, float]:
        labeled: Any = batch.get("labeled", batch)
        return super()._share(labeled, batch_idx)[0], 1.0  # `loss` has weighted labelled and unlabelled samples apart

    def _warmed_up(self) -> bool:
        # The data know which epoch they are in; Lightning's counter runs ahead of them after a stop by max_steps.
        return self._trainer is None or self._data().epoch >= self.warmup

    def _counted(self, batch: Batch, pose: Tensor) -> Tensor | None:
        """(B, T') bool: frames that count; None = all."""
        valid = self._valid(batch) if self.mask_invalid else None
        if self._world() == 1:
            return valid
        real = (batch["index"] >= 0)[:, None].expand(pose.shape[:2])  # a rank without samples has got a filler
        return real if valid is None else real & valid

    # Several processes: a mean over ranks is to be the mean over samples, of either source.

    def _world(self) -> int:
        return 1 if self._trainer is None else int(self.trainer.world_size)

    def _shares(self, counted: list[Tensor | None]) -> list[Tensor | float]:
        """Factor of this rank's mean over labelled frames, and over unlabelled ones."""
        world = self._world()
        if world == 1:
            return [1.0] * len(counted)
        frames = torch.stack([part.sum() for part in counted if part is not None]).float()
        everywhere = self.all_gather(frames).sum(0)  # type: ignore[union-attr]
        return list(frames * world / everywhere.clamp_min(1))

    def _bones(self, pose: Tensor, counted: Tensor | None) -> Tensor:
        """Mean length of each bone (J - 1,) over all frames of a batch, on all ranks."""
        lengths = core_losses.bone_lengths(pose, self.skeleton).flatten(0, 1)
        if counted is None:
            return lengths.mean(0)
        which = counted.flatten()[:, None]
        sums = torch.cat([torch.where(which, lengths, 0).sum(0), which.sum(0).to(lengths)])
        if self._world() > 1:
            sums = self.all_gather(sums, sync_grads=True).sum(0)  # type: ignore[union-attr]
        return sums[:-1] / sums[-1].clamp_min(1)


def _mean(values: Tensor, counted: Tensor | None) -> Tensor:
    """Mean over the frames (B, T) that count."""
    if counted is None:
        return values.mean()
    return torch.where(counted, values, 0).sum() / counted.sum().clamp_min(1)


def _refuse_unprojectable(cameras: Mapping[str, Any], spec: DataSpec) -> None:
    """Refuse unlabelled data whose predicted poses cannot be compared with their keypoints."""
    off = "Use dataset.subjects_unlabeled=[] for training with labels alone, or task.losses.projection=0."
    if "intrinsics" not in cameras:
        raise ConfigError(
            "The projection loss needs the focal lengths of the cameras, which the unlabelled data do not have "
            f"(those of HumanEva-I were never released). {off}"
        )
    if spec.preprocess not in _PROJECTED:
        raise ConfigError(
            f"The projection loss works in coordinates of the screen, and dataset.preprocess={spec.preprocess} gives "
            f"others. Use dataset.preprocess={_PROJECTED[0]}."
        )
    if spec.skeleton != spec.skeleton2d:
        names = [skeleton.name for skeleton in (spec.skeleton2d, spec.skeleton) if skeleton is not None]
        raise ConfigError(
            f"The projection loss compares joint by joint, but keypoints and poses are {' and '.join(names)}. {off}"
        )
