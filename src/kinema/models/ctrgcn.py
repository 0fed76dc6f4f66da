"""CTR-GCN: graph convolutions whose links are refined per clip and channel, for action recognition."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from kinema.errors import ConfigError
from kinema.models.layers import recogniser
from kinema.models.layers.joint_graph import RefinedGraph, reset_convolutions
from kinema.models.layers.pyskl import ctrgcn_arguments
from kinema.models.layers.recogniser import Stage
from kinema.models.layers.temporal import MultiScaleTemporal
from kinema.models.registry import Shapes, depth_of, register


@register("ctrgcn")
class CTRGCN(recogniser.Recogniser):
    """Classify a clip of skeletons.

    Input (B, M, T, V, C): M persons, any T from 1 on, C = x, y, z or x, y, score. Output (B, K) logits. Time is halved
    at the `down_stages`. The norm of the input has a channel per person, so M is part of the weights.

    Args:
        num_frames: frames of a clip as trained; any other number works.
        num_joints: joints V.
        in_channels: channels C.
        persons: persons M of a sample.
        num_classes: classes K.
        layout: graph of the joints: coco, nturgb+d, h36m, or the name of a skeleton; None = by `edges`, and without
            them the published one of 17 (coco) or 25 joints.
        edges: pairs (child, parent) of an own skeleton.
        dim: channels of the first stage.
        depth: stages.
        inflate_stages: stages with twice the channels of the one before, from 1.
        down_stages: stages that halve the time; None = the same.
        kernel_size: frames of each dilated convolution.
        dilations: one per dilated convolution; None = 1, 2, 3, ...
        tcn_dropout: rate after the temporal unit, but for the first stage.
        dropout: rate before the last layer.
        mask_persons: mean over the persons present only; they alone are computed.

    Initialisation: links from the graph and not refined (alpha 0), convolutions Kaiming-normal by their outputs, the
    last norm of every spatial unit with weight 1e-6, last layer normal of deviation 0.01, the rest as torch has it.

    Source: Chen et al. 2021, in the form of pyskl, whose parameter names are kept.
    """

    unknowable: ClassVar[dict[str, Any]] = {
        "num_frames": 100,
        "layout": None,
        "edges": None,
        "down_stages": None,
        "dilations": None,
        "tcn_dropout": 0.0,
        "dropout": 0.0,
        "mask_persons": False,
    }
    published_buffers: ClassVar[tuple[str, ...]] = ("backbone.A",)

    def __init__(
        self,
        *,
        num_frames: int,
        num_joints: int,
        in_channels: int,
        persons: int,
        num_classes: int,
        layout: str | None,
        edges: list[list[int]] | None,
        dim: int,
        depth: int,
        inflate_stages: list[int],
        down_stages: list[int] | None,
        kernel_size: list[int],
        dilations: list[int] | None,
        tcn_dropout: float,
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
        self.arguments: dict[str, Any] = {
            "num_frames": num_frames,
            "num_joints": num_joints,
            "in_channels": in_channels,
            "persons": persons,
            "num_classes": num_classes,
            "layout": layout,
            "edges": None if edges is None else [[int(a), int(b)] for a, b in edges],
            "dim": dim,
            "depth": depth,
            "inflate_stages": list(inflate_stages),
            "down_stages": None if down_stages is None else list(down_stages),
            "kernel_size": list(kernel_size),
            "dilations": None if dilations is None else list(dilations),
            "tcn_dropout": tcn_dropout,
            "dropout": dropout,
            "mask_persons": mask_persons,
        }
        steps = list(range(1, len(kernel_size) + 1)) if dilations is None else list(dilations)
        if len(steps) != len(kernel_size):
            raise ConfigError(
                f"model.kernel_size has {len(kernel_size)} values, model.dilations {len(steps)}. Make them equal."
            )
        links = recogniser.graph_links(layout, edges, num_joints)
        stages = recogniser.plan(
            in_channels, dim, depth, inflate_stages, down_stages, lambda n: dim * 2**n, skip_first=False
        )

        def block(stage: Stage) -> CTRBlock:
            channels = stage.out_channels
            temporal = MultiScaleTemporal(
                channels,
                channels,
                kernels=kernel_size,
                dilations=steps,
                stride=stage.stride,
                dropout=0.0 if stage.first else tcn_dropout,
            )
            reset_convolutions(temporal)
            return CTRBlock(RefinedGraph(stage.in_channels, channels, links), temporal, stage)

        self.backbone = CTRBackbone(
            recogniser.data_norm("MVC", persons, num_joints, in_channels), links, map(block, stages)
        )
        self.cls_head = recogniser.Head(stages[-1].out_channels, num_classes, dropout)

    def classify(self, features: Tensor) -> Tensor:
        return self.cls_head(features)

    @classmethod
    def recognise(cls, shapes: Shapes) -> dict[str, Any] | None:
        """Read constructor arguments from the names and shapes of a state dict; None for another family.

        Strides and dilations are not in the shapes: a residual convolution that keeps the number of channels proves a
        stride, otherwise time is taken to be halved where channels grow.
        """
        first = "backbone.net.0"
        if f"{first}.gcn1.A" not in shapes or "cls_head.fc_cls.weight" not in shapes:
            return None
        joints = shapes[f"{first}.gcn1.A"][1]
        in_channels = shapes[f"{first}.gcn1.convs.0.conv3.weight"][1]
        told = recogniser.read_stages(shapes, "backbone.net", "gcn1", in_channels, skip_first=False)
        del told["widths"]
        branches = depth_of(shapes, f"{first}.tcn1.branches")
        return {
            **told,
            "num_joints": joints,
            "in_channels": in_channels,
            "persons": shapes["backbone.data_bn.weight"][0] // (joints * in_channels),
            "num_classes": shapes["cls_head.fc_cls.weight"][0],
            "kernel_size": [shapes[f"{first}.tcn1.branches.{i}.3.conv.weight"][2] for i in range(branches - 2)],
        }

    @staticmethod
    def told_by_file(state: Mapping[str, Tensor], config: Mapping[str, Any] | None) -> dict[str, Any]:
        """Arguments that shapes cannot tell, from the configuration in an official file.

        Args:
            state: the weights.
            config: `model` of pyskl's configuration, or None.
        """
        return {} if config is None else ctrgcn_arguments(config)


class CTRBlock(nn.Module):
    """relu(tcn1(gcn1(x)) + r): r the input, through a 1x1 convolution where its shape changes, 0 in the first stage."""

    def __init__(self, gcn1: nn.Module, tcn1: nn.Module, stage: Stage) -> None:
        super().__init__()
        self.gcn1, self.tcn1 = gcn1, tcn1
        self.first = stage.first
        self.residual = stage.residual()

    def forward(self, x: Tensor) -> Tensor:
        out = self.tcn1(self.gcn1(x))
        return torch.relu(out if self.first else out + self.residual(x))


class CTRBackbone(nn.Module):
    """Norm of the input and all stages; (B, M, T, V, C) and the persons to keep to (R, C', T', V).

    The buffer `A` is the graph, which official files hold and nothing reads.
    """

    def __init__(self, norm: nn.Module, links: Tensor, stages: Iterable[nn.Module]) -> None:
        super().__init__()
        self.register_buffer("A", links.clone())
        self.data_bn = norm
        self.net = nn.ModuleList(stages)

    def forward(self, pose: Tensor, rows: Tensor | None) -> Tensor:
        x = recogniser.bodies(pose, self.data_bn, "MVC", rows)
        for stage in self.net:
            x = stage(x)
        return x
