"""What a model takes and gives (Signature) and what a dataset serves (DataSpec); both sides of the check at start."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from kinema.core.skeleton import Skeleton

Output = Literal["pose3d", "logits", "embedding", "noise", "mesh"]
FramesRule = Literal["exact", "max", "any"]


@dataclass(frozen=True)
class Signature:
    """Inputs and outputs of one model instance.

    Attributes:
        output: kind of the tensor that `forward` returns.
        in_channels: channels of `pose` (2: x, y; 3: x, y, confidence; 5: and the way of x, y to the next frame); of a
            noise predictor 3 (x, y, z), or 1 where its features are no points.
        joints: joints of the input; of a noise predictor without the root.
        joints_out: joints of the output.
        frames: length T of the input the model is built for; of a noise predictor its DCT coefficients n.
        frames_rule: "exact" = only T frames, "max" = up to T, "any" = any length that covers
            the context.
        context: input frames used up before and after the output; (0, 0) = one output per input frame.
        persons: persons per sample for action models, else None.
        trajectory: whether the root's slot of the output carries the global trajectory.
        classes: number of classes for logits.
        feature_dim: channels R of `features`, None where the model has no such ability; the length of an embedding.
        condition_frames: rows of a noise predictor's condition, None where they are the n coefficients of `frames`.
    """

    output: Output
    in_channels: int
    joints: int
    joints_out: int
    frames: int
    frames_rule: FramesRule
    context: tuple[int, int] = (0, 0)
    persons: int | None = None
    trajectory: bool = False
    classes: int | None = None
    feature_dim: int | None = None
    condition_frames: int | None = None

    @property
    def num_features(self) -> int:
        """Numbers of one frame, F: those of a noise predictor's coefficient."""
        return self.joints * self.in_channels

    def example(self, batch: int = 1, frames: int | None = None) -> tuple[Tensor, ...]:
        """Arguments of `forward` with fixed pseudo-random values, for describe, export and tests.

        A pose, or of a noise predictor x (B, n, F), t (B,) and condition (B, `condition_frames` or n, F).
        """
        generator = torch.Generator().manual_seed(0)
        length = self.frames if frames is None else frames
        if self.output == "noise":
            x = torch.randn((batch, length, self.num_features), generator=generator)
            rows = self.condition_frames or length
            condition = torch.randn((batch, rows, self.num_features), generator=generator)
            return x, torch.randint(1000, (batch,), generator=generator), condition
        shape: tuple[int, ...] = (batch, length, self.joints, self.in_channels)
        if self.persons is not None:
            shape = (batch, self.persons, *shape[1:])
        pose = torch.rand(shape, generator=generator) * 2 - 1
        if self.in_channels == 3:
            pose[..., 2] = pose[..., 2].abs()
        return (pose,)

    def to_dict(self) -> dict[str, Any]:
        """Plain containers, for checkpoints."""
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}


@dataclass(frozen=True)
class DataSpec:
    """What a dataset serves, known before any array is opened.

    Attributes:
        skeleton: of `pose3d`; None where there is no 3D.
        skeleton2d: of `pose2d`.
        in_channels: channels `pose` can have at most (3 where detector scores exist or are filled with 1).
        unit: of `pose3d`, "m" inside Kinema ("image" for the 2.5D space of MotionBERT).
        space: "world", "camera" or "image".
        preprocess: name in `core/preprocess.py` of the way from raw to network units.
        fps: frames per second, None where it differs or is unknown.
        has_3d: whether targets exist.
        tasks: names of the tasks this dataset can serve.
        classes, class_groups: class names, and the group of each, for action recognition.
        persons: persons per sample for action recognition.
        frames: input length of a window, None until it follows the model.
    """

    skeleton: Skeleton | None
    skeleton2d: Skeleton | None
    in_channels: int
    unit: str
    space: str
    preprocess: str
    fps: float | None
    has_3d: bool
    tasks: frozenset[str]
    classes: tuple[str, ...] | None = None
    class_groups: tuple[int, ...] | None = None
    persons: int | None = None
    frames: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain containers, for checkpoints."""
        return {
            "skeleton": self.skeleton.to_dict() if self.skeleton else None,
            "skeleton2d": self.skeleton2d.to_dict() if self.skeleton2d else None,
            "in_channels": self.in_channels,
            "unit": self.unit,
            "space": self.space,
            "preprocess": self.preprocess,
            "fps": self.fps,
            "has_3d": self.has_3d,
            "tasks": sorted(self.tasks),
            "classes": list(self.classes) if self.classes else None,
            "class_groups": list(self.class_groups) if self.class_groups else None,
            "persons": self.persons,
            "frames": self.frames,
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> DataSpec:
        """Inverse of `to_dict`."""
        plain = dict(values)
        for key in ("skeleton", "skeleton2d"):
            plain[key] = Skeleton.from_dict(plain[key]) if plain[key] else None
        plain["tasks"] = frozenset(plain["tasks"])
        for key in ("classes", "class_groups"):
            plain[key] = tuple(plain[key]) if plain[key] else None
        return cls(**plain)
