"""What the graph networks for action recognition share: persons and joints in front, stages, pooling behind."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from kinema.core.graphs import adjacency, layout, own_layout
from kinema.core.spec import Signature
from kinema.errors import ConfigError
from kinema.models.inputs import expect_pose
from kinema.models.layers.exporting import traced
from kinema.models.layers.temporal import TemporalUnit
from kinema.models.registry import Shapes, depth_of

DATA_NORMS = ("VC", "MVC", None)
PUBLISHED_LAYOUTS = {17: "coco", 25: "nturgb+d"}  # by the number of joints


@dataclass(frozen=True)
class Stage:
    """One spatial and temporal block: channels in and out, frames per step, whether it is the network's first."""

    in_channels: int
    out_channels: int
    stride: int
    first: bool

    def residual(self) -> nn.Module:
        """What carries the input past the block: itself, or a 1x1 convolution where its shape changes."""
        if self.first or (self.stride == 1 and self.in_channels == self.out_channels):
            return nn.Identity()
        return TemporalUnit(self.in_channels, self.out_channels, kernel=1, stride=self.stride)


def plan(
    in_channels: int,
    dim: int,
    depth: int,
    inflate_stages: Sequence[int],
    down_stages: Sequence[int] | None,
    width: Callable[[int], int],
    *,
    skip_first: bool,
) -> list[Stage]:
    """Channels and strides of every stage; numbers of stages count from 1, and the first is as it is.

    Args:
        in_channels: of the input.
        dim: channels of the first stage.
        depth: stages.
        inflate_stages: those with more channels than the one before.
        down_stages: those with a stride of 2; None = the same.
        width: from the number of inflations so far to channels.
        skip_first: there is no first stage where the input has `dim` channels already.
    """
    if depth < 1 or dim < 1:
        raise ConfigError(f"{depth} stages of {dim} channels are no network. Use model.depth and model.dim above 0.")
    down = inflate_stages if down_stages is None else down_stages
    beyond = sorted({stage for stage in (*inflate_stages, *down) if not 2 <= stage <= depth})
    if beyond:
        raise ConfigError(
            f"There are stages 2 to {depth} to widen or to halve, not {beyond}. Change model.inflate_stages and "
            "model.down_stages."
        )
    stages = [] if skip_first and in_channels == dim else [Stage(in_channels, dim, 1, True)]
    last, inflated = dim, 0
    for number in range(2, depth + 1):
        inflated += number in inflate_stages
        stages.append(Stage(last, width(inflated), 2 if number in down else 1, False))
        last = width(inflated)
    if not stages:
        raise ConfigError(f"One stage of {dim} channels for as many inputs is none. Use model.depth=2 or more.")
    return stages


def graph_links(
    name: str | None, edges: Sequence[Sequence[int]] | None, joints: int, mode: str = "spatial", max_hop: int = 1
) -> Tensor:
    """The adjacency stack (K, V, V) float32 of a named layout or of a user's own edges.

    Neither means the layout that published networks of that many joints have.

    Raises:
        ConfigError: where both are given, or the layout has another number of joints.
    """
    if name is not None and edges is not None:
        raise ConfigError(f"The graph is {name} or model.edges, not both. Use model.layout=null, or drop model.edges.")
    if edges is None and name is None:
        if joints not in PUBLISHED_LAYOUTS:
            raise ConfigError(
                f"There is no published graph of {joints} joints. Use the name of a skeleton, model.layout=..., or "
                "model.edges=[[child,parent],...]."
            )
        name = PUBLISHED_LAYOUTS[joints]
    graph = layout(str(name)) if edges is None else own_layout(edges, joints)
    if graph.joints != joints:
        raise ConfigError(
            f"The graph {name} has {graph.joints} joints, the data {joints}. Use the layout of the data's skeleton, "
            "or model.layout=null model.edges=[[child,parent],...]."
        )
    return torch.tensor(adjacency(graph, mode, max_hop), dtype=torch.float32)


def data_norm(kind: str | None, persons: int, joints: int, channels: int) -> nn.Module:
    """Batch normalisation over time of every input value: persons share it ("VC") or not ("MVC"); None = none."""
    if kind not in DATA_NORMS:
        raise ConfigError(f"model.data_norm={kind!r} is unknown. Use VC, MVC or null.")
    if kind is None:
        return nn.Identity()
    return nn.BatchNorm1d(joints * channels * (persons if kind == "MVC" else 1))


def bodies(pose: Tensor, norm: nn.Module, kind: str | None, rows: Tensor | None) -> Tensor:
    """Normalise a batch and lay its persons out as samples.

    Args:
        pose: (B, M, T, V, C).
        norm: from `data_norm`.
        kind: of the same.
        rows: (R,) int64 of B * M persons to keep; None = all. With "VC" the others do not enter the statistics.

    Returns:
        (R, C, T, V).
    """
    joints, channels = pose.shape[-2:]
    if kind == "MVC":
        batch, persons, frames = pose.shape[:3]
        flat = pose.transpose(1, 2).reshape(batch * frames, -1)  # channel (m * V + v) * C + c
        x = norm(flat).view(batch, frames, persons, joints, channels).transpose(1, 2).flatten(0, 1)
        x = x if rows is None else x[rows]
    else:
        x = pose.flatten(0, 1)
        x = x if rows is None else x[rows]
        if kind == "VC":
            x = norm(x.reshape(-1, joints * channels)).view(x.shape)  # channel v * C + c
    return x.permute(0, 3, 1, 2)


