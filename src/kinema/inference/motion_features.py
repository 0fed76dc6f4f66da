"""Features of motions by a recogniser of actions, in which predicted and true motions are compared (FID)."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from kinema.checkpoints.load import load
from kinema.core.motion_features import to_joints
from kinema.core.skeleton import Skeleton
from kinema.data.action import ActionDataModule
from kinema.data.clip_rows import ClipOptions, clip_rows, clip_store
from kinema.data.raw import raise_fault
from kinema.data.windows import Windows
from kinema.errors import ConfigError

_OPTION = "task.protocol_options.prediction.feature_network"
# Clips that are prepared together.
_TOGETHER = 256


class MotionFeatures:
    """What a network of task=action sees in a motion ahead of its last layer: the mean over time and joints.

    Every motion is prepared like a clip of the network's training data (preprocessing, stream, frames, transforms),
    with its root at the origin. There is nothing random in it.

    Args:
        path: checkpoint that Kinema wrote for task=action; official files do not say what they were trained on.
        skeleton: of the motions.

    Attributes:
        path: of the checkpoint.
        metric: name of the distance, "fid_cmu" for a recogniser of dataset=cmu_actions.

    Raises:
        CheckpointError: there is no such file, or it is none of a known family.
        ConfigError: it holds a network without such features, or one of another skeleton.
    """

    def __init__(self, path: str, skeleton: Skeleton) -> None:
        model: Any = load(path)
        config = model.provenance.config or {}
        dataset = config.get("dataset") or {}
        remedy = f"Use {_OPTION}=RUN/checkpoints/best.ckpt of experiment=cmu/actions, or {_OPTION}=null."
        if not hasattr(model, "pool") or model.provenance.task != "action" or "preprocess" not in dataset:
            raise ConfigError(f"{_OPTION}={path} is no recogniser of actions that Kinema has trained. {remedy}")
        self.path = str(path)
        self.metric = f"fid_{str(dataset['name']).partition('_')[0].lower()}"
        self.root = skeleton.root
        self._model = model.eval()
        self._data = _data(dataset, list(model.provenance.spec.classes), model.signature)
        known = {field.name for field in dataclasses.fields(ClipOptions)}
        options = self._data.source.options
        options = {key: value for key, value in options.items() if key in known}
        self._options = ClipOptions(**{**options, "flat": "keep", "min_frames": 1})  # whatever a network predicts
        if self._options.taken.joints != skeleton.joints:
            raise ConfigError(
                f"{_OPTION}={path} knows the joints of {self._options.taken.name}, the motions have those of "
                f"{skeleton.name}. {remedy}"
            )

    @torch.no_grad()
    def __call__(self, motion: Tensor) -> Tensor:
        """Features of motions.

        Args:
            motion: (M, P, F) metres, joints relative to the root, without the root.

        Returns:
            (M, D) float64 on the device of the motions; NaN where a motion holds NaN, or a body in a single point.
        """
        self._model.to(motion.device)
        parts = [self._of(part) for part in motion.split(_TOGETHER)]
        return torch.cat(parts)

    def _of(self, motion: Tensor) -> Tensor:
        flat = motion.flatten(1)
        usable = flat.isfinite().all(1) & flat.any(1)
        # Any pose does where there is none: its features are thrown away.
        filler = torch.linspace(0, 1, motion.shape[-1], device=motion.device)
        clips = to_joints(torch.where(usable[:, None, None], motion, filler), self.root).cpu().numpy()
        rows: list[dict[str, Any]] = []
        for number, clip in enumerate(clips):
            rows += clip_rows(
                clip=str(number), keypoints=clip[None], label=-1, split="", options=self._options, report=raise_fault
            )
        data, views = self._data, self._data.test_clips
        rule = "uniform_test" if data.eval_rule == "uniform" else data.eval_rule
        windows = Windows.clips(
            clip_store(rows, self._options), data.frames, rule=rule, persons=data.persons, views=views, seed=data.seed
        )
        every = torch.arange(len(windows))
        batch = windows[torch.stack([torch.zeros_like(every), every, every], dim=1)]
        batch = data.transform({key: value.to(motion.device) for key, value in batch.items()})
        told = self._model.pool(batch["pose"], batch["persons"]).double().unflatten(0, (-1, views)).mean(1)
        return torch.where(usable[:, None], told, torch.nan)


def _data(dataset: dict[str, Any], classes: list[str], signature: Any) -> Any:
    """The DataModule that a recogniser was trained with; none of its files is opened, its class list is not needed."""
    options = {key: value for key, value in dataset.items() if not key.startswith("_")}
    options["classes"] = classes
    options["reader_options"] = {**options.get("reader_options", {}), "classes": classes}
    return ActionDataModule(**{**options, "cache_dir": None, "root": Path()}, signature=signature)
