"""ActionConv: a few temporal convolutions over whole poses, for action recognition from little data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Tensor, nn

from kinema.errors import ConfigError
from kinema.models.layers import recogniser
from kinema.models.registry import Shapes, depth_of, register


@register("action_conv")
class ActionConv(recogniser.Recogniser):
    """Recognise actions by strided convolutions in time, each over all joints at once.

    Input (B, M, T, J, C), output (B, K) logits. Every person is a sample of its own: convolutions with batch norm and
    ReLU, of which the first sees all joints and channels of a few frames; mean over time, then over persons; a linear
    layer. Unlike a graph network it has weights of its own for every joint, and hardly costs anything.

    Args:
        num_frames: T it is trained with; any number works.
        num_joints: J.
        in_channels: C.
        persons: M.
        num_classes: K.
        channels: of each convolution.
        kernel_size: frames that a convolution sees, odd.
        stride: of each convolution in time.
        dropout: rate before the last layer.
        mask_persons: take the mean over the persons that `forward` is told of. False = over all M.

    Initialisation: as PyTorch does.

    Source: ours; the temporal convolution baseline of the CMU action clips has this form.
    """

    unknowable: ClassVar[dict[str, Any]] = {
        "num_frames": 64, "persons": 1, "stride": 2, "dropout": 0.0, "mask_persons": True,
    }  # fmt: skip

    def __init__(
        self,
        *,
        num_frames: int,
        num_joints: int,
        in_channels: int,
        persons: int,
        num_classes: int,
        channels: Sequence[int],
        kernel_size: int,
        stride: int,
        dropout: float,
        mask_persons: bool,
    ) -> None:
        super().__init__(
            num_frames=num_frames,
            num_joints=num_joints,
            in_channels=in_channels,
            persons=persons,
            num_classes=num_classes,
            mask_persons=mask_persons,
        )
        if not channels or kernel_size % 2 == 0 or stride < 1:
            raise ConfigError(
                f"channels={list(channels)}, kernel_size={kernel_size} and stride={stride} are no convolutions in "
                "time. Use 'model.channels=[96,96,96]' model.kernel_size=5 model.stride=2."
            )
        self.arguments: dict[str, Any] = {
            "num_frames": num_frames,
            "num_joints": num_joints,
            "in_channels": in_channels,
            "persons": persons,
            "num_classes": num_classes,
            "channels": list(channels),
            "kernel_size": kernel_size,
            "stride": stride,
            "dropout": dropout,
            "mask_persons": mask_persons,
        }
        self.backbone = Convolutions(num_joints, in_channels, channels, kernel_size, stride)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(channels[-1], num_classes)

    def classify(self, features: Tensor) -> Tensor:
        return self.head(self.dropout(features))

    @classmethod
    def recognise(cls, shapes: Shapes) -> dict[str, Any] | None:
        """Read constructor arguments from the names and shapes of a state dict; None for another family."""
        first = shapes.get("backbone.stages.0.conv.weight")
        if first is None or "head.weight" not in shapes or len(first) != 4:
            return None
        depth = depth_of(shapes, "backbone.stages")
        return {
            "num_joints": first[3],
            "in_channels": first[1],
            "num_classes": shapes["head.weight"][0],
            "channels": [shapes[f"backbone.stages.{i}.conv.weight"][0] for i in range(depth)],
            "kernel_size": first[2],
        }


class Convolutions(nn.Module):
    """(B, M, T, J, C) and the persons to keep to (R, channels, T', 1)."""

    def __init__(self, joints: int, in_channels: int, channels: Sequence[int], kernel: int, stride: int) -> None:
        super().__init__()
        before = [in_channels, *channels[:-1]]
        widths = [joints] + [1] * (len(channels) - 1)  # the first convolution takes all joints together
        self.stages = nn.ModuleList(
            Stage(a, b, (kernel, width), stride) for a, b, width in zip(before, channels, widths, strict=True)
        )

    def forward(self, pose: Tensor, rows: Tensor | None) -> Tensor:
        x = recogniser.bodies(pose, nn.Identity(), None, rows)
        for stage in self.stages:
            x = stage(x)
        return x


class Stage(nn.Module):
    """Convolution in time, batch norm, ReLU."""

    def __init__(self, in_channels: int, out_channels: int, kernel: tuple[int, int], stride: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, stride=(stride, 1), padding=(kernel[0] // 2, 0))
        self.norm = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x)).relu()
