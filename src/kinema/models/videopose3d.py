"""VideoPose3D's temporal convolution network, with its trajectory twin."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from kinema.core.spec import Signature
from kinema.errors import ConfigError
from kinema.models.inputs import expect_pose
from kinema.models.registry import Shapes, depth_of, register


@register("videopose3d")
class VideoPose3D(nn.Module):
    """Lift 2D poses by temporal convolutions over a receptive field of R = product of `filter_widths` frames.

    Input (B, T, J, C) with T >= R, output (B, T - R + 1, J_out, 3), root-relative metres. Convolutions are valid:
    the caller pads, R // 2 frames on both sides, or R - 1 before and none after for a causal network. Exactly R frames
    go through strided convolutions (`TemporalModelOptimized1f`, the training form: only what the one output needs is
    computed, and batch statistics are those of the strided positions), more frames through dilated ones
    (`TemporalModel`); the weights are the same.

    With `trajectory`, a second network of the same shape and one output joint is nested as the submodule
    `trajectory`; its output (the root in camera space, metres) stands in slot `root` of the result, whose other
    joints stay root-relative. The state dict then holds the official `model_pos` under its own names and the official
    `model_traj` under the prefix `trajectory.`.

    Args:
        num_joints: joints in.
        num_joints_out: joints out.
        in_channels: channels of a 2D joint.
        filter_widths: odd kernel widths, one per level.
        channels: channels of the convolutions.
        dropout: rate after every activation.
        causal: use no future frames.
        dense: replace dilated kernels by plain ones of the same reach (an ablation of the paper; no strided form).
        trajectory: nest the trajectory network.
        root: slot of the output that carries the trajectory.

    Initialisation: PyTorch's default for every layer. BatchNorm momentum starts at 0.1, see `set_bn_momentum`.

    Source: Pavllo et al. 2019, common/model.py, whose parameter names are kept.
    """

    unknowable: ClassVar[dict[str, Any]] = {"dropout": 0.25, "causal": False, "root": 0}

    def __init__(
        self,
        *,
        num_joints: int,
        num_joints_out: int,
        in_channels: int,
        filter_widths: Sequence[int],
        channels: int,
        dropout: float,
        causal: bool,
        dense: bool,
        trajectory: bool,
        root: int,
    ) -> None:
        super().__init__()
        widths = [int(width) for width in filter_widths]
        self.arguments: dict[str, Any] = {
            "num_joints": num_joints,
            "num_joints_out": num_joints_out,
            "in_channels": in_channels,
            "filter_widths": widths,
            "channels": channels,
            "dropout": dropout,
            "causal": causal,
            "dense": dense,
            "trajectory": trajectory,
            "root": root,
        }
        if not widths or any(width % 2 == 0 or width < 1 for width in widths):
            raise ConfigError(f"filter_widths={widths}: every width must be odd. Use model.filter_widths=[3,3,3].")
        if not 0 <= root < num_joints_out:
            raise ConfigError(f"The root slot {root} is none of the {num_joints_out} joints out. Use model.root=0.")
        frames = math.prod(widths)
        self.signature = Signature(
            output="pose3d",
            in_channels=in_channels,
            joints=num_joints,
            joints_out=num_joints_out,
            frames=frames,
            frames_rule="any",
            context=(frames - 1, 0) if causal else (frames // 2, frames // 2),
            trajectory=trajectory,
        )
        self.causal = causal
        self.dense = dense
        self.root = root
        self.dropout = nn.Dropout(dropout)
        self.expand_conv = TemporalConv(num_joints * in_channels, channels, widths[0], dilation=1, dense=dense)
        self.expand_bn = nn.BatchNorm1d(channels)
        self.layers_conv = nn.ModuleList()
        self.layers_bn = nn.ModuleList()
        self.levels = [(width, math.prod(widths[:level])) for level, width in enumerate(widths)][1:]
        for width, dilation in self.levels:
            conv = TemporalConv(channels, channels, width, dilation=dilation, dense=dense)
            self.layers_conv.extend([conv, nn.Conv1d(channels, channels, 1, bias=False)])
            self.layers_bn.extend([nn.BatchNorm1d(channels), nn.BatchNorm1d(channels)])
        self.shrink = nn.Conv1d(channels, 3 * num_joints_out, 1)
        twin = {**self.arguments, "num_joints_out": 1, "trajectory": False, "root": 0}
        self.trajectory = VideoPose3D(**twin) if trajectory else None

    def forward(self, pose: Tensor) -> Tensor:
        """Lift the frames of a stretch whose receptive field is inside it.

        Args:
            pose: (B, T, J, C), T >= R.

        Returns:
            (B, T - R + 1, J_out, 3).
        """
        expect_pose(pose, self.signature)
        return self._lift(pose, strided=pose.shape[1] == self.signature.frames and not self.dense)

    def slide(self, pose: Tensor) -> Tensor:
        """Lift every frame of a stretch in one pass of the dilated form: (B, L + R - 1, J, C) to (B, L, J_out, 3).

        Frames repeated at both ends, as edge padding makes them, are seen once: at every level the positions that
        hear nothing else share one result.
        """
        # Not in training, where every position counts in batch statistics and gradients; meta tensors have no values.
        if self.training or pose.requires_grad or pose.is_meta:
            return self._lift(pose, strided=False)
        return self._lift(pose, strided=False, repeats=_repeated_edges(pose))

    def set_bn_momentum(self, momentum: float) -> None:
        """Set the momentum of every BatchNorm; VideoPose3D lowers it from 0.1 to 0.001 during training."""
        for module in self.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.momentum = momentum

    def _lift(self, pose: Tensor, strided: bool, repeats: tuple[int, int] = (0, 0)) -> Tensor:
        x = pose[:, repeats[0] : pose.shape[1] - repeats[1]].flatten(2).transpose(1, 2)  # (B, J*C, T), joint-major
        out = self._network(x, strided, repeats)
        if self.trajectory is None:
            return out
        path = self.trajectory._network(x, strided, repeats)
        return torch.cat([out[:, :, : self.root], path, out[:, :, self.root + 1 :]], dim=2)

    def _network(self, x: Tensor, strided: bool, repeats: tuple[int, int]) -> Tensor:
        """(B, J*C, T) to (B, T', J_out, 3): T' = 1 in the strided form, T - R + 1 in the other.

        Args:
            x: the frames.
            strided: which form.
            repeats: copies of the first and of the last frame that belong before and after `x` and are left out.
        """
        x, repeats = _unfold_edges(x, repeats, self.expand_conv.reach)
        x = self._activate(self.expand_bn, self.expand_conv(x, strided))
        for level, (width, dilation) in enumerate(self.levels):
            x, repeats = _unfold_edges(x, repeats, (width - 1) * dilation)
            residual = self._under_output(x, width, dilation, strided)
            x = self._activate(self.layers_bn[2 * level], self.layers_conv[2 * level](x, strided))
            x = residual + self._activate(self.layers_bn[2 * level + 1], self.layers_conv[2 * level + 1](x))
        x, _ = _unfold_edges(self.shrink(x), repeats, max(repeats))
        return x.transpose(1, 2).unflatten(2, (-1, 3))

    def _under_output(self, x: Tensor, width: int, dilation: int, strided: bool) -> Tensor:
        """The frames under the middle of the kernel, or under its last one in a causal network."""
        tap = width - 1 if self.causal else width // 2
        if strided:
            return x[:, :, tap::width]
        return x[:, :, tap * dilation : x.shape[2] - (width - 1 - tap) * dilation]

    def _activate(self, norm: nn.Module, x: Tensor) -> Tensor:
        return self.dropout(F.relu_(norm(x)))

    @classmethod
    def recognise(cls, shapes: Shapes) -> dict[str, Any] | None:
        """Read constructor arguments from the names and shapes of a state dict; None for another family.

        Two things are inferred where shapes allow more than one reading; name the arguments to overrule. The first
        layer tells only num_joints * in_channels: the split with as many joints in as out is taken, else two channels
        if that divides, else three. Kernels that grow as a dense network's do (3, 7, 19, ...) are read as dense; a
        dilated network of such widths needs `filter_widths` and `dense=False`.
        """
        levels = range((depth_of(shapes, "layers_conv") + 1) // 2)
        convs = ["expand_conv.weight"] + [f"layers_conv.{2 * level}.weight" for level in levels]
        if any(name not in shapes for name in (*convs, "expand_bn.weight", "shrink.weight")):
            return None
        if any(len(shapes[name]) != 3 for name in convs):
            return None
        kernels = [shapes[name][2] for name in convs]
        channels, features, _ = shapes["expand_conv.weight"]
        joints_out = shapes["shrink.weight"][0] // 3
        in_channels = next((c for c in (2, 3) if features == c * joints_out), 2 if features % 2 == 0 else 3)
        dense_widths = _widths_if_dense(kernels)
        return {
            "num_joints": features // in_channels,
            "num_joints_out": joints_out,
            "in_channels": in_channels,
            "filter_widths": dense_widths or kernels,
            "channels": channels,
            "dense": dense_widths is not None,
            "trajectory": "trajectory.expand_conv.weight" in shapes,
        }


class TemporalConv(nn.Conv1d):
    """A convolution without bias that runs dilated over a stretch, or strided over the positions one output needs.

    Where all inputs are a window of exactly one receptive field, a stride of `width` at every level visits the same
    frames as the dilations do. A dense kernel has the reach of the dilated one and no strided form.
    """

    def __init__(self, channels_in: int, channels_out: int, width: int, *, dilation: int, dense: bool) -> None:
        kernel = (width - 1) * dilation + 1 if dense else width
        super().__init__(channels_in, channels_out, kernel, dilation=1 if dense else dilation, bias=False)
        self.width = width
        self.reach = (width - 1) * dilation

    def forward(self, x: Tensor, strided: bool) -> Tensor:  # type: ignore[override]
        """(B, C, T) to (B, C', T - (width - 1) * dilation), or to (B, C', T / width) in the strided form."""
        if strided:
            return F.conv1d(x, self.weight, stride=self.width)
        return F.conv1d(x, self.weight, dilation=self.dilation)


def _repeated_edges(pose: Tensor) -> tuple[int, int]:
    """How many frames before the last copy of the first frame, and after the first copy of the last, are copies."""
    like_first, like_last = ((pose == edge).flatten(2).all(2).all(0) for edge in (pose[:, :1], pose[:, -1:]))  # (T,)
    runs = torch.stack([like_first, like_last.flip(0)]).long().cumprod(1).sum(1)
    first, last = (max(0, run - 1) for run in runs.tolist())  # a frame with NaN is not even like itself
    return first, min(last, pose.shape[1] - 1 - first)


def _unfold_edges(x: Tensor, repeats: tuple[int, int], reach: int) -> tuple[Tensor, tuple[int, int]]:
    """Put back at most `reach` of the left-out copies on each side of (B, C, T): what a kernel of that reach needs.

    Returns:
        The longer tensor and the numbers of copies that are still left out; as many results of the kernel are equal
        to its first and to its last one.
    """
    before, after = min(repeats[0], reach), min(repeats[1], reach)
    if before or after:
        x = torch.cat([x[:, :, :1].expand(-1, -1, before), x, x[:, :, -1:].expand(-1, -1, after)], dim=2)
    return x, (repeats[0] - before, repeats[1] - after)


def _widths_if_dense(kernels: list[int]) -> list[int] | None:
    """Filter widths of a dense network with these kernels, (width - 1) * dilation + 1 each; None if it is none."""
    widths = kernels[:1]
    for kernel in kernels[1:]:
        dilation = math.prod(widths)
        width = (kernel - 1) // dilation + 1
        if (kernel - 1) % dilation or width % 2 == 0:
            return None
        widths.append(width)
    return widths if widths != kernels else None
