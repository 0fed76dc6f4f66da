"""ST-GCN and ST-GCN++: graph convolutions over joints and convolutions over time, for action recognition."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from kinema.errors import ConfigError
from kinema.models.layers import recogniser
from kinema.models.layers.joint_graph import ADAPTIVE, JointGraph
from kinema.models.layers.pyskl import stgcn_arguments
from kinema.models.layers.recogniser import Stage
from kinema.models.layers.temporal import MAX, POINT, Branch, MixedTemporal, TemporalUnit, branch_widths
from kinema.models.registry import Shapes, depth_of, ratio_of, register

TEMPORAL = ("mstcn", "unit_tcn")


@register("stgcn")
class STGCN(recogniser.Recogniser):
    """Classify a clip of skeletons.

    Input (B, M, T, V, C): M persons, any T from 1 on, C = x, y, z or x, y, score. Output (B, K) logits. Time is halved
    at the `down_stages`.

    Args:
        num_frames: frames of a clip as trained; any other number works.
        num_joints: joints V.
        in_channels: channels C.
        persons: persons M of a sample.
        num_classes: classes K.
        layout: graph of the joints: coco, nturgb+d, h36m, or the name of a skeleton; None = by `edges`, and without
            them the published one of 17 (coco) or 25 joints.
        edges: pairs (child, parent) of an own skeleton.
        graph_mode: adjacency stack: spatial, stgcn_spatial, binary_adj or random (core/graphs.py).
        max_hop: reach of stgcn_spatial.
        dim: channels of the first stage.
        depth: stages.
        inflate_stages: stages with more channels than the one before, from 1.
        down_stages: stages that halve the time; None = the same.
        width_ratio: channels of an inflated stage over those of the one before.
        data_norm: batch normalisation of the input: VC (persons share it), MVC, or None.
        gcn_adaptive: how links are learned: init, offset, importance, or None (not at all).
        gcn_conv_pos: "pre" mixes channels before joints, "post" after.
        gcn_with_res: a residual inside the spatial unit.
        tcn_type: "mstcn" = branches of ST-GCN++, "unit_tcn" = one convolution.
        tcn_kernel: frames of the convolution of unit_tcn.
        tcn_branches: of mstcn: frames of a convolution, "max" or "1x1".
        tcn_dilations: one per convolution of mstcn; None = 1, 2, 3, ...
        tcn_mid_fraction: share of the channels that every branch has; None = an even split.
        tcn_dropout: rate after the temporal unit, but for the first stage.
        dropout: rate before the last layer.
        mask_persons: mean over the persons present only; they alone are computed.

    Initialisation: links from the graph, last layer normal of deviation 0.01, the rest as torch has it.

    Source: Yan et al. 2018; Duan et al. 2022 (ST-GCN++), pyskl, whose parameter names are kept.
    """

    unknowable: ClassVar[dict[str, Any]] = {
        "num_frames": 100,
        "persons": 2,
        "layout": None,
        "edges": None,
        "graph_mode": "spatial",
        "max_hop": 1,
        "down_stages": None,
        "gcn_adaptive": "init",
        "tcn_dilations": None,
        "tcn_dropout": 0.0,
        "dropout": 0.0,
        "mask_persons": False,
    }
    published_buffers: ClassVar[tuple[str, ...]] = ("backbone.gcn.*.gcn.A",)

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
        graph_mode: str,
        max_hop: int,
        dim: int,
        depth: int,
        inflate_stages: list[int],
        down_stages: list[int] | None,
        width_ratio: float,
        data_norm: str | None,
        gcn_adaptive: str | None,
        gcn_conv_pos: str,
        gcn_with_res: bool,
        tcn_type: str,
        tcn_kernel: int,
        tcn_branches: list[int | str],
        tcn_dilations: list[int] | None,
        tcn_mid_fraction: float | None,
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
            "graph_mode": graph_mode,
            "max_hop": max_hop,
            "dim": dim,
            "depth": depth,
            "inflate_stages": list(inflate_stages),
            "down_stages": None if down_stages is None else list(down_stages),
            "width_ratio": width_ratio,
            "data_norm": data_norm,
            "gcn_adaptive": gcn_adaptive,
            "gcn_conv_pos": gcn_conv_pos,
            "gcn_with_res": gcn_with_res,
            "tcn_type": tcn_type,
            "tcn_kernel": tcn_kernel,
            "tcn_branches": list(tcn_branches),
            "tcn_dilations": None if tcn_dilations is None else list(tcn_dilations),
            "tcn_mid_fraction": tcn_mid_fraction,
            "tcn_dropout": tcn_dropout,
            "dropout": dropout,
            "mask_persons": mask_persons,
        }
        _one_of("gcn_adaptive", gcn_adaptive, ADAPTIVE)
        _one_of("gcn_conv_pos", gcn_conv_pos, ("pre", "post"))
        _one_of("tcn_type", tcn_type, TEMPORAL)
        links = recogniser.graph_links(layout, edges, num_joints, graph_mode, max_hop)
        stages = recogniser.plan(
            in_channels,
            dim,
            depth,
            inflate_stages,
            down_stages,
            lambda n: int(dim * width_ratio**n + 1e-4),
            skip_first=True,
        )
        dilations = _dilations(tcn_branches, tcn_dilations)

        def temporal(stage: Stage) -> nn.Module:
            rate = 0.0 if stage.first else tcn_dropout
            channels = stage.out_channels
            if tcn_type == "unit_tcn":
                return TemporalUnit(channels, channels, kernel=tcn_kernel, stride=stage.stride, dropout=rate)
            return MixedTemporal(
                channels,
                channels,
                branches=tcn_branches,
                dilations=dilations,
                mid_fraction=tcn_mid_fraction,
                stride=stage.stride,
                dropout=rate,
            )

        def block(stage: Stage) -> STBlock:
            spatial = JointGraph(
                stage.in_channels,
                stage.out_channels,
                links,
                adaptive=gcn_adaptive,
                conv_first=gcn_conv_pos == "pre",
                residual=gcn_with_res,
            )
            return STBlock(spatial, temporal(stage), stage)

        self.backbone = STBackbone(
            recogniser.data_norm(data_norm, persons, num_joints, in_channels), data_norm, map(block, stages)
        )
        self.cls_head = recogniser.Head(stages[-1].out_channels, num_classes, dropout)

    def classify(self, features: Tensor) -> Tensor:
        return self.cls_head(features)

    @classmethod
    def recognise(cls, shapes: Shapes) -> dict[str, Any] | None:
        """Read constructor arguments from the names and shapes of a state dict; None for another family.

        Strides and dilations are not in the shapes: a residual convolution that keeps the number of channels proves
        a stride, otherwise time is taken to be halved where channels grow. Learned links beside fixed ones ("offset"
        or "importance") are told apart by `told_by_file`.
        """
        first = "backbone.gcn.0.gcn"
        if f"{first}.A" not in shapes or "cls_head.fc_cls.weight" not in shapes:
            return None
        parts, joints, _ = shapes[f"{first}.A"]
        rows, columns = shapes[f"{first}.conv.weight"][:2]
        pre = rows == parts * shapes[f"{first}.bn.weight"][0]
        in_channels = columns if pre else columns // parts
        told = recogniser.read_stages(shapes, "backbone.gcn", "gcn", in_channels, skip_first=True)
        widths = told.pop("widths")
        normed = shapes.get("backbone.data_bn.weight", (0,))[0]
        persons = normed // (joints * in_channels)
        return {
            **told,
            **_read_graph(shapes, parts),
            **_read_temporal(shapes),
            **({"persons": persons} if persons > 1 else {}),
            "num_joints": joints,
            "in_channels": in_channels,
            "num_classes": shapes["cls_head.fc_cls.weight"][0],
            "width_ratio": _read_ratio(widths),
            "data_norm": None if not normed else "VC" if persons == 1 else "MVC",
            "gcn_conv_pos": "pre" if pre else "post",
            "gcn_with_res": f"{first}.down.0.weight" in shapes
            or any(name.endswith(".gcn.down.0.weight") for name in shapes),
        }

    @staticmethod
    def told_by_file(state: Mapping[str, Tensor], config: Mapping[str, Any] | None) -> dict[str, Any]:
        """Arguments that shapes cannot tell: from the configuration in an official file, else from values.

        Args:
            state: the weights.
            config: `model` of pyskl's configuration, or None.
        """
        if config is not None:
            return stgcn_arguments(config)
        learned = state.get("backbone.gcn.0.gcn.PA")
        # An offset starts at 0, an importance at 1.
        return {"gcn_adaptive": "offset"} if learned is not None and float(learned.float().mean()) < 0.5 else {}


class STBlock(nn.Module):
    """relu(tcn(gcn(x)) + r): r the input, through a 1x1 convolution where its shape changes, 0 in the first stage."""

    def __init__(self, gcn: nn.Module, tcn: nn.Module, stage: Stage) -> None:
        super().__init__()
        self.gcn, self.tcn = gcn, tcn
        self.first = stage.first
        self.residual = stage.residual()

    def forward(self, x: Tensor) -> Tensor:
        out = self.tcn(self.gcn(x))
        return torch.relu_(out if self.first else out.add_(self.residual(x)))


class STBackbone(nn.Module):
    """Norm of the input and all stages; (B, M, T, V, C) and the persons to keep to (R, C', T', V)."""

    def __init__(self, norm: nn.Module, kind: str | None, stages: Iterable[nn.Module]) -> None:
        super().__init__()
        self.kind = kind
        self.data_bn = norm
        self.gcn = nn.ModuleList(stages)

    def forward(self, pose: Tensor, rows: Tensor | None) -> Tensor:
        x = recogniser.bodies(pose, self.data_bn, self.kind, rows)
        for stage in self.gcn:
            x = stage(x)
        return x


def _one_of(key: str, value: str | None, known: Sequence[str | None]) -> None:
    if value not in known:
        listed = ", ".join("null" if one is None else one for one in known)
        raise ConfigError(f"model.{key}={value!r} is unknown. Use one of {listed}.")


def _dilations(branches: Sequence[Branch], dilations: Sequence[int] | None) -> list[int]:
    """Dilation of every convolution among the branches."""
    count = sum(kind not in (MAX, POINT) for kind in branches)
    if any(isinstance(kind, str) and kind not in (MAX, POINT) for kind in branches):
        raise ConfigError(f"model.tcn_branches={list(branches)}: a branch is a number of frames, {MAX} or {POINT}.")
    if dilations is not None and len(dilations) != count:
        raise ConfigError(
            f"model.tcn_branches has {count} convolutions, model.tcn_dilations {len(dilations)} values. "
            "Make them equal."
        )
    return list(range(1, count + 1)) if dilations is None else list(dilations)


def _read_graph(shapes: Shapes, parts: int) -> dict[str, Any]:
    """Options of the graph that the shapes contradict the published ones in."""
    told: dict[str, Any] = {"gcn_adaptive": "importance"} if "backbone.gcn.0.gcn.PA" in shapes else {}
    if parts == 1:
        return told | {"graph_mode": "binary_adj"}
    return told if parts == 3 else told | {"graph_mode": "stgcn_spatial", "max_hop": (parts - 1) // 2}


def _read_temporal(shapes: Shapes) -> dict[str, Any]:
    """Kind and branches of the temporal unit, from the last stage: its channels tell shares best."""
    last = f"backbone.gcn.{depth_of(shapes, 'backbone.gcn') - 1}"
    told: dict[str, Any] = {"tcn_type": "mstcn", "tcn_kernel": 9, "tcn_branches": [3, 3, 3, 3, MAX, POINT]}
    told["tcn_mid_fraction"] = None
    if f"{last}.tcn.conv.weight" in shapes:
        return told | {"tcn_type": "unit_tcn", "tcn_kernel": shapes[f"{last}.tcn.conv.weight"][2]}
    kinds: list[Branch] = []
    widths = []
    for number in range(depth_of(shapes, f"{last}.tcn.branches")):
        branch = f"{last}.tcn.branches.{number}"
        point, conv = f"{branch}.weight", f"{branch}.3.conv.weight"
        kinds.append(POINT if point in shapes else shapes[conv][2] if conv in shapes else MAX)
        widths.append(shapes[point if point in shapes else f"{branch}.0.weight"][0])
    channels = shapes[f"{last}.gcn.bn.weight"][0]
    even = widths == branch_widths(channels, len(widths), None)
    return told | {"tcn_branches": kinds, "tcn_mid_fraction": None if even else ratio_of(widths[0], channels)}


def _read_ratio(widths: Sequence[int]) -> float:
    """The shortest decimal number for which int(dim * ratio ** n + 1e-4) gives these channels; 2 where any does."""
    dim = widths[0]
    least = max((width / dim) ** (1 / n) for n, width in enumerate(widths[1:], 1)) if len(widths) > 1 else 2.0
    for digits in range(16):
        ratio = math.ceil(least * 10**digits - 1e-3) / 10**digits
        if [int(dim * ratio**n + 1e-4) for n in range(len(widths))] == list(widths):
            return ratio
    return least