def pooled(backbone: nn.Module, pose: Tensor, persons: Tensor | None, mask_persons: bool) -> Tensor:
    """Mean over frames and joints, then over the persons of each sample.

    With `mask_persons` and a mask, absent persons are left out and cost nothing; a sample without any gives zeros. A
    traced graph has fixed sizes: it computes them and leaves them out of the mean, but in training they must stay out
    of the statistics of norms.

    Args:
        backbone: (B, M, T, V, C) and the persons to keep, as `bodies` takes them, to (R, C', T', V).
        pose: (B, M, T, V, C).
        persons: (B, M) bool or None.
        mask_persons: whether the mask is used.

    Returns:
        (B, C').
    """
    batch, count = pose.shape[:2]
    if not mask_persons or persons is None or count == 1:
        return backbone(pose, None).mean((2, 3)).unflatten(0, (batch, count)).mean(1)
    if traced() and not backbone.training:
        each = backbone(pose, None).mean((2, 3)).unflatten(0, (batch, count))
        total = (each * persons.to(each.dtype)[:, :, None]).sum(1)
    else:
        rows = persons.flatten().nonzero().squeeze(1)
        each = backbone(pose, rows).mean((2, 3))
        total = each.new_zeros(batch, each.shape[1]).index_add(0, rows // count, each)
    return total / persons.sum(1, keepdim=True).clamp_min(1)


def read_stages(shapes: Shapes, prefix: str, spatial: str, in_channels: int, *, skip_first: bool) -> dict[str, Any]:
    """Constructor arguments that tell the stages of a state dict, and their `widths`.

    Strides are not in the shapes. A residual convolution that keeps the number of channels proves one; without such a
    proof time is taken to be halved where channels grow, and `down_stages` is left out.

    Args:
        shapes: names and shapes.
        prefix: of the list of stages.
        spatial: name of the spatial unit in a stage.
        in_channels: of the input.
        skip_first: as in `plan`.
    """
    widths = [shapes[f"{prefix}.{i}.{spatial}.bn.weight"][0] for i in range(depth_of(shapes, prefix))]
    convolved = [f"{prefix}.{i}.residual.conv.weight" in shapes for i in range(len(widths))]
    whole = not skip_first or (widths[0] != in_channels and not convolved[0])
    dim = widths[0] if whole else in_channels
    before = [dim, *widths[:-1]]
    first = 1 if whole else 2
    grown = [first + i for i, (a, b) in enumerate(zip(before, widths, strict=True)) if a != b]
    halved = [first + i for i, (a, b) in enumerate(zip(before, widths, strict=True)) if a == b and convolved[i]]
    told: dict[str, Any] = {
        "dim": dim,
        "depth": first + len(widths) - 1,
        "inflate_stages": grown,
        "widths": [dim, *(widths[number - first] for number in grown)],
    }
    return told | ({"down_stages": halved} if halved else {})


class Recogniser(nn.Module, ABC):
    """Persons one by one through a backbone, their mean through a classifier.

    A network sets `backbone`, called as `pooled` does, and writes `classify`.

    Args:
        num_frames, num_joints, in_channels, persons, num_classes: of the signature; any number of frames works.
        mask_persons: take the mean over the persons that `forward` is told of. False = over all of them.
    """

    backbone: nn.Module

    def __init__(
        self,
        *,
        num_frames: int,
        num_joints: int,
        in_channels: int,
        persons: int,
        num_classes: int,
        mask_persons: bool,
    ) -> None:
        super().__init__()
        self.signature = Signature(
            output="logits",
            in_channels=in_channels,
            joints=num_joints,
            joints_out=num_joints,
            frames=num_frames,
            frames_rule="any",
            persons=persons,
            classes=num_classes,
        )
        self.mask_persons = mask_persons

    @abstractmethod
    def classify(self, features: Tensor) -> Tensor:
        """Logits (B, K) of what `pool` returns."""

    def forward(self, pose: Tensor, persons: Tensor | None = None) -> Tensor:
        """Classify a batch of clips.

        Args:
            pose: (B, M, T, V, C).
            persons: (B, M) bool, who is present; None = everybody. Looked at with `mask_persons` only.

        Returns:
            (B, K) logits.
        """
        return self.classify(self.pool(pose, persons))

    def pool(self, pose: Tensor, persons: Tensor | None = None) -> Tensor:
        """Return what the classifier sees, (B, C'): the mean over time, joints and persons."""
        expect_pose(pose, self.signature)
        return pooled(self.backbone, pose, persons, self.mask_persons)

    def feature_maps(self, pose: Tensor) -> Tensor:
        """Return the output of the last stage for every person, (B, M, C', T', V)."""
        expect_pose(pose, self.signature)
        return self.backbone(pose, None).unflatten(0, pose.shape[:2])


class Head(nn.Module):
    """Dropout and one linear layer, `fc_cls`; weights normal of deviation 0.01, bias 0."""

    def __init__(self, dim: int, num_classes: int, dropout: float) -> None:
        super().__init__()
        self.drop = nn.Dropout(dropout)
        self.fc_cls = nn.Linear(dim, num_classes)
        nn.init.normal_(self.fc_cls.weight, std=0.01)
        nn.init.zeros_(self.fc_cls.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc_cls(self.drop(x))
